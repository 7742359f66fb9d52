"""What a replica does with its blocks: functions of their arguments alone, so a task may run twice."""

from __future__ import annotations

import operator
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from daskdml.data import Block, CacheSpec, DeviceSpec, HeldSpec, MemoryPlan, cache_usage, stream
from daskdml.models import Model, Totals
from daskdml.monitor import ReplicaRound
from daskdml.numerics import DeviceBlock, Sample, card
from daskdml.strategies._plan import Order, Piece, Work, part_of


class Late(NamedTuple):
    """Of a round that is told of together with others: when it was sent, and how many seconds it took."""

    asked: float
    seconds: float


@dataclass(frozen=True)
class Report:
    """What one replica, or all together, did in a round. Seconds and bytes add up over replicas.

    From ``gate_seconds`` to ``staleness`` with a parameter server only; ``staleness`` lists how many clocks behind each
    read was. ``parts`` tell of each replica by itself. ``late`` is of a whole round, and of no sum.
    """

    totals: Totals | None = None
    compute_seconds: float = 0.0
    load_seconds: float = 0.0
    wait_seconds: float = 0.0
    bytes: int = 0
    recipe: int = 0
    memory: int = 0
    disk: int = 0
    gate_seconds: float = 0.0
    sent_bytes: int = 0
    received_bytes: int = 0
    retries: int = 0
    reassigned: int = 0
    recoveries: int = 0
    staleness: tuple[int, ...] = ()
    # Blocks that lay on a GPU already.
    device: int = 0
    # Of making one of what all bring: by the task that does it, or by the driver.
    agree_seconds: float = 0.0
    parts: tuple[ReplicaRound, ...] = ()
    late: Late | None = None

    def __add__(self, other: Report) -> Report:
        sums = map(operator.add, _COUNTS(self), _COUNTS(other))
        if self.totals is None or other.totals is None:
            return Report(self.totals or other.totals, *sums)
        return Report(self.totals + other.totals, *sums)


_COUNTS = operator.attrgetter(*(f.name for f in fields(Report) if f.name not in ("totals", "late")))


@dataclass(frozen=True, eq=False)
class Blocks:
    """Where a replica finds its blocks: recipes by index, with the inputs they want and the cache."""

    recipes: Mapping[int, Any]
    inputs: Mapping[int, Any] = field(default_factory=dict)
    cache: CacheSpec | HeldSpec | None = None
    plan: MemoryPlan | None = None
    device: DeviceSpec | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether this process brings its blocks to a GPU."""
        return self.device is not None and card() is not None


@dataclass(frozen=True, eq=False)
class InMemory:
    """The one block of data in memory, made already; on a GPU where it is trained there."""

    block: Block | DeviceBlock

    @property
    def on_gpu(self) -> bool:
        """Whether the block lies on a GPU."""
        return isinstance(self.block, DeviceBlock)


def walk(blocks: Blocks | InMemory, pieces: tuple[Piece, ...], visit: Callable[[Any, Piece], None]) -> Report:
    """Call ``visit`` with every piece and its block, the next block being made meanwhile."""
    if isinstance(blocks, InMemory):
        start = time.perf_counter()
        for piece in pieces:
            visit(blocks.block, piece)
        report = Report(compute_seconds=time.perf_counter() - start, bytes=blocks.block.nbytes)
        return replace(report, device=len(pieces)) if blocks.on_gpu else replace(report, memory=len(pieces))
    counts = {"recipe": 0, "memory": 0, "disk": 0, "device": 0}
    load_seconds = wait_seconds = compute_seconds = 0.0
    nbytes = 0
    # A block that comes back is found in the cache; where there is none, its chunk is in memory and is kept.
    kept: dict[int, Any] | None = None if isinstance(blocks.cache, CacheSpec) and not blocks.inputs else {}
    uses, seen = Counter(piece.block for piece in pieces), set[int]()
    due = [p.block for p in pieces] if kept is None else list(uses)
    recipes = [blocks.recipes[b] for b in due]
    with stream(recipes, blocks.inputs, cache=blocks.cache, plan=blocks.plan, device=blocks.device) as walked:
        for piece in pieces:
            if kept is not None and piece.block in kept:
                block = kept[piece.block]
            else:
                block, load = next(walked)
                load_seconds += load.seconds
                wait_seconds += load.wait_seconds
                # What is still in memory when it comes back was not read again.
                if load.source not in ("memory", "device") or piece.block not in seen:
                    nbytes += load.nbytes
                    counts[load.source] += 1
                seen.add(piece.block)
            start = time.perf_counter()
            if block.n_rows:
                visit(block, piece)
            compute_seconds += time.perf_counter() - start
            uses[piece.block] -= 1
            if kept is not None:
                kept[piece.block] = block
                if not uses[piece.block]:
                    del kept[piece.block]
            # The name would keep the block alive while the next one is waited for.
            del block
    return Report(
        None,
        compute_seconds,
        load_seconds,
        wait_seconds,
        nbytes,
        recipe=counts["recipe"],
        memory=counts["memory"],
        disk=counts["disk"],
        device=counts["device"],
    )


class _Orders:
    """The rows of each piece; a block's permutation is kept for as long as pieces of it are to come."""

    def __init__(self, work: Work, batched: bool):
        self._work = work
        self._batched = batched
        self._single = len(work.pieces) == 1
        self._uses = Counter(() if self._single else (piece.block for piece in work.pieces))
        self._orders: dict[int, Order] = {}

    def of(self, piece: Piece, n_rows: int) -> Order:
        if self._single:
            return self._work.order(piece, n_rows, self._batched)
        order = self._orders.get(piece.block)
        if order is None:
            order = self._orders[piece.block] = self._work.block_order(piece.block, n_rows, self._batched)
        self._uses[piece.block] -= 1
        if not self._uses[piece.block]:
            del self._orders[piece.block]
        return part_of(order, piece)


def train_pieces(model: Model, state: Any, work: Work, active: np.ndarray, blocks: Blocks | InMemory) -> Report:
    """Learn from the rows of ``work``, changing ``state`` in place."""
    totals: list[Totals] = []
    orders = _Orders(work, model.batched)

    def visit(block: Any, piece: Piece) -> None:
        totals.append(model.train(state, block, orders.of(piece, block.n_rows), active))

    begin, report = time.time(), walk(blocks, work.pieces, visit)
    nothing = Totals(0, np.zeros(model.n_problems), np.zeros(model.n_problems)) if not totals else None
    together = nothing or reduce(operator.add, totals)
    return _told_apart(work, begin, together.rows, report, together, blocks)


def add_pieces(
    model: Model, state: Any, gradient: Any, work: Work, active: np.ndarray, blocks: Blocks | InMemory
) -> Report:
    """Add the gradient of the rows of ``work`` to ``gradient``."""

    def add(block: Any, piece: Piece, order: Any) -> None:
        model.add_gradient(state, block, order, active, gradient)

    return _added(add, work, blocks)


def sum_pieces(
    model: Model,
    state: Any,
    sums: Any,
    work: Work,
    active: np.ndarray,
    blocks: Blocks | InMemory,
    sample: Sample | None = None,
) -> Report:
    """Add the rows of ``work`` to ``sums``, which are of value and gradient and what else they were made for."""

    def add(block: Any, piece: Piece, order: Any) -> None:
        model.add_sums(state, block, order, active, sums, None if sample is None else sample.of_block(piece.block))

    return _added(add, work, blocks)


def _added(add: Callable[[Any, Piece, Any], None], work: Work, blocks: Blocks | InMemory) -> Report:
    orders = _Orders(work, batched=True)
    rows = 0

    def visit(block: Any, piece: Piece) -> None:
        nonlocal rows
        order = orders.of(piece, block.n_rows)
        rows += len(order)
        add(block, piece, order)

    begin, report = time.time(), walk(blocks, work.pieces, visit)
    return _told_apart(work, begin, rows, report, None, blocks)


def _told_apart(
    work: Work, begin: float, rows: int, report: Report, totals: Totals | None, blocks: Blocks | InMemory
) -> Report:
    """The report of a replica, which also says that it is this replica's, and where and when it worked."""
    part = ReplicaRound(
        work.replica,
        0,
        work.epoch,
        None,
        begin,
        time.time() - begin,
        report.compute_seconds,
        report.load_seconds,
        report.wait_seconds,
        rows=rows,
        bytes=report.bytes,
        gpu=int(blocks.on_gpu),
    )
    if isinstance(blocks, Blocks):
        memory, disk = cached_bytes(blocks)
        part = replace(part, worker=worker_address(), cache_memory_bytes=memory, cache_disk_bytes=disk)
    return replace(report, totals=totals, parts=(part,))


def cached_bytes(blocks: Blocks) -> tuple[int, int]:
    """What the block cache of this process holds, in memory and in files."""
    if not isinstance(blocks.cache, CacheSpec):
        return 0, 0
    usage = cache_usage(blocks.cache.token)
    return usage["memory_bytes"], usage["disk_bytes"]


def nobody_told(what: str) -> None:
    """A runner's ``on_loss`` until somebody listens."""


def worker_address() -> str | None:
    """The address of the worker this runs in; None outside of one."""
    from distributed import get_worker

    try:
        return str(get_worker().address)
    except ValueError:
        return None


def evaluate_pieces(model: Model, state: Any, work: Work, blocks: Blocks | InMemory) -> np.ndarray | None:
    """Summed validation statistics over the held-out rows of ``work``; None where there are none."""
    found: list[np.ndarray] = []

    def visit(block: Any, piece: Piece) -> None:
        assert work.holdout is not None
        held = np.flatnonzero(work.holdout.rows(piece.block, block.n_rows))
        held = held[int(piece.start * len(held)) : int(piece.stop * len(held))]
        if len(held):
            found.append(model.evaluate(state, block, held))

    walk(blocks, work.pieces, visit)
    return sum(found[1:], found[0]) if found else None
