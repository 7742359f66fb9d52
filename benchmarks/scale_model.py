"""Where strategies stop scaling: a discrete-event model, calibrated and checked here, then run to a thousand workers.

The model is in ``benchmarks/scale``; docs/scaling.md tells its equations and assumptions.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, replace
from typing import Any

from benchmarks._measure import keep
from benchmarks.scale.calibrate import at_once, calibrate
from benchmarks.scale.extrapolate import NETWORK, curves, follow
from benchmarks.scale.parts import parts
from benchmarks.scale.report import beside_text, costs_text, plot, scale_text, validation_text
from benchmarks.scale.validate import SECONDS, validate, whole_clocks
from daskdml.cluster import local


def run(full: bool = False) -> None:
    began = time.perf_counter()
    seconds: dict[str, float] = {}
    load = [os.getloadavg()[0]]

    def passed(what: str) -> None:
        seconds[what] = time.perf_counter() - began - sum(seconds.values())

    measured = parts()
    with local(2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as client:
        client.wait_for_workers(2)
        costs = calibrate(client, measured, full)
        many = at_once(client, 1000 if full else 100)
    costs = replace(costs, schedule_busy=many["schedule"])
    costs, by_one = whole_clocks(costs, full)
    passed("calibration")
    checked = validate(costs, full)
    passed("validation")
    load.append(os.getloadavg()[0])
    found = follow(curves(full, many), costs)
    passed("extrapolation")
    network = f"{NETWORK.bandwidth * 8e-9:g} Gbit/s, {NETWORK.latency * 1e6:g} microseconds"
    text = "\n\n".join(
        [
            "## Costs\n\nMeasured on one and two workers.",
            costs_text(costs, many),
            f"## Model and reality\n\nA clock is {SECONDS * 1e3:g} ms of sleep; all processes are on this machine. "
            f"Medians of {len(checked[0]['real'])}.",
            validation_text(checked),
            f"Load average of the machine before and after: {load[0]:.1f}, {load[1]:.1f}; {os.cpu_count()} cores.",
            f"## Workers at which half of the time is lost\n\nWorkers on nodes of their own; {network}; none is slow.",
            scale_text(found["scale"]),
            "## Slow machines\n\nA clock takes 1 s.",
            beside_text(found["slow"], "pattern"),
            "## Faster and slower links\n\nA clock takes 1 s.",
            beside_text(found["links"], "bandwidth"),
            "## What would change that\n\nA clock takes 1 s.",
            beside_text(found["what_if"], "what_if"),
        ]
    )
    figures = {
        "costs": asdict(costs),
        "many_tasks_at_once": many,
        "one_worker": {strategy: asdict(alone) for strategy, alone in by_one.items()},
        "validation": checked,
        "load": load,
        "curves": found,
        "seconds": seconds,
    }
    keep("scale_model", figures, text, full)


CAPTION = "efficiency by workers"


def picture(figures: dict[str, Any]) -> Any:
    return plot(figures["curves"]["scale"])
