"""What tasks, results and messages cost on this machine: CPU time, so that what else it does counts little."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from distributed import Client, wait

from benchmarks.scale.settings import Costs
from daskdml.server import Group, Ledger, Push, Remote, Shard, Table, Ticket, Update, VectorClock

_SMALL, _LARGE = 1_000, 1_000_000
_STEP = 0.01


@dataclass(frozen=True)
class _Spent:
    """Seconds of CPU: of each worker, of the scheduler's event loop, of this thread; and of the clock."""

    workers: dict[str, float]
    loop: float
    here: float
    wall: float

    def __sub__(self, before: _Spent) -> _Spent:
        workers = {a: s - before.workers[a] for a, s in self.workers.items()}
        return _Spent(workers, self.loop - before.loop, self.here - before.here, self.wall - before.wall)


def _spent(client: Client) -> _Spent:
    """Driver and scheduler share an event loop in a cluster on one machine: what it takes is the scheduler's here."""
    workers = client.run(time.process_time)
    loop = client.run_on_scheduler(time.thread_time)
    return _Spent(workers, loop, time.thread_time(), time.perf_counter())


def _during(client: Client, what: Callable[[], Any]) -> _Spent:
    before = _spent(client)
    what()
    return _spent(client) - before


def _chained(before: Any) -> float:
    # The first waits until all have been submitted. The others take long enough for Dask not to gather messages, which
    # it does for 2 ms: tasks that train do so too.
    time.sleep(1.0 if before is None else _STEP)
    return time.time()


def _at_once(_: int) -> None:
    return None


def tasks(client: Client, n: int) -> dict[str, float]:
    """A chain of tasks on one worker."""
    address = min(client.nthreads())
    submitting: list[float] = []
    found: list[Any] = []

    def chain() -> None:
        start, future = time.thread_time(), None
        futures = []
        for _ in range(n):
            future = client.submit(_chained, future, workers=[address], pure=False)
            futures.append(future)
        submitting.append(time.thread_time() - start)
        wait(futures)
        found.extend(client.gather([futures[0], futures[-1]]))

    chain()
    found.clear()
    spent = _during(client, chain)
    submit, schedule, execute = submitting[-1] / n, spent.loop / n, spent.workers[address] / n
    step = (found[1] - found[0]) / (n - 1)
    return {
        "submit": submit,
        "schedule": schedule,
        "execute": execute,
        "task_pause": max(0.0, step - _STEP - schedule - execute),
    }


def at_once(client: Client, n: int) -> dict[str, float]:
    """Of one of many tasks that are ready together: messages bring several, so each costs less than in a chain."""
    each = {"schedule": 0.0, "execute": 0.0}

    def wide() -> None:
        wait([client.submit(_at_once, i, pure=False) for i in range(n)])

    spent = _during(client, wide)
    each["schedule"], each["execute"] = spent.loop / n, sum(spent.workers.values()) / n
    return each


def fetches(client: Client, n: int, execute: float) -> dict[str, float]:
    """Results of one worker that a task on another wants."""
    source, target = sorted(client.nthreads())[:2]
    each: list[float] = []
    for size in (_SMALL, 2 * _LARGE):
        made = [client.submit(np.zeros, size, "f4", workers=[source], pure=False) for _ in range(n)]
        wait(made)

        def bring(made: list[Any] = made) -> None:
            for future in made:
                # Its own result stays where it is.
                wait([client.submit(len, future, workers=[target], pure=False)])

        spent = _during(client, bring)
        each.append(max(0.0, (spent.workers[source] + spent.workers[target]) / n - execute) / 2)
        client.cancel(made)
    byte = max(0.0, (each[1] - each[0]) / (8 * _LARGE))
    return {"fetch": max(0.0, each[0] - byte * 4 * _SMALL), "fetch_byte": byte}


def _exchange(directory: Any, size: int, n: int, method: str) -> float:
    """In a task: calls of a shard, and the seconds they took."""
    remote, values = Remote.here(), np.zeros(size, "f4")
    ref = directory.primaries[0]
    asked = time.perf_counter()
    for clock in range(n):
        argument = None if method == "pull" else Push(0, 0, Ticket(1, clock, 0), {"w": Update(values)})
        remote.call(ref, method, argument)
    return time.perf_counter() - asked


def _calls(client: Client, size: int, n: int, method: str, here: bool) -> tuple[float, float]:
    """CPU of both ends and seconds, of a call from the shard's own worker or from another."""
    table = Table("w", size, "float32")
    shard = Shard(0, {"w": np.zeros(size, "f4")}, (table,), VectorClock([0]), staleness=None)
    group = Group(client, backups=0)
    try:
        directory = group.start([shard], Ledger(1, 1, None))
        home = directory.primaries[0].address
        other = next(a for a in client.nthreads() if a != home)
        submit = partial(client.submit, _exchange, directory, size, workers=[home if here else other], pure=False)
        submit(2, "pull").result()
        seconds: list[float] = []
        spent = _during(client, lambda: seconds.append(submit(n, method).result()))
    finally:
        group.close()
    return sum(spent.workers[a] for a in {home, other}) / n, seconds[0] / n


def messages(client: Client, n: int, execute: float, apply: float, pull: float) -> dict[str, float]:
    """Calls of a shard; what it does itself, which is measured by itself, is not counted again."""
    ends = {}
    for method, inside in (("pull", pull), ("push", apply)):
        cheap, seconds = _calls(client, _SMALL, n, method, False)
        dear, _ = _calls(client, _LARGE, max(10, n // 5), method, False)
        ends[method] = ((cheap - execute / n) / 4, (dear - cheap) / (4 * _LARGE) - inside / 4, seconds - cheap)
    local, _ = _calls(client, _SMALL, n, "pull", True)
    small, byte, pause = (sum(end[i] for end in ends.values()) / 2 for i in range(3))
    return {
        "message": max(0.0, small),
        "message_byte": max(0.0, byte) / 2,
        "message_pause": max(0.0, pause) / 2,
        "local": max(0.0, local - execute / n),
    }


def tends(client: Client, n: int) -> dict[str, float]:
    """The driver's look at the cluster: of the whole process, as the scheduler answers it."""
    group = Group(client, backups=0)
    try:
        group.start([Shard(0, {"w": np.zeros(8)}, (Table("w", 8, "float64"),), VectorClock([0]))], Ledger(1, 1, None))
        group.tend()
        before = time.process_time()
        for _ in range(n):
            group.tend()
        return {"tend": (time.process_time() - before) / n}
    finally:
        group.close()


def calibrate(client: Client, parts: dict[str, Any], full: bool) -> Costs:
    """All costs but those of a whole clock, on a cluster of two workers; ``parts`` are those measured without one."""
    n = 300 if full else 50
    found: dict[str, Any] = dict(parts)
    found |= tasks(client, n)
    found |= fetches(client, n // 5, found["execute"])
    found |= messages(client, n, found["execute"], found["apply"], found["pull"])
    found |= tends(client, n)
    return Costs(**found)
