"""The Dask actors of the parameter server: thin shells around a shard and around the ledger.

Their methods are coroutines on the worker's event loop, because all synchronous methods of a worker's actors share one
thread, where a wait would block the message that ends it. The decisions are those of :class:`Shard` and
:class:`Ledger`; what is added here is waiting, and the second copy of a shard.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from distributed import get_worker

from daskdml.server._clock import Ticket
from daskdml.server._ledger import Ledger, Stop
from daskdml.server._parcels import Arrival, Path, messages
from daskdml.server._remote import Directory, Ref, Refused, Remote, Unreachable
from daskdml.server._shard import Applied, Push, Shard, View

# Updates above this many bytes are applied in a thread: the event loop serves the whole worker.
_LARGE = 2**22
# Seconds between tries to reach a second copy that does not answer, until the driver says what has become of it.
_PAUSE = 0.02
# Seconds after which a runner with nothing to do looks again, at the least: whatever frees a ticket wakes it at once.
_RECHECK = 0.01
# Reports the driver has not fetched; it has been gone for long where there are more.
_MOST_NEWS = 100_000


class ShardHost:
    """One copy of a shard: the primary, which serves it, or the backup, which repeats what the primary does.

    An update is acknowledged when both have it. A primary whose backup does not answer holds its acknowledgements back
    until the driver has decided who goes on, so that no acknowledged update is lost.
    """

    def __init__(self) -> None:
        self._shard: Shard | None = None
        self._arrival: Arrival | None = None
        self._primary = False
        self._number = -1
        self._backup: Ref | None = None
        self._remote: Remote | None = None
        self._directory: Directory | None = None
        self._order = asyncio.Lock()
        self._changed = asyncio.Condition()

    async def start(self, snapshot: Mapping[str, Any], primary: bool, number: int, pieces: int = 0) -> None:
        """Take a shard over as it is described, once ``pieces`` of it that are sent by themselves are here."""
        self._remote = Remote.here()
        self._shard, self._primary, self._number = None, primary, number
        self._arrival = await asyncio.to_thread(Arrival, snapshot, pieces)
        await self._unpack()

    async def piece(self, path: Path, at: int, values: np.ndarray) -> None:
        """Some of the entries of an array that belongs to the shard."""
        if self._arrival is not None:
            await asyncio.to_thread(self._arrival.add, path, at, values)
            await self._unpack()

    async def _unpack(self) -> None:
        if self._arrival is not None and self._arrival.complete:
            arrival, self._arrival = self._arrival, None
            # What came over a wire is ours alone; in one process it is the other copy's own arrays.
            copy = get_worker().address.startswith("inproc:")
            self._shard = await asyncio.to_thread(Shard.restore, arrival.snapshot, copy=copy)

    async def push(self, push: Push) -> Applied:
        """Apply an update on both copies; harmless when repeated."""
        async with self._order:
            shard = self._served()
            applied = await self._apply(shard, push)
            # A duplicate too: the backup counts who has brought what, as this copy does.
            if applied.status != "fenced":
                await self._forward(push)
        if applied.advanced or shard.staleness is None:
            async with self._changed:
                self._changed.notify_all()
        return applied

    async def _apply(self, shard: Shard, push: Push) -> Applied:
        if sum(update.nbytes for update in push.updates.values()) > _LARGE:
            return await asyncio.to_thread(shard.handle, push)
        return shard.handle(push)

    async def _forward(self, push: Push) -> None:
        assert self._remote is not None
        while (backup := self._backup) is not None:
            try:
                await self._remote.ask(backup, "replicate", self._number, push)
                return
            except Unreachable:
                await asyncio.sleep(_PAUSE)
            except Refused:
                # The backup serves the shard now: what it does not have must not be acknowledged here.
                self._primary = False
                raise

    async def replicate(self, number: int, push: Push) -> None:
        """Repeat what the primary did."""
        async with self._order:
            if self._primary or number < self._number or self._shard is None:
                raise Refused("this copy is not the backup of that primary any more")
            await self._apply(self._shard, push)

    async def promote(self, number: int) -> None:
        """Serve the shard from now on."""
        async with self._order:
            self._primary, self._number, self._backup = True, number, None

    async def demote(self) -> None:
        """Serve the shard no longer; who waits for something here is to ask elsewhere."""
        self._primary = False
        async with self._changed:
            self._changed.notify_all()

    async def drop_backup(self, number: int) -> None:
        """Go on without a second copy."""
        # Not under the lock: an update that waits for the lost backup holds it.
        self._number, self._backup = max(number, self._number), None

    async def add_backup(self, backup: Ref, number: int) -> None:
        """Bring a second copy up to date and keep it so."""
        assert self._remote is not None
        async with self._order:
            shard = self._served()
            for message in messages(shard, False, number):
                await self._remote.ask(backup, *message, timeout=120.0)
            if number < self._number:
                raise Refused("the driver has decided otherwise meanwhile")
            self._backup, self._number = backup, number

    async def pull(
        self, keys: Mapping[str, np.ndarray | None] | None = None, least: int | None = None, wait: float = 20.0
    ) -> View:
        """The values once the slowest lane has completed ``least`` clocks, or what there is after ``wait`` seconds."""
        shard = self._served()
        if least is not None and shard.clock.minimum < least:
            await self._until(lambda: shard.clock.minimum >= least or not self._primary, wait)
        async with self._order:
            shard = self._served()
            # Copies of much, or updates that wait to be applied.
            if shard.nbytes > _LARGE and keys is None:
                return await asyncio.to_thread(shard.view, keys, least)
            return shard.view(keys, least)

    async def changed(self, minimum: int, wait: float) -> View | None:
        """The values as soon as the slowest lane is past ``minimum``; None if it is not in ``wait`` seconds."""
        shard = self._served()
        if not await self._until(lambda: shard.clock.minimum > minimum or not self._primary, wait):
            return None
        return await self.pull()

    async def _until(self, condition: Any, wait: float) -> bool:
        try:
            async with asyncio.timeout(wait), self._changed:
                await self._changed.wait_for(condition)
        except TimeoutError:
            return False
        return True

    def _served(self) -> Shard:
        if not self._primary or self._shard is None:
            raise Refused("this copy does not serve the shard: ask for the present directory")
        return self._shard

    async def clock(self) -> dict[str, Any]:
        """The vector clock."""
        return self._served().clock.to_dict()

    async def snapshot(self) -> dict[str, Any]:
        """All there is to know of the shard."""
        async with self._order:
            return self._served().snapshot()

    async def nbytes(self) -> int:
        """Bytes of values and optimizer state."""
        return 0 if self._shard is None else self._shard.nbytes

    async def directory(self) -> Directory | None:
        """Who serves what, as the driver last said."""
        return self._directory

    async def set_directory(self, directory: Directory) -> None:
        """Hear from the driver who serves what."""
        if self._directory is None or directory.number > self._directory.number:
            self._directory = directory


@dataclass(frozen=True, eq=False)
class Claim:
    """The answer to a claim: a ticket, nothing at present, or the end; and what the driver has to say."""

    ticket: Ticket | Stop | None
    advice: dict[str, Any]


@dataclass(frozen=True, eq=False)
class News:
    """What the driver has not heard yet: reports of tickets done; and how far the slowest lane is."""

    done: list[tuple[Ticket, Any]]
    minimum: int
    number: int


@dataclass
class _Heard:
    """Reports that wait for the driver."""

    reports: list[tuple[Ticket, Any]] = field(default_factory=list)
    first: int = 0


class LedgerHost:
    """Hands out the work of a fit, and collects reports for the driver."""

    def __init__(self) -> None:
        self._ledger: Ledger | None = None
        self._advice: dict[str, Any] = {}
        self._heard = _Heard()
        self._changed = asyncio.Condition()
        self._told = asyncio.Event()
        self._directory: Directory | None = None
        self._known: set[int] = set()

    async def start(
        self,
        ledger: Ledger,
        epochs: Sequence[tuple[int, int, int]],
        advice: dict[str, Any],
        reports: Sequence[tuple[Ticket, Any]] = (),
    ) -> None:
        """Begin, with the epochs that are open already, and reports the driver has not heard."""
        for epoch, first, clocks in epochs:
            ledger.open(epoch, first, clocks)
        self._advice = advice
        self._heard = _Heard(list(reports))
        self._ledger = ledger

    async def claim(self, runner: int, lane: int, holding: Sequence[Ticket], wait: float) -> Claim:
        """Something to do for a runner, which says what it has been given and not yet reported."""
        ledger = self._books()
        if runner not in self._known:
            # New, or this ledger is.
            self._known.add(runner)
            ledger.enter(runner, lane, holding)
        ids = [ticket.id for ticket in holding]
        end = time.time() + wait
        while True:
            if self._ledger is not ledger:
                raise Refused("this ledger has been moved: ask for the present directory")
            now = time.time()
            ticket = ledger.claim(runner, now, ids)
            if ticket is not None or now >= end:
                return Claim(ticket, self._advice)
            due = ledger.due(now)
            pause = end - now if due is None else min(end - now, max(due, _RECHECK))
            try:
                async with asyncio.timeout(pause), self._changed:
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def done(self, runner: int, ticket: Ticket, report: Any) -> bool:
        """Every shard has a ticket's update; whether this is the first to say so."""
        ledger = self._books()
        before = ledger.minimum
        first = ledger.done(ticket, runner, time.time())
        if len(self._heard.reports) < _MOST_NEWS:
            self._heard.reports.append((ticket, report))
        self._told.set()
        # Who waits, waits for the slowest lane; besides that a ticket done can free another one for one helper. Were
        # all woken each time, the work here would grow with the square of the number of runners.
        await self._wake(all_of_them=ledger.minimum > before or ledger.over)
        return first

    async def news(self, number: int, wait: float) -> News:
        """Reports from ``number`` on, of which those before are forgotten; waits a while where there are none."""
        heard = self._heard
        forget = max(0, number - heard.first)
        del heard.reports[:forget]
        heard.first += forget
        if not heard.reports:
            self._told.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._told.wait()
            except TimeoutError:
                pass
        return News(list(heard.reports), self._books().minimum, heard.first + len(heard.reports))

    async def open(self, epoch: int, first_clock: int, clocks: int) -> None:
        """Make the work of an epoch available."""
        self._books().open(epoch, first_clock, clocks)
        await self._wake()

    async def close(self, after_epoch: int) -> None:
        """Nothing comes after this epoch."""
        self._books().close(after_epoch)
        await self._wake()

    async def leave(self, runner: int) -> None:
        """A runner is gone."""
        self._books().leave(runner)
        await self._wake()

    async def dismiss(self, runner: int) -> None:
        """A runner is to end, to begin elsewhere."""
        self._books().dismiss(runner)
        await self._wake()

    async def advise(self, advice: dict[str, Any]) -> None:
        """What runners are told with their tickets."""
        self._advice = advice

    async def entered(self) -> list[int]:
        """The runners that have asked for work."""
        return sorted(self._known)

    async def over(self) -> bool:
        """Whether all is done and nothing more will come."""
        return self._books().over

    async def hand_over(self, heard: int) -> tuple[Ledger, list[tuple[Ticket, Any]]]:
        """The ledger, and the reports from ``heard`` on, for another worker to go on with; here it is over."""
        ledger, self._ledger = self._books(), None
        reports = self._heard.reports[max(0, heard - self._heard.first) :]
        await self._wake()
        return Ledger.restore(ledger.snapshot()), reports

    async def directory(self) -> Directory | None:
        """Who serves what, as the driver last said."""
        return self._directory

    async def set_directory(self, directory: Directory) -> None:
        """Hear from the driver who serves what."""
        if self._directory is None or directory.number > self._directory.number:
            self._directory = directory

    def _books(self) -> Ledger:
        if self._ledger is None:
            raise Refused("this ledger has not begun, or has been moved")
        return self._ledger

    async def _wake(self, all_of_them: bool = True) -> None:
        async with self._changed:
            if all_of_them:
                self._changed.notify_all()
            else:
                self._changed.notify()
