"""What serves a fit on the parameter server: shards with their second copies, and the ledger of work."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from benchmarks.scale.engine import Countdown, Engine, Lock, Process, Signal
from benchmarks.scale.nodes import Cluster, Node
from benchmarks.scale.settings import Fit
from daskdml.server import default_shards


@dataclass(frozen=True)
class Placed:
    """Which workers serve what: (first copy, second copy) of the shards that are simulated, and the ledger's."""

    n_shards: int
    shards: list[tuple[int, int | None]]
    ledger: int


def place(fit: Fit) -> Placed:
    """As daskdml does it: each on the worker that serves least, first copies before the ledger before second copies."""
    n_shards = fit.shards or default_shards(fit.bytes, fit.workers)
    hosts = [0] * fit.workers
    copies = bool(fit.backups) and fit.workers > 1

    def roomiest(without: int | None = None) -> int:
        best = min((w for w in range(fit.workers) if w != without), key=lambda w: (hosts[w], w))
        hosts[best] += 1
        return best

    if n_shards <= fit.seen:
        firsts = [roomiest() for _ in range(n_shards)]
        ledger = roomiest()
        return Placed(n_shards, [(f, roomiest(f) if copies else None) for f in firsts], ledger)
    # Those that are simulated serve each other as second copies where all workers have a shard, as all would.
    full = n_shards >= fit.workers
    seconds = [(i + 1) % fit.seen if full else fit.seen + i for i in range(fit.seen)]
    shards: list[tuple[int, int | None]] = [
        (i % fit.workers, s % fit.workers if copies else None) for i, s in enumerate(seconds)
    ]
    return Placed(n_shards, shards, 0 if full else min(2 * fit.seen, fit.workers - 1))


class _Clock:
    """How many clocks every lane has completed, each lane's coming in order."""

    def __init__(self, engine: Engine, lanes: int):
        self.minimum = 0
        self._lanes = lanes
        self._counts: dict[int, int] = defaultdict(int)
        self._engine = engine
        self._waiting: dict[int, Signal] = {}

    def tick(self, clock: int) -> bool:
        """A lane has completed a clock; whether the slowest had."""
        self._counts[clock] += 1
        before = self.minimum
        while self._counts[self.minimum] == self._lanes:
            del self._counts[self.minimum]
            self.minimum += 1
        return self.minimum > before

    def reach(self, least: int) -> Process:
        while self.minimum < least:
            if least not in self._waiting:
                self._waiting[least] = Signal(self._engine)
            yield self._waiting[least]

    def tell(self) -> None:
        """Let those go on who waited for what has been reached."""
        for least in [least for least in self._waiting if least <= self.minimum]:
            self._waiting.pop(least).fire()


class Shard:
    """Its order is held while an update is applied and brought to the second copy, and while values are copied."""

    def __init__(self, engine: Engine, cluster: Cluster, fit: Fit, node: Node, second: Node | None, n_shards: int):
        self._engine, self._cluster, self._fit, self._costs = engine, cluster, fit, cluster.costs
        self.node, self.second = node, second
        self.order = Lock(engine)
        self.clock = _Clock(engine, fit.replicas)
        self._pushed = fit.pushed_bytes / n_shards
        entries = cluster.costs.apply_key * (fit.pushed or 0) if fit.sparse else cluster.costs.apply * fit.parameters
        self._apply = entries / n_shards + cluster.costs.tick + fit.replicas * cluster.costs.tick_lane
        self._bytes = fit.bytes / n_shards
        self._copy = fit.parameters / n_shards * cluster.costs.pull

    def push(self, source: Node, clock: int, there: Countdown) -> Process:
        """An update arrives; it is acknowledged when both copies have it."""
        cluster = self._cluster
        yield from self._receive(source, self._pushed)
        yield from self.order.acquire()
        yield from self.node.cpu.work(self._apply)
        if self.second is not None:
            yield from cluster.message(self.node, self.second, self._pushed)
            yield from self.second.cpu.work(self._apply)
            yield from cluster.message(self.second, self.node)
        self.order.release()
        if self.clock.tick(clock):
            self.clock.tell()
        yield from self._answer(source, 0.0)
        there.done()

    def pull(self, source: Node, index: int, least: int, found: dict[int, int], there: Countdown) -> Process:
        """Values are read, once the slowest lane has completed ``least`` clocks."""
        yield from self._receive(source, 0.0)
        yield from self.clock.reach(least)
        yield from self.order.acquire()
        yield from self.node.cpu.work(self._copy)
        found[index] = self.clock.minimum
        self.order.release()
        yield from self._answer(source, self._bytes)
        there.done()

    def _receive(self, source: Node, size: float) -> Process:
        """The shard's side of a message; the worker's is counted for all shards together."""
        costs = self._costs
        if source is self.node:
            return
        if costs.message_pause:
            yield self._engine.now + costs.message_pause
        yield from self._cluster.come(self.node, size)
        yield from self.node.cpu.work(costs.message + costs.message_byte * size)

    def _answer(self, source: Node, size: float) -> Process:
        costs = self._costs
        if source is self.node:
            return
        lanes = self._fit.replicas * costs.view_lane if size else 0.0
        yield from self.node.cpu.work(costs.message + costs.message_byte * size + lanes)
        yield from self._cluster.depart(self.node, size)
        if costs.message_pause:
            yield self._engine.now + costs.message_pause


class Ledger:
    """Hands out clocks: one is given while the slowest lane is at most the staleness behind it."""

    def __init__(self, cluster: Cluster, fit: Fit, node: Node, bound: int | None):
        self._cluster, self._costs, self._fit, self._bound = cluster, cluster.costs, fit, bound
        self.node = node
        self.clock = _Clock(cluster.engine, fit.replicas)
        self.waiting = 0
        self.busy = 0.0

    def claim(self, source: Node, clock: int) -> Process:
        yield from self._cluster.message(source, self.node)
        yield from self._work(self._costs.claim)
        if self._bound is not None and clock - self._bound > self.clock.minimum:
            yield from self.node.cpu.work(self._refusal)
            self.waiting += 1
            yield from self.clock.reach(clock - self._bound)
            self.waiting -= 1
        yield from self._cluster.message(self.node, source)

    def done(self, source: Node, clock: int) -> Process:
        """One who waits looks again whenever something was done, and most find nothing yet."""
        yield from self._cluster.message(source, self.node)
        self.clock.tick(clock)
        done = self._costs.done + self._fit.replicas * self._costs.done_lane
        again = (self.waiting if self._fit.wakes_all else min(self.waiting, 1)) * self._refusal
        yield from self._work(done + again)
        self.clock.tell()
        yield from self._cluster.message(self.node, source)

    @property
    def _refusal(self) -> float:
        return self._costs.claim + self._fit.replicas * self._costs.claim_lane

    def _work(self, seconds: float) -> Process:
        # With the message that brought it and the answer.
        self.busy += seconds + 2 * self._costs.message
        yield from self.node.cpu.work(seconds)
