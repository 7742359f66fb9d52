"""The futures of what recipes do not make by themselves."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from dask._task_spec import GraphNode
from dask.sizeof import sizeof
from dask.typing import Key

from daskdml.data._graph import split, untokenized

# Literal data above this size go to the cluster in several messages.
_MESSAGE_BYTES = 2**26


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

    def ready(self, keys: Collection[Key]) -> bool:
        """Whether all of ``keys`` stay on the cluster once they are asked for: chunks that are held, literal data."""
        return all(k in self._literal or k in self._held or k not in self._graph for k in keys)

    def of(self, client: Any, keys: Sequence[Key]) -> tuple[Any, ...]:
        wanted = [k for k in keys if k not in self._kept]
        for some in _messages([k for k in dict.fromkeys(wanted) if k in self._literal], self._literal):
            # Names by content would cost a pass over the data.
            self._kept.update(zip(some, client.scatter([self._literal[k] for k in some], hash=False), strict=True))
        for key in wanted:
            if key not in self._literal and key not in self._graph and not self._elsewhere:
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


def _messages(keys: list[Key], values: dict[Key, Any]) -> Iterator[list[Key]]:
    """The keys of values that are sent together: each message is a copy of them."""
    some: list[Key] = []
    nbytes = 0
    for key in keys:
        size = sizeof(values[key])
        if some and nbytes + size > _MESSAGE_BYTES:
            yield some
            some, nbytes = [], 0
        some.append(key)
        nbytes += size
    if some:
        yield some
