"""Settings of each side, found by trying its grid on the whole workload; kept in a file that the race reads."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from benchmarks.race._child import Child, Overdue, Run
from benchmarks.race._side import Config, Side

# Within these parts of the optimal objective.
TARGETS = (0.02, 0.005, 0.0001)


def enough(run: Run, levels: list[float], best: list[float]) -> bool:
    """Whether a run can tell nothing more: each level is reached, or another run was there sooner."""
    seconds = run.steps[-1][1]
    value = run.steps[-1][2]
    return all(value <= level or seconds > known for level, known in zip(levels, best, strict=True))


def tune(process: Child, side: type[Side], grid: list[Config], optimum: float, limit: float, until: float) -> list[Run]:
    """Every configuration of a grid, each for as long as it may still win."""
    levels = [optimum * (1 + target) for target in TARGETS]
    best = [math.inf] * len(levels)
    runs = []
    for config in grid:
        try:
            runs.append(process.train(config, limit, until, lambda run, best=best: enough(run, levels, best)))
        except Overdue as overdue:
            # What was tried is better than nothing.
            return [*runs, overdue.args[0]]
        run = runs[-1]
        best = [min(b, run.seconds_to(level) or math.inf) for b, level in zip(best, levels, strict=True)]
    return runs


def winners(runs: list[Run], optimum: float) -> dict[str, Config]:
    """For each target the configuration that was there first; where none was, the one that came nearest."""

    def rank(run: Run, target: float) -> tuple[float, float]:
        seconds = run.seconds_to(optimum * (1 + target))
        return (math.inf, min((v for _, _, v in run.steps), default=math.inf)) if seconds is None else (seconds, 0.0)

    return {str(target): min(runs, key=lambda run: rank(run, target)).config for target in TARGETS}


class Settings:
    """The file of tuned settings: by workload, then by side."""

    def __init__(self, path: Path):
        self.path = path
        self.found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def of(self, workload: str, side: type[Side], default: Config) -> tuple[dict[str, Config], bool]:
        """The configuration for each target, and whether it was tuned."""
        found = self.found.get(workload, {}).get(side.tuned_as or side.name)
        return (found["best"], True) if found else ({str(target): default for target in TARGETS}, False)

    def put(self, workload: str, side: type[Side], runs: list[Run], optimum: float) -> None:
        """Remember what tuning found, and what it saw."""
        tried = [
            {
                "config": run.config,
                "ended": run.ended,
                "passes": run.steps[-1][0] if run.steps else 0,
                "seconds": run.steps[-1][1] if run.steps else None,
                "above_optimum": min((v for _, _, v in run.steps), default=math.nan) / optimum - 1,
            }
            for run in runs
        ]
        self.found.setdefault(workload, {})[side.name] = {"best": winners(runs, optimum), "tried": tried}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.found, indent=1) + "\n")
