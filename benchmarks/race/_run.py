"""The course of a race: workloads, starts, repetitions; or of a tuning."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._measure import RESULTS, new_memory_seconds
from benchmarks.peers import sides as sides_of
from benchmarks.race._child import Child, ChildError, Overdue, Run, child
from benchmarks.race._decoding import decoding_seconds
from benchmarks.race._objective import Objective
from benchmarks.race._optima import optimum_of
from benchmarks.race._options import parse
from benchmarks.race._problem import Problem, write
from benchmarks.race._report import NEW_BYTES, Entry, report
from benchmarks.race._side import Config, Side
from benchmarks.race._tune import TARGETS, Settings, tune
from benchmarks.race._workloads import WORKLOADS

FEW = 1_000


class Race:
    """One workload, ready to be raced over."""

    def __init__(self, name: str, options: Any, folder: str, deadline: float):
        workload, self.options, self.deadline, self.folder = WORKLOADS[name], options, deadline, folder
        X, y = workload.make(workload.full if options.full else workload.quick)
        self.problem = write(name, f"{folder}/all", X, y, workload.n_classes)
        self.few = write(name, f"{folder}/few", X[:FEW], y[:FEW], workload.n_classes)
        self.objective = Objective(self.problem)
        self.optimum, self.gradient = optimum_of(self.objective, name, deadline)
        where = RESULTS / "race" if options.full else Path(folder)
        self.settings = Settings(where / "tuned.json")

    def process(self, side: type[Side], start: str) -> Any:
        scratch = tempfile.mkdtemp(dir=self.folder)
        return child(side.name, (self.problem, self.few), start, scratch, self.objective.value, self.deadline)

    def tune(self, side: type[Side]) -> None:
        if side.tuned_as is not None:
            print(f"{side.name}: as {side.tuned_as}", flush=True)
            return
        with self.process(side, side.tuned_from) as process:
            grid = side.grid(self.problem)
            runs = tune(process, side, grid, self.optimum, self.options.limit / 2, self.deadline)
        self.settings.put(self.problem.name, side, runs, self.optimum)
        best = self.settings.of(self.problem.name, side, {})[0]
        print(f"{side.name}: " + "; ".join(f"{float(t):.2%} {config}" for t, config in best.items()), flush=True)

    def once(self, side: type[Side], start: str) -> Entry:
        """A side with each of the configurations that are best for some target, a process for each."""
        best, tuned = self.settings.of(self.problem.name, side, side.grid(self.problem)[0])
        configs: list[Config] = []
        for config in best.values():
            if config not in configs:
                configs.append(config)
        entry = Entry(side.name, start, tuned)
        for config in configs:
            targets = [target for target in TARGETS if best[str(target)] == config]
            last = self.optimum * (1 + min(targets))
            try:
                with self.process(side, start) as process:
                    run = _trained(process, config, self.options.limit, self.deadline, last)
                    entry.add(run, targets, process, self.deadline)
            except TimeoutError:
                # What the other configurations have shown is kept.
                entry.runs.append((Run(config, ended="no time was left for it"), targets))
        if not entry.ready:
            raise TimeoutError
        return entry


def _trained(process: Child, config: Config, limit: float, until: float, level: float) -> Run:
    try:
        return process.train(config, limit, until, lambda run: run.steps[-1][2] <= level)
    except Overdue as overdue:
        return overdue.args[0]


def run(full: bool = False, arguments: Sequence[str] = ()) -> None:
    warnings.simplefilter("ignore")
    options = parse(list(arguments), full)
    deadline = time.monotonic() + options.budget
    found, absent = sides_of(options.peers)
    found = [side for side in found if not options.sides or any(part in side.name for part in options.sides)]
    for peer, reason in absent.items():
        print(f"{peer} is passed over: {reason}", flush=True)
    for name in options.only:
        with tempfile.TemporaryDirectory(prefix="race-") as folder:
            try:
                race = Race(name, options, folder, deadline)
            except FileNotFoundError as error:
                print(f"{name} is passed over: {error}", flush=True)
                continue
            taking_part, unfit = _divided(found, race.problem)
            for start in (None,) if options.tune else options.starts:
                able = [side for side in taking_part if start is None or start in side.starts]
                _go(race, able, start, absent | unfit)


def _divided(found: list[type[Side]], problem: Problem) -> tuple[list[type[Side]], dict[str, str]]:
    unfit = {side.name: reason for side in found if (reason := side.unfit(problem))}
    return [side for side in found if side.name not in unfit], unfit


def _go(race: Race, sides: list[type[Side]], start: str | None, left_out: dict[str, str]) -> None:
    """Tune every side, or let them race in turn, as often as the time allows."""
    entries: list[Entry] = []
    failed: dict[str, str] = {}
    memory: list[float] = []
    decoding: list[tuple[float, float]] = []
    for _ in range(1 if start is None else race.options.repeats):
        memory.append(new_memory_seconds(NEW_BYTES))
        if start == "files":
            decoding.append(decoding_seconds(race.problem))
        for side in sides:
            if side.name in failed:
                continue
            before = [entry.wall for entry in entries if entry.side == side.name]
            began = time.monotonic()
            if began + max(before, default=0.0) > race.deadline:
                if not before:
                    failed[side.name] = "not within the time of the command"
                print(f"{side.name}: no time is left", flush=True)
                continue
            try:
                if start is None:
                    race.tune(side)
                else:
                    entries.append(race.once(side, start))
                    entries[-1].wall = time.monotonic() - began
                    print(entries[-1].line(), flush=True)
            except (ChildError, Overdue, TimeoutError) as error:
                late = isinstance(error, (Overdue, TimeoutError))
                failed[side.name] = "not within the time of the command" if late else str(error)
                print(f"{side.name}: {failed[side.name]}", flush=True)
    if start is not None:
        best = race.optimum, race.gradient
        report(race.problem, best, race.options, start, entries, left_out | failed, memory, decoding)
