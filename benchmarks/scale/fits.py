"""Real fits whose training is sleep: what the model has to tell in advance."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
from distributed import Client, get_worker

from benchmarks.scale.parts import linear_model
from benchmarks.scale.settings import Fit, Pattern
from daskdml import ASP, BSP, ESSP, SSP, Averaging
from daskdml.data import Block, Target, as_dataset
from daskdml.models import LinearModel
from daskdml.monitor import CallbackList, FitInfo, StoppingRule
from daskdml.strategies import Agreed, AsynchronousFit, DaskRunner, Schedule, train
from daskdml.strategies import Asynchronous as Waitless

CLOCK_ROWS = 8
_TRIES = 3

# When each clock began here, by fit: read, and forgotten, when the fit is over.
_started: dict[str, list[float]] = {}
_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class Sleeper(LinearModel):
    """A linear model of which a clock takes as long as it does on a machine that is slow at times."""

    run: str = ""
    seconds: float = 0.05
    factors: Any = None

    def train(self, state: Any, block: Any, order: np.ndarray, active: np.ndarray) -> Any:
        self.work()
        return super().train(state, block, order, active)

    def add_gradient(self, state: Any, block: Any, order: np.ndarray, active: np.ndarray, out: Any) -> None:
        self.work()
        super().add_gradient(state, block, order, active, out)

    def work(self) -> None:
        with _lock:
            starts = _started.setdefault(self.run, [])
            starts.append(time.time())
        # More than its own where it helps a replica that has not begun yet; such a fit is not counted.
        clock = min(len(starts), self.factors.shape[1]) - 1
        time.sleep(self.seconds * self.factors[int(get_worker().name), clock])


def _take(run: str) -> list[float]:
    with _lock:
        return _started.pop(run, [])


def _rows(rows: int, features: int, block_info: Any = None) -> np.ndarray:
    return np.random.default_rng(block_info[None]["chunk-location"][0]).standard_normal((rows, features)).astype("f4")


def _labels(rows: int, block_info: Any = None) -> np.ndarray:
    return np.sign(np.random.default_rng(block_info[None]["chunk-location"][0]).standard_normal(rows))


def _compile(features: int) -> None:
    model = linear_model(features)
    block = Block(0, np.ones((CLOCK_ROWS, features), "f4"), np.ones(CLOCK_ROWS, "f4"))
    order, everything, state = np.arange(CLOCK_ROWS), np.ones(1, dtype=bool), model.init()
    gradient = model.zero_gradient(state)
    model.train(state, block, order, everything)
    model.add_gradient(state, block, order, everything, gradient)
    model.step(state, gradient, everything)


def compile_kernels(client: Client) -> None:
    """On every worker, since a round's end moves from one to another and would wait for the first to need a kernel."""
    client.run(_compile, Fit("BSP", 1).parameters)


def _strategy(fit: Fit) -> Any:
    alone: dict[str, Any] = {"clock_rows": CLOCK_ROWS, "reassign": False, "speculate": None}
    return {
        "BSP": lambda: BSP(rounds_per_epoch=fit.clocks),
        "Averaging": lambda: Averaging(rounds_per_epoch=fit.clocks),
        "SSP": lambda: SSP(fit.staleness, **alone),
        "ESSP": lambda: ESSP(fit.staleness, **alone),
        "ASP": lambda: ASP(**alone),
    }[fit.strategy]()


def measure(client: Client, fit: Fit) -> np.ndarray:
    """When each replica began each clock; of several replicas in a worker, all their clocks in one row.

    Raises
    ------
    RuntimeError
        Where again and again a worker trained more or fewer clocks than its own, so that the pattern was another one.
    """
    for _ in range(_TRIES):
        starts = carry_out(client, fit)
        if all(len(s) == fit.clocks * fit.threads for s in starts):
            return np.array(starts)
    raise RuntimeError(
        f"{fit.strategy}: workers trained {[len(s) for s in starts]} clocks, not {fit.clocks * fit.threads} each"
    )


def carry_out(client: Client, fit: Fit) -> list[list[float]]:
    """When each worker began a clock, be it of its own replica or of another."""
    run, n, rows = f"{time.time()}", fit.replicas, fit.clocks * CLOCK_ROWS
    X = da.map_blocks(_rows, rows, fit.parameters, chunks=((rows,) * n, (fit.parameters,)), dtype="f4")
    y = da.map_blocks(_labels, rows, chunks=((rows,) * n,), dtype=float)
    data = as_dataset(X, y, target=Target(), client=client)
    factors = fit.pattern.factors(fit.workers, fit.clocks * fit.threads)
    model = linear_model(fit.parameters, Sleeper, run=run, seconds=fit.seconds, factors=factors)
    strategy = _strategy(fit)
    schedule = Schedule(n, n, 1, 0, False, StoppingRule(1, tol=None))
    info = FitInfo("benchmark", strategy.name, n, n, n * rows, fit.parameters, 1, fit.clocks)
    strategy.check(model)
    if isinstance(strategy, Waitless):
        asynchronous = AsynchronousFit(strategy, model, data, client)
        try:
            asynchronous.train(Agreed(model.init()), schedule, CallbackList([]), info)
        finally:
            asynchronous.close()
    else:
        runner = DaskRunner(strategy, model, data, client)
        try:
            train(strategy, model, runner, Agreed(model.init()), schedule, CallbackList([]), info)
        finally:
            runner.close()
    return list(client.run(_take, run).values())


@dataclass(frozen=True)
class Alone:
    """Of a clock of a fit by one worker: seconds of CPU of its process and of the driver's, and of the clock."""

    worker: float
    driver: float
    clock: float


def alone(client: Client, strategy: str, seconds: float, few: int, many: int, replicas: int, repeats: int) -> Alone:
    """What a clock of all replicas takes where there is one worker: what many clocks take more than few; medians."""
    found = [_alone(client, strategy, seconds, few, many, replicas) for _ in range(repeats)]
    return Alone(*np.median([[each.worker, each.driver, each.clock] for each in found], axis=0).tolist())


def _alone(client: Client, strategy: str, seconds: float, few: int, many: int, replicas: int) -> Alone:
    found = []
    for clocks in (few, many):
        fit = Fit(strategy, 1, seconds, threads=replicas, clocks=clocks, warm=clocks // 2, pattern=Pattern())
        before = (sum(client.run(time.process_time).values()), time.process_time())
        starts = measure(client, fit)
        after = (sum(client.run(time.process_time).values()), time.process_time())
        # A median, so that what comes between now and then is not taken for the cost of every clock.
        found.append((after[0] - before[0], after[1] - before[1], float(np.median(np.diff(starts)))))
    (less, more), clocks = found, many - few
    return Alone((more[0] - less[0]) / clocks, (more[1] - less[1]) / clocks, more[2])
