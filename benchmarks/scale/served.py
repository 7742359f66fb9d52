"""SSP, ESSP and ASP: what a worker does on the parameter server."""

from __future__ import annotations

from collections import deque

import numpy as np

from benchmarks.scale.engine import Countdown, Engine, Process, Signal
from benchmarks.scale.nodes import Cluster, Node
from benchmarks.scale.settings import Costs, Fit
from benchmarks.scale.shards import Ledger, Shard, place

# As in daskdml: updates that a replica has trained and that wait to be sent.
IN_FLIGHT = 2
# As in daskdml: seconds for which the driver waits for more reports than the first, unless the slowest lane is further,
# and seconds between its looks at the cluster.
GATHER, TEND = 0.05, 0.05


class _Copy:
    """The parameters of a process: of each shard, the clocks of which all updates are in what was last read."""

    def __init__(self, engine: Engine, shards: int):
        self.minimum = [-1] * shards
        self.wanted = Signal(engine)
        self.asked = False


class _Outbox:
    """Updates of a replica on their way, in order."""

    def __init__(self, engine: Engine):
        self.queue: deque[int] = deque()
        self.filled = Signal(engine)
        self.emptied = Signal(engine)


class Served:
    """A fit on the parameter server.

    Of many shards that are all alike a few are simulated; what a worker sends and receives is counted for all of them.
    """

    def __init__(self, engine: Engine, fit: Fit, costs: Costs):
        self.engine, self.fit, self.costs = engine, fit, costs
        self.cluster = Cluster(engine, fit, costs)
        self.starts = np.full((fit.replicas, fit.clocks), np.nan)
        self._factors = fit.pattern.factors(fit.workers, fit.clocks)
        self._bound = None if fit.strategy == "ASP" else fit.staleness
        self._exact = self._bound == 0
        placed = place(fit)
        nodes = self.cluster.workers
        self.n_shards = placed.n_shards
        self.shards = [
            Shard(engine, self.cluster, fit, nodes[first], None if second is None else nodes[second], self.n_shards)
            for first, second in placed.shards
        ]
        self.ledger = Ledger(self.cluster, fit, nodes[placed.ledger], self._bound)
        self._copies = [_Copy(engine, len(self.shards)) for _ in nodes]
        self._reports = 0
        self._reported = Signal(engine)
        self._heard_of = 0
        for worker in range(fit.workers):
            if fit.strategy == "ESSP" and not self._exact:
                engine.spawn(self._follow(worker))
            elif not self._exact:
                engine.spawn(self._fetch(worker))
        for replica in range(fit.replicas):
            outbox = _Outbox(engine)
            engine.spawn(self._run(replica, outbox))
            engine.spawn(self._send(replica, outbox))
        engine.spawn(self._drive())

    # -- a replica ------------------------------------------------------------------------------------

    def _run(self, replica: int, outbox: _Outbox) -> Process:
        fit, costs, engine = self.fit, self.costs, self.engine
        worker = replica % fit.workers
        node = self.cluster.workers[worker]
        for clock in range(fit.clocks):
            yield from self.ledger.claim(node, clock)
            yield from self._read(worker, clock)
            own = costs.own.get(fit.strategy, 0.0) + fit.parameters * costs.train
            yield from node.cpu.work(own)
            self.starts[replica, clock] = engine.now
            yield engine.now + fit.seconds * self._factors[worker, clock] + costs.own_pause.get(fit.strategy, 0.0)
            while len(outbox.queue) >= IN_FLIGHT:
                yield outbox.emptied
            outbox.queue.append(clock)
            outbox.filled.fire()

    def _read(self, worker: int, clock: int) -> Process:
        """Parameters from the process's copy; what of it is too old is read again, and waited for."""
        copy = self._copies[worker]
        least = -1 if self._bound is None else clock - self._bound
        stale = [i for i, minimum in enumerate(copy.minimum) if minimum < max(least, 0)]
        if stale:
            yield from self._pull(worker, stale, least)

    def _send(self, replica: int, outbox: _Outbox) -> Process:
        worker = replica % self.fit.workers
        node, copy = self.cluster.workers[worker], self._copies[worker]
        for _ in range(self.fit.clocks):
            while not outbox.queue:
                yield outbox.filled
            clock = outbox.queue.popleft()
            outbox.emptied.fire()
            yield from self._push(worker, clock)
            copy.asked = True
            copy.wanted.fire()
            yield from self.ledger.done(node, clock)
            self._reports += 1
            self._reported.fire()

    # -- messages to all shards -------------------------------------------------------------------------

    def _push(self, worker: int, clock: int) -> Process:
        node, there = self.cluster.workers[worker], Countdown(self.engine, len(self.shards))
        yield from self._leave(node, self.fit.pushed_bytes)
        for shard in self.shards:
            self.engine.spawn(shard.push(node, clock, there))
        yield from there.wait()
        yield from self._arrive(node, 0.0)

    def _pull(self, worker: int, chosen: list[int], least: int) -> Process:
        """Of some shards, once the slowest lane has completed ``least`` clocks."""
        node, copy = self.cluster.workers[worker], self._copies[worker]
        there, found = Countdown(self.engine, len(chosen)), dict.fromkeys(chosen, 0)
        yield from self._leave(node, 0.0)
        for index in chosen:
            self.engine.spawn(self.shards[index].pull(node, index, least, found, there))
        yield from there.wait()
        yield from self._arrive(node, self.fit.bytes * len(chosen) / len(self.shards))
        for index, minimum in found.items():
            copy.minimum[index] = max(copy.minimum[index], minimum)

    def _leave(self, node: Node, size: float) -> Process:
        """What the sender does of a message to every shard: those on its own node are told at once."""
        here = sum(shard.node is node for shard in self.shards) / len(self.shards)
        costs = self.costs
        away = (1 - here) * (self.n_shards * costs.message + size * costs.message_byte)
        yield from node.cpu.work(away + here * self.n_shards * costs.local / 2)
        yield from self.cluster.depart(node, (1 - here) * size)

    def _arrive(self, node: Node, size: float) -> Process:
        """What the receiver does of an answer of every shard."""
        here = sum(shard.node is node for shard in self.shards) / len(self.shards)
        costs, lanes = self.costs, self.n_shards * self.fit.replicas * self.costs.view_lane
        yield from self.cluster.come(node, (1 - here) * size)
        away = (1 - here) * (self.n_shards * costs.message + size * costs.message_byte + (lanes if size else 0.0))
        yield from node.cpu.work(away + here * self.n_shards * costs.local / 2)

    # -- beside the training ----------------------------------------------------------------------------

    def _fetch(self, worker: int) -> Process:
        """Newer parameters after each update that was sent, one reading at a time."""
        copy, every = self._copies[worker], list(range(len(self.shards)))
        while True:
            while not copy.asked:
                yield copy.wanted
            copy.asked = False
            yield from self._pull(worker, every, -1)

    def _follow(self, worker: int) -> Process:
        """Newer parameters whenever the slowest lane has finished a clock."""
        copy, every = self._copies[worker], list(range(len(self.shards)))
        while min(copy.minimum) < self.fit.clocks:
            yield from self._pull(worker, every, min(copy.minimum) + 1)

    def _drive(self) -> Process:
        """The driver hears what was done by all lanes together, and looks at the cluster from time to time."""
        driver, costs, heard, tended = self.cluster.driver, self.costs, 0, -TEND
        while heard < self.fit.replicas * self.fit.clocks:
            while not self._reports:
                yield self._reported
            yield from self._gather()
            reports, self._reports = self._reports, 0
            heard += reports
            yield from self.cluster.message(driver, self.ledger.node)
            yield from self.cluster.message(self.ledger.node, driver)
            yield from driver.cpu.work(
                costs.hear.get(self.fit.strategy, 0.0) + reports * costs.report.get(self.fit.strategy, 0.0)
            )
            if self.engine.now - tended >= TEND:
                tended = self.engine.now
                yield from driver.cpu.work(costs.tend)

    def _gather(self) -> Process:
        """Wait for more reports, until the slowest lane is further than when the driver last heard."""
        until = self.engine.now + GATHER
        self.engine.spawn(self._remind(until))
        while self.ledger.clock.minimum == self._heard_of and self.engine.now < until:
            yield self._reported
        self._heard_of = self.ledger.clock.minimum

    def _remind(self, until: float) -> Process:
        yield until
        self._reported.fire()

    def busy(self) -> dict[str, float]:
        """Seconds for which the busiest of each kind was busy."""
        cluster = self.cluster
        hosts = {id(s.node) for s in self.shards} | {id(s.second) for s in self.shards if s.second is not None}
        with_shard = [w for w in cluster.workers if id(w) in hosts]
        others = [w for w in cluster.workers if id(w) not in hosts and w is not self.ledger.node]
        found = {
            "driver": cluster.driver.cpu.busy,
            "ledger": self.ledger.busy,
            "shard's order": max(s.order.busy for s in self.shards),
            "shard CPU": max(w.cpu.busy for w in with_shard),
            "shard link": max(max(w.sends.busy, w.receives.busy) for w in with_shard),
        }
        if others:
            found["worker CPU"] = max(w.cpu.busy for w in others)
            found["worker link"] = max(max(w.sends.busy, w.receives.busy) for w in others)
        return found
