"""A cluster on this machine whose parts can be told from each other: the scheduler in a process, all workers in one.

A ``LocalCluster`` of threads has its scheduler, the event loops of all its workers and their threads in the process of
the driver. What a driver and a scheduler pay for many workers cannot be seen there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
from distributed import Client, Worker

PARTS = ("driver", "scheduler", "workers")
_PATIENCE = 60


@dataclass(frozen=True)
class Apart:
    """The client, and the processes of scheduler and workers."""

    client: Client
    scheduler: psutil.Process
    workers: psutil.Process

    def cpu(self) -> dict[str, float]:
        """CPU seconds of each part so far."""
        found = (psutil.Process(), self.scheduler, self.workers)
        return {name: sum(p.cpu_times()[:2]) for name, p in zip(PARTS, found, strict=True)}


@contextlib.contextmanager
def apart(n_workers: int) -> Iterator[Apart]:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="daskdml-apart-"))
        file = os.path.join(folder, "scheduler.json")
        # The profiler of each worker would look at all threads of a process that has them all.
        environment = os.environ | {
            "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
            "DASK_TEMPORARY_DIRECTORY": folder,
        }
        scheduler = ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        workers = ["benchmarks._apart", file, str(n_workers)]
        started = [
            stack.enter_context(_process(command, environment))
            for command in ([*scheduler, "--scheduler-file", file], workers)
        ]
        deadline = time.monotonic() + _PATIENCE
        while not os.path.exists(file):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no scheduler within {_PATIENCE} s")
            time.sleep(0.1)
        client = stack.enter_context(Client(scheduler_file=file))
        client.wait_for_workers(n_workers, timeout=_PATIENCE)
        yield Apart(client, *(psutil.Process(p.pid) for p in started))


@contextlib.contextmanager
def _process(module: list[str], environment: dict[str, str]) -> Iterator[Any]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-m", *module], env=environment, **quiet)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def _work(file: str, n_workers: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for name in range(n_workers):
            worker = Worker(scheduler_file=file, nthreads=1, name=name, dashboard=False, memory_limit=0)
            await stack.enter_async_context(worker)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_work(sys.argv[1], int(sys.argv[2])))
