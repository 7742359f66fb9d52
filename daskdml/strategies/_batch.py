"""Many tasks in one message to the scheduler.

A message for each task costs the scheduler more than the task itself, and Dask sends a client's messages 10 ms apart:
of a round submitted task by task, all but the first would wait that long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dask._task_spec import Task, TaskRef
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from distributed import Client, Future


class Batch:
    """Tasks that are submitted together.

    Futures and the references that :meth:`add` returns are dependencies of a task where they are its arguments
    themselves; Dask looks for nothing within an argument.
    """

    def __init__(self, client: Client):
        self._client = client
        # By worker and urgency: where and how soon a task should run is said of a layer of a graph.
        self._layers: dict[tuple[str | None, bool], dict[str, Task]] = {}
        self._inputs: list[Future] = []

    def add(
        self, key: str, function: Callable[..., Any], *args: Any, worker: str | None = None, urgent: bool = False
    ) -> TaskRef:
        """Plan a task, best run on ``worker``; an ``urgent`` one goes before all others that are ready."""
        self._inputs += [a for a in args if isinstance(a, Future)]
        refs = (TaskRef(a.key) if isinstance(a, Future) else a for a in args)
        self._layers.setdefault((worker, urgent), {})[key] = Task(key, function, *refs)
        return TaskRef(key)

    def submit(self, wanted: list[TaskRef]) -> list[Future]:
        """Send them all; returns the futures of those that are ``wanted``, on which all others have to depend."""
        if not wanted:
            return []
        names = {place: f"layer-{n}" for n, place in enumerate(self._layers)}
        graph = HighLevelGraph(
            {
                names[place]: MaterializedLayer(tasks, annotations=_annotations(*place))
                for place, tasks in self._layers.items()
            },
            {name: set() for name in names.values()},
        )
        return self._client.get(graph, [ref.key for ref in wanted], sync=False)


def _annotations(worker: str | None, urgent: bool) -> dict[str, Any] | None:
    where = {"workers": [worker], "allow_other_workers": True} if worker else {}
    return where | ({"priority": 1} if urgent else {}) or None
