"""The futures of what recipes do not make by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dask._task_spec import GraphNode
from dask.typing import Key

from daskdml.data._graph import split


class FutureInputs:
    """Gives the futures of keys: persisted chunks, literal data sent once, and results of shared work.

    Parameters
    ----------
    graph : dict
        The whole graph.
    literal : dict
        Large data in the graph, scattered when first asked for.
    held : set
        Small results that every block needs: computed once, kept as long as the data set.
    keep : list
        The user's collections, whose futures must stay alive.
    """

    def __init__(self, graph: dict[Key, GraphNode], literal: dict[Key, Any], held: set[Key], keep: list[Any]):
        self._graph = graph
        self._literal = literal
        self._held = held
        self._keep = keep
        self._kept: dict[Key, Any] = {}

    def of(self, client: Any, keys: Sequence[Key]) -> tuple[Any, ...]:
        wanted = [k for k in keys if k not in self._kept]
        for key in wanted:
            if key in self._literal:
                # Names by content would cost a pass over the data.
                self._kept[key] = client.scatter(self._literal[key], hash=False)
            elif key not in self._graph:
                from distributed import Future

                self._kept[key] = Future(key, client)
        if held := [k for k in wanted if k in self._held]:
            self._kept.update(self._submit(client, held))
        fresh = self._submit(client, [k for k in wanted if k not in self._kept])
        return tuple(self._kept[k] if k in self._kept else fresh[k] for k in keys)

    def _submit(self, client: Any, keys: list[Key]) -> dict[Key, Any]:
        if not keys:
            return {}
        # Shared work keeps its keys, so the scheduler does it once for blocks submitted while it is in memory.
        inner = set(self._kept) - set(keys)
        order, _ = split(self._graph, keys, inner)
        futures = client.get({k: self._graph[k] for k in order}, keys, sync=False)
        return dict(zip(keys, futures, strict=True))
