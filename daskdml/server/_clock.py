"""The vector clock: how far each lane has come, and who may go on.

A fit has a fixed work list: at each clock, counted from 0 over the whole fit, each lane has ``parts`` tickets. A lane's
clock is the number of leading clocks all of whose tickets are finished; m, the minimum over the lanes that count, is
what the gate of stale synchronous parallel training (Ho et al. 2013) looks at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TicketId = tuple[int, int, int]


@dataclass(frozen=True)
class Ticket:
    """One part of a lane's work at a clock.

    Parameters
    ----------
    epoch : int
        The epoch it belongs to.
    clock : int
        Counted from 0 over the whole fit, not from the epoch's beginning.
    lane : int
        The logical replica whose work it is.
    part : int
        Which part of that work.
    """

    epoch: int
    clock: int
    lane: int
    part: int = 0

    @property
    def id(self) -> tuple[int, int, int]:
        """Clock, lane and part: unique in a fit."""
        return self.clock, self.lane, self.part


def shares(tickets: Sequence[TicketId], clocks: Mapping[int, int], parts: int = 1) -> dict[TicketId, float]:
    """For how many other lanes each of a runner's tickets, given by its id, may stand: those that lack its clock.

    They are shared out among the runner's tickets of that clock, and given as a part of all other lanes. What stands
    for none is left out.

    Examples
    --------
    >>> shares([(1, 0, 0)], {0: 3, 1: 1, 2: 0}), shares([(1, 0, 0)], {0: 3, 1: 2, 2: 0}), shares([(1, 0, 0)], {0: 3})
    ({(1, 0, 0): 1.0}, {(1, 0, 0): 0.5}, {})
    >>> shares([(1, 0, 0), (1, 1, 0)], {0: 3, 1: 1, 2: 0})
    {(1, 0, 0): 0.25, (1, 1, 0): 0.25}
    """
    found: dict[TicketId, float] = {}
    for clock in {ticket[0] for ticket in tickets}:
        mine = [ticket for ticket in tickets if ticket[0] == clock]
        lanes = {lane for _, lane, _ in mine}
        lacking = sum(reached <= clock for lane, reached in clocks.items() if lane not in lanes)
        if lacking:
            found |= dict.fromkeys(mine, lacking * parts / len(mine) / (len(clocks) - 1))
    return found


class VectorClock:
    """Which tickets are finished, in bounded memory.

    Only what is finished ahead of a lane's clock is remembered ticket by ticket. A lane that has left is still
    remembered, so that its duplicates are known, but does not count in the minimum, which never decreases.

    Parameters
    ----------
    lanes : iterable of int
        The lanes that count, all at clock 0.
    parts : int
        Tickets of a lane at each clock.

    Examples
    --------
    >>> clock = VectorClock(range(2))
    >>> clock.tick(0, lane=0, part=0), clock.minimum, clock.may_start(1, staleness=0)
    (False, 0, False)
    >>> clock.tick(0, lane=1, part=0), clock.minimum, clock.may_start(1, staleness=0)
    (True, 1, True)
    """

    def __init__(self, lanes: Iterable[int], parts: int = 1):
        if parts < 1:
            raise ValueError(f"parts is {parts}, but a lane's work has at least one part")
        self.parts = parts
        self._clocks: dict[int, int] = dict.fromkeys(lanes, 0)
        self._left: set[int] = set()
        # By lane, the parts finished at each clock that is not complete, or behind one that is not.
        self._ahead: dict[int, dict[int, set[int]]] = {lane: {} for lane in self._clocks}
        self._minimum = 0

    @property
    def minimum(self) -> int:
        """m: how many clocks every lane has completed."""
        return self._minimum

    @property
    def clocks(self) -> dict[int, int]:
        """The clock of each lane that counts."""
        return {lane: clock for lane, clock in self._clocks.items() if lane not in self._left}

    def lane_clock(self, lane: int) -> int:
        """Number of leading clocks that ``lane`` has completed, also of one that has left."""
        self._check(lane)
        return self._clocks[lane]

    def applied(self, ticket: Ticket) -> bool:
        """Whether a ticket is finished."""
        return self.finished(ticket.clock, ticket.lane, ticket.part)

    def finished(self, clock: int, lane: int, part: int) -> bool:
        """Whether a ticket, given by its parts, is finished."""
        self._check(lane, clock, part)
        return clock < self._clocks[lane] or part in self._ahead[lane].get(clock, ())

    def tick(self, clock: int, lane: int, part: int = 0) -> bool:
        """Note a ticket as finished; again is harmless.

        Returns
        -------
        advanced : bool
            Whether the minimum has grown.

        Raises
        ------
        ValueError
            For a lane that never joined, or a clock or part that cannot be.
        """
        if self.finished(clock, lane, part):
            return False
        ahead = self._ahead[lane]
        ahead.setdefault(clock, set()).add(part)
        before = self._clocks[lane]
        self._settle(lane)
        if self._clocks[lane] == before or lane in self._left or before > self._minimum:
            return False
        return self._advance()

    def join(self, lane: int) -> None:
        """Let ``lane`` count from now on; it enters at the minimum, its earlier tickets counting as finished.

        One that left and comes back keeps its own clock if that is further on.
        """
        self._left.discard(lane)
        ahead = self._ahead.setdefault(lane, {})
        clock = max(self._clocks.get(lane, 0), self._minimum)
        self._clocks[lane] = clock
        for old in [c for c in ahead if c < clock]:
            del ahead[old]
        self._settle(lane)
        # Where nobody counted, one that comes back further on is now the slowest.
        self._advance()

    def leave(self, lane: int) -> bool:
        """Let ``lane`` count no more.

        Returns
        -------
        advanced : bool
            Whether the minimum has grown.
        """
        self._check(lane)
        self._left.add(lane)
        return self._advance()

    def may_start(self, clock: int, staleness: int | None) -> bool:
        """Whether a ticket of ``clock`` may start: m >= clock - staleness, or no bound (None)."""
        return staleness is None or self._minimum >= clock - staleness

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain lists and integers."""
        return {
            "parts": self.parts,
            "minimum": self._minimum,
            "lanes": [[lane, clock] for lane, clock in self._clocks.items()],
            "left": sorted(self._left),
            "ahead": [
                [lane, clock, sorted(parts)]
                for lane, ahead in self._ahead.items()
                for clock, parts in sorted(ahead.items())
            ],
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> VectorClock:
        """The clock that `to_dict` described."""
        clock = cls((), int(state["parts"]))
        clock._minimum = int(state["minimum"])
        clock._clocks = {int(lane): int(value) for lane, value in state["lanes"]}
        clock._left = {int(lane) for lane in state["left"]}
        clock._ahead = {lane: {} for lane in clock._clocks}
        for lane, value, parts in state["ahead"]:
            clock._ahead[int(lane)][int(value)] = {int(part) for part in parts}
        return clock

    def __repr__(self) -> str:
        return f"VectorClock(minimum={self._minimum}, clocks={self.clocks})"

    def _settle(self, lane: int) -> None:
        """Move a lane over the clocks it has completed, and forget their tickets."""
        ahead, clock = self._ahead[lane], self._clocks[lane]
        while len(ahead.get(clock, ())) == self.parts:
            del ahead[clock]
            clock += 1
        self._clocks[lane] = clock

    def _advance(self) -> bool:
        # With nobody left to count, the minimum stays where it was: whoever joins next enters there.
        lowest = min(self.clocks.values(), default=self._minimum)
        advanced, self._minimum = lowest > self._minimum, max(lowest, self._minimum)
        return advanced

    def _check(self, lane: int, clock: int = 0, part: int = 0) -> None:
        if lane not in self._clocks:
            raise ValueError(f"lane {lane} is not known; it must join first (known are {sorted(self._clocks)})")
        if clock < 0 or not 0 <= part < self.parts:
            raise ValueError(f"no ticket (clock {clock}, part {part}): a lane has parts 0..{self.parts - 1} at a clock")
