"""What is reported of a clock, and how many of them an epoch has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daskdml.models import Totals
from daskdml.strategies._replica import PartReport
from daskdml.strategies._work import Report

TicketId = tuple[int, int, int]

# The part of a replica's time that messages may take, where the clock's size is chosen.
_COMMUNICATION = 0.1
# Clocks of a replica in an epoch: at least, and so many in the first, before anything is measured; and at most. What
# is read lags by up to the staleness in clocks: where those are large parts of an epoch, replicas learn the same thing
# several times over, and overshoot.
FEWEST_CLOCKS = 32
MOST_CLOCKS = 1024
# Of a clock whose rows nobody has read yet: less is read in no more time than messages take.
_CLOCK_BYTES = 4 * 2**20


@dataclass
class Clock:
    """What was reported of a clock so far, by ticket; None of one that is done and whose report was lost."""

    parts: dict[TicketId, PartReport | None] = field(default_factory=dict)

    @property
    def heard(self) -> list[PartReport]:
        """The reports, in an order that does not depend on when they came."""
        return [part for _, part in sorted(self.parts.items()) if part is not None]

    def report(self) -> Report:
        """All of them together."""
        return sum((part.report for part in self.heard), Report())

    def statistics(self) -> np.ndarray | None:
        """Validation statistics, if there are any."""
        found = [part.statistics for part in self.heard if part.statistics is not None]
        return sum(found[1:], found[0]) if found else None

    def to_payload(self) -> list[Any]:
        """For a checkpoint: the sums that the fit depends on, not what it took."""
        found = []
        for ticket, part in self.parts.items():
            totals = None if part is None else part.report.totals
            sums = None if totals is None else [totals.rows, totals.loss, totals.objective]
            found.append([list(ticket), sums, None if part is None else part.statistics])
        return found

    @classmethod
    def of(cls, payload: list[Any]) -> Clock:
        """What `to_payload` gave."""
        parts = {}
        for ticket, sums, statistics in payload:
            report = None if sums is None else PartReport(Report(Totals(*sums)), statistics)
            parts[tuple(ticket)] = report
        return cls(parts)


class Pace:
    """What training and messages cost each replica, by epoch.

    The size of clocks follows the last epoch that is over. Reading the data the first time does not count, since that
    time does not come again; nor does waiting for a slower replica, which no size of clocks makes shorter: the one that
    waited least tells what messages cost.
    """

    def __init__(self, sums: Iterable[tuple[int, int, int, float, float]] = ()) -> None:
        # By epoch and lane: tickets, seconds of training, seconds of messages.
        self._sums = {(epoch, lane): (tickets, train, sync) for epoch, lane, tickets, train, sync in sums}

    def note(self, epoch: int, lane: int, report: Report) -> None:
        """A ticket is done."""
        tickets, train, sync = self._sums.get((epoch, lane), (0, 0.0, 0.0))
        train += report.compute_seconds + (report.wait_seconds if epoch > 1 else 0.0)
        sync += report.gate_seconds + sum(part.communicate_seconds for part in report.parts)
        self._sums[epoch, lane] = tickets + 1, train, sync

    def forget_before(self, epoch: int) -> None:
        """Earlier epochs are of no interest any more."""
        self._sums = {key: sums for key, sums in self._sums.items() if key[0] >= epoch}

    def of(self, epoch: int) -> tuple[float, float] | None:
        """Seconds of a replica's training in an epoch, and of messages in a ticket; None where nothing was heard."""
        found = [sums for (of, _), sums in self._sums.items() if of == epoch]
        if not found:
            return None
        return sum(train for _, train, _ in found) / len(found), min(sync / tickets for tickets, _, sync in found)

    def to_payload(self) -> list[list[Any]]:
        """What the constructor takes."""
        return [[*key, *sums] for key, sums in self._sums.items()]


def first_clocks(n_blocks: int, nbytes: int | None, fewest: int) -> int:
    """Into how many clocks a replica's first epoch is cut, before anything is measured.

    One for each block, whose reading takes longer than messages; but not where blocks are so small that it does not.

    Parameters
    ----------
    n_blocks : int
        A replica's.
    nbytes : int or None
        What they take in memory, where that is known.
    fewest : int
        What the staleness asks for.

    Examples
    --------
    >>> first_clocks(250, 250 * 2**24, fewest=48), first_clocks(2500, 80_000, fewest=48)
    (250, 48)
    """
    most = MOST_CLOCKS if nbytes is None else min(MOST_CLOCKS, nbytes // _CLOCK_BYTES)
    return max(min(n_blocks, most), min(fewest, MOST_CLOCKS))


def clocks_for(train: float, sync: float, fewest: int) -> int:
    """Into how many clocks a replica's epoch is cut: so many that messages take less than a tenth of its time.

    Parameters
    ----------
    train, sync : float
        Seconds of training in an epoch, and of messages in a clock.
    fewest : int
        What the staleness asks for, whatever the messages take.

    Examples
    --------
    >>> clocks_for(train=10.0, sync=0.01, fewest=32), clocks_for(train=1.0, sync=0.01, fewest=32)
    (100, 32)
    """
    return int(np.clip(_COMMUNICATION * train / max(sync, 1e-6), fewest, MOST_CLOCKS))
