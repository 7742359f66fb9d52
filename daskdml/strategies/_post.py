"""How replicas hand each other what they bring to a round, between the tasks of a chain.

Those of one process find it in a box. A worker of the same machine leaves a file where the other looks for it: what is
awaited is there after a fraction of a millisecond, where a message from event loop to event loop takes three, in which
both have other things to do. To other machines it goes by Dask's own connections, as do the first letters, which say
who is on the same machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from distributed import get_worker
from distributed.protocol.pickle import dumps, loads

from daskdml.strategies._strategy import Partial

# Seconds to wait for what another replica brings to a round.
_PATIENCE = 1.0
# Seconds between two looks for letters that workers of this machine leave here.
_LOOK = 2e-4
# Fits whose letters a process keeps: of those that were not told that they are over, the last ones.
_FITS = 16
_HANDLER, _NAME = "daskdml_letter", "daskdml-letter"
# Parts of a file begin at multiples of so many bytes, as arrays in memory do.
_ALIGN = 64


@dataclass(frozen=True)
class Address:
    """Which chain of which fit, and on which workers its replicas are thought to be."""

    fit: str
    number: int
    homes: tuple[str, ...]


class Post:
    """The letters of one replica in a chain: to the others, and from them."""

    def __init__(self, address: Address, replica: int):
        self._address = address
        self._replica = replica
        self._box = _box(address.fit)
        self._worker = _worker()
        here = None if self._worker is None else self._worker.address
        self._away = {home for home in address.homes if home != here and not home.startswith("inproc://")}

    @property
    def is_over(self) -> bool:
        """Whether nobody wants what the chain does any more."""
        return self._box.is_over(self._address.number)

    def send(self, number: int, partial: Partial) -> None:
        """Hand what the replica brings to a round to all others, without waiting for it."""
        letter = self._address.fit, self._address.number, number, self._replica, partial
        if self._away:
            parts = _written(letter)
            far = [home for home in self._away if not self._leave(home, number, parts)]
            written = dumps(letter) if far else b""
            for home in far:
                asyncio.run_coroutine_threadsafe(self._send(home, written), self._worker.loop.asyncio_loop)
        # Last: this may wake the replicas of this process, which go on at once.
        _deliver(*letter)

    def wait(self, number: int, chain: int | None = None) -> list[Partial] | None:
        """What all replicas brought to a round, of this chain or another one, in their order.

        None where it does not come, or nobody wants it.
        """
        near = any(home in _directories for home in self._away)
        chain = self._address.number if chain is None else chain
        return self._box.wait(chain, number, self._address.homes, self._look if near else None)

    def _leave(self, home: str, number: int, parts: list[Any]) -> bool:
        """Leave it as a file where a worker of this machine looks; False where there is none, or none that looks."""
        directory = _directories.get(home)
        # It looks for files of those from whom it has had a letter.
        if directory is None or (self._worker.address, home) not in _opened:
            return False
        path = os.path.join(directory, self._file(self._address.number, number, self._replica))
        try:
            with open(path + ".part", "wb") as file:
                file.writelines(parts)
            os.replace(path + ".part", path)
        except OSError:
            return False
        return True

    def _look(self, chain: int, number: int, replica: int) -> Partial | None:
        """What a replica has left here for a round."""
        if self._address.homes[replica] not in self._away:
            return None
        path = os.path.join(self._worker.local_directory, self._file(chain, number, replica))
        try:
            with open(path, "rb", buffering=0) as file:
                content = np.empty(os.fstat(file.fileno()).st_size, np.uint8)
                got = file.readinto(content.data)
            os.unlink(path)
        except OSError:
            # Not there yet, as a rule. Where a directory is gone or cannot be read, a letter is lost, as others may be.
            return None
        return _letter(content)[-1] if got == len(content) else None

    def _file(self, chain: int, number: int, replica: int) -> str:
        return f"{_NAME}-{self._address.fit}-{chain}-{number}-{replica}"

    async def _send(self, home: str, letter: bytes) -> None:
        worker, way = self._worker, (self._worker.address, home)
        # Whoever waits for it notices when it does not come.
        with contextlib.suppress(OSError, RuntimeError, asyncio.CancelledError):
            if way not in _opened:
                # Dask writes a line to the log for each function that is run so: one is enough.
                async with _opening.setdefault(way, asyncio.Lock()):
                    if way not in _opened:
                        sender = _Sender(worker.address, _machine(), worker.local_directory)
                        given = dumps({"letter": letter, "sender": sender})
                        await worker.rpc(home).run(function=dumps(_open), kwargs=given)
                        _opened.add(way)
                        return
            await getattr(worker.rpc(home), _HANDLER)(letter=letter)


def _written(letter: Any) -> list[Any]:
    """A letter as it is written to a file: the lengths of its parts, then the parts, of which arrays are not copied."""
    arrays: list[Any] = []
    first = dumps(letter, buffer_callback=arrays.append)
    parts = [first, *(array.raw() for array in arrays)]
    lengths = struct.pack(f"<{1 + len(parts)}q", len(parts), *map(len, parts))
    return [piece for part in (lengths, *parts) for piece in (part, bytes(-len(part) % _ALIGN))]


def _letter(content: np.ndarray) -> Any:
    """The letter that a file holds; its arrays lie in ``content``."""
    (n,) = struct.unpack_from("<q", content.data)
    at, parts = 8 * (1 + n), []
    for length in struct.unpack_from(f"<{n}q", content.data, 8):
        at += -at % _ALIGN
        parts.append(content[at : at + length].data)
        at += length
    return loads(parts[0], buffers=parts[1:])


@dataclass(frozen=True)
class _Sender:
    """Where a worker is, and where on its machine it looks for letters."""

    address: str
    machine: str
    directory: str


class _Box:
    """What came for the replicas of a fit in this process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._over = -1
        self._letters: dict[tuple[int, int], dict[int, Partial]] = {}

    def put(self, chain: int, number: int, replica: int, partial: Partial) -> None:
        with self._changed:
            # In the first round of a chain, others may not have begun it: they begin with the last of the one before.
            for old in [key for key in self._letters if number and key < (chain, number - 1)]:
                del self._letters[old]
            self._letters.setdefault((chain, number), {})[replica] = partial
            self._changed.notify_all()

    def end(self, chain: int) -> None:
        with self._changed:
            self._over = max(self._over, chain)
            self._changed.notify_all()

    def is_over(self, chain: int) -> bool:
        return chain <= self._over

    def wait(
        self, chain: int, number: int, homes: tuple[str, ...], look: Callable[[int, int, int], Partial | None] | None
    ) -> list[Partial] | None:
        """What all replicas brought to a round; ``look`` finds what one has left elsewhere."""
        deadline = time.monotonic() + _PATIENCE
        with self._changed:
            while not self.is_over(chain):
                found = self._letters.setdefault((chain, number), {})
                for replica in range(len(homes)):
                    if look is None or replica in found:
                        continue
                    if (partial := look(chain, number, replica)) is not None:
                        found[replica] = partial
                        self._changed.notify_all()
                if len(found) == len(homes):
                    return [found[replica] for replica in range(len(homes))]
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left if look is None else min(left, _LOOK))
        return None


_boxes: dict[str, _Box] = {}
_boxes_lock = threading.Lock()


def _box(fit: str) -> _Box:
    with _boxes_lock:
        if fit not in _boxes:
            while len(_boxes) >= _FITS:
                del _boxes[next(iter(_boxes))]
            _boxes[fit] = _Box()
        return _boxes[fit]


def end_chains(fit: str, number: int) -> None:
    """Let tasks of a fit's chains up to this one end with the round they are at; for the workers."""
    _box(fit).end(number)


def forget_chains(fit: str, dask_worker: Any = None) -> None:
    """Free what this process keeps of a fit that is over; for the workers."""
    with _boxes_lock:
        _boxes.pop(fit, None)
    if dask_worker is not None:
        for path in Path(dask_worker.local_directory).glob(f"{_NAME}-{fit}-*"):
            path.unlink(missing_ok=True)


def _deliver(fit: str, chain: int, number: int, replica: int, partial: Partial) -> None:
    """Put what a replica brings where those of this process find it."""
    _box(fit).put(chain, number, replica, partial)


# From which worker of this process to which others a letter has gone.
_opened: set[tuple[str, str]] = set()
_opening: dict[tuple[str, str], asyncio.Lock] = {}
# Where workers of this machine look for letters, by their address: those from whom one has come.
_directories: dict[str, str] = {}


def _open(dask_worker: Any, letter: bytes, sender: _Sender) -> None:
    """The first letter of a worker: from then on it can send them to this one by their own name."""
    dask_worker.handlers.setdefault(_HANDLER, _receive)
    # Containers of one machine do not see each other's directories.
    if sender.machine == _machine() and os.path.isdir(sender.directory):
        _directories[sender.address] = sender.directory
    _receive(letter)


def _receive(letter: bytes) -> None:
    _deliver(*loads(letter))


def _machine() -> str:
    """What is another one on each machine."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()


def _worker() -> Any:
    try:
        return get_worker()
    except ValueError:
        return None
