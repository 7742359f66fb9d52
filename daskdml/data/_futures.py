"""The futures of what recipes do not make by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dask._task_spec import GraphNode
from dask.typing import Key

from daskdml.data._graph import split, untokenized


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
        # What the cluster calls a key, where that differs.
        self._names: dict[Key, Key] = {}
        self._elsewhere = False

    def of(self, client: Any, keys: Sequence[Key]) -> tuple[Any, ...]:
        wanted = [k for k in keys if k not in self._kept]
        for key in wanted:
            if key in self._literal:
                # Names by content would cost a pass over the data.
                self._kept[key] = client.scatter(self._literal[key], hash=False)
            elif key not in self._graph and not self._elsewhere:
                from distributed import Future

                self._kept[key] = Future(key, client)
        if held := [k for k in wanted if k in self._held]:
            self._kept.update(self._submit(client, held))
        found = {k: self._kept[k] if k in self._kept else self._named(client, k) for k in keys if k not in self._graph}
        found |= {k: self._kept[k] for k in keys if k in self._kept}
        found |= self._submit(client, [k for k in wanted if k not in found])
        return tuple(found[k] for k in keys)

    def _named(self, client: Any, key: Key) -> Any:
        """The future of what the cluster holds already, in a process that did not put it there."""
        from distributed import Future

        name = self._names.get(key, key)
        future: Any = Future(name, client)
        # A future made by name hears of its result only once the scheduler knows who wants it.
        client._send_to_scheduler({"op": "client-desires-keys", "keys": [name], "client": client.id})
        return future

    def lost(self, client: Any, keys: Sequence[Key]) -> bool:
        """Whether no worker has any more what was put on the cluster for one of ``keys``."""
        ready = [k for k in keys if k not in self._graph]
        return bool(ready) and not all(client.who_has([self._named(client, k) for k in ready]).values())

    def forget_lost(self) -> None:
        """Let go of what the cluster has lost, to be sent or computed anew when it is next asked for."""
        self._kept = {k: f for k, f in self._kept.items() if f.status not in ("cancelled", "lost")}

    def travelling(self, client: Any) -> FutureInputs:
        """The same for a worker to ask by itself, with a client of its own, while this object is kept alive.

        What every block needs is sent or computed now; it does not travel.
        """
        self.of(client, [*self._literal, *self._held])
        carried = FutureInputs({k: n for k, n in self._graph.items() if k not in self._kept}, {}, set(), [])
        carried._elsewhere = True
        carried._names = {k: future.key for k, future in self._kept.items()}
        return carried

    def _submit(self, client: Any, keys: list[Key]) -> dict[Key, Any]:
        if not keys:
            return {}
        # Shared work keeps its keys, so the scheduler does it once for blocks submitted while it is in memory.
        inner = set(self._kept) - set(keys)
        order, _ = split(self._graph, keys, inner)
        futures = client.get(untokenized({k: self._graph[k] for k in order}), keys, sync=False)
        return dict(zip(keys, futures, strict=True))
