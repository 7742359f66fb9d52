"""Waiting for a cluster: not for ever, and what is said where it does not answer."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dask.utils import format_bytes
from distributed import Client, Future, KilledWorker

from daskdml.cluster import connection_lost, wait_with, worker_info
from daskdml.data._block import Recipe
from daskdml.data._memory import likely_block_bytes

# Seconds without any worker that would begin a task before one gives up.
PATIENCE = 60.0
# Where workers say which block they begin to make.
_TOPIC = "daskdml-blocks"


def wait_for(client: Client, futures: Sequence[Future], when: str, patience: float | None = None) -> None:
    """Wait, but not for a cluster that has no worker any more, or none that would begin a task.

    Raises
    ------
    RuntimeError
        Where that has been so for ``patience`` seconds, or the connection to the scheduler is lost.
    """
    patience = PATIENCE if patience is None else patience
    idle_since: float | None = None
    while True:
        try:
            wait_with(client, futures, when)
            return
        except TimeoutError:
            found = trouble(client, patience)
            idle_since = None if found is None else idle_since or time.monotonic()
            if found is not None and idle_since is not None and time.monotonic() - idle_since > patience:
                raise RuntimeError(found) from None


def trouble(client: Client, patience: float) -> str | None:
    """Why nothing goes on at the moment, or None."""
    if (lost := connection_lost(client, patience=0)) is not None:
        raise lost
    present = worker_info(client).values()
    if not present:
        return (
            f"the cluster has had no worker for {patience:.0f} s: start workers, or look at their logs for "
            "why they ended (often the memory limit), and fit again"
        )
    paused = sum(w["status"] == "paused" for w in present)
    # One is enough: what was given to it may wait for it while the others have nothing to do.
    if paused and not any(map(_works, present)):
        who = "every worker has" if paused == len(present) else f"{paused} of {len(present)} workers have"
        return (
            f"{who} been paused by Dask for {patience:.0f} s, the process above 80 % of its memory "
            "limit with nothing running: give workers more memory, or X in smaller blocks"
        )
    return None


def _works(worker: Mapping[str, Any]) -> bool:
    counts = worker["metrics"].get("task_counts", {})
    return any(counts.get(state) for state in ("executing", "long-running"))


def explained(error: BaseException, what: str | None = None, fits: int | None = None, row: int = 0) -> BaseException:
    """The user's error as it is; a killed worker with its likely reason.

    ``what`` the worker was making, as "block 3 of y"; ``fits``: bytes of the largest block that does; ``row``: of one.
    """
    if not isinstance(error, KilledWorker):
        return error
    return RuntimeError(
        f"workers died {error.allowed_failures + 1} times while "
        + (f"making {what}" if what else f"running {error.task}")
        + f", the last one {error.last_worker.address}: {remedy(fits, row)}"
    )


def remedy(fits: int | None, row: int = 0) -> str:
    """What to do about a block that ends its worker."""
    size = "smaller blocks"
    if fits is not None and fits > 0:
        size = f"blocks of at most {format_bytes(fits)}"
        if row and fits >= row:
            size = f"at most {fits // row} rows ({format_bytes(fits)}) a block"
    return (
        "most often a block does not fit in the worker's memory; "
        f"rechunk or repartition to {size}, or give workers more memory"
    )


def announce(worker: Any, recipe: Recipe) -> None:
    """Tell the scheduler, before a block of unknown length is made, which one: it may be the worker's last word."""
    message = {"data": getattr(recipe, "token", ""), "block": recipe.index, "thread": threading.get_ident()}
    worker.log_event(_TOPIC, message)


def fatal_blocks(client: Client, token: str) -> Counter[int]:
    """How often each block of unknown length of a data set was the last that a worker, now gone, had begun to make."""
    begun: dict[tuple[str, int], int] = {}
    for _, event in client.get_events(_TOPIC) or ():
        if event["data"] == token:
            begun[event["worker"], event["thread"]] = event["block"]
    alive = worker_info(client)
    return Counter(block for (worker, _), block in begun.items() if worker not in alive)


def results_of(client: Client, futures: Sequence[Future]) -> list[Any]:
    """Wait for the results of futures; the first error is raised as it is."""
    wait_for(client, futures, "ALL_COMPLETED")
    return list(client.gather(list(futures)))


def block_bytes_for(client: Client) -> int | None:
    """About the largest block that the smallest worker has room for, without asking the workers."""
    present = worker_info(client).values()
    found = [likely_block_bytes(w["memory_limit"], w["nthreads"]) for w in present if w["memory_limit"]]
    return min(found) or None if found else None
