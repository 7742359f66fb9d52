"""The model beside reality: clocks a second of real fits on up to eight processes of this machine."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
from distributed import Client

from benchmarks.scale.engine import Engine
from benchmarks.scale.fits import Alone, alone, carry_out, compile_kernels, measure
from benchmarks.scale.rounds import Rounds
from benchmarks.scale.served import Served
from benchmarks.scale.settings import SERVED, STRATEGIES, Costs, Fit, Pattern
from benchmarks.scale.simulate import rate_of
from daskdml.cluster import local

WITHIN = 0.2
SECONDS = 0.05
# Replicas of one worker, from which the driver hears together.
SHARING = 4


def _sides(fit: Fit, costs: Costs) -> tuple[float, float, float]:
    """Of a clock of a simulated fit: CPU of a worker and of the driver, and seconds."""
    engine = Engine()
    run = (Served if fit.strategy in SERVED else Rounds)(engine, fit, costs)
    engine.run()
    cluster = run.cluster
    return (
        cluster.workers[0].cpu.busy / fit.clocks,
        cluster.driver.cpu.busy / fit.clocks,
        1 / rate_of(run.starts, fit.warm),
    )


def with_own(costs: Costs, strategy: str, measured: Alone, seconds: float, clocks: int) -> Costs:
    """The costs of a clock that no part explains: what a fit by one worker takes beyond its tasks and messages."""
    fit = _one(strategy, 1, seconds, clocks)
    worker, driver, _ = _sides(fit, costs)
    own = {strategy: max(0.0, measured.worker - worker)}
    report = {strategy: max(0.0, measured.driver - driver)}
    with_cpu = replace(costs, own=costs.own | own, report=costs.report | report)
    pause = max(0.0, measured.clock - _sides(fit, with_cpu)[2])
    return replace(with_cpu, own_pause=costs.own_pause | {strategy: pause})


def with_hearing(costs: Costs, strategy: str, measured: Alone, seconds: float, clocks: int) -> Costs:
    """Of the driver's cost of a clock, what it has once however many replicas report one: by a fit of `SHARING`."""
    driver = _sides(_one(strategy, SHARING, seconds, clocks), replace(costs, report={}))[1]
    together = costs.report[strategy]
    report = min(max(0.0, measured.driver - driver - together) / (SHARING - 1), together)
    return replace(costs, report=costs.report | {strategy: report}, hear=costs.hear | {strategy: together - report})


def _one(strategy: str, replicas: int, seconds: float, clocks: int) -> Fit:
    return Fit(strategy, 1, seconds, threads=replicas, clocks=clocks, warm=clocks // 2, cores=os.cpu_count())


def prepare(client: Client, workers: int) -> None:
    """Compilation, imports and connections, which are to count for nobody."""
    compile_kernels(client)
    for strategy in STRATEGIES:
        carry_out(client, Fit(strategy, workers, 0.01, clocks=6))


def whole_clocks(costs: Costs, full: bool) -> tuple[Costs, dict[str, Alone]]:
    """The costs with those of a whole clock, from fits by one worker, of one replica and of several."""
    few, many = (16, 80) if full else (4, 12)
    found = {}
    for replicas in (1, SHARING):
        with local(1, threads_per_worker=replicas, dashboard_address="127.0.0.1:0") as client:
            client.wait_for_workers(1)
            prepare(client, 1)
            for strategy in STRATEGIES if replicas == 1 else SERVED:
                measured = alone(client, strategy, SECONDS, few, many, replicas, 3 if full else 1)
                if replicas == 1:
                    found[strategy] = measured
                    costs = with_own(costs, strategy, measured, SECONDS, many)
                else:
                    costs = with_hearing(costs, strategy, measured, SECONDS, many)
    return costs, found


def validate(costs: Costs, full: bool) -> list[dict[str, Any]]:
    """Real and simulated clocks a second, by strategy, pattern and workers; costs are of one and two workers."""
    rows = []
    repeats = 3 if full else 1
    for workers in (1, 2, 4, 8) if full else (2,):
        with local(workers, threads_per_worker=1, dashboard_address="127.0.0.1:0") as client:
            client.wait_for_workers(workers)
            prepare(client, workers)
            for strategy in STRATEGIES:
                clocks, warm = (24, 7) if full else (8, 2)
                fit = Fit(strategy, workers, SECONDS, clocks=clocks, warm=warm, cores=os.cpu_count())
                rows.append(_compared(client, fit, costs, repeats))
                # A single machine that is always slow has no pattern.
                if workers > 1:
                    rows.append(_compared(client, replace(fit, pattern=Pattern("rotating")), costs, repeats))
    return rows


def _compared(client: Any, fit: Fit, costs: Costs, repeats: int) -> dict[str, Any]:
    real = [rate_of(measure(client, fit), fit.warm) for _ in range(repeats)]
    model, middle = 1 / _sides(fit, costs)[2], float(np.median(real))
    free = 1 / _sides(fit.without_costs(), Costs())[2]
    return {
        "strategy": fit.strategy,
        "pattern": fit.pattern.kind,
        "workers": fit.workers,
        "real": real,
        "model": model,
        "free": free,
        "ratio": model / middle,
        "within": abs(model / middle - 1) <= WITHIN,
    }
