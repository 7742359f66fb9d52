"""What each replica did by itself, and when: workers' clocks are brought to the driver's.

A part is what a task tells of its work for a replica: a ReplicaRound that does not know its round yet (0), and whose
``begin`` is by the clock of its worker.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from itertools import zip_longest

from daskdml.monitor import ReplicaRound


class WorkerClocks:
    """Brings times of workers' clocks to that of the driver.

    What a worker tells of began after the driver asked for it, and was over when the driver heard. So much is known of
    how a worker's clock differs. Where that allows no difference, there is none: most clocks agree to
    better than a message takes. Else it is the smallest that is allowed.

    Examples
    --------
    >>> from daskdml.strategies._parts import WorkerClocks
    >>> clocks = WorkerClocks()
    >>> clocks.shift("tcp://a:1", begin=10.0, end=11.0, asked=9.0, heard=12.0)
    0.0
    >>> clocks.shift("tcp://b:1", begin=110.0, end=111.0, asked=9.0, heard=12.0)
    -99.0
    """

    def __init__(self) -> None:
        self._bounds: dict[str | None, tuple[float, float]] = {}

    def shift(self, worker: str | None, begin: float, end: float, asked: float, heard: float) -> float:
        """Seconds to add to times of a worker's clock."""
        low, high = self._bounds.get(worker, (-float("inf"), float("inf")))
        low, high = max(low, asked - begin), min(high, heard - end)
        self._bounds[worker] = low, high
        return min(max(0.0, low), high)

    def moved(self, parts: Iterable[ReplicaRound], asked: float) -> list[ReplicaRound]:
        """The parts with ``begin`` by the driver's clock; they are heard of now."""
        heard = time.time()
        shifts = [(part, self.shift(part.worker, part.begin, _end(part), asked, heard)) for part in parts]
        return [replace(part, begin=part.begin + shift) if shift else part for part, shift in shifts]


def merged(parts: list[ReplicaRound]) -> ReplicaRound:
    """The work of several tasks for one replica in one round; the worker is that which did most rows."""
    if len(parts) == 1:
        return parts[0]
    begin, end = min(part.begin for part in parts), max(map(_end, parts))
    idle = max(0.0, end - begin - sum(part.seconds for part in parts))
    most, latest = max(parts, key=lambda part: part.rows), max(parts, key=_end)
    sums = {name: sum(getattr(part, name) for part in parts) for name in _SUMS}
    return replace(
        most,
        begin=begin,
        seconds=end - begin,
        staleness=max(part.staleness for part in parts),
        cache_memory_bytes=latest.cache_memory_bytes,
        cache_disk_bytes=latest.cache_disk_bytes,
        gpu=max(part.gpu for part in parts),
        shard_bytes=tuple(sum(shard) for shard in zip_longest(*(p.shard_bytes for p in parts), fillvalue=0)),
        # Between its tasks a replica waits for what the next one trains on.
        **sums | {"wait_seconds": sums["wait_seconds"] + idle},
    )


_SUMS = (
    "compute_seconds load_seconds wait_seconds gate_seconds communicate_seconds rows bytes sent_bytes received_bytes "
    "reassigned"
).split()


def as_event(part: ReplicaRound, number: int, started: float) -> ReplicaRound:
    """What listeners hear of it in round ``number``; ``started`` is when the fit began, by the driver's clock."""
    return replace(part, round=number, begin=part.begin - started)


def _end(part: ReplicaRound) -> float:
    return part.begin + part.seconds
