"""What the page of a fit costs: fits with nobody told, with the page there, and with the page open.

They take turns, so that each fit has a neighbour of the other kinds; the ratio is the median over these neighbours.
An open page is a session with the scheduler that gets all a browser gets and draws nothing: what a browser on another
machine is for the cluster. The scheduler, which serves the page, shares the process of the driver: its processor
seconds are the page's cost. Workers are processes of one thread. Rounds of 20 ms, which wait for the driver most of
their time, show what the page costs at worst.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import dask
import dask.array as da
import numpy as np

from benchmarks._measure import keep, median, spread, table
from daskdml import SSP, Averaging
from daskdml.cluster import local
from daskdml.linear_model import SGDClassifier
from daskdml.monitor.dashboard import DashboardPlugin

OFF, ON, OPEN = "nobody told", "page there", "page open"
N_WORKERS, COLUMNS, N_BLOCKS = 2, 50, 32


@dataclass(frozen=True)
class Size:
    """Rows, epochs and how often the three take turns."""

    rows: int
    epochs: int
    repeats: int


def run(full: bool = False) -> None:
    size = Size(2_000_000, 20, 8) if full else Size(100_000, 4, 2)
    # With the epochs that make the fits about as long.
    cases = {
        "averaging": (Averaging(N_WORKERS), 4),
        "averaging, rounds of 20 ms": (Averaging(N_WORKERS, rounds_per_epoch=16), 1),
        "ssp": (SSP(3, n_replicas=N_WORKERS), 1),
    }
    figures: dict[str, Any] = {}
    rows = []
    with local(N_WORKERS, dashboard_address="127.0.0.1:0") as client:
        X, y = data(size.rows)
        client.register_plugin(DashboardPlugin())
        for name, (strategy, times) in cases.items():
            seconds, processor, events = turns(client, strategy, X, y, replace(size, epochs=times * size.epochs))
            figures[name] = {"seconds": seconds, "processor_seconds": processor, "events": events}
            for side in seconds:
                ratios = [a / b for a, b in zip(seconds[side], seconds[OFF], strict=True)]
                extra = [a - b for a, b in zip(processor[side], processor[OFF], strict=True)]
                share = 100 * median(extra) / median(seconds[OFF])
                rows.append([name, side, spread(seconds[side]), f"{median(ratios):.3f}", f"{share:+.1f} %", events])
                print(*rows[-1], sep=", ", flush=True)
    headings = ["strategy", "", "seconds of a fit", "ratio", "processor time of driver and scheduler", "events"]
    keep("dashboard", figures, table(headings, rows), full)


def data(n_rows: int) -> tuple[Any, Any]:
    """Blocks that are made in the tasks, and cached there."""
    each = n_rows // N_BLOCKS

    def block(seed: int) -> np.ndarray:
        return np.random.default_rng(seed).standard_normal((each, COLUMNS))

    made = [da.from_delayed(dask.delayed(block)(seed), (each, COLUMNS), float) for seed in range(N_BLOCKS)]
    X = da.concatenate(made)
    return X, (X @ np.linspace(-1, 1, COLUMNS) > 0).astype(int)


def turns(
    client: Any, strategy: Any, X: Any, y: Any, size: Size
) -> tuple[dict[str, list[float]], dict[str, list[float]], int]:
    """Seconds of each fit, seconds of the processor in this process, and how many events a fit has."""
    sides = [OFF, ON, OPEN]
    link = f"{client.dashboard_link.removesuffix('/status')}/daskdml"
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    processor: dict[str, list[float]] = {side: [] for side in sides}
    events = 0
    for repeat in range(size.repeats + 1):
        # Each turn begins with another, so that none always has the same neighbour.
        for side in sides[repeat % len(sides) :] + sides[: repeat % len(sides)]:
            with session(link) if side == OPEN else contextlib.nullcontext():
                began, used = time.perf_counter(), time.process_time()
                with dask.config.set({"daskdml.dashboard": side != OFF}):
                    clf = SGDClassifier(strategy=strategy, max_iter=size.epochs, tol=None, random_state=0).fit(X, y)
                # The first turn warms up.
                if repeat:
                    seconds[side].append(time.perf_counter() - began)
                    processor[side].append(time.process_time() - used)
                events = len(clf.history_) + len(clf.replicas_)
    return seconds, processor, events


# Gets what a browser gets, until it is stopped; says when it is connected. It stands for another machine: here it only
# works where nobody else does.
_SESSION = """
import os, sys, time
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
from bokeh.client import pull_session
session = pull_session(url=sys.argv[1])
print(len(session.document.roots), flush=True)
while session.connected:
    session.force_roundtrip()
    time.sleep(1.0)
"""


@contextlib.contextmanager
def session(link: str) -> Iterator[None]:
    """The page, open elsewhere."""
    with subprocess.Popen([sys.executable, "-c", _SESSION, link], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline().strip():
                raise RuntimeError(f"no page at {link}")
            yield
        finally:
            process.kill()


CAPTION = "seconds of each fit beside its neighbour with nobody told"


def picture(figures: dict[str, Any]) -> Any:
    """A panel for each strategy: what a page there or open makes of the time of a fit."""
    from benchmarks._plots import COLOURS, finish, panels

    strategies = [name for name, found in figures.items() if name != "machine"]
    figure, axes = panels(len(strategies), 4.4, 3.0, sharey=True)
    for ax, name in zip(axes, strategies, strict=True):
        seconds = figures[name]["seconds"]
        for k, times in enumerate(seconds.values()):
            ratios = [a / b for a, b in zip(times, seconds[OFF], strict=True)]
            ax.plot(ratios, [k] * len(ratios), "o", color=COLOURS[k], alpha=0.6)
            ax.plot(median(ratios), k, "|", color="black", markersize=18)
        ax.axvline(1, color="0.6", linewidth=0.8)
        ax.set(title=name, xlabel="seconds of a fit, of those with nobody told")
        ax.set_yticks(range(len(seconds)), seconds)
        finish(ax)
    axes[0].invert_yaxis()
    return figure
