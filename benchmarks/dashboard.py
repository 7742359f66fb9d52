"""What the page of a fit costs: fits with nobody told, with the page there, and with the page open.

They take turns, so that each fit has a neighbour of the other kinds; the ratio is the median over these neighbours.
An open page is a session with the scheduler that gets all a browser gets and draws nothing: what a browser on another
machine is for the cluster. Workers are processes of one thread, which sleep where they would compute: they stand for
other machines, where computing ones would differ by a tenth on two cores that driver, scheduler and workers share. The
noise that is left is more than the page costs, so two more things are measured. One is the processor time of the
process that is driver and scheduler, which no neighbour on the machine lengthens: what a page adds to it, of the time
of a fit, is the most it can hold one up. The other are the seconds spent in the page's own code: in the driver to pack
events, in the scheduler to store them, and to bring open pages up to date and send what has changed.
"""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np

from benchmarks._measure import keep, median, spread, table
from daskdml import SSP, Averaging
from daskdml.cluster import local
from daskdml.linear_model import SGDClassifier
from daskdml.monitor.dashboard import DashboardPlugin, _page, _sender
from daskdml.monitor.dashboard._store import FitStore

OFF, ON, OPEN = "nobody told", "page there", "page open"
N_WORKERS, COLUMNS, N_BLOCKS = 2, 20, 32
# A clock of 5,000 rows takes 10 ms.
ROW_SECONDS = 2e-6


@dataclass(frozen=True)
class Size:
    """Rows, epochs and how often the three take turns."""

    rows: int
    epochs: int
    repeats: int


def run(full: bool = False) -> None:
    size = Size(400_000, 20, 12) if full else Size(80_000, 2, 2)
    strategies = {"averaging": Averaging(N_WORKERS, rounds_per_epoch=4), "ssp": SSP(3, N_WORKERS, clock_rows=5_000)}
    figures: dict[str, Any] = {}
    rows = []
    with local(N_WORKERS, dashboard_address="127.0.0.1:0") as client:
        X, y = data(size.rows)
        client.register_plugin(DashboardPlugin())
        client.run(rest)
        spent = watched()
        for name, strategy in strategies.items():
            seconds, inside, busy, events = turns(client, strategy, X, y, size, spent)
            figures[name] = {"seconds": seconds, "page_seconds": inside, "cpu_seconds": busy, "events": events}
            for side in seconds:
                ratios = [a / b for a, b in zip(seconds[side], seconds[OFF], strict=True)]
                share = 100 * median([a / b for a, b in zip(inside[side], seconds[side], strict=True)])
                more = [(a - b) / c for a, b, c in zip(busy[side], busy[OFF], seconds[side], strict=True)]
                added = f"{100 * median(more):.2f} %"
                rows.append(
                    [name, side, spread(seconds[side]), f"{median(ratios):.3f}", added, f"{share:.2f} %", events]
                )
                print(*rows[-1], sep=", ", flush=True)
    headings = [
        "strategy",
        "",
        "seconds of a fit",
        "ratio",
        "processor time added, of them",
        "of them in the page's code",
        "events",
    ]
    keep("dashboard", figures, table(headings, rows), full)


def rest() -> None:
    """Make this process sleep instead of computing."""
    from daskdml.models import LinearModel

    train = LinearModel.train

    def resting(self: LinearModel, state: Any, block: Any, order: np.ndarray, active: np.ndarray) -> Any:
        time.sleep(ROW_SECONDS * len(order))
        return train(self, state, block, order[:1], active)

    LinearModel.train = resting  # type: ignore[method-assign]


def data(n_rows: int) -> tuple[Any, Any]:
    """Blocks that are made in the tasks, and cached there."""
    each = n_rows // N_BLOCKS

    def block(seed: int) -> np.ndarray:
        return np.random.default_rng(seed).standard_normal((each, COLUMNS))

    made = [da.from_delayed(dask.delayed(block)(seed), (each, COLUMNS), float) for seed in range(N_BLOCKS)]
    X = da.concatenate(made)
    return X, (X @ np.linspace(-1, 1, COLUMNS) > 0).astype(int)


def watched() -> list[float]:
    """Seconds that this process spends from now on in what the page needs, added up in a list of one."""
    spent = [0.0]
    for owner, name in ((_sender, "packed"), (FitStore, "handle"), (_page._Shown, "refresh")):
        setattr(owner, name, _timed(getattr(owner, name), spent))
    return spent


def _timed(function: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent[0] += time.perf_counter() - start

    return timed


def turns(
    client: Any, strategy: Any, X: Any, y: Any, size: Size, spent: list[float]
) -> tuple[dict[str, list[float]], dict[str, list[float]], dict[str, list[float]], int]:
    """Seconds of each fit, of which in the page's own code, processor time, and how many events a fit has."""
    sides = [OFF, ON, OPEN]
    link = f"{client.dashboard_link.removesuffix('/status')}/daskdml"
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    inside: dict[str, list[float]] = {side: [] for side in sides}
    busy: dict[str, list[float]] = {side: [] for side in sides}
    events = 0
    for repeat in range(size.repeats + 1):
        # Each turn begins with another, so that none always has the same neighbour.
        for side in sides[repeat % len(sides) :] + sides[: repeat % len(sides)]:
            with session(link) if side == OPEN else contextlib.nullcontext():
                began, used, worked = time.perf_counter(), spent[0], time.process_time()
                with dask.config.set({"daskdml.dashboard": side != OFF}):
                    clf = SGDClassifier(strategy=strategy, max_iter=size.epochs, tol=None, random_state=0).fit(X, y)
                # The first turn warms up.
                if repeat:
                    seconds[side].append(time.perf_counter() - began)
                    inside[side].append(spent[0] - used)
                    busy[side].append(time.process_time() - worked)
                events = len(clf.history_) + len(clf.replicas_)
    return seconds, inside, busy, events


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
