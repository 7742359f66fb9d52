"""To a thousand workers and a billion parameters: how much of their time workers train, and what takes the rest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import product
from multiprocessing import get_context
from typing import Any

import numpy as np

from benchmarks.scale.settings import SERVED, STRATEGIES, SYNCHRONOUS, Costs, Fit, Network, Pattern
from benchmarks.scale.simulate import simulate

WORKERS = (1, 4, 16, 64, 250, 1000)
SECONDS = (0.1, 1.0, 10.0)
KEYS = 10_000
GIGABIT = 1e9 / 8
NETWORK = Network(latency=1e-4, bandwidth=10 * GIGABIT)
HALF = 0.5
# A curve that is so low is not followed any further; between two points it is looked at closer, so many times.
_LOST = 0.2
_CLOSER = 2


@dataclass(frozen=True)
class Side:
    """A strategy, with updates of all parameters or of so many keys."""

    strategy: str
    pushed: int | None = None

    @property
    def name(self) -> str:
        if self.strategy in SYNCHRONOUS:
            return self.strategy
        return f"{self.strategy}, {'all' if self.pushed is None else '10^4 keys'} pushed"


SIDES = (*(Side(s) for s in STRATEGIES), *(Side(s, KEYS) for s in SERVED))


@dataclass(frozen=True)
class Curve:
    """A fit on more and more workers, by the numbers of which it is known; ``what_if`` says what differs."""

    side: Side
    fit: Fit
    workers: tuple[int, ...]
    what_if: str = ""
    cheaper: dict[str, float] = field(default_factory=dict)

    def follow(self, costs: Costs) -> dict[str, Any]:
        """The efficiency and the limit at each number of workers, as long as there is something left to lose."""
        points: list[dict[str, Any]] = []
        for workers in self.workers:
            points.append(self._point(workers, costs))
            if points[-1]["efficiency"] < _LOST:
                break
        for _ in range(_CLOSER):
            below = next((i for i, point in enumerate(points) if point["efficiency"] < HALF), 0)
            if below:
                ends = points[below - 1]["workers"], points[below]["workers"]
                middle = round((ends[0] * ends[1]) ** 0.5)
                if middle not in ends:
                    points.insert(below, self._point(middle, costs))
        fit = self.fit
        return {
            "side": self.side.name,
            "what_if": self.what_if,
            "parameters": fit.parameters,
            "seconds": fit.seconds,
            "pattern": fit.pattern.kind,
            "bandwidth": fit.network.bandwidth,
            "points": points,
        }

    def _point(self, workers: int, costs: Costs) -> dict[str, Any]:
        outcome = simulate(replace(self.fit, workers=workers), replace(costs, **self.cheaper))
        return {
            "workers": workers,
            "efficiency": outcome.efficiency,
            "waiting": outcome.waiting,
            "limit": outcome.limit,
            "busy": outcome.busy,
        }


def half(points: Sequence[dict[str, Any]]) -> tuple[float | None, str]:
    """The workers at which the efficiency falls below a half, on a line between those known, and what limits there.

    None where it never does, or has from one worker on; then what limits at the last, or the first.
    """
    below = next((i for i, point in enumerate(points) if point["efficiency"] < HALF), None)
    if below is None:
        return None, points[-1]["limit"]
    if below == 0:
        return None, points[0]["limit"]
    (a, b), known = (points[below - 1], points[below]), np.log
    part = (a["efficiency"] - HALF) / (a["efficiency"] - b["efficiency"])
    return float(np.exp(known(a["workers"]) + part * (known(b["workers"]) - known(a["workers"])))), b["limit"]


def _fit(side: Side, parameters: int, seconds: float, pattern: Pattern, network: Network) -> Fit:
    return Fit(
        side.strategy,
        1,
        seconds,
        parameters,
        pushed=side.pushed,
        clocks=10,
        warm=3,
        pattern=pattern,
        network=network,
        seen=2,
    )


def what_ifs(workers: int, at_once: dict[str, float]) -> list[Curve]:
    """What another implementation, or many tasks at once, would gain."""
    found = []
    for parameters, strategy in product((10**4, 10**6), STRATEGIES):
        side = Side(strategy)
        fit = _fit(side, parameters, 1.0, Pattern("none"), NETWORK)
        found.append(Curve(side, fit, (workers,), "as it is"))
        if strategy in SYNCHRONOUS:
            found.append(Curve(side, fit, (workers,), "tasks as cheap as many at once", at_once))
            continue
        found.append(Curve(side, replace(fit, wakes_all=True), (workers,), "the ledger wakes all at each report"))
        found.append(Curve(side, replace(fit, backups=0), (workers,), "no second copies"))
    return found


def curves(full: bool, at_once: dict[str, float]) -> dict[str, list[Curve]]:
    """What is simulated, by the table it is for."""
    sizes = [10**n for n in range(4, 10)] if full else [10**4, 10**6, 10**8]
    times = SECONDS if full else (1.0,)
    numbers = WORKERS if full else WORKERS[:-1]
    none = Pattern("none")
    sides = SIDES if full else SIDES[: len(STRATEGIES)]
    scale = [
        Curve(s, _fit(s, p, t, none, NETWORK), numbers)
        for p, t, s in product(sizes, times, sides)
        # As many keys as there are parameters are all of them.
        if s.pushed is None or s.pushed < p
    ]
    kinds = ("none", "rotating", "random", "permanent", "lognormal")
    slow = [
        Curve(s, _fit(s, 10**5, 1.0, Pattern(kind), NETWORK), (16, numbers[-2]))
        for kind, s in product(kinds, SIDES[: len(STRATEGIES)])
    ]
    links = [
        Curve(s, _fit(s, 10**7, 1.0, none, replace(NETWORK, bandwidth=n * GIGABIT)), (64,))
        for n, s in product((1, 10, 100), sides)
    ]
    return {"scale": scale, "slow": slow, "links": links, "what_if": what_ifs(numbers[-1], at_once)}


def follow(wanted: dict[str, list[Curve]], costs: Costs) -> dict[str, list[dict[str, Any]]]:
    """All curves, as many at a time as there are cores; the longest first, so that none is left to the end alone."""
    every = [(name, i) for name, group in wanted.items() for i in range(len(group))]
    every.sort(key=lambda at: -wanted[at[0]][at[1]].fit.parameters)
    found: dict[str, list[dict[str, Any]]] = {name: [{} for _ in group] for name, group in wanted.items()}
    # Forked, a process would have the threads of Dask's clusters without their ends.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        running = {at: pool.submit(wanted[at[0]][at[1]].follow, costs) for at in every}
        for (name, i), future in running.items():
            found[name][i] = future.result()
    return found
