"""How the rows of an epoch are divided among replicas whose workers are not equally fast."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from statistics import median

from daskdml.server import Ticket
from daskdml.strategies._plan import Piece
from daskdml.strategies._work import Report

# By what factor two replicas' times for a clock must differ before rows move. A worker that got rows has to read
# them, and one that is slow by less is held back less than the staleness allows.
_APART = 1.5
# What the mean of the weights is: shares are whole multiples of this part of an equal share.
_UNITS = 32
# Clocks of a replica's own worker without which an epoch says nothing of its speed.
_FEWEST = 2


class Speeds:
    """Seconds that each replica's own worker takes for a row, by epoch.

    The median over clocks: one that was late for less than half of an epoch, as a passing load or the compilation of a
    kernel make it, is not slow. Clocks that others trained in its place say nothing of it; those that it trained too,
    though others were sooner, do: of a slow worker there may be hardly any others.
    """

    def __init__(self) -> None:
        # By epoch, lane and ticket: a report can come twice.
        self._seconds: dict[int, dict[int, dict[tuple[int, int, int], float]]] = {}

    def note(self, ticket: Ticket, report: Report) -> None:
        """A part of a clock was trained, first or not."""
        rows = 0 if report.totals is None else report.totals.rows
        if rows and not report.reassigned:
            # Reading is a part of speed, but not that of the first epoch, which does not come again.
            seconds = report.compute_seconds + (report.wait_seconds if ticket.epoch > 1 else 0.0)
            self._seconds.setdefault(ticket.epoch, {}).setdefault(ticket.lane, {})[ticket.id] = seconds / rows

    def forget_before(self, epoch: int) -> None:
        """Earlier epochs are of no interest any more."""
        self._seconds = {of: found for of, found in self._seconds.items() if of >= epoch}

    def of(self, epoch: int, lanes: int) -> list[float] | None:
        """By replica; None where one of them was not heard of often enough."""
        found = self._seconds.get(epoch, {})
        if any(len(found.get(lane, ())) < _FEWEST for lane in range(lanes)):
            return None
        return [max(median(found[lane].values()), 1e-12) for lane in range(lanes)]


def new_weights(
    weights: tuple[int, ...], before: Sequence[float] | None, last: Sequence[float] | None
) -> tuple[int, ...]:
    """How large the replicas' shares are to be, relative to each other; none stands for equal ones.

    Parameters
    ----------
    weights : tuple of int
        As they are.
    before, last : sequence of float or None
        Seconds a row, by replica, in two successive epochs. Both must find a replica too slow, or too fast, for its
        share: what happens once is not a reason to move rows, and where shares fit roughly they stay.

    Examples
    --------
    >>> new_weights((), [1.0, 0.1], [1.0, 0.1])
    (6, 58)
    >>> new_weights((), [1.0, 1.2], [1.0, 1.2]), new_weights((6, 58), [1.0, 0.12], [1.0, 0.09])
    ((), (6, 58))
    """
    if before is None or last is None or len(last) < 2:
        return weights
    given = weights or (1,) * len(last)
    pairs = list(zip(given, before, last, strict=True))
    slowest = max(weight * min(one, other) for weight, one, other in pairs)
    fastest = min(weight * max(one, other) for weight, one, other in pairs)
    if slowest <= _APART * fastest:
        return weights
    rates = [2 / (one + other) for one, other in zip(before, last, strict=True)]
    unit = sum(rates) / len(rates) / _UNITS
    if max(rates) <= _APART * min(rates):
        # Equal again: exactly the shares that there were first, where blocks may lie still.
        return ()
    return tuple(max(1, round(rate / unit)) for rate in rates)


def weighted(dealt: Sequence[Sequence[Piece]], weights: tuple[int, ...]) -> list[list[Piece]]:
    """Shares as large as ``weights`` say, made from others by moving as few rows as that takes.

    A replica keeps the first of its pieces, so those that should stay must come first; what it has too much goes to
    those who have too little, in order. A function of its arguments: it does not matter what weights there were.

    Examples
    --------
    >>> [[piece.block for piece in pieces] for pieces in weighted([[Piece(0), Piece(1)], [Piece(2), Piece(3)]], (1, 3))]
    [[0], [2, 3, 1]]
    """
    blocks = sum((piece.size for pieces in dealt for piece in pieces), Fraction(0))
    wanted = [blocks * weight / sum(weights) for weight in weights]
    kept, spare = [], []
    for pieces, room in zip(dealt, wanted, strict=True):
        mine, rest = _split(pieces, room)
        kept.append(mine)
        spare += rest
    for mine, room in zip(kept, wanted, strict=True):
        more, spare = _split(spare, room - sum((piece.size for piece in mine), Fraction(0)))
        mine += more
    return kept


def _split(pieces: Sequence[Piece], size: Fraction) -> tuple[list[Piece], list[Piece]]:
    """The first pieces, of that size together, and the others; one is divided where it must be."""
    first: list[Piece] = []
    for at, piece in enumerate(pieces):
        if size <= 0:
            return first, list(pieces[at:])
        if piece.size > size:
            middle = piece.start + size
            later = [Piece(piece.block, middle, piece.stop), *pieces[at + 1 :]]
            return [*first, Piece(piece.block, piece.start, middle)], later
        first.append(piece)
        size -= piece.size
    return first, []
