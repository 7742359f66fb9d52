"""CPU seconds of those who take part in a fit on workers that are processes: driver, scheduler, loops, computing."""

from __future__ import annotations

import threading
import time
from typing import Any

DRIVER, SCHEDULER, LOOPS, COMPUTING, OTHERS = PARTS = (
    "driver",
    "scheduler",
    "event loops of workers",
    "tasks on workers",
    "other threads",
)
# How Dask names the threads of the scheduler's, client's and nannies' event loop, and of tasks.
_LOOP, _TASKS = "IO loop", "Dask-Default-Threads"


def parts_cpu(client: Any) -> dict[str, float]:
    """CPU seconds of each part so far, of a cluster whose scheduler is in this process and whose workers are not."""
    here, workers = thread_times(), client.run(thread_times).values()
    found = {SCHEDULER: _of(here, _LOOP), DRIVER: here["MainThread"]}
    found |= {LOOPS: sum(w["MainThread"] for w in workers), COMPUTING: sum(_of(w, _TASKS) for w in workers)}
    total = sum(times["process"] for times in (here, *workers))
    return found | {OTHERS: total - sum(found.values())}


def thread_times() -> dict[str, float]:
    """CPU seconds of the threads of this process by name, and of all of it, threads included that have ended."""
    found = {"process": time.process_time()}
    for thread in threading.enumerate():
        try:
            found[thread.name] = time.clock_gettime(time.pthread_getcpuclockid(thread.ident or 0))
        except OSError:
            # It has ended since.
            continue
    return found


def _of(times: dict[str, float], name: str) -> float:
    return sum(seconds for thread, seconds in times.items() if name in thread)
