"""What the page of a fit costs: fits with nobody told, with the page there, and with the page open.

They take turns, so that each fit has a neighbour of the other kinds; the ratio is the median over these neighbours. And
one long fit has the page opened and closed again every few epochs: neighbours of a few seconds, with the same processes
and caches, whose ratios differ by less.
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
import statistics
import subprocess
import sys
import threading
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
from daskdml.monitor import Callback, StopTraining
from daskdml.monitor.dashboard import DashboardPlugin, _page, _sender
from daskdml.monitor.dashboard._store import FitStore

OFF, ON, OPEN = "nobody told", "page there", "page open"
# Epochs that are counted between opening and closing. Those while a browser connects, and is sent all there is, are not
# (a page is made once, which takes the scheduler a second or two), nor are those of some seconds afterwards.
SPAN = 4
N_WORKERS, COLUMNS, N_BLOCKS = 2, 20, 32
# A clock of 5,000 rows takes 10 ms.
ROW_SECONDS = 2e-6


@dataclass(frozen=True)
class Size:
    """Rows, epochs, how often the three take turns, how often the page is opened, and seconds till it settles."""

    rows: int
    epochs: int
    repeats: int
    openings: int
    settling: float


def run(full: bool = False) -> None:
    size = Size(400_000, 20, 3, 16, 3.0) if full else Size(40_000, 1, 1, 2, 0.5)
    strategies: dict[str, Any] = {"averaging": Averaging(N_WORKERS, rounds_per_epoch=4)}
    if full:
        strategies["ssp"] = SSP(3, N_WORKERS, clock_rows=5_000)
    figures: dict[str, Any] = {}
    rows, within = [], []
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
            epochs = opened_and_closed(client, strategy, X, y, size)
            ratios = epoch_ratios(epochs)
            figures[name] |= {"epochs": epochs, "epoch_ratios": ratios}
            error = statistics.stdev(ratios) / len(ratios) ** 0.5
            mean = f"{statistics.mean(ratios):.3f} ± {error:.3f}"
            within.append([name, *(spread(epochs[side]) for side in (ON, OPEN)), f"{median(ratios):.3f}", mean])
            print(*within[-1], sep=", ", flush=True)
    headings = [
        "strategy",
        "",
        "seconds of a fit",
        "ratio",
        "processor time added, of them",
        "of them in the page's code",
        "events",
    ]
    inner = ["one fit", "seconds of an epoch, page there", "page open", "ratio", "mean of the ratios"]
    keep("dashboard", figures, table(headings, rows) + "\n\n" + table(inner, within), full)


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


class Visits(Callback):
    """Opens the page for every other span of a fit, and notes how long the epochs of each span take."""

    def __init__(self, link: str, openings: int, settling: float):
        self.link, self.openings, self.settling = link, openings, settling
        self.spans: list[tuple[str, list[float]]] = [(ON, [])]
        self._session: _Session | None = None
        self._settled: float | None = None
        self._counts = False

    def on_epoch_end(self, event: Any) -> None:
        now = time.perf_counter()
        side, seconds = self.spans[-1]
        if self._counts:
            # As the fit tells: of several epochs that are told of together, each has its share.
            seconds.append(event.seconds)
        if len(seconds) == SPAN:
            if len(self.spans) == 2 * self.openings + 1:
                raise StopTraining
            self._toggle()
            self.spans.append((ON if side == OPEN else OPEN, []))
            self._settled, self._counts = None, False
        elif self._session is None or self._session.is_connected():
            # Nobody waits here: the replicas of some strategies go on meanwhile, and epochs would be there at once.
            self._settled = self._settled or now + self.settling
            self._counts = now >= self._settled

    def _toggle(self) -> None:
        if self._session is None:
            self._session = _Session(self.link)
        else:
            self._session.close()
            self._session = None

    def on_fit_end(self, event: Any) -> None:
        if self._session is not None:
            self._toggle()


def opened_and_closed(client: Any, strategy: Any, X: Any, y: Any, size: Size) -> dict[str, list[float]]:
    """The mean seconds of an epoch, page there and page open, span by span of one fit; it begins and ends without."""
    visits = Visits(f"{client.dashboard_link.removesuffix('/status')}/daskdml", size.openings, size.settling)
    params = {"strategy": strategy, "max_iter": 100_000, "tol": None, "random_state": 0, "callbacks": [visits]}
    with dask.config.set({"daskdml.dashboard": True}):
        SGDClassifier(**params).fit(X, y)
    return {side: [statistics.mean(seconds) for of, seconds in visits.spans if of == side] for side in (ON, OPEN)}


def epoch_ratios(epochs: dict[str, list[float]]) -> list[float]:
    """Each span with the page open, of the mean of the spans before and after it."""
    closed = epochs[ON]
    return [2 * mean / (closed[k] + closed[k + 1]) for k, mean in enumerate(epochs[OPEN])]


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


class _Session:
    """The page, open elsewhere till it is closed; ``connected`` is set when it is."""

    def __init__(self, link: str):
        self.connected = threading.Event()
        self._process = subprocess.Popen([sys.executable, "-c", _SESSION, link], stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip():
            self.connected.set()

    def is_connected(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError("the session with the page has ended")
        return self.connected.is_set()

    def close(self) -> None:
        self._process.kill()
        self._reader.join()
        self._process.wait()


@contextlib.contextmanager
def session(link: str) -> Iterator[None]:
    """The page, open elsewhere."""
    opened = _Session(link)
    try:
        if not opened.connected.wait(60):
            raise RuntimeError(f"no page at {link}")
        yield
    finally:
        opened.close()


CAPTION = "seconds of each fit beside its neighbour with nobody told, and of epochs beside their neighbours"


def picture(figures: dict[str, Any]) -> Any:
    """A panel for each strategy: what a page there or open makes of the time of a fit."""
    from benchmarks._plots import COLOURS, finish, panels

    strategies = [name for name, found in figures.items() if name != "machine"]
    figure, axes = panels(len(strategies), 4.4, 3.0, sharey=True)
    for ax, name in zip(axes, strategies, strict=True):
        seconds = figures[name]["seconds"]
        sides = {side: [a / b for a, b in zip(s, seconds[OFF], strict=True)] for side, s in seconds.items()}
        sides["open, epochs of one fit"] = figures[name]["epoch_ratios"]
        for k, ratios in enumerate(sides.values()):
            ax.plot(ratios, [k] * len(ratios), "o", color=COLOURS[k], alpha=0.6)
            ax.plot(median(ratios), k, "|", color="black", markersize=18)
        ax.axvline(1, color="0.6", linewidth=0.8)
        ax.set(title=name, xlabel="seconds, of those without")
        ax.set_yticks(range(len(sides)), sides)
        finish(ax)
    axes[0].invert_yaxis()
    return figure
