"""Slow machines: what waiting for them costs each strategy.

A replica's work is made to last by sleeping, so that a machine with two cores can stand for eight: each worker process
is a machine, a clock's rows take it 50 ms, and four times that where it is slow. Every strategy gets the same rows,
model and number of clocks. ``rotating``: at each clock another machine is slow; ``random``: each clock of each
machine is slow with probability 1/8; ``permanent``: one machine is slow all the time; ``none``.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from time import perf_counter, sleep
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
from distributed import Client, get_worker

from benchmarks._measure import keep, median, table
from daskdml import BSP, ESSP, SSP, Averaging
from daskdml.cluster import local
from daskdml.data import Target, as_dataset
from daskdml.models import LinearModel
from daskdml.monitor import CallbackList, FitInfo, History, StoppingRule
from daskdml.numerics import BINARY, LOSSES, SCHEDULES, Settings
from daskdml.strategies import Agreed, AsynchronousFit, DaskRunner, Schedule, train
from daskdml.strategies import Asynchronous as Waitless

CLOCK_ROWS = 64
SECONDS = 0.05
SLOW = 4.0
FEATURES = 20
ETA0 = 0.02

_rows: Counter[str] = Counter()
_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class Sleepy(LinearModel):
    """A linear model whose rows take as long as they would on a machine that is slow at times."""

    pattern: str = "none"
    machines: int = 4
    run: str = ""

    def train(self, state: Any, block: Any, order: np.ndarray, active: np.ndarray) -> Any:
        self.work(len(order))
        return super().train(state, block, order, active)

    def add_gradient(self, state: Any, block: Any, order: np.ndarray, active: np.ndarray, out: Any) -> None:
        self.work(len(order))
        super().add_gradient(state, block, order, active, out)

    def work(self, rows: int) -> None:
        machine = int(get_worker().name)
        with _lock:
            done = _rows[f"{self.run}-{machine}"]
            _rows[f"{self.run}-{machine}"] += rows
        sleep(SECONDS * rows / CLOCK_ROWS * self.slowness(machine, done // CLOCK_ROWS))

    def slowness(self, machine: int, clock: int) -> float:
        if self.pattern == "rotating":
            slow = clock % self.machines == machine
        elif self.pattern == "random":
            slow = np.random.default_rng((7, machine, clock)).random() < 1 / 8
        else:
            slow = self.pattern == "permanent" and machine == 0
        return SLOW if slow else 1.0


def fit(client: Client, strategy: Any, pattern: str, machines: int, clocks: int, run: str) -> pd.DataFrame:
    """The history of one epoch of so many clocks.

    A step of BSP is one for the rows of a clock, which elsewhere make one each: it is as much longer.
    """
    eta0 = ETA0 * CLOCK_ROWS if isinstance(strategy, BSP) else ETA0
    rng = np.random.default_rng(0)
    n = machines * clocks * CLOCK_ROWS
    X = rng.standard_normal((n, FEATURES))
    y = np.sign(X @ rng.standard_normal(FEATURES) + 0.5 * rng.standard_normal(n))
    chunks = clocks * CLOCK_ROWS
    data = as_dataset(
        da.from_array(X, chunks=(chunks, FEATURES)), da.from_array(y, chunks=chunks), target=Target(), client=client
    )
    settings = Settings(LOSSES["log_loss"].number, BINARY, alpha=1e-6, schedule=SCHEDULES["constant"], eta0=eta0)
    model = Sleepy(
        settings, 1, FEATURES, np.dtype(float), np.ones(1), np.ones(1), pattern=pattern, machines=machines, run=run
    )
    schedule = Schedule(machines, machines, 1, 0, False, StoppingRule(1, tol=None))
    info = FitInfo("benchmark", strategy.name, machines, machines, n, FEATURES, 1, clocks)
    history = History()
    listeners = CallbackList([history])
    strategy.check(model)
    agreed = Agreed(model.init())
    if isinstance(strategy, Waitless):
        asynchronous = AsynchronousFit(strategy, model, data, client)
        try:
            asynchronous.train(agreed, schedule, listeners, info)
        finally:
            asynchronous.close()
    else:
        runner = DaskRunner(strategy, model, data, client)
        try:
            train(strategy, model, runner, agreed, schedule, listeners, info)
        finally:
            runner.close()
    return history.to_frame()


def rate(history: pd.DataFrame) -> float:
    """Clocks per second. Rounds of tasks are all told when the first is over, so the first counts too."""
    return len(history) / history["seconds"].sum()


def seconds_to(history: pd.DataFrame, loss: float) -> float:
    """Seconds until the mean loss of eight clocks is as low as this."""
    smooth = history["loss"].rolling(8).mean()
    reached = np.flatnonzero(smooth <= loss)
    return float(history["seconds"].iloc[: reached[0] + 1].sum()) if len(reached) else float("nan")


def run(full: bool = False) -> None:
    clocks, repeats = (64, 2) if full else (10, 1)
    alone: dict[str, Any] = {"reassign": False, "speculate": None}
    each: dict[str, Any] = {"clock_rows": CLOCK_ROWS}
    sides: dict[str, Any] = {
        "BSP": lambda: BSP(rounds_per_epoch=clocks),
        "Averaging": lambda: Averaging(rounds_per_epoch=clocks),
        "SSP(0)": lambda: SSP(0, **each, **alone),
        "SSP(2)": lambda: SSP(2, **each, **alone),
        "ESSP(2)": lambda: ESSP(2, **each, **alone),
        "SSP(2), work reassigned": lambda: SSP(2, **each),
        "the same in 4 splits": lambda: SSP(2, splits=4, **each),
    }
    if not full:
        sides = {side: sides[side] for side in ("BSP", "Averaging", "SSP(2)", "ESSP(2)")}
    workloads = [("permanent", 4), ("none", 4), ("rotating", 4), ("random", 8)][: None if full else 1]
    rows: list[list[Any]] = []
    figures: list[dict[str, Any]] = []
    for pattern, machines in workloads:
        with local(machines, threads_per_worker=1, dashboard_address="127.0.0.1:0") as client:
            client.wait_for_workers(machines)
            histories: dict[str, list[pd.DataFrame]] = {side: [] for side in sides}
            for side, make in sides.items():
                # Imports and compilation count for nobody.
                fit(client, make(), "none", machines, 4, f"{pattern}-{side}-warm")
            for repeat in range(repeats):
                for side, make in sides.items():
                    name = f"{pattern}-{side}-{repeat}-{perf_counter()}"
                    histories[side].append(fit(client, make(), pattern, machines, clocks, name))
        base = [rate(h) for h in histories["BSP"]]
        # What parameter averaging reaches after 60 % of its clocks.
        goal = median([h["loss"].rolling(8).mean().iloc[int(0.6 * clocks)] for h in histories["Averaging"]])
        for side, found in histories.items():
            rates = [rate(h) for h in found]
            ratios = [a / b for a, b in zip(rates, base, strict=True)]
            times = [seconds_to(h, goal) for h in found]
            ideal = _ideal(pattern, machines)
            rows.append(
                [
                    f"{pattern}, {machines} machines",
                    side,
                    f"{median(rates):.2f}",
                    f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                    f"{median(rates) / ideal:.0%}",
                    f"{median(times):.2f}",
                    f"{median([h['staleness_mean'].mean() for h in found]):.2f}",
                    max(int(h["staleness_max"].max()) for h in found),
                ]
            )
            figures.append(
                {
                    "pattern": pattern,
                    "machines": machines,
                    "side": side,
                    "clocks_per_second": rates,
                    "seconds_to_loss": times,
                    "loss": goal,
                    "seconds": [h["seconds"].tolist() for h in found],
                    "losses": [h["loss"].tolist() for h in found],
                }
            )
    headings = ["slow", "strategy", "clocks/s", "of BSP's", "of the ideal", "s to the loss", "staleness", "at most"]
    keep("stragglers", {"sides": figures}, table(headings, rows), full)


def _ideal(pattern: str, machines: int) -> float:
    """Clocks per second if all machines worked all the time and nothing else took any."""
    speed = {
        "none": machines,
        "rotating": machines / (1 + (SLOW - 1) / machines),
        "permanent": machines - 1 + 1 / SLOW,
        "random": machines / (1 + (SLOW - 1) / 8),
    }[pattern]
    return speed / machines / SECONDS


CAPTION = "loss by time"


def picture(figures: dict[str, Any]) -> Any:
    """A panel for each pattern of slowness."""
    from benchmarks._plots import COLOURS, finish, panels

    sides = figures["sides"]
    patterns = list(dict.fromkeys(f["pattern"] for f in sides))
    names = list(dict.fromkeys(f["side"] for f in sides))
    figure, axes = panels(len(patterns), 3.9, 3.4, sharey=True)
    for ax, pattern in zip(axes, patterns, strict=True):
        for found in sides:
            if found["pattern"] == pattern:
                losses = pd.Series(found["losses"][0]).rolling(8, min_periods=1).mean()
                at = names.index(found["side"])
                style = "--" if at >= 4 else "-"
                ax.plot(np.cumsum(found["seconds"][0]), losses, style, color=COLOURS[at], label=found["side"])
        ax.set(title=f"slow: {pattern}", xlabel="seconds")
        if ax is axes[-1]:
            finish(ax, fontsize=7)
        else:
            finish(ax)
            ax.get_legend().remove()
    axes[0].set_ylabel("loss, mean of 8 clocks")
    return figure
