"""What a fit may take of the workers' memory, decided before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dask.utils import format_bytes, parse_bytes

from daskdml.cluster import worker_info
from daskdml.data._block import Block, Schema

# Dask begins to spill at 60 % of the limit and pauses at 80 %: what is planned stays below both.
_USABLE = 0.5
_PAUSE = 0.8
# A process with NumPy, pandas, pyarrow and numba loaded, where nobody measured it.
_BASELINE = 300 * 2**20
# Blocks alive in a replica: the one trained on and the one being made, which for a while exists raw and decoded.
_BLOCKS = 3


@dataclass(frozen=True)
class MemoryPlan:
    """The declared memory of a fit on each worker process.

    Attributes
    ----------
    cache_bytes : int
        Budget of the block cache, in memory; the same for every worker: that of the smallest.
    max_block_bytes : int or None
        The largest block that fits; None where the workers have no limit.
    need_bytes : int or None
        What blocks in flight and models take, without the cache; None where the block size is unknown.
    limit_bytes : int or None
        Memory limit of the smallest worker.
    row_bytes : int
        Bytes of a dense row.
    has_beside : bool
        Whether the smallest worker has room for what was wanted beside blocks, models and cache.
    """

    cache_bytes: int
    max_block_bytes: int | None
    need_bytes: int | None
    limit_bytes: int | None
    row_bytes: int
    has_beside: bool = True

    def check(self, block: Block) -> None:
        """Raise ValueError where a block, now that its size is known, is larger than planned for."""
        if self.max_block_bytes is not None and block.nbytes > self.max_block_bytes:
            row = max(1, block.nbytes // max(block.n_rows, 1))
            raise _too_large(block.index, _BLOCKS * block.nbytes, self.limit_bytes or 0, self.max_block_bytes // row)


def _too_large(index: int, need: int, limit: int, rows: int, why: str = "", name: str = "X") -> ValueError:
    remedy = f"rechunk {name} to at most {rows} rows a block" if rows > 0 else "a single row does not fit"
    if need < limit:
        remedy += ", or use larger workers: the process itself, the model and the cache take the rest of the memory"
    which = f"block {index}" if name == "X" else f"block {index} of {name}"
    return ValueError(f"{which} needs {format_bytes(need)} but a worker has {format_bytes(limit)}; {why}{remedy}")


def plan_memory(
    schema: Schema,
    max_block_rows: int | None,
    model_bytes: int,
    worker_limits: Mapping[str, int | None] | list[int | None],
    baseline: Mapping[str, int] | list[int] | int | None = None,
    *,
    threads: Mapping[str, int] | list[int] | int = 1,
    budget: int | str | None = None,
    largest: int = 0,
    beside: int = 0,
) -> MemoryPlan:
    """Divide the workers' memory between blocks in flight, the model, and the cache.

    Parameters
    ----------
    schema : Schema
    max_block_rows : int or None
        Rows of the largest block; None where unknown: then each block is checked as it is made.
    model_bytes : int
        Of one replica's model, with its optimizer's state.
    worker_limits : mapping or list of int or None
        Memory limit of each worker process; None or 0 for none.
    baseline : mapping, list or int, optional
        Bytes each process has before the fit; 300 MiB where not given.
    threads : mapping, list or int, default 1
        Replicas that run in a process at once.
    budget : int or str, optional
        Bytes for the cache in each process, as ``"200MB"``; by default what is left under half of the worker's
        limit.
    largest : int, default 0
        Index of the largest block, for the error.
    beside : int, default 0
        Bytes that a fit wants in each process beside blocks and models. It does without where there is no room for
        them; where there is, the cache has as many less, unless its budget is given.

    Raises
    ------
    ValueError
        If a block does not fit in the smallest worker, or the budget does not.

    Examples
    --------
    >>> import numpy as np
    >>> plan = plan_memory(Schema(100, np.dtype("f4")), 10_000, 800, [700 * 2**20], 250 * 2**20)
    >>> plan.cache_bytes // 2**20, plan.max_block_bytes // 2**20
    (88, 103)
    """
    row = row_bytes(schema)
    need = None if max_block_rows is None or schema.sparse else _BLOCKS * max_block_rows * row
    plans = [
        _plan_one(limit or None, base, k, row, need, model_bytes, budget, largest, beside)
        for limit, base, k in _per_worker(worker_limits, baseline, threads)
    ]
    smallest = min(plans, key=lambda p: (p.cache_bytes, p.max_block_bytes or 0))
    return replace(smallest, has_beside=all(plan.has_beside for plan in plans))


def _plan_one(
    limit: int | None,
    baseline: int,
    threads: int,
    row: int,
    need: int | None,
    model: int,
    budget: int | str | None,
    index: int,
    beside: int,
) -> MemoryPlan:
    asked = budget_bytes(budget)
    inflight = threads * ((need or 0) + 2 * model)
    if limit is None:
        return MemoryPlan(_unlimited() if asked is None else asked, None, None if need is None else inflight, None, row)
    # Blocks may take what is left under Dask's pause threshold; the cache only what keeps clear of spilling.
    free = int(_PAUSE * limit) - baseline - 2 * threads * model
    room = free // (threads * _BLOCKS)
    if need is not None and need // _BLOCKS > room:
        raise _too_large(index, need * threads, limit, room // row)
    if room <= 0:
        raise ValueError(
            f"a worker has {format_bytes(limit)} but its process takes {format_bytes(baseline)} and {threads} models "
            f"{format_bytes(2 * threads * model)}: give workers more memory, or fewer threads"
        )
    if asked:
        spare = max(0, free - threads * (_BLOCKS * row if need is None else need))
        if asked > spare:
            raise ValueError(
                f"memory_budget={budget!r} is more than a worker can give to the block cache: of its limit of "
                f"{format_bytes(limit)}, {format_bytes(spare)} are left beside the process, the blocks in flight and "
                f"the models; give a memory_budget of at most {spare} bytes, or workers more memory"
            )
        room = (free - asked) // (threads * _BLOCKS)
    left = int(_USABLE * limit) - baseline - inflight
    if need is None:
        # Blocks of unknown size must find room too.
        left //= 2
    has_beside = left >= beside + (asked or 0)
    cache = asked if asked is not None else max(0, left - beside if has_beside else left)
    return MemoryPlan(cache, room, None if need is None else inflight, limit, row, has_beside)


def likely_block_bytes(limit: int, threads: int) -> int:
    """About how large a block a worker has room for, where its process has not been measured."""
    return max(0, int(_PAUSE * limit) - _BASELINE) // (max(1, threads) * _BLOCKS)


def check_column(name: str, lengths: tuple[int, ...] | None, itemsize: int, plan: MemoryPlan) -> None:
    """Raise where a chunk of y or of the weights, which is read in the chunks it has, is larger than a block may be."""
    if lengths is None or plan.max_block_bytes is None:
        return
    rows = max(lengths, default=0)
    if rows * itemsize > plan.max_block_bytes:
        fits = plan.max_block_bytes // itemsize
        raise _too_large(lengths.index(rows), _BLOCKS * rows * itemsize, plan.limit_bytes or 0, fits, name=name)


def check_merge(lengths: tuple[int, ...] | None, schema: Schema, client: Any) -> None:
    """Raise where joining the column chunks of a block of X takes more than the smallest worker has.

    With unknown lengths the block is checked when it is made.
    """
    if lengths is None or schema.sparse:
        return
    if client is None:
        limits = [_available()]
    else:
        limits = [w["memory_limit"] for w in worker_info(client).values()]
    limit = min((n for n in limits if n), default=None)
    rows = max(lengths)
    # The pieces and the block they make exist at once.
    row = 2 * schema.n_features * schema.dtype.itemsize
    if limit is not None and rows * row > _PAUSE * limit:
        raise _too_large(
            lengths.index(rows),
            rows * row,
            limit,
            int(_PAUSE * limit) // row,
            f"joining its column chunks: X is divided along its {schema.n_features} columns; ",
        )


def row_bytes(schema: Schema) -> int:
    """Bytes of a row with its label and weight; of a sparse one the least.

    Examples
    --------
    >>> import numpy as np
    >>> row_bytes(Schema(100, np.dtype("f4")))
    408
    """
    # Sparse rows are not known before they are read: at least the label, the weight and the index pointer.
    width = 0 if schema.sparse else schema.n_features
    return (width + 2) * schema.dtype.itemsize + (4 if schema.sparse else 0)


def _unlimited() -> int:
    """A quarter of what this machine has free, where a worker has no limit of its own."""
    return _available() // 4


def _available() -> int:
    import psutil

    return int(psutil.virtual_memory().available)


def budget_bytes(budget: int | str | None, name: str = "memory_budget") -> int | None:
    """A budget in bytes; None for None.

    Raises
    ------
    ValueError
        For what is no number of bytes, naming the parameter.
    """
    if budget is None:
        return None
    try:
        nbytes = int(parse_bytes(budget))
    except ValueError as error:
        raise ValueError(f"{name} must be a number of bytes, or text such as '200MB', got {budget!r}") from error
    if nbytes < 0:
        raise ValueError(f"{name} must not be negative, got {budget!r}")
    return nbytes


def _per_worker(limits: Any, baseline: Any, threads: Any) -> list[tuple[int | None, int, int]]:
    names = list(limits) if isinstance(limits, Mapping) else list(range(len(limits)))
    if not names:
        raise ValueError("the cluster has no workers: start some, or scale it up, and call fit again")

    def of(values: Any, name: Any, default: int) -> int:
        if values is None:
            return default
        return int(values if isinstance(values, int) else values[name])

    return [(limits[n], of(baseline, n, _BASELINE), max(1, of(threads, n, 1))) for n in names]


@dataclass(frozen=True)
class WorkerMemory:
    """Limits, sizes before the fit and threads of the workers, by address."""

    limits: dict[str, int | None]
    baselines: dict[str, int]
    threads: dict[str, int]


def worker_memory(client: Any) -> WorkerMemory:
    """Ask a cluster's workers for what :func:`plan_memory` wants to know.

    Workers that live in one process share its memory: the process's size is divided among them.
    """
    info = worker_info(client)
    sizes = client.run(_process)
    sharing: dict[tuple[str, int], int] = {}
    for host, pid, _ in sizes.values():
        sharing[host, pid] = sharing.get((host, pid), 0) + 1
    return WorkerMemory(
        {a: (w["memory_limit"] or None) for a, w in info.items()},
        {a: size // sharing[host, pid] for a, (host, pid, size) in sizes.items()},
        {a: int(w["nthreads"]) for a, w in info.items()},
    )


def _process() -> tuple[str, int, int]:
    import os
    import socket

    import psutil

    return socket.gethostname(), os.getpid(), int(psutil.Process().memory_info().rss)
