"""Machines that compute, and the messages between them."""

from __future__ import annotations

from benchmarks.scale.engine import Cores, Cpu, Engine, Line, Process
from benchmarks.scale.settings import Costs, Fit

# A message shorter than this is not counted on the link: its time is its latency.
_SHORT = 4096


class Node:
    """A process with its link."""

    def __init__(self, engine: Engine, cores: Cores | None):
        self.cpu = Cpu(engine, cores)
        self.sends = Line()
        self.receives = Line()
        # Of results that other workers fetch from here at this moment.
        self.serving = 0


class Cluster:
    """Workers, the scheduler and the driver. Where all are on one machine the last two are one process, as in Dask."""

    def __init__(self, engine: Engine, fit: Fit, costs: Costs):
        self.engine = engine
        self.costs = costs
        self.network = fit.network
        self.cores = None if fit.cores is None else Cores(fit.cores)
        self.workers = [Node(engine, self.cores) for _ in range(fit.workers)]
        self.scheduler = Node(engine, self.cores)
        self.driver = self.scheduler if self.cores is not None else Node(engine, None)

    def wire(self, source: Node, target: Node, size: float) -> Process:
        """From one node to the other: the receiver's link is taken while the sender's is, one latency later."""
        network, engine = self.network, self.engine
        if size < _SHORT or network.bandwidth == float("inf"):
            if network.latency:
                yield engine.now + network.latency
            return
        seconds = size / network.bandwidth
        yield source.sends.book(engine.now, seconds) - seconds + network.latency
        yield target.receives.book(engine.now, seconds)

    def depart(self, source: Node, size: float) -> Process:
        """A sender's half of the wire, where the receivers are many: until the last byte has left, and arrived."""
        if size >= _SHORT and self.network.bandwidth != float("inf"):
            yield source.sends.book(self.engine.now, size / self.network.bandwidth)
        if self.network.latency:
            yield self.engine.now + self.network.latency

    def come(self, target: Node, size: float) -> Process:
        """A receiver's half of it."""
        if size >= _SHORT and self.network.bandwidth != float("inf"):
            yield target.receives.book(self.engine.now, size / self.network.bandwidth)

    def message(self, source: Node, target: Node, size: float = 0.0) -> Process:
        """To or from an actor."""
        costs = self.costs
        if source is target:
            yield from source.cpu.work(costs.local / 2)
            return
        each = costs.message + costs.message_byte * size
        yield from source.cpu.work(each)
        yield from self.wire(source, target, size)
        if costs.message_pause:
            yield self.engine.now + costs.message_pause
        yield from target.cpu.work(each)

    def fetch(self, source: Node, target: Node, size: float) -> Process:
        """A task's result from the worker that has it."""
        each = self.costs.fetch + self.costs.fetch_byte * size
        yield from target.cpu.work(self.costs.fetch / 2)
        yield from self.wire(target, source, 0.0)
        yield from source.cpu.work(each)
        yield from self.wire(source, target, size)
        yield from target.cpu.work(each - self.costs.fetch / 2)
