"""Several blocks in one task, one after another: where there are many, the scheduler's work for each is the larger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dask._task_spec import GraphNode, Task
from dask.typing import Key

from daskdml.data._graph import repeats, run, split


class Group:
    """Runs a part of a graph, depth first; returns its outputs merged.

    Opaque, so that Dask takes no key in it for a dependency.
    """

    def __init__(self, nodes: Mapping[Key, GraphNode], outputs: Sequence[Key], merge: Callable[[list[Any]], Any]):
        self.nodes = dict(nodes)
        self.outputs = tuple(outputs)
        self.merge = merge

    def __call__(self) -> Any:
        """Run it, one block at a time."""
        return self.merge(run(self.nodes, {}, self.outputs))


def grouped(
    graph: dict[Key, GraphNode], results: list[Key], size: int, merge: Callable[[list[Any]], Any] | None, name: str
) -> tuple[list[Key], dict[Key, GraphNode]]:
    """Up to ``size`` neighbouring results made and merged by one task, where each needs nothing of another group.

    Also one result alone: to read a chunk and to count what is in it are two tasks otherwise.

    Left as they are: results that are not merged, of chunks that exist already, and of blocks that share work.
    """
    size = max(size, 1)
    groups = [results[i : i + size] for i in range(0, len(results), size)]
    if merge is None or repeats(graph, groups, set()):
        return results, graph
    tasks: dict[Key, GraphNode] = {}
    for index, group in enumerate(groups):
        order, given = split(graph, group, set())
        if given:
            return results, graph
        key: Key = (f"{name}-group", index)
        tasks[key] = Task(key, Group({k: graph[k] for k in order}, group, merge))
    return list(tasks), tasks
