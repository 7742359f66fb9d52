"""The Dask actor of the ledger: a thin shell around it, as those of the shards are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from daskdml.server._clock import Ticket
from daskdml.server._ledger import Ledger, Stop
from daskdml.server._remote import Directory, Refused

# Seconds after which a runner with nothing to do looks again, at the least: whatever frees a ticket wakes it at once.
_RECHECK = 0.01
# Reports the driver has not fetched; it has been gone for long where there are more.
_MOST_NEWS = 100_000


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
        self._advanced = asyncio.Event()
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
        if ledger.minimum > before or ledger.over:
            self._advanced.set()
        # Who waits, waits for the slowest lane; besides that a ticket done can free another one for one helper. Were
        # all woken each time, the work here would grow with the square of the number of runners.
        await self._wake(all_of_them=ledger.minimum > before or ledger.over)
        return first

    async def news(self, number: int, wait: float, gather: float = 0.0) -> News:
        """Reports from ``number`` on, of which those before are forgotten; waits a while where there are none.

        Where there are, it waits for more, for up to ``gather`` seconds, but not once the slowest lane is further.
        """
        heard = self._heard
        forget = max(0, number - heard.first)
        del heard.reports[:forget]
        heard.first += forget
        if not heard.reports:
            self._told.clear()
            await _within(wait, self._told)
        if heard.reports:
            await _within(gather, self._advanced)
        self._advanced.clear()
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


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Wait for an event, but no longer than that."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
