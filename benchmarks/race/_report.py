"""What a race has shown: figures as JSON, a table, a plot."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarks._measure import RESULTS, machine, median, spread, table
from benchmarks.peers import PEERS
from benchmarks.race._child import Child, Run
from benchmarks.race._problem import Problem
from benchmarks.race._tune import TARGETS

PACKAGES = ("dask-ml", "dask-glm", "vowpalwabbit", "pyspark", "torch")
OURS = "daskdml"
SPENT = """Where the time of the longest fit of two replicas went, in the mean of the two. What rounds lack to 100 % is
starting and ending; what computing, loading and waiting lack to the rounds' is messages and waiting for each other."""


# Touched before each turn, to know what memory costs here.
NEW_BYTES = 2**28
MEMORY = """{mb:.0f} MB of memory that a process did not have before took {seconds} s to be had, before each turn. Rows
that are kept from pass to pass lie in such memory, of whichever side; a fit of ours of one pass keeps none."""
DECODING = """To decode all files into rows on two threads, without anything else, took {} s; right after that, with the
memory at hand, {} s. No side that reads every row once, on this machine and by this reader, could take less."""


@dataclass
class Entry:
    """One repetition of one side."""

    side: str
    start: str
    tuned: bool
    runs: list[tuple[Run, list[float]]] = field(default_factory=list)
    ready: list[dict[str, float]] = field(default_factory=list)
    peaks: list[dict[str, int]] = field(default_factory=list)
    wall: float = 0.0

    def add(self, run: Run, targets: list[float], process: Child, until: float) -> None:
        self.runs.append((run, targets))
        self.ready.append(process.ready)
        if not run.ended.startswith("stopped"):
            try:
                self.peaks.append(process.quit(until))
            except TimeoutError:
                return

    def seconds(self, target: float, optimum: float) -> float | None:
        """To a target, by the configuration that is for it."""
        run = next(run for run, targets in self.runs if target in targets)
        return run.seconds_to(optimum * (1 + target))

    def missed(self, target: float, optimum: float) -> str:
        """How near it came, where it did not reach a target."""
        run = next(run for run, targets in self.runs if target in targets)
        if not run.steps:
            return run.ended
        passes, seconds, _ = run.steps[-1]
        best = min(value for _, _, value in run.steps) / optimum - 1
        return f"not within {passes} passes, {seconds:.3g} s: {best:+.2g}"

    def rate(self, rows: int) -> float:
        """Rows a second of the longest run, without what came before its passes."""
        run = max((run for run, _ in self.runs if run.steps), key=lambda run: run.steps[-1][0])
        passes, seconds, _ = run.steps[-1]
        return rows * passes / max(seconds - run.before, 1e-9)

    def line(self) -> str:
        ends = ", ".join(f"{run.ended} after {run.steps[-1][1] if run.steps else 0:.2f} s" for run, _ in self.runs)
        return f"{self.side}, {self.start}: {ends}"

    def figures(self) -> dict[str, Any]:
        runs = [
            {"config": run.config, "for": targets, "ended": run.ended, "steps": run.steps, "notes": run.notes[-1:]}
            for run, targets in self.runs
        ]
        own = {"side": self.side, "start": self.start, "tuned": self.tuned, "wall_seconds": self.wall}
        return own | {"runs": runs, "ready": self.ready, "peak_bytes": self.peaks}


def report(
    problem: Problem,
    best: tuple[float, float],
    options: Any,
    start: str,
    entries: list[Entry],
    out: dict[str, str],
    memory: list[float],
    decoding: list[tuple[float, float]],
) -> None:
    """Keep and print what a race from one start has shown.

    ``memory``: seconds of ``NEW_BYTES`` before each turn; ``decoding``: of all files, at once and again.
    """
    if not entries:
        return
    optimum, gradient = best
    # A race among some has results of its own.
    some = "" if len(options.peers) == len(PEERS) else "-" + "+".join(peer for peer in options.peers if peer != OURS)
    name = f"{problem.name}-{start}{some}" + ("" if options.full else "-quick")
    sides = list(dict.fromkeys(entry.side for entry in entries))
    by_side = {side: [entry for entry in entries if entry.side == side] for side in sides}
    body = table(_headings(), _rows(problem, optimum, by_side))
    head = (
        f"{problem.n_rows:,} x {problem.n_features:,}{', sparse' if problem.is_sparse else ''}, "
        f"{problem.n_classes} classes, from {start}; optimum {optimum:.8f} (gradient {gradient:.0e}); "
        f"at most {options.limit:.0f} s a fit."
    )
    if not options.full:
        head += " **Quick size: shows that the sides run, not how fast they are.**"
    text = f"{head}\n\n{body}\n"
    if spent := _spent(by_side):
        text += f"\n{SPENT}\n\n{spent}\n"
    text += f"\n{MEMORY.format(mb=NEW_BYTES / 1e6, seconds=spread(memory))}\n"
    if decoding:
        text += f"\n{DECODING.format(*(spread(list(times)) for times in zip(*decoding, strict=True)))}\n"
    text += "".join(f"\n* left out: {side}: {reason}" for side, reason in out.items())
    folder = RESULTS / "race"
    folder.mkdir(parents=True, exist_ok=True)
    where = machine() | versions()
    figures = {
        "machine": where,
        "workload": vars(problem) | {"folder": ""},
        "optimum": optimum,
        "gradient": gradient,
        "limit_seconds": options.limit,
        "full": options.full,
        "left_out": out,
        "new_memory_seconds": memory,
        "decoding_seconds": decoding,
        "entries": [entry.figures() for entry in entries],
    }
    (folder / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")
    about = ", ".join(f"{key} {value}" for key, value in where.items())
    plot = f"![objective by time]({name}.png)"
    (folder / f"{name}.md").write_text(f"# race: {name}\n\n{about}\n\n{text}\n\n{plot}\n")
    _plot(by_side, optimum, folder / f"{name}.png")
    print(f"\n{text}", flush=True)


def versions() -> dict[str, str]:
    """Of the peers that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _headings() -> list[str]:
    within = [f"s to {target:.2%}" for target in TARGETS]
    times = [f"of {OURS}'s best, {target:.2%}" for target in TARGETS]
    return ["side", "runs", *within, *times, "M rows/s", "peak MB", "start-up s", "settings"]


def _rows(problem: Problem, optimum: float, by_side: dict[str, list[Entry]]) -> list[list[Any]]:
    bases = {target: _base(by_side, target, optimum) for target in TARGETS}
    rows = []
    for side, entries in by_side.items():
        times = {target: [entry.seconds(target, optimum) for entry in entries] for target in TARGETS}
        peak = [sum(found.values()) / 1e6 for entry in entries for found in entry.peaks]
        rows.append(
            [
                side,
                len(entries),
                *(_seconds(times[target], entries, target, optimum) for target in TARGETS),
                *(_ratio(times[target], bases[target]) for target in TARGETS),
                f"{median([entry.rate(problem.n_rows) for entry in entries if _any(entry)] or [0.0]) / 1e6:.3g}",
                f"{max(peak):.0f}" if peak else "",
                f"{median([ready['start_up_seconds'] for entry in entries for ready in entry.ready]):.1f}",
                "; ".join(dict.fromkeys(_words(run.config) for run, _ in entries[0].runs))
                + ("" if entries[0].tuned else " (not tuned)"),
            ]
        )
    return rows


def _any(entry: Entry) -> bool:
    return any(run.steps for run, _ in entry.runs)


def _words(config: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in config.items()) or "defaults"


def _base(by_side: dict[str, list[Entry]], target: float, optimum: float) -> list[float] | None:
    """The seconds of our own best side."""
    ours = [
        [entry.seconds(target, optimum) for entry in entries]
        for side, entries in by_side.items()
        if side.startswith(OURS)
    ]
    reached = [[s for s in times if s is not None] for times in ours if None not in times]
    return min(reached, key=median, default=None)


def _seconds(times: list[float | None], entries: list[Entry], target: float, optimum: float) -> str:
    reached = [seconds for seconds in times if seconds is not None]
    if not reached:
        return entries[0].missed(target, optimum)
    text = spread(reached) if len(reached) > 1 else f"{reached[0]:.3g}"
    return text if len(reached) == len(times) else f"{text}, in {len(reached)} of {len(times)}"


def _ratio(times: list[float | None], base: list[float] | None) -> str:
    """Of repetitions that were run in the same turn."""
    if base is None:
        return ""
    ratios = [a / b for a, b in zip(times, base, strict=False) if a is not None]
    if not ratios:
        return ""
    return spread(ratios) if len(ratios) > 1 else f"{ratios[0]:.3g}"


def _spent(by_side: dict[str, list[Entry]]) -> str:
    rows = []
    for side, entries in by_side.items():
        runs = [run for entry in entries for run, _ in entry.runs if run.notes and run.notes[-1]]
        if not runs:
            continue
        of_fit = [(run.notes[-1], run.steps[-1][1] - run.before) for run in runs]
        rows.append([side, f"{median([note['seconds'] / fit for note, fit in of_fit]):.0%}"])
        for key in ("compute", "load", "wait"):
            rows[-1].append(f"{median([note[f'{key}_seconds'] / fit / 2 for note, fit in of_fit]):.0%}")
    return table(["side", "in rounds", "computing", "loading", "waiting for rows"], rows) if rows else ""


def _plot(by_side: dict[str, list[Entry]], optimum: float, path: Any) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(10, 5))
    for side, entries in by_side.items():
        run, _ = min(entries[0].runs, key=lambda found: min(found[1]))
        points = [(s, value / optimum - 1) for _, s, value in run.steps if math.isfinite(value)]
        if points:
            style = "-" if side.startswith(OURS) else "--"
            ax.plot(*zip(*points, strict=True), style, marker=".", label=side)
    for target in TARGETS:
        ax.axhline(target, color="grey", linewidth=0.5)
    ax.set(xscale="log", yscale="log", xlabel="seconds", ylabel="objective above the optimum, as a part of it")
    ax.set_ylim(bottom=1e-6)
    # Beside the lines: a dozen sides leave no corner free.
    ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
