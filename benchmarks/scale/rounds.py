"""BSP and averaging: rounds of Dask tasks, brought together by a tree."""

from __future__ import annotations

import random

import numpy as np

from benchmarks.scale.engine import Countdown, Engine, Process
from benchmarks.scale.nodes import Cluster, Node
from benchmarks.scale.settings import Costs, Fit

# As in daskdml and in Dask: replicas that meet in one task; how many agree each by itself, where twice the parameters
# of all are no more bytes than that; results a worker sends at once, and the seconds after which one that was refused
# asks again.
FAN_IN = 8
EACH_REPLICAS, EACH_BYTES = 4, 2**18
SERVED_AT_ONCE = 50
REFUSED_FOR = 0.15


class _Holders:
    """The workers that have the parameters of a round, and those that are about to."""

    def __init__(self, engine: Engine, first: Node):
        self.nodes = [first]
        self.coming = {first: Countdown(engine, 0)}


class Rounds:
    """A fit of a synchronous strategy, one process for each task of a round."""

    def __init__(self, engine: Engine, fit: Fit, costs: Costs):
        self.engine, self.fit, self.costs = engine, fit, costs
        self.cluster = Cluster(engine, fit, costs)
        self.starts = np.full((fit.replicas, fit.clocks), np.nan)
        self._factors = fit.pattern.factors(fit.workers, fit.clocks)
        self._random = random.Random(fit.seed)
        self._each = fit.replicas <= EACH_REPLICAS and 2 * fit.replicas * fit.bytes <= EACH_BYTES
        self._submitted = [Countdown(engine, 1) for _ in range(fit.clocks)]
        self._per_parameter = [d.get(fit.strategy, 0.0) for d in (costs.copy, costs.combine, costs.agree)]
        # Sums of gradients are kept in 8 bytes.
        self._partial_bytes = fit.parameters * (8 if fit.strategy == "BSP" else 4)
        engine.spawn(self._submit())
        engine.spawn(self._run_each() if self._each else self._run())

    @property
    def tasks(self) -> int:
        """Of a round: one a replica; unless each agrees by itself, the tree, the end of the round, and its report."""
        if self._each:
            return self.fit.replicas
        found, meeting = self.fit.replicas + 2, self.fit.replicas
        while meeting > 1:
            meeting = -(-meeting // FAN_IN)
            found += meeting
        return found

    def _submit(self) -> Process:
        """The driver sends all tasks of an epoch ahead."""
        for submitted in self._submitted:
            yield from self.cluster.driver.cpu.work(self.tasks * self.costs.submit)
            submitted.done()

    def _run(self) -> Process:
        holder = self.cluster.workers[0]
        for clock in range(self.fit.clocks):
            yield from self._submitted[clock].wait()
            holders = _Holders(self.engine, holder)
            parts = []
            for replica in range(self.fit.replicas):
                over = Countdown(self.engine, 1)
                node = self.cluster.workers[replica % self.fit.workers]
                parts.append((node, over))
                self.engine.spawn(self._work(replica, clock, node, holders, over))
            holder, over = self._tree(parts)
            yield from over.wait()
            yield from self._dask(holder, self.fit.parameters * self._per_parameter[2])
            self.engine.spawn(self._report(holder))

    def _run_each(self) -> Process:
        """Every replica agrees by itself, on what all brought to the round before, as its next one begins."""
        parts: list[tuple[Node, Countdown]] = []
        for clock in range(self.fit.clocks):
            yield from self._submitted[clock].wait()
            for _, over in parts:
                yield from over.wait()
            before, parts = parts, []
            for replica in range(self.fit.replicas):
                node, over = self.cluster.workers[replica % self.fit.workers], Countdown(self.engine, 1)
                parts.append((node, over))
                self.engine.spawn(self._go_on(replica, clock, node, before, over))
            self.engine.spawn(self._told(parts))

    def _go_on(
        self, replica: int, clock: int, node: Node, before: list[tuple[Node, Countdown]], over: Countdown
    ) -> Process:
        yield from self._dispatch()
        there = Countdown(self.engine, len(before))
        for source, _ in before:
            self.engine.spawn(self._bring(source, node, there))
        yield from there.wait()
        copy, combine, agree = self._per_parameter
        yield from self._train(replica, clock, node, copy + max(0, len(before) - 1) * combine + agree)
        yield from self._finish()
        over.done()

    def _told(self, parts: list[tuple[Node, Countdown]]) -> Process:
        """The driver takes what all brought to a round and agrees too, which nobody waits for."""
        for _, over in parts:
            yield from over.wait()
        there = Countdown(self.engine, len(parts))
        for source, _ in parts:
            self.engine.spawn(self._bring(source, self.cluster.driver, there))
        yield from there.wait()
        yield from self.cluster.driver.cpu.work(self.costs.report.get(self.fit.strategy, 0.0))

    def _dask(self, node: Node, seconds: float) -> Process:
        """A task that is all at one worker already."""
        yield from self._dispatch()
        yield from node.cpu.work(self.costs.execute + seconds)
        yield from self._finish()

    def _dispatch(self) -> Process:
        yield from self._schedule()
        yield self.engine.now + self.fit.network.latency + self.costs.task_pause / 2

    def _finish(self) -> Process:
        yield self.engine.now + self.fit.network.latency + self.costs.task_pause / 2
        yield from self._schedule()

    def _schedule(self) -> Process:
        """The scheduler's half of a task's start or end; of what waits there it does all at once."""
        cpu, seconds = self.cluster.scheduler.cpu, self.costs.schedule
        if cpu.is_busy and self.costs.schedule_busy is not None:
            seconds = min(seconds, self.costs.schedule_busy)
        yield from cpu.work(seconds / 2)

    def _work(self, replica: int, clock: int, node: Node, holders: _Holders, over: Countdown) -> Process:
        yield from self._dispatch()
        yield from self._parameters(node, holders)
        yield from self._train(replica, clock, node, self._per_parameter[0])
        yield from self._finish()
        over.done()

    def _train(self, replica: int, clock: int, node: Node, per_parameter: float) -> Process:
        fit, costs, engine = self.fit, self.costs, self.engine
        own = costs.own.get(fit.strategy, 0.0) + fit.parameters * per_parameter
        yield from node.cpu.work(costs.execute + own)
        self.starts[replica, clock] = engine.now
        machine = replica % fit.workers
        yield engine.now + fit.seconds * self._factors[machine, clock] + costs.own_pause.get(fit.strategy, 0.0)

    def _parameters(self, node: Node, holders: _Holders) -> Process:
        """What the last round agreed on, from who has it: at first one worker, later all that have fetched it."""
        if node in holders.coming:
            yield from holders.coming[node].wait()
            return
        there = holders.coming[node] = Countdown(self.engine, 1)
        source = holders.nodes[0]
        while source.serving >= SERVED_AT_ONCE:
            yield self.engine.now + REFUSED_FOR
            source = self._random.choice(holders.nodes)
        source.serving += 1
        yield from self.cluster.fetch(source, node, self.fit.bytes)
        source.serving -= 1
        holders.nodes.append(node)
        there.done()

    def _tree(self, parts: list[tuple[Node, Countdown]]) -> tuple[Node, Countdown]:
        while len(parts) > 1:
            above = []
            for at in range(0, len(parts), FAN_IN):
                group, over = parts[at : at + FAN_IN], Countdown(self.engine, 1)
                self.engine.spawn(self._combine(group, over))
                above.append((group[0][0], over))
            parts = above
        return parts[0]

    def _combine(self, group: list[tuple[Node, Countdown]], over: Countdown) -> Process:
        node = group[0][0]
        for _, part in group:
            yield from part.wait()
        yield from self._dispatch()
        there = Countdown(self.engine, len(group))
        for source, _ in group:
            self.engine.spawn(self._bring(source, node, there))
        yield from there.wait()
        meetings = (len(group) - 1) * self.fit.parameters
        yield from node.cpu.work(self.costs.execute + meetings * self._per_parameter[1])
        yield from self._finish()
        over.done()

    def _bring(self, source: Node, target: Node, there: Countdown) -> Process:
        if source is not target:
            yield from self.cluster.fetch(source, target, self._partial_bytes)
        there.done()

    def _report(self, holder: Node) -> Process:
        """The driver hears of the round, which nobody waits for."""
        yield from self._dask(holder, 0.0)
        yield from self.cluster.driver.cpu.work(self.costs.report.get(self.fit.strategy, 0.0))

    def busy(self) -> dict[str, float]:
        """Seconds for which the busiest of each kind was busy."""
        workers = self.cluster.workers
        return {
            "scheduler": self.cluster.scheduler.cpu.busy,
            "driver": self.cluster.driver.cpu.busy,
            "worker CPU": max(w.cpu.busy for w in workers),
            "worker link": max(max(w.sends.busy, w.receives.busy) for w in workers),
        }
