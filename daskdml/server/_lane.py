"""What the ledger knows of one lane, and of how long tickets take."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterable


class Lane:
    """The books of one lane: which tickets are done, and which may still be claimed.

    Clocks from ``frontier`` on were never touched, so they need no memory: every part of them is free.
    """

    def __init__(self, parts: int, clock: int = 0) -> None:
        self.parts = parts
        self.clock = clock
        self.frontier = clock
        self.done: set[tuple[int, int]] = set()
        self.free: list[tuple[int, int]] = []

    def is_done(self, clock: int, part: int) -> bool:
        return clock < self.clock or (clock, part) in self.done

    def first(self, end: int) -> tuple[int, int] | None:
        """The free ticket the lane's own runner would take."""
        if self.free:
            return self.free[0] if self.free[0][0] < end else None
        return (self.frontier, 0) if self.frontier < end else None

    def spare(self, end: int, reserved: bool) -> tuple[int, int] | None:
        """The free ticket another runner should take: the last part of the nearest clock.

        ``reserved`` keeps the first ticket for the lane's own runner.
        """
        first = self.first(end)
        if first is None:
            return None
        self.touch(first[0])
        last = self.free[bisect_right(self.free, (first[0], self.parts)) - 1]
        if last != first or not reserved:
            return last
        if len(self.free) == 1 and self.frontier < end:
            self.touch(self.frontier)
        if len(self.free) == 1 or self.free[1][0] >= end:
            return None
        return self.free[bisect_right(self.free, (self.free[1][0], self.parts)) - 1]

    def touch(self, clock: int) -> None:
        while self.frontier <= clock:
            self.free += [(self.frontier, part) for part in range(self.parts)]
            self.frontier += 1

    def take(self, clock: int, part: int) -> None:
        """The ticket is free no longer, if it was."""
        self.touch(clock)
        at = bisect_right(self.free, (clock, part)) - 1
        if at >= 0 and self.free[at] == (clock, part):
            del self.free[at]

    def give_back(self, clock: int, part: int) -> None:
        if not self.is_done(clock, part) and (clock, part) not in self.free:
            insort(self.free, (clock, part))

    def finish(self, clock: int, part: int) -> None:
        self.take(clock, part)
        self.done.add((clock, part))
        while all((self.clock, k) in self.done for k in range(self.parts)):
            self.done -= {(self.clock, k) for k in range(self.parts)}
            self.clock += 1


class Durations:
    """The median of the last few durations."""

    def __init__(self, values: Iterable[float] = (), size: int = 255) -> None:
        self.recent = deque(values, maxlen=size)
        self._sorted = sorted(self.recent)

    def add(self, value: float) -> None:
        if len(self.recent) == self.recent.maxlen:
            del self._sorted[bisect_right(self._sorted, self.recent[0]) - 1]
        self.recent.append(value)
        insort(self._sorted, value)

    @property
    def median(self) -> float | None:
        return self._sorted[len(self._sorted) // 2] if self._sorted else None
