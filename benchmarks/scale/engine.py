"""Discrete events: processes are generators that yield the time at which they go on, or a signal to wait for."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from heapq import heapify, heappop, heappush, heapreplace
from typing import Any

Process = Generator[Any, None, None]


class Signal:
    """Who waits for something; all go on when it is fired."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self.waiting: list[Process] = []

    def fire(self) -> None:
        waiting, self.waiting = self.waiting, []
        for process in waiting:
            self._engine.spawn(process)


class Engine:
    """The clock and what happens next. Equal times keep the order in which they were asked for: no run differs."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Process]] = []
        self._count = 0

    def spawn(self, process: Process) -> None:
        """Let a process go on now."""
        self._count += 1
        heappush(self._events, (self.now, self._count, process))

    def run(self) -> None:
        """Go on until nothing happens any more; processes that wait for a signal then are left."""
        events = self._events
        while events:
            self.now, _, process = heappop(events)
            try:
                wanted = next(process)
            except StopIteration:
                continue
            if isinstance(wanted, float):
                self._count += 1
                heappush(events, (wanted, self._count, process))
            else:
                wanted.waiting.append(process)


class Countdown:
    """Fires its signal when so many parts are done."""

    def __init__(self, engine: Engine, parts: int):
        self.left = parts
        self.signal = Signal(engine)

    def done(self) -> None:
        self.left -= 1
        if not self.left:
            self.signal.fire()

    def wait(self) -> Process:
        if self.left > 0:
            yield self.signal


class Line:
    """A server of one customer at a time, first come first served, such as one direction of a link."""

    def __init__(self) -> None:
        self.free = 0.0
        self.busy = 0.0

    def book(self, now: float, seconds: float) -> float:
        """When work that arrives now is done."""
        self.busy += seconds
        self.free = (self.free if self.free > now else now) + seconds
        return self.free


class Cores:
    """The cores of one machine, shared by its processes."""

    def __init__(self, cores: int):
        self._free = [0.0] * cores
        heapify(self._free)
        self.busy = 0.0

    def book(self, now: float, seconds: float) -> float:
        self.busy += seconds
        end = max(now, self._free[0]) + seconds
        heapreplace(self._free, end)
        return end


class Cpu:
    """A Python process: one thing at a time, on a core of its own or on one of those that several processes share."""

    def __init__(self, engine: Engine, cores: Cores | None = None):
        self._engine = engine
        self._cores = cores
        self._free = 0.0
        self.busy = 0.0

    @property
    def is_busy(self) -> bool:
        return self._free > self._engine.now

    def work(self, seconds: float) -> Process:
        if seconds <= 0.0:
            return
        engine = self._engine
        self.busy += seconds
        if self._cores is None:
            self._free = max(self._free, engine.now) + seconds
            yield self._free
            return
        # A core is taken when the process can use it, not when it is asked for: none is idle while others wait.
        while self._free > engine.now:
            yield self._free
        self._free = self._cores.book(engine.now, seconds)
        yield self._free


class Lock:
    """Held by one process at a time, in the order of asking; ``busy`` is for how long it was held."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._queue: deque[Signal] = deque()
        self._held_since: float | None = None
        self.busy = 0.0

    def acquire(self) -> Process:
        if self._held_since is not None:
            turn = Signal(self._engine)
            self._queue.append(turn)
            yield turn
        self._held_since = self._engine.now

    def release(self) -> None:
        assert self._held_since is not None
        self.busy += self._engine.now - self._held_since
        if self._queue:
            # Still held, so that nobody comes between.
            self._held_since = self._engine.now
            self._queue.popleft().fire()
        else:
            self._held_since = None
