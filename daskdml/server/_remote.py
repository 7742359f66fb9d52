"""Calls of actors that end: with an answer, or with :class:`Unreachable` in bounded time.

Dask's own handle of an actor can wait for ever when the actor's worker dies, and makes every task that holds it depend
on the actor. A :class:`Ref` is plain data, and a :class:`Remote` calls what it names from wherever it is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from distributed import Client, Worker, get_worker
from distributed.core import PooledRPCCall
from distributed.protocol import to_serialize

__all__ = ["Directory", "Gone", "Ref", "Refused", "Remote", "Unreachable"]

# Seconds of one call, however large its arguments.
_TIMEOUT = 30.0
# Seconds in which a machine that is there accepts a connection.
_CONNECT = 5.0
# A connection takes a few milliseconds. After this many seconds it is asked whether the port is refused, as Dask
# itself goes on trying a refused one until the end of its timeout.
_PROBE = 0.03
# Seconds by which an answer may be later than its time-out; the event loop may be busy.
_GRACE = 10.0
_HERE = ("127.0.0.1", "localhost", "::1")


class Unreachable(RuntimeError):
    """An actor did not answer: its worker is lost, or it is not there any more, or it took too long."""


class Gone(Unreachable):
    """The worker answers, and has no such actor any more."""


class Refused(RuntimeError):
    """The actor answers, but does not do this, or not any longer: ask for the present directory."""


@dataclass(frozen=True)
class Ref:
    """Names an actor. It keeps nothing alive, and a task that has it does not depend on the actor.

    Parameters
    ----------
    address : str
        Of the worker.
    key : str
        Of the actor on it.
    """

    address: str
    key: str


@dataclass(frozen=True)
class Directory:
    """Who serves what; each change makes a new one with a higher number.

    Parameters
    ----------
    number : int
        Which of two is newer.
    generation : int
        Of the fit; messages of earlier ones are refused.
    primaries : tuple of Ref
        For each shard, who is to be asked.
    backups : tuple of (Ref or None)
        For each shard, who holds its second copy, if anybody does.
    ledger : Ref
        Who hands out work.
    """

    number: int
    generation: int
    primaries: tuple[Ref, ...]
    backups: tuple[Ref | None, ...]
    ledger: Ref

    @property
    def hosts(self) -> tuple[Ref, ...]:
        """Everybody named in it, each once."""
        refs = (*self.primaries, *(ref for ref in self.backups if ref is not None), self.ledger)
        return tuple(dict.fromkeys(refs))


class Remote:
    """Calls methods of actors, from a worker or through a client.

    Every call ends: after ``timeout`` seconds with `Unreachable` at the latest, and at once where the worker's process
    is gone. An actor in the same worker is called without a copy of what is handed over, so that neither side may
    change an array afterwards.

    Parameters
    ----------
    owner : Worker or Client
        Whose connections and event loop are used.
    direct : bool, optional
        Whether a client connects to the workers itself, rather than through the scheduler. By default it does if
        it was told to (``direct_to_workers``) or if the scheduler is on this machine.
    """

    def __init__(self, owner: Worker | Client, direct: bool | None = None):
        self._owner = owner
        self._worker = owner if isinstance(owner, Worker) else None
        self._lost: set[str] = set()
        self._direct = isinstance(owner, Worker) or (_is_direct(owner) if direct is None else direct)

    @classmethod
    def here(cls) -> Remote:
        """For the worker in which this is called, by a task or by a method of an actor."""
        return cls(get_worker())

    def start(self, ref: Ref, method: str, *args: Any, timeout: float = _TIMEOUT) -> Future[Any]:
        """Begin a call, from any thread but that of the event loop; the future's result is its answer.

        Raises
        ------
        Unreachable
            Where this process's own worker or client has ended.
        """
        loop = self._owner.loop.asyncio_loop  # type: ignore[union-attr]
        asking = self.ask(ref, method, *args, timeout=timeout)
        try:
            return asyncio.run_coroutine_threadsafe(asking, loop)
        except RuntimeError:
            asking.close()
            raise Unreachable("the worker in which this runs has ended") from None

    def call(self, ref: Ref, method: str, *args: Any, timeout: float = _TIMEOUT) -> Any:
        """The answer to a call, from any thread but that of the event loop.

        Raises
        ------
        Unreachable
            If there is none.
        Exception
            What the method raised.
        """
        future = self.start(ref, method, *args, timeout=timeout)
        try:
            return future.result(timeout + _GRACE)
        except FutureTimeout:
            if future.done():
                raise
            future.cancel()
            raise Unreachable(f"the event loop of this process has not run for {_GRACE:.0f} s") from None

    async def ask(self, ref: Ref, method: str, *args: Any, timeout: float = _TIMEOUT) -> Any:
        """The answer to a call, awaited on the event loop."""
        here = self._worker is not None and self._worker.address == ref.address
        try:
            if here:
                return await self._ask_here(ref, method, args, timeout)
            if ref.address in self._lost:
                raise Unreachable(f"worker {ref.address} is lost")
            answer = await _bounded(self._send(ref, method, args, timeout), timeout)
        except _TimedOut:
            raise Unreachable(f"{method} of {ref.key} at {ref.address} has not answered in {timeout:.3g} s") from None
        except asyncio.CancelledError:
            # Dask cancels what connects to a worker that is lost, which is not to cancel the caller.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise Unreachable(f"worker {ref.address} is lost") from None
        except (OSError, RuntimeError) as error:
            # Dask raises RuntimeError where this process itself is closing its connections.
            if isinstance(error, Unreachable):
                raise
            raise Unreachable(f"worker {ref.address} cannot be reached: {error}") from error
        if answer["status"] == "OK":
            return answer["result"]
        raise answer["exception"]

    def lose(self, address: str) -> None:
        """Let calls of a worker that is known to be lost end at once."""
        self._lost.add(address)

    def find(self, address: str) -> None:
        """A worker is at an address that was lost: a new one, on the same port."""
        self._lost.discard(address)

    async def _ask_here(self, ref: Ref, method: str, args: tuple[Any, ...], timeout: float) -> Any:
        assert self._worker is not None
        actor = self._worker.state.actors.get(ref.key)
        if actor is None:
            raise Gone(f"there is no {ref.key} at {ref.address} any more")
        running = asyncio.ensure_future(getattr(actor, method)(*args))
        running.add_done_callback(_heard)
        # As from another worker, the method goes on when its caller has given up: a push cut off between its two
        # copies would be known to one of them only.
        return await _bounded(asyncio.shield(running), timeout)

    async def _send(self, ref: Ref, method: str, args: tuple[Any, ...], timeout: float) -> Any:
        message: dict[str, Any] = {"actor": ref.key, "function": method}
        message |= {"args": [to_serialize(arg) for arg in args], "kwargs": {}}
        try:
            if self._direct:
                await self._connect(ref.address, min(timeout, _CONNECT))
                return await PooledRPCCall(ref.address, self._owner.rpc).actor_execute(**message)
            assert isinstance(self._owner, Client)
            message["op"] = "actor_execute"
            return await self._owner.scheduler.proxy(worker=ref.address, msg=message)  # type: ignore[union-attr]
        except (KeyError, AttributeError):
            # The worker has no such actor any more, or not yet.
            raise Gone(f"there is no {ref.key} at {ref.address}") from None

    async def _connect(self, address: str, timeout: float) -> None:
        """Have a connection in the pool, or raise OSError: soon where nobody listens."""
        pool = self._owner.rpc
        if any(not comm.closed() for comm in pool.available.get(address, ())):
            return
        connecting = asyncio.ensure_future(pool.connect(address, timeout=timeout))
        try:
            done, _ = await asyncio.wait([connecting], timeout=_PROBE)
            if not done and await _refused(address):
                raise OSError("connection refused")
            comm = await connecting
        finally:
            if not connecting.done():
                connecting.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await connecting
        pool.reuse(address, comm)


class _TimedOut(Exception):
    """Our own time is over; a TimeoutError may also come from within."""


def _heard(running: asyncio.Future[Any]) -> None:
    """Take note of an error that nobody waits for any more."""
    if not running.cancelled():
        running.exception()


async def _bounded(awaitable: Awaitable[Any], timeout: float) -> Any:
    try:
        async with asyncio.timeout(timeout) as scope:
            return await awaitable
    except TimeoutError:
        if scope.expired():
            raise _TimedOut from None
        raise


def _is_direct(client: Client) -> bool:
    if client.direct_to_workers or client.scheduler is None:
        return bool(client.direct_to_workers)
    parts = urlsplit(client.scheduler.address)
    return parts.scheme == "inproc" or parts.hostname in _HERE


async def _refused(address: str) -> bool:
    parts = urlsplit(address)
    if parts.scheme not in ("tcp", "tls") or parts.hostname is None:
        return False
    try:
        async with asyncio.timeout(1.0):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    writer.close()
    return False
