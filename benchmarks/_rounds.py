"""What rounds and blocks cost where there is nothing to compute: two rows of two features a block."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import dask
import dask.array as da
from distributed import Client, LocalCluster
from sklearn.exceptions import ConvergenceWarning

from benchmarks._apart import PARTS, apart
from benchmarks._measure import median, table

ROUNDS = 32
AVERAGING, BULK, STALE = "averaging", f"bsp, {ROUNDS} rounds", "ssp"
# Strategy, workers, blocks.
QUICK = [(name, 4, blocks) for name in (AVERAGING, BULK, STALE) for blocks in (50,)]
FULL = [
    *((name, 4, blocks) for name in (AVERAGING, BULK, STALE) for blocks in (100, 1000, 10_000)),
    *((name, 16, 1000) for name in (AVERAGING, BULK, STALE)),
    (AVERAGING, 64, 1000),
    (AVERAGING, 64, 10_000),
    (BULK, 64, 1000),
]
# The same with scheduler and workers in processes of their own.
APART = [
    *((AVERAGING, 64, blocks) for blocks in (1000, 10_000)),
    *((name, 16, blocks) for name in (BULK, STALE) for blocks in (1000, 10_000)),
]
QUICK_APART = [(AVERAGING, 4, 50)]


def strategies() -> dict[str, Any]:
    from daskdml import BSP, SSP, Averaging

    return {AVERAGING: Averaging(), BULK: BSP(rounds_per_epoch=ROUNDS), STALE: SSP()}


def rounds(full: bool) -> tuple[dict[str, Any], str]:
    warnings.simplefilter("ignore", ConvergenceWarning)
    sizes = FULL if full else QUICK
    figures = []
    for workers in sorted({w for _, w, _ in sizes}):
        with (
            # All workers' profilers would sample, in the one thread of their loops, a process that has them all.
            dask.config.set({"distributed.worker.profile.enabled": False}),
            LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=False, dashboard_address=None, memory_limit=0
            ) as cluster,
            Client(cluster) as client,
        ):
            trip = round_trip(client)
            for name, _, blocks in (size for size in sizes if size[1] == workers):
                figure = one_fit(strategies()[name], blocks, partial(in_process_cpu, cluster))
                figures.append({"workers": workers, "blocks": blocks, "strategy": name, "trip": trip} | figure)
                print(f"{workers} workers, {blocks} blocks, {name}: {figure['fit']:.1f} s", flush=True)
    parts = separate(QUICK_APART if not full else APART)
    text = table(HEADINGS, [_row(f) for f in figures])
    text += "\n\nWith the scheduler in a process of its own, and all workers, threads, in another one:\n\n"
    return {"fits": figures, "apart": parts}, text + table(APART_HEADINGS, [_parts_row(f) for f in parts])


def separate(sizes: list[tuple[str, int, int]]) -> list[dict[str, Any]]:
    """What driver, scheduler and workers pay, each by itself."""
    figures = []
    for workers in sorted({w for _, w, _ in sizes}):
        with apart(workers) as parts:
            trip = round_trip(parts.client)
            for name, _, blocks in (size for size in sizes if size[1] == workers):
                figure = one_fit(strategies()[name], blocks, parts.cpu)
                figures.append({"workers": workers, "blocks": blocks, "strategy": name, "trip": trip} | figure)
                print(f"{workers} workers apart, {blocks} blocks, {name}: {figure['fit']:.1f} s", flush=True)
    return figures


APART_HEADINGS = [
    "workers",
    "blocks",
    "strategy",
    "first epoch, ms a block",
    "later epochs, ms a block",
    *(f"CPU of the {part}, ms a block and epoch" for part in PARTS),
]


def _parts_row(f: dict[str, Any]) -> list[Any]:
    blocks, epochs = f["blocks"], f["epochs"]
    values = [epochs[0] / blocks, median(epochs[1:]) / blocks, *(parts_cost(f)[part] for part in PARTS)]
    return [f["workers"], blocks, f["strategy"], *(f"{1e3 * v:.2f}" for v in values)]


def parts_cost(f: dict[str, Any]) -> dict[str, float]:
    """CPU seconds of each part for a block, in an epoch."""
    return {part: seconds / f["blocks"] / len(f["epochs"]) for part, seconds in f["cpu"].items()}


HEADINGS = [
    "workers",
    "blocks",
    "strategy",
    "set-up, ms a block",
    "first epoch, ms a block",
    "later epochs, ms a block",
    "their ms a round",
    "driver's CPU, ms a block",
    "CPU of the scheduler and all workers' loops, ms a block",
    "bare round trip, ms",
]


def _row(f: dict[str, Any]) -> list[Any]:
    blocks, n_epochs = f["blocks"], len(f["epochs"])
    epoch = median(f["epochs"][1:])
    values = [
        1e3 * f["setup"] / blocks,
        1e3 * f["epochs"][0] / blocks,
        1e3 * epoch / blocks,
        1e3 * epoch / f["rounds"],
        1e3 * f["cpu"]["driver"] / blocks / n_epochs,
        1e3 * f["cpu"]["loops"] / blocks / n_epochs,
        1e3 * f["trip"],
    ]
    return [f["workers"], f["blocks"], f["strategy"], *(f"{v:.2f}" for v in values)]


def round_trip(client: Client) -> float:
    seconds = []
    for i in range(20):
        start = time.perf_counter()
        client.submit(abs, i, pure=False).result()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def one_fit(strategy: Any, blocks: int, cpu: Callable[[], dict[str, float]]) -> dict[str, Any]:
    """Seconds of a fit, its epochs and, by ``cpu``, of what takes part in it."""
    from daskdml.linear_model import SGDClassifier
    from daskdml.monitor import Callback

    class Clock(Callback):
        """Notes when the fit began to train, with the CPU seconds by then, and when each epoch ended."""

        def __init__(self) -> None:
            self.ticks: list[float] = []

        def on_fit_start(self, info: Any) -> None:
            self.ticks.append(time.perf_counter())
            self.cpu = cpu()

        def on_epoch_end(self, epoch: Any) -> None:
            self.ticks.append(time.perf_counter())

    X = da.ones((2 * blocks, 2), chunks=(2, 2))
    y = da.arange(2 * blocks, chunks=2) % 2
    clock = Clock()
    clf = SGDClassifier(
        loss="log_loss", max_iter=4, tol=None, random_state=0, shuffle=False, strategy=strategy, callbacks=[clock]
    )  # fmt: skip
    start = time.perf_counter()
    clf.fit(X, y)
    fit, after, ticks = time.perf_counter() - start, cpu(), clock.ticks
    return {
        "fit": fit,
        "setup": ticks[0] - start,
        "epochs": [b - a for a, b in zip(ticks[:-1], ticks[1:], strict=True)],
        "rounds": int(clf.history_.groupby("epoch").size().median()),
        "cpu": {part: after[part] - seconds for part, seconds in clock.cpu.items()},
    }


def in_process_cpu(cluster: LocalCluster) -> dict[str, float]:
    """CPU seconds so far of this thread, the driver's, and of that of the scheduler and all loops."""
    return {"driver": time.thread_time(), "loops": loop_cpu(cluster)}


def loop_cpu(cluster: LocalCluster) -> float:
    """CPU seconds so far of the thread in which the scheduler lives, and with it all workers' event loops."""

    async def here() -> float:
        return time.thread_time()

    return asyncio.run_coroutine_threadsafe(here(), cluster.loop.asyncio_loop).result()
