"""A simulated fit, and what limits it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.scale.engine import Engine
from benchmarks.scale.rounds import Rounds
from benchmarks.scale.served import Served
from benchmarks.scale.settings import SERVED, STRATEGIES, Costs, Fit


@dataclass(frozen=True)
class Outcome:
    """How fast a fit went.

    Parameters
    ----------
    rate : float
        Clocks a second, of a replica, after the first ones.
    efficiency : float
        The part of the workers' time in which they train.
    waiting : float
        The part lost where nothing but training takes time, to slow machines alone.
    busy : dict
        By resource, the part of the time for which the busiest of its kind was busy.
    """

    rate: float
    efficiency: float
    waiting: float
    busy: dict[str, float]

    @property
    def limit(self) -> str:
        """What loses most: slow machines, or the costs, which are then named by the busiest resource."""
        lost = 1.0 - self.efficiency
        if self.waiting > lost - self.waiting:
            return "straggler wait"
        return max(self.busy, key=lambda name: self.busy[name])


def rate_of(starts: np.ndarray, warm: int) -> float:
    """Clocks a second: of each replica from when it began clock ``warm`` to when it began its last, the mean of all."""
    seconds = starts[:, -1] - starts[:, warm]
    return float(np.mean((starts.shape[1] - 1 - warm) / seconds))


def ideal_rate(fit: Fit) -> float:
    """The same if all machines trained all the time, in the very clocks that are measured."""
    factors = fit.pattern.factors(fit.workers, fit.clocks)[:, fit.warm : -1]
    return float(np.mean(1.0 / factors.mean(axis=1))) / fit.seconds


def _rate(fit: Fit, costs: Costs) -> tuple[float, dict[str, float]]:
    engine = Engine()
    run = (Served if fit.strategy in SERVED else Rounds)(engine, fit, costs)
    engine.run()
    return rate_of(run.starts, fit.warm), {name: float(busy / engine.now) for name, busy in run.busy().items()}


def simulate(fit: Fit, costs: Costs) -> Outcome:
    """Run a fit, and the same without any costs to see what slow machines alone take.

    Raises
    ------
    ValueError
        For a strategy that is not known, or clocks of which none is measured.

    Examples
    --------
    >>> round(simulate(Fit("BSP", workers=4, seconds=0.5), Costs()).rate, 6)
    2.0
    """
    if fit.strategy not in STRATEGIES:
        raise ValueError(f"no strategy is called {fit.strategy!r}; there are {', '.join(STRATEGIES)}")
    if not 0 <= fit.warm < fit.clocks - 1:
        raise ValueError(f"warm={fit.warm} leaves nothing to measure of {fit.clocks} clocks: give more clocks")
    rate, busy = _rate(fit, costs)
    ideal = ideal_rate(fit)
    alone = ideal if fit.pattern.kind == "none" else _rate(fit.without_costs(), Costs())[0]
    return Outcome(rate, min(rate / ideal, 1.0), max(0.0, 1.0 - alone / ideal), busy)
