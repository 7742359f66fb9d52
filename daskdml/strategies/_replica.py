"""A replica on the parameter server: one long task that claims work, reads, trains and pushes, clock after clock."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from daskdml.data import Block
from daskdml.models import Layout, Model, Totals
from daskdml.monitor import ReplicaRound
from daskdml.server import (
    Directory,
    Own,
    Parameters,
    Partition,
    Read,
    Reading,
    Remote,
    Stop,
    Ticket,
    Traffic,
    Update,
    as_compression,
    flush,
    thinned,
    withdraw,
)
from daskdml.strategies._blocks import BlockReader
from daskdml.strategies._plan import Holdout, Order, Piece, Work, cut, mixed_shares, plan_replica, shares
from daskdml.strategies._speeds import weighted
from daskdml.strategies._ssp import Asynchronous
from daskdml.strategies._work import Blocks, Report, cached_bytes, worker_address

# Updates a runner has trained and not yet heard of; more would hide a server that cannot keep up.
_IN_FLIGHT = 2
# Reports a runner sends again where the ledger that had them is lost.
_REPORTED = 32
# Seconds a claim waits at the server for something to do.
_CLAIM_WAIT = 2.0


@dataclass(frozen=True)
class EpochPlan:
    """How an epoch is cut: ``clocks`` of them from ``first`` on.

    ``mixing``: into how many pieces each block is cut, of which all replicas get some; 0 where each has its own blocks.
    ``weights``: how large the replicas' shares are, relative to each other; none where they are equal.
    """

    epoch: int
    first: int
    clocks: int
    mixing: int
    weights: tuple[int, ...] = ()

    def to_payload(self) -> list[Any]:
        """For messages and checkpoints."""
        return [self.epoch, self.first, self.clocks, self.mixing, list(self.weights)]

    @classmethod
    def of(cls, payload: Sequence[Any]) -> EpochPlan:
        """What `to_payload` gave; of an earlier version, which had equal shares only."""
        epoch, first, clocks, mixing, *weights = payload
        return cls(epoch, first, clocks, mixing, tuple(weights[0]) if weights else ())

    def share(self, lane: int, n_replicas: int) -> float:
        """What part of the epoch's rows a replica has."""
        return self.weights[lane] / sum(self.weights) if self.weights else 1 / n_replicas


class ReplicaJob:
    """What every runner of a fit needs to know; opaque to Dask, which would take keys in it for dependencies."""

    def __init__(
        self,
        token: str,
        strategy: Asynchronous,
        model: Model,
        blocks: Blocks,
        inputs: Any,
        partition: Partition,
        generation: int,
        n_replicas: int,
        seed: int,
        shuffle: bool,
        holdout: Holdout | None,
    ):
        self.token = token
        self.strategy = strategy
        self.model = model
        self.blocks = blocks
        self.inputs = inputs
        self.partition = partition
        self.generation = generation
        self.n_replicas = n_replicas
        self.seed = seed
        self.shuffle = shuffle
        self.holdout = holdout

    def __dask_tokenize__(self) -> int:
        return id(self)


class Begin:
    """Where a runner begins: its number and lane, and who serves what; opaque to Dask."""

    def __init__(self, runner: int, lane: int, directory: Directory):
        self.runner = runner
        self.lane = lane
        self.directory = directory


@dataclass(frozen=True, eq=False)
class PartReport:
    """What training one ticket did."""

    report: Report
    statistics: np.ndarray | None = None
    read: Read | None = None


@dataclass
class _Process:
    """What the runners of one fit share in a process."""

    parameters: Parameters
    users: int = 0


_processes: dict[str, _Process] = {}
_processes_lock = threading.Lock()


@contextlib.contextmanager
def _parameters(job: ReplicaJob, start: Begin) -> Iterator[Parameters]:
    """The process's copy of the parameters, opened by its first runner and closed by the last."""
    key = f"{job.token}-{job.generation}-{worker_address()}"
    with _processes_lock:
        if key not in _processes:
            strategy = job.strategy
            _processes[key] = _Process(
                Parameters(
                    Remote.here(),
                    start.directory,
                    job.partition,
                    strategy.staleness,
                    strategy.eager,
                    not strategy.sends_gradients,
                    strategy.boost(job.n_replicas),
                    strategy.splits,
                )
            )
        shared = _processes[key]
        shared.users += 1
    try:
        yield shared.parameters
    finally:
        with _processes_lock:
            shared.users -= 1
            last = not shared.users
            if last:
                del _processes[key]
        if last:
            shared.parameters.close()


def run_replica(job: ReplicaJob, start: Begin) -> int:
    """Train until the ledger has nothing more; returns how many tickets were trained."""
    from distributed import secede

    # A long task would keep its thread from whatever else is submitted to this worker.
    secede()
    with _parameters(job, start) as parameters:
        runner = _Runner(job, start, parameters)
        try:
            trained = runner.run()
        finally:
            runner.close()
        runner.flush()
        return trained


class _Plans:
    """Which rows each ticket stands for: a function of the plan of its epoch, worked out when first asked for."""

    def __init__(self, job: ReplicaJob):
        self._job = job
        self._dealt: dict[tuple[int, tuple[int, ...]], list[list[Piece]]] = {}
        self._lanes: dict[tuple[int, int], list[Work]] = {}

    def work(self, ticket: Ticket, plan: EpochPlan) -> Work:
        job = self._job
        key = (ticket.epoch, ticket.lane)
        if key not in self._lanes:
            for old in [k for k in self._lanes if k[0] < ticket.epoch - 1]:
                del self._lanes[old]
            pieces = self._shares(plan.mixing, plan.weights)[ticket.lane]
            self._lanes[key] = plan_replica(
                pieces, ticket.lane, plan.clocks, ticket.epoch, job.seed, job.shuffle, job.holdout
            )
        work = self._lanes[key][ticket.clock - plan.first]
        if job.strategy.splits == 1 or not work.pieces:
            return work if ticket.part == 0 else replace(work, pieces=())
        return replace(work, pieces=tuple(cut(list(work.pieces), job.strategy.splits)[ticket.part]))

    def _shares(self, mixing: int, weights: tuple[int, ...]) -> list[list[Piece]]:
        job = self._job
        if (mixing, weights) not in self._dealt:
            n_blocks = len(job.blocks.recipes)
            if weights:
                dealt = [self._first_read(pieces, lane) for lane, pieces in enumerate(self._shares(mixing, ()))]
                self._dealt[mixing, weights] = weighted(dealt, weights)
            elif mixing:
                self._dealt[mixing, weights] = mixed_shares(n_blocks, job.n_replicas, mixing)
            else:
                self._dealt[mixing, weights] = shares(n_blocks, job.n_replicas, job.seed, job.shuffle)
        return self._dealt[mixing, weights]

    def _first_read(self, pieces: list[Piece], lane: int) -> list[Piece]:
        """A replica's pieces in the order of the first epoch: what was read first is what its cache keeps."""
        job = self._job
        (work,) = plan_replica(pieces, lane, 1, 1, job.seed, job.shuffle)
        return list(work.pieces)


@dataclass
class _Push:
    """An update on its way, and what to report once it is there."""

    sent: Any
    whole: dict[str, Update]
    updates: dict[str, Update]
    ticket: Ticket
    report: PartReport


@dataclass
class _Advice:
    """What the driver last said."""

    plans: dict[int, EpochPlan] = field(default_factory=dict)
    active: np.ndarray | None = None


class _Runner:
    """The life of a runner: claim, read, train, push."""

    def __init__(self, job: ReplicaJob, start: Begin, parameters: Parameters):
        self.job = job
        self.start = start
        self.parameters = parameters
        self.layout = Layout(job.model)
        batched = job.strategy.sends_gradients or job.model.batched
        self.reader = BlockReader(job.blocks, job.inputs, batched)
        self.plans = _Plans(job)
        self.own = Own(start.runner)
        self._largest = {f.name for f in self.layout.fields if f.largest}
        self.compression = as_compression(job.strategy.compression)
        self.residual: dict[str, np.ndarray] = {}
        self._residual_lock = threading.Lock()
        self.scale = job.strategy.scale_of(job.n_replicas)
        self.reads = 0
        # Waiting for updates to leave, since the last report.
        self._put_seconds = 0.0
        # What the ledger gave and has not been told of.
        self._holding: list[Ticket] = []
        self._holding_lock = threading.Lock()
        # The last reports, and which ledger they went to: the driver may not have fetched them when it is lost.
        self._reported: deque[tuple[Ticket, PartReport]] = deque(maxlen=_REPORTED)
        self._ledger_told = parameters.directory.ledger
        self._failure: BaseException | None = None
        self._outbox: queue.Queue[_Push | None] = queue.Queue(_IN_FLIGHT)
        self._sender = threading.Thread(target=self._send, name="daskdml-push", daemon=True)
        self._sender.start()

    def run(self) -> int:
        """Claim and train until told to stop."""
        trained = 0
        while True:
            asked, begin = time.perf_counter(), time.time()
            claimed, advice = self._claim()
            while claimed is None:
                claimed, advice = self._claim()
            if isinstance(claimed, Stop):
                return trained
            self._train(claimed, advice, time.perf_counter() - asked, begin)
            trained += 1

    def _claim(self) -> tuple[Ticket | Stop | None, _Advice]:
        self._check()
        with self._holding_lock:
            holding = list(self._holding)
        answer = self._ledger("claim", self.start.runner, self.start.lane, holding, _CLAIM_WAIT)
        if self.parameters.directory.ledger != self._ledger_told:
            self._ledger_told = self.parameters.directory.ledger
            for ticket, report in list(self._reported):
                self._ledger("done", self.start.runner, ticket, report)
        if isinstance(answer.ticket, Ticket):
            with self._holding_lock:
                self._holding.append(answer.ticket)
        plans = {plan.epoch: plan for plan in map(EpochPlan.of, answer.advice.get("plans", ()))}
        return answer.ticket, _Advice(plans, answer.advice.get("active"))

    def _train(self, ticket: Ticket, advice: _Advice, gate_seconds: float, begin: float) -> None:
        plan = advice.plans[ticket.epoch]
        work = self.plans.work(ticket, plan)
        if work.pieces:
            self.reader.ahead(work.pieces[0].block)
        started = time.perf_counter()
        reading = self.parameters.read(ticket.clock, self.own)
        synced = time.perf_counter()
        assert advice.active is not None
        whole, report, statistics = learn(
            self.job.model,
            self.layout,
            work,
            reading.values,
            advice.active,
            self.scale,
            self._visit,
            self.job.strategy,
        )
        updates = self._packed(whole)
        trained = time.perf_counter()
        # Remembered before it is sent, so that this runner's next read contains it.
        sent = self.parameters.note(self.own, ticket, updates)
        traffic = self.parameters.take_traffic()
        report = report + Report(
            **vars(self.reader.take_loaded()),
            gate_seconds=gate_seconds,
            sent_bytes=traffic.sent_bytes,
            received_bytes=traffic.received_bytes,
            retries=traffic.retries,
            reassigned=int(ticket.lane != self.start.lane),
            staleness=(max(ticket.clock - reading.minimum, 0),),
        )
        report = self._told_apart(ticket, report, begin, gate_seconds + trained - started, synced - started, traffic)
        share = plan.share(ticket.lane, self.job.n_replicas)
        report = replace(report, parts=tuple(replace(part, share=share) for part in report.parts))
        read = self._read_of(ticket, reading) if self.job.strategy.trace else None
        part = PartReport(report, statistics, read)
        self._put(_Push(sent, whole, updates, ticket, part))

    def _told_apart(
        self, ticket: Ticket, report: Report, begin: float, seconds: float, communicate: float, traffic: Traffic
    ) -> Report:
        """The report, which also says that it is this replica's, and where and when it worked."""
        put_seconds, self._put_seconds = self._put_seconds, 0.0
        memory, disk = cached_bytes(self.job.blocks)
        part = ReplicaRound(
            ticket.lane,
            0,
            ticket.epoch,
            worker_address(),
            begin - put_seconds,
            seconds + put_seconds,
            report.compute_seconds,
            report.load_seconds,
            report.wait_seconds,
            report.gate_seconds,
            communicate + put_seconds,
            0 if report.totals is None else report.totals.rows,
            report.bytes,
            report.sent_bytes,
            report.received_bytes,
            max(report.staleness),
            report.reassigned,
            cache_memory_bytes=memory,
            cache_disk_bytes=disk,
            gpu=int(self.job.blocks.on_gpu),
            shard_bytes=traffic.by_shard(self.job.partition.n_shards),
        )
        return replace(report, parts=(part,))

    def _read_of(self, ticket: Ticket, reading: Reading) -> Read:
        self.reads += 1
        return Read(
            self.job.generation,
            self.start.runner,
            ticket,
            reading.shards,
            reading.clocks,
            reading.replayed,
            self.reads,
            reading.boosted,
        )

    def _packed(self, updates: dict[str, Update]) -> dict[str, Update]:
        """Updates as they are sent: compressed, and where few entries are not 0, those only."""
        sent = updates
        if self.compression is not None:
            with self._residual_lock:
                sent, self.residual = self.compression.compress(updates, self.residual, self.job.partition.tables)
        if not self.job.strategy.ignores_zeros:
            return sent
        # A maximum is no change, and 0 may be one.
        return {n: u if u.keys is not None or n in self._largest else thinned(u.values) for n, u in sent.items()}

    def _withdraw(self, push: _Push, answers: list[Any]) -> None:
        """Another runner's update of a ticket counts in the place of this one, at some shards."""
        for shard, answer in enumerate(answers):
            if answer.status == "duplicate":
                with self._residual_lock:
                    withdraw(self.residual, push.whole, push.updates, self.job.partition, shard)

    def _visit(self, work: Work) -> Iterator[tuple[Block, Piece, Order]]:
        pieces = work.pieces
        for at, piece in enumerate(pieces):
            following = next((p.block for p in pieces[at + 1 :] if p.block != piece.block), None)
            block = self.reader.get(piece.block, following)
            if block.n_rows:
                yield block, piece, self.reader.rows(work, piece, block.n_rows)

    # -- sending --------------------------------------------------------------------------------------

    def _put(self, push: _Push) -> None:
        begin = time.perf_counter()
        while True:
            self._check()
            try:
                self._outbox.put(push, timeout=1.0)
                self._put_seconds = time.perf_counter() - begin
                return
            except queue.Full:
                continue

    def _send(self) -> None:
        while (push := self._outbox.get()) is not None:
            if self._failure is not None:
                continue
            try:
                answers = self.parameters.push(self.own, push.sent, self.job.generation)
                if self.compression is not None:
                    self._withdraw(push, answers)
                self._reported.append((push.ticket, push.report))
                self._ledger("done", self.start.runner, push.ticket, push.report)
                with self._holding_lock:
                    self._holding.remove(push.ticket)
            except BaseException as error:
                self._failure = error
                self.own.give_up()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _ledger(self, method: str, *args: Any) -> Any:
        return self.parameters.ask_ledger(method, *args)

    def close(self) -> None:
        """Bring what is trained to the server, and end the threads."""
        self._outbox.put(None)
        self._sender.join()
        self.reader.close()
        if self._failure is not None:
            raise self._failure

    def flush(self) -> None:
        """Send what compression has left over."""
        if self.residual:
            runner = self.start.runner
            rest = self.parameters.note(self.own, None, flush(self.residual), f"residual-{runner}")
            self.parameters.push(self.own, rest, self.job.generation)


def learn(
    model: Model,
    layout: Layout,
    work: Work,
    before: dict[str, np.ndarray],
    active: np.ndarray,
    scale: float,
    visit: Any,
    strategy: Asynchronous,
) -> tuple[dict[str, Update], Report, np.ndarray | None]:
    """What training on the rows of ``work`` from ``before`` changes, the losses on the way, validation statistics.

    Rows held out are judged with the parameters as they were read, so their score is that of the epoch's way, not
    of its end.
    """
    totals = Totals(0, np.zeros(model.n_problems), np.zeros(model.n_problems))
    state = layout.state({name: array.copy() for name, array in before.items()})
    gradient = model.zero_gradient(state) if strategy.sends_gradients else None
    found: list[np.ndarray] = []
    seconds = 0.0
    for block, piece, order in visit(work):
        start = time.perf_counter()
        if work.holdout is not None:
            held = np.flatnonzero(work.holdout.rows(piece.block, block.n_rows))
            held = held[int(piece.start * len(held)) : int(piece.stop * len(held))]
            if len(held):
                found.append(model.evaluate(layout.state(before), block, held))
        if gradient is None:
            totals = totals + model.train(state, block, order, active)
        else:
            model.add_gradient(state, block, order, active, gradient)
        seconds += time.perf_counter() - start
    if gradient is None:
        changes = layout.changes(before, model.settled(state), scale)
    else:
        totals = model.batch_totals(state, gradient)
        slopes = model.slopes(state, gradient) if totals.rows else {}
        changes = {f.name: _scaled(slopes[f.name], scale, f.dtype) for f in layout.fields if f.name in slopes}
    updates = {name: Update(change) for name, change in changes.items()}
    return updates, Report(totals, seconds), sum(found[1:], found[0]) if found else None


def _scaled(array: np.ndarray, scale: float, dtype: np.dtype) -> np.ndarray:
    return (array.reshape(-1) * scale).astype(dtype)
