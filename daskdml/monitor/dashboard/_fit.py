"""What the page knows of one fit, in bounded memory whatever happens."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from daskdml.monitor._events import EpochEnd, Recovery, ReplicaRound, RoundEnd, ServerStart
from daskdml.monitor.dashboard._series import Series

# Replicas that are looked at one by one; more would be no page to read.
_REPLICAS = 1024
# Points of all replicas' clocks together, and of each: the lines of more clocks could not be told apart.
_CLOCK_POINTS = 6000
_CLOCKS = 40
# Workers whose caches are remembered.
_WORKERS = 1024
# Things of one kind that happened; the oldest are forgotten.
_MARKS = 200
# Clocks by which reads may lag, counted one by one; the last number stands for more.
_LAGS = 256
# Rounds from which it is judged how fast a replica is.
_RECENT = 16


@dataclass(frozen=True)
class Mark:
    """Something that happened ``at`` seconds after the fit began."""

    at: float
    kind: str
    what: str


@dataclass
class Lane:
    """A replica: how far it is, what its time went into, how fast it was lately and where."""

    clock: int
    track: deque[tuple[float, int]]
    worker: str = ""
    rows: int = 0
    compute: float = 0.0
    wait: float = 0.0
    gate: float = 0.0
    communicate: float = 0.0
    load: float = 0.0
    # Rows, and seconds in which it was busy with them.
    recent: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=_RECENT))

    @property
    def pace(self) -> float | None:
        """Seconds a row took lately; None where none was trained."""
        rows = sum(rows for rows, _ in self.recent)
        return sum(seconds for _, seconds in self.recent) / rows if rows else None


class Fit:
    """A fit as told by its events; :class:`daskdml.monitor.dashboard.FitStore` makes and feeds it.

    Attributes
    ----------
    id, client : str
        Of the fit, and of the client whose fit it is.
    facts : dict
        What was known when it began: estimator, strategy, n_replicas, staleness and so on.
    state : str
        "running", or why it ended.
    totals : dict
        Rows, rounds, bytes and recoveries of the whole fit, also of events that were dropped on the way.
    counts : Counter
        How often something of each kind has happened; of each the last are among the `marks`.
    version : int
        Larger whenever something has changed.
    """

    def __init__(self, id: str, client: str, facts: Mapping[str, Any]) -> None:
        self.id = id
        self.client = client
        self.facts = dict(facts)
        self.state = "running"
        self.error: str | None = None
        self.slot = 0
        self.version = 0
        self.threads = 0
        self.dropped = 0
        self.seconds = 0.0
        self.totals: dict[str, float] = {"rows": 0, "rounds": 0, "bytes": 0, "recoveries": 0}
        self.loss = Series(3)
        self.validation = Series(3)
        self.work = Series(5)
        self.lags: Counter[int] = Counter()
        self.lanes: dict[int, Lane] = {}
        self.shards: tuple[int, ...] = ()
        self.traffic: Counter[int] = Counter()
        self.caches: dict[str, tuple[int, int]] = {}
        self.counts: Counter[str] = Counter()
        self._marks: dict[str, deque[Mark]] = {}
        self.epoch = 0
        self._gone: deque[str] = deque(maxlen=_WORKERS)
        self._sums = [0.0] * 4
        self._in_epoch = 0
        self._per_epoch = max(1, int(self.facts.get("rounds_per_epoch") or 1))
        # In the units of the target, as everywhere.
        self._scale = float(self.facts.get("loss_scale") or 1.0)

    @property
    def staleness(self) -> int | None:
        """How many clocks the fastest replica may be ahead; None without a bound."""
        return self.facts.get("staleness", 0)

    @property
    def running(self) -> bool:
        """Whether nothing has been heard of its end."""
        return self.state == "running"

    def add(self, at: float, event: Any) -> None:
        """Take an event, heard ``at`` seconds after the fit began."""
        self.seconds = max(self.seconds, at)
        self.version += 1
        handle: Callable[[float, Any], None] = _HANDLERS[type(event)]
        handle(self, at, event)  # type: ignore[call-arg, arg-type]

    def mark(self, at: float, kind: str, what: str) -> None:
        """Note that something happened."""
        self.version += 1
        self.counts[kind] += 1
        self._marks.setdefault(kind, deque(maxlen=_MARKS)).append(Mark(at, kind, what))

    @property
    def marks(self) -> list[Mark]:
        """What happened, in the order of time."""
        return sorted((mark for of_kind in self._marks.values() for mark in of_kind), key=lambda mark: mark.at)

    def on_worker(self, address: str, joined: bool) -> None:
        """A worker has a cache no more, whatever late reports of it say; or it may have one again."""
        if joined and address in self._gone:
            self._gone.remove(address)
        elif not joined:
            self._gone.append(address)
            self.caches.pop(address, None)

    def end(self, state: str, error: str | None = None) -> None:
        """Nothing more will come."""
        self.version += 1
        self.state, self.error = state, error

    def _on_round(self, at: float, event: RoundEnd) -> None:
        if event.epoch != self.epoch:
            if self._in_epoch:
                self._per_epoch = self._in_epoch
            self.epoch, self._in_epoch = event.epoch, 0
        self._in_epoch += 1
        self.loss.add(at, event.epoch - 1 + min(1.0, self._in_epoch / self._per_epoch), event.loss * self._scale)
        added = (event.rows, event.bytes, event.compute_seconds, event.load_seconds)
        self._sums = [total + new for total, new in zip(self._sums, added, strict=True)]
        self.work.add(at, *self._sums)
        for lag, count in enumerate(event.staleness_histogram):
            self.lags[min(lag, _LAGS)] += count

    def _on_epoch(self, at: float, event: EpochEnd) -> None:
        if event.validation_score is not None:
            self.validation.add(at, event.epoch, event.validation_score)

    def _on_replica(self, at: float, event: ReplicaRound) -> None:
        for shard, nbytes in enumerate(event.shard_bytes):
            self.traffic[shard] += nbytes
        known = event.worker in self.caches or len(self.caches) < _WORKERS
        if event.worker is not None and event.worker not in self._gone and known:
            self.caches[event.worker] = event.cache_memory_bytes, event.cache_disk_bytes
        if event.reassigned:
            self.mark(at, "reassigned", f"clock {event.round} of replica {event.replica} trained by {event.worker}")
        lane = self.lanes.get(event.replica)
        if lane is None:
            if len(self.lanes) >= _REPLICAS:
                return
            each = min(_CLOCKS, max(8, _CLOCK_POINTS // max(1, self.facts.get("n_replicas") or 1)))
            lane = self.lanes[event.replica] = Lane(0, deque(maxlen=each))
        lane.clock = max(lane.clock, event.round)
        lane.track.append((event.begin + event.seconds, lane.clock))
        lane.rows += event.rows
        lane.compute += event.compute_seconds
        lane.wait += event.wait_seconds
        lane.gate += event.gate_seconds
        lane.communicate += event.communicate_seconds
        lane.load += event.load_seconds
        # What a helper did says nothing of the replica's own worker.
        if not event.reassigned or not lane.worker:
            lane.worker = event.worker or "this process"
            lane.recent.append((event.rows, event.compute_seconds + event.wait_seconds))

    def _on_recovery(self, at: float, event: Recovery) -> None:
        self.mark(event.seconds, "recovery", event.what)

    def _on_server(self, at: float, event: ServerStart) -> None:
        self.shards = event.shard_bytes


_HANDLERS: dict[type[Any], Any] = {
    RoundEnd: Fit._on_round,
    EpochEnd: Fit._on_epoch,
    ReplicaRound: Fit._on_replica,
    Recovery: Fit._on_recovery,
    ServerStart: Fit._on_server,
}
