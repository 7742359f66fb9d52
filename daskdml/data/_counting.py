"""Small results from every block, computed on Dask: a function of a block's chunks, then a merge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dask
from dask._task_spec import DataNode, GraphNode, List, Task, TaskRef
from dask.base import get_scheduler, tokenize
from dask.typing import Key

from daskdml.data._graph import materialise

# Results of so many blocks are merged by one task.
_FAN_IN = 16


def per_block(
    parts: Sequence[Any], function: Callable[..., Any], client: Any, merge: Callable[[list[Any]], Any] | None = None
) -> list[Any]:
    """``function`` of the matching chunks of all parts, for each block; one value if they are merged.

    Parameters
    ----------
    parts : sequence
        Aligned: dask collections, lists of in-memory pieces, or None.
    function : callable
        Takes a chunk of each part, or None for a part that is None.
    client : distributed.Client or None
        None for Dask's current scheduler.
    merge : callable, optional
        Of a list of results, again a result.
    """
    lazy = [p for p in parts if p is not None and not isinstance(p, list)]
    graph, found = materialise(lazy)
    chunks = iter(found)
    keys = [p if p is None or isinstance(p, list) else next(chunks) for p in parts]
    name = f"daskdml-{function.__name__.strip('_')}-{tokenize(found)}"
    results: list[Key] = []
    for i in range(len(found[0])):
        node = Task((name, i), function, *(_argument(p, k, i) for p, k in zip(parts, keys, strict=True)))
        graph[node.key] = node
        results.append(node.key)
    level = 0
    while merge is not None and (len(results) > 1 or not level):
        level += 1
        results = [
            _merged(graph, (f"{name}-merge{level}", i), merge, results[i : i + _FAN_IN])
            for i in range(0, len(results), _FAN_IN)
        ]
    return _run(graph, results, client)


def _argument(part: Any, keys: Any, index: int) -> Any:
    if part is None:
        return DataNode(None, None)
    return DataNode(None, part[index]) if isinstance(part, list) else TaskRef(keys[index])


def _merged(graph: dict[Key, GraphNode], key: Key, merge: Callable[[list[Any]], Any], results: list[Key]) -> Key:
    graph[key] = Task(key, merge, List(*(TaskRef(k) for k in results)))
    return key


def _run(graph: dict[Key, GraphNode], keys: list[Key], client: Any) -> list[Any]:
    get = client.get if client is not None else get_scheduler() or dask.threaded.get
    return list(get(graph, keys))
