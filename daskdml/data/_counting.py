"""Small results from every block, computed on Dask: a function of a block's chunks, then a merge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dask
from dask._task_spec import DataNode, GraphNode, List, Task, TaskRef
from dask.base import get_scheduler, tokenize
from dask.typing import Key
from distributed import KilledWorker

from daskdml.data._checks import place
from daskdml.data._graph import materialise, untokenized
from daskdml.data._group import Group, grouped
from daskdml.data._waiting import block_bytes_for, explained, results_of

# Results of so many blocks are merged by one task.
_FAN_IN = 16
# Blocks are taken together as far as each thread has so many groups of them: the last ones to end keep few waiting.
_GROUPS = 4


def per_block(
    parts: Sequence[Any],
    function: Callable[..., Any],
    client: Any,
    merge: Callable[[list[Any]], Any] | None = None,
    name: str = "X",
) -> list[Any]:
    """``function`` of the matching chunks of all parts, for each block; one value if they are merged.

    Computed on the cluster, except of chunks that are in this process's memory.

    Parameters
    ----------
    parts : sequence
        Aligned: dask collections, lists of in-memory pieces, or None.
    function : callable
        Takes a chunk of each part, or None for a part that is None; then how errors name the block.
    client : distributed.Client or None
        None for Dask's current scheduler.
    merge : callable, optional
        Of a list of results, again a result.
    name : str, default "X"
        What the first part is, for errors.

    Raises
    ------
    RuntimeError
        For a block that ends every worker that reads it, naming the block; for a cluster that does not go on.
    """
    lazy = [p for p in parts if p is not None and not isinstance(p, list)]
    graph, found = materialise(lazy)
    here = all(isinstance(graph.get(key), DataNode) for keys in found for key in keys)
    chunks = iter(found)
    keys = [p if p is None or isinstance(p, list) else next(chunks) for p in parts]
    task = f"daskdml-{function.__name__.strip('_')}-{tokenize(found)}"
    blocks = len(found[0])
    results: list[Key] = []
    for i in range(blocks):
        chunk = (_argument(p, k, i) for p, k in zip(parts, keys, strict=True))
        node = Task((task, i), function, *chunk, DataNode(None, place(i, blocks)))
        graph[node.key] = node
        results.append(node.key)
    threads = 1 if client is None else sum(client.nthreads().values())
    together = min(_FAN_IN, blocks // (_GROUPS * max(1, threads)))
    # A chunk that is in this process is not read: counting it is one task anyway.
    if together > 1 or not here:
        results, graph = grouped(graph, results, together, merge, task)
    level = 0
    while merge is not None and (len(results) > 1 or not level):
        level += 1
        results = [
            _merged(graph, (f"{task}-merge{level}", i), merge, results[i : i + _FAN_IN])
            for i in range(0, len(results), _FAN_IN)
        ]
    if here:
        # Chunks that are in this process: counting them takes less time than sending them.
        return list(dask.threaded.get(graph, results))
    if client is None:
        return list((get_scheduler() or dask.threaded.get)(graph, results))
    try:
        return results_of(client, client.get(untokenized(graph), results, sync=False))
    except KilledWorker as error:
        what = _blocks_of(graph, [(task, i) for i in range(blocks)], error.task)
        # Dask counts a death against all tasks that the worker had.
        what = what and f"{what} of {name}, or another that was on the same worker"
        raise explained(error, what, block_bytes_for(client)) from None


def _argument(part: Any, keys: Any, index: int) -> Any:
    if part is None:
        return DataNode(None, None)
    return DataNode(None, part[index]) if isinstance(part, list) else TaskRef(keys[index])


def _merged(graph: dict[Key, GraphNode], key: Key, merge: Callable[[list[Any]], Any], results: list[Key]) -> Key:
    graph[key] = Task(key, merge, List(*(TaskRef(k) for k in results)))
    return key


def _blocks_of(graph: dict[Key, GraphNode], keys: list[Key], task: Key) -> str | None:
    """Which block a task belongs to, in words: the only one of ``keys`` that needs it, or those that it runs."""
    node = graph.get(task)
    if isinstance(node, Task) and isinstance(node.func, Group):
        indices = [keys.index(key) for key in node.func.outputs]
        return f"block {indices[0]}" if len(indices) == 1 else f"one of the blocks {indices[0]} to {indices[-1]}"
    found = []
    for index, key in enumerate(keys):
        needed, todo = {key}, [key]
        while todo:
            node = graph.get(todo.pop())
            new = set(() if node is None else node.dependencies) - needed
            needed |= new
            todo.extend(new)
        if task in needed:
            found.append(index)
    return f"block {found[0]}" if len(found) == 1 else None
