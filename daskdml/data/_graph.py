"""Which part of a Dask graph makes which block, and what blocks share upstream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import dask
import numpy as np
from dask._task_spec import Alias, DataNode, GraphNode, Task, TaskRef, convert_legacy_graph
from dask.base import collections_to_expr
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from dask.typing import Key

from daskdml.data._parquet import read_by_rows
from daskdml.data._zarr import chunked, is_stored

# Blocks that share upstream work may still be made separately, where that repeats less than this much of it.
REPEAT_LIMIT = 1.3


def materialise(collections: Sequence[Any]) -> tuple[dict[Key, GraphNode], list[list[Key]]]:
    """One optimised low-level graph for all collections, and the keys of each one's chunks.

    Optimised together, so that X and y of one Parquet file read it once, and only the columns they need.
    Keys of persisted chunks are in nobody's graph: see :func:`split`.
    """
    graph: dict[Key, GraphNode] = {}
    keys: list[list[Key]] = [[] for _ in collections]
    # DataFrames (expressions) and arrays (layers) do not optimise together.
    for frames in (True, False):
        group = [i for i, c in enumerate(collections) if hasattr(c, "expr") is frames]
        if group:
            part, part_keys = _optimised([collections[i] for i in group])
            graph.update(part)
            for i, found in zip(group, part_keys, strict=True):
                keys[i] = found
    return graph, keys


def _optimised(collections: Sequence[Any]) -> tuple[dict[Key, GraphNode], list[list[Key]]]:
    # A peer-to-peer shuffle delivers its partitions once, to one run; tasks can be asked for again. Tuning
    # joins partitions of few columns, so X and y of one file would no longer have the same ones.
    with dask.config.set({"dataframe.shuffle.method": "tasks", "optimization.tune.active": False}):
        expr = collections_to_expr(list(collections)).optimize()
        raw = dict(expr.__dask_graph__())
    keys = [list(flatten([nested])) for nested in expr.__dask_keys__()]
    # A graph may hold the futures of persisted chunks as values: the caller's collection keeps those alive.
    graph = {k: v for k, v in raw.items() if not _is_future(v)}
    return convert_legacy_graph(graph), keys


def _is_future(value: Any) -> bool:
    return hasattr(value, "key") and hasattr(value, "client")


def untokenized(graph: dict[Key, GraphNode]) -> HighLevelGraph:
    """The graph in a form that is sent as it is: of a plain one Dask would first make a name from all it holds."""
    return HighLevelGraph({"daskdml": MaterializedLayer(graph)}, {"daskdml": set()})


# A task that only hands out so little data given in the graph costs nothing to repeat.
_SMALL_BYTES = 64 * 2**10


def is_work(node: GraphNode | None) -> bool:
    """Whether a node computes something: data and aliases do not, nor does a piece of a small given array."""
    if node is None or isinstance(node, (DataNode, Alias)):
        return False
    if node.dependencies:
        return True
    return not 0 < _given_bytes(node) <= _SMALL_BYTES


_HANDING_OUT = {"getitem", "getter", "getter_inline", "getter_nofancy", "_execute_subgraph", "asarray", "asanyarray"}


def _given_bytes(value: Any) -> float:
    """Bytes of the arrays a task, and those fused in it, hand out; infinite where one of them computes."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, DataNode):
        return _given_bytes(value.value)
    if isinstance(value, Task):
        if getattr(value.func, "__name__", "") not in _HANDING_OUT:
            return float("inf")
        return _given_bytes(value.args) + _given_bytes(value.kwargs)
    if isinstance(value, dict):
        return sum(map(_given_bytes, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(_given_bytes, value))
    return 0


def split(graph: dict[Key, GraphNode], outputs: Iterable[Key], boundary: set[Key]) -> tuple[list[Key], list[Key]]:
    """What must run for ``outputs``, in an order that runs depth first, and which keys must be given.

    Given are the keys in ``boundary`` and those the graph does not have (persisted chunks).
    """
    order: list[Key] = []
    given: list[Key] = []
    seen: set[Key] = set()
    for output in outputs:
        stack: list[tuple[Key, Iterator[Key] | None]] = [(output, None)]
        while stack:
            key, rest = stack.pop()
            if rest is None:
                if key in seen:
                    continue
                seen.add(key)
                if key in boundary or key not in graph:
                    given.append(key)
                    continue
                rest = iter(graph[key].dependencies)
            for dependency in rest:
                if dependency not in seen:
                    stack.append((key, rest))
                    stack.append((dependency, None))
                    break
            else:
                order.append(key)
    return order, given


def repeats(graph: dict[Key, GraphNode], blocks: Sequence[Sequence[Key]], boundary: set[Key]) -> bool:
    """Whether making each block by itself would repeat more upstream work than is worth it.

    Counted over all tasks and over those that start from nothing (reads), which are likely the costly ones.
    """
    union, _ = split(graph, (k for block in blocks for k in block), boundary)
    work: dict[Key, bool] = {}
    below: set[Key] = set()
    for key in union:
        fed = any(d in below or d in work for d in graph[key].dependencies)
        if is_work(graph[key]):
            work[key] = not fed
        elif fed:
            below.add(key)
    limits = [REPEAT_LIMIT * len(work), REPEAT_LIMIT * sum(work.values())]
    spent = [0, 0]
    for block in blocks:
        order, _ = split(graph, block, boundary)
        for key in order:
            if key in work:
                spent[0] += 1
                spent[1] += work[key]
        if spent[0] > limits[0] or spent[1] > limits[1]:
            return True
    return False


def reductions(graph: dict[Key, GraphNode], blocks: Sequence[Sequence[Key]]) -> set[Key]:
    """Keys of small results that every block needs, such as the mean in ``X - X.mean()``.

    Such a key is made from several sources and used directly by the own part of every block. Kept as
    futures, they make the blocks independent of each other.
    """
    if len(blocks) < 3:
        return set()
    owner = _owners(graph, blocks)
    users: dict[Key, set[int]] = {}
    for key, block in owner.items():
        if block >= 0 and key in graph:
            for dependency in graph[key].dependencies:
                if owner.get(dependency) == _SHARED and is_work(graph.get(dependency)):
                    users.setdefault(dependency, set()).add(block)
    wide = [k for k, using in users.items() if len(using) == len(blocks)]
    if len(wide) > 8 + len(blocks) // 10:
        return set()
    return {k for k in wide if _n_sources(graph, k) > 1}


_SHARED = -1


def _owners(graph: dict[Key, GraphNode], blocks: Sequence[Sequence[Key]]) -> dict[Key, int]:
    """The one block that uses each key, or -1; every key is visited at most twice."""
    owner: dict[Key, int] = {}
    for index, block in enumerate(blocks):
        stack = list(block)
        while stack:
            key = stack.pop()
            before = owner.get(key)
            if before == index or before == _SHARED:
                continue
            owner[key] = index if before is None else _SHARED
            if key in graph:
                stack.extend(graph[key].dependencies)
    # Below a shared key everything is shared: the walk above stops at a key its own block had seen.
    stack = [d for k, i in owner.items() if i == _SHARED and k in graph for d in graph[k].dependencies]
    while stack:
        key = stack.pop()
        if owner.get(key) != _SHARED:
            owner[key] = _SHARED
            if key in graph:
                stack.extend(graph[key].dependencies)
    return owner


def _n_sources(graph: dict[Key, GraphNode], key: Key) -> int:
    order, given = split(graph, [key], set())
    return len(given) + sum(1 for k in order if not graph[k].dependencies)


# Dask's functions that take a slice of an array, and nothing else of it.
_SLICING = {"getter", "getter_inline", "getter_nofancy"}


def _read_faster(node: GraphNode, values: dict[Key, Any]) -> dict[Key, Any]:
    """The values for a node; of stored arrays that it only takes slices of, what reads these faster."""
    stored = [key for key in node.dependencies if is_stored(values[key])]
    faster = {key: chunked(values[key]) for key in stored if _only_slices(node, key)}
    return values | faster if faster else values


def _only_slices(node: GraphNode, key: Key) -> bool:
    """Whether a node takes slices of the value of ``key``, and nothing else."""
    if not isinstance(node, Task):
        return False
    name = getattr(node.func, "__name__", "")
    if name in _SLICING or name != "_execute_subgraph":
        return name in _SLICING
    # Tasks that were fused into one, with a name of their own for what comes from outside.
    inner, _, names, *outside = node.args
    given = dict(zip(names, outside, strict=True))
    if any(isinstance(value, GraphNode) and key in value.dependencies for value in given.values()):
        # Within a list, say: what becomes of it there is not known.
        return False
    within = {n for n, ref in given.items() if isinstance(ref, TaskRef) and ref.key == key}
    return all(_only_slices(task, n) for task in inner.values() for n in within & task.dependencies)


def run(nodes: Mapping[Key, GraphNode], values: dict[Key, Any], outputs: Sequence[Key | None]) -> list[Any]:
    """Run nodes that are in order, from the ``values`` given; each is dropped after its last use. None gives None."""
    uses = Counter(key for key in outputs if key is not None)
    for node in nodes.values():
        uses.update(node.dependencies)
    for key, node in nodes.items():
        values[key] = read_by_rows(node)(_read_faster(node, values))
        for dependency in node.dependencies:
            uses[dependency] -= 1
            if not uses[dependency]:
                del values[dependency]
    return [None if key is None else values[key] for key in outputs]
