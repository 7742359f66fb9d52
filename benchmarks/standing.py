"""What was set out to be reached, and what the kept results say of it: a line for each target, with what limits it.

Nothing is measured here. Figures are medians of one run each, as the other benchmarks have kept them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks._measure import folder, keep, kept, median, table
from benchmarks._parts import COMPUTING, DRIVER, LOOPS, SCHEDULER
from benchmarks._rounds import parts_cost
from benchmarks.out_of_core._report import FIRST, LATER, budget, shares
from benchmarks.workers import ONE, PROCESSORS

RACES = (0.005, 0.0001)
FROM_FILES = ("Spark", "dask-ml", "Vowpal")
# Of which a race among several hundred thousand rows or more is one.
LARGER = ("dense", "wide", "multiclass", "kddcup99", "mnist")
# Why what is short is short: see the page of the benchmark for the profile.
WHY = {
    "hinge": "most rows change nothing, and scikit-learn does nothing for them; 8 times would be what two threads read",
    "CSR": "in order most rows change nothing, and all there is to do is to get 39 weights, anywhere in 4 MB, from the "
    "cache, for ours as for scikit-learn's",
    "workers": "two threads that only read rows, in that order, are {:.2f} times as fast as one worker; scheduler and "
    "driver share the two processors",
    "parts": "; of these, tasks have {:.0%} and take {:.2f} times the CPU time of one worker's, scheduler, driver and "
    "event loops {:.0%}",
    "first epoch": "decoding, training and writing the cache share two processors: of decoding and training alone one "
    "could expect {:.0%}",
    "later epochs": "of the last epoch, replicas were computing for {:.0%}",
    "files": "a few passes are enough for it, and decoding is most of one: the page says how long replicas wait for "
    "rows, and how long new memory for them takes on this machine",
    "decoding": "a few passes are enough for it, in {:.2f} s; to decode the files on two threads, and nothing else, "
    "takes {:.2f} s, and {:.2f} s with the memory at hand",
    "few rows": "all of it is a tenth of a second or two: reading the rows, a pass or two of SGD, and one of Newton's "
    "method, in a process that has not done so before",
    "time": "it was given no more time",
    "rounds": "all workers are threads of one process here, which share Python's lock with its scheduler",
    "scheduler": "tasks and messages of Dask for each replica and round, which do not grow with the blocks",
    "model": "few processors for many workers: what the machine does beside them is not in the model",
    "compilation": "two thirds are numba's own work on a kernel, before LLVM's",
}


@dataclass(frozen=True)
class Line:
    """A target: what of, the figure wanted and found, in ``unit``; whether less is better; what limits it.

    ``beyond``: what was found is more than that, as of a peer that had not come so near when its time was over.
    """

    what: str
    wanted: float
    found: float
    unit: str = "times"
    less: bool = False
    why: str = ""
    beyond: bool = False

    @property
    def reached(self) -> bool:
        return self.found <= self.wanted if self.less else self.found >= self.wanted

    def cells(self) -> list[str]:
        verdict = "reached" if self.reached else "**short**"
        sign = "at most" if self.less else "at least"
        why = "" if self.reached else self.why
        found = ("more than " if self.beyond else "") + _number(self.found, self.unit)
        return [self.what, f"{sign} {_number(self.wanted, self.unit)}", found, verdict, why]


def run(full: bool = False) -> None:
    lines = [*_workers(full), *_races(full), *_out_of_core(full), *_overheads(full), *_scale_model(full)]
    rows = [line.cells() for line in lines]
    count = sum(line.reached for line in lines)
    text = f"{count} of {len(lines)} reached. Of peers that never came so near counts how long they had tried.\n\n"
    text += table(["what", "wanted", "found", "", "what limits it"], rows)
    keep("standing", {"lines": [vars(line) | {"reached": line.reached} for line in lines]}, text, full)


def _number(value: float, unit: str) -> str:
    return f"{value:.0%}" if unit == "%" else f"{value:.3g} {unit}"


def _workers(full: bool) -> Iterator[Line]:
    for case in kept("workers", full).get("cases", ()):
        seconds = {side: median(each) for side, each in case["seconds"].items()}
        name, one = case["case"], seconds["daskdml, 1 worker"]
        two = min(seconds["daskdml, 2 workers"], seconds["daskdml, 1 worker of 2 threads"])
        sparse, theirs = "CSR" in name, seconds.get("scikit-learn, 1 core")
        why = WHY["CSR" if sparse else "hinge"]
        if loop := seconds.get("plain loop, threads: 2"):
            yield Line(f"{name}: of a plain loop on 2 threads", 0.7, loop / two, "%")
        if theirs:
            yield Line(f"{name}: scikit-learn's SGD on one core", 4.0 if sparse else 8.0, theirs / two, why=why)
        # No more can be had than two threads read, rows in that order, that do nothing else.
        reads = seconds["reading rows in that order, threads: 2"]
        why = WHY["workers"].format(one / reads) + _parts(case, two)
        yield Line(f"{name}: two workers beside one, as memory allows", min(1.7, one / reads), one / two, why=why)


def _parts(case: dict[str, Any], two: float) -> str:
    """Who has the two processors in an epoch of so many seconds, on two workers or two threads of one."""
    cpu = {side: {part: median(each) for part, each in parts.items()} for side, parts in case.get("cpu", {}).items()}
    side = next((side for side in cpu if side != ONE and median(case["seconds"][side]) == two), None)
    if side is None:
        return ""
    tasks, rest = cpu[side][COMPUTING], sum(cpu[side][part] for part in (DRIVER, SCHEDULER, LOOPS))
    both = PROCESSORS * two
    return WHY["parts"].format(tasks / both, tasks / cpu[ONE][COMPUTING], rest / both)


def _races(full: bool) -> Iterator[Line]:
    for path in sorted((folder(True) / "race").glob("*.json")):
        figures = json.loads(path.read_text())
        if "entries" not in figures or figures["full"] != full:
            continue
        name, start = figures["workload"]["name"], figures["entries"][0]["start"]
        for target in RACES:
            times = _times(figures, target)
            ours = min((s for side, (s, _) in times.items() if side.startswith("daskdml") and s), default=None)
            if ours is None:
                continue
            what = f"{name} from {start}, to {target:.2%}"
            if start == "memory":
                theirs = {side: found for side, found in times.items() if not side.startswith("daskdml")}
                if theirs:
                    best, (seconds, beyond) = min(theirs.items(), key=lambda item: item[1])
                    wanted = 3.0 if name in LARGER else 1.0
                    yield Line(f"{what}: {best}", wanted, seconds / ours, beyond=beyond, why=WHY["time"])
                continue
            for peer in FROM_FILES:
                found = [found for side, found in times.items() if side.startswith(peer)]
                if found:
                    seconds, beyond = min(found)
                    why = WHY["time"] if beyond else _why_of_files(figures, name, seconds)
                    yield Line(f"{what}: {peer}", 3.0, seconds / ours, beyond=beyond, why=why)


def _why_of_files(figures: dict[str, Any], name: str, theirs: float) -> str:
    if name not in LARGER:
        return WHY["few rows"]
    if not figures.get("decoding_seconds"):
        return WHY["files"]
    return WHY["decoding"].format(
        theirs, *(median(list(times)) for times in zip(*figures["decoding_seconds"], strict=True))
    )


def _times(figures: dict[str, Any], target: float) -> dict[str, tuple[float, bool]]:
    """The median of a side's seconds to a target, and False.

    Where it did not reach it each time, the least that it had tried when it was ended, and True; of ours nothing then.
    """
    reached: dict[str, list[float | None]] = {}
    tried: dict[str, list[float]] = {}
    for entry in figures["entries"]:
        run = next(run for run in entry["runs"] if target in run["for"])
        if not run["steps"]:
            # No time was left for it.
            continue
        level, side = figures["optimum"] * (1 + target), entry["side"]
        reached.setdefault(side, []).append(min((s for _, s, v in run["steps"] if v <= level), default=None))
        tried.setdefault(side, []).append(run["steps"][-1][1])
    found: dict[str, tuple[float, bool]] = {}
    for side, each in reached.items():
        seconds = [s for s in each if s is not None]
        if len(seconds) == len(each):
            found[side] = median(seconds), False
        elif not side.startswith("daskdml"):
            found[side] = min([*seconds, *tried[side]]), True
    return found


def _out_of_core(full: bool) -> Iterator[Line]:
    for kind, found in kept("out_of_core", full).get("formats", {}).items():
        share, fit = shares(found), found["fit"]
        why = WHY["first epoch"].format(share["possible"])
        yield Line(f"{kind} out of core, first epoch: of decoding", FIRST, share["first"], "%", why=why)
        if "once" in share:
            yield Line(f"{kind} out of core, a fit of one epoch: of decoding", FIRST, share["once"], "%", why=why)
        for name, what in (("warm", "as it is"), ("cold", "emptied")):
            if name in share:
                what = f"{kind}, later epochs, page cache {what}: of reading back"
                yield Line(what, LATER, share[name], "%", why=WHY["later epochs"].format(share["computing"]))
        peak = max(fit["peak_bytes"]) / 1e6
        yield Line(f"{kind}, peak of a worker: its limit", fit["limit"] / 1e6, peak, "MB", less=True)
        grown = peak - fit["plan"]["process_bytes"] / 1e6
        room = (budget(found) - 200e6) / 1e6 + 200
        yield Line(
            f"{kind}, peak above the process before: cache, blocks, model and 200 MB", room, grown, "MB", less=True
        )


def _overheads(full: bool) -> Iterator[Line]:
    figures = kept("overheads", full)
    if not figures:
        return
    started = {name: median(each) for name, each in figures["imports"].items()}
    yield Line(
        "import of daskdml, on top of its dependencies",
        0.5,
        started["and daskdml"] - started["dependencies"],
        "s",
        less=True,
    )
    for name, case in figures["compilations"].items():
        waited = median(case["cold"]) - median(case["warm"])
        yield Line(f"compiling at the first fit, {name}", 2.0, waited, "s", less=True, why=WHY["compilation"])
    for threads, sides in figures["predictions"]["seconds"].items():
        share = median(sides["a plain sum"]) / median(sides["predict_proba"])
        yield Line(f"predict_proba, {threads} threads: of the rate of a plain sum", 0.5, share, "%")
    fits = figures["rounds"]["fits"]
    for strategy in dict.fromkeys(fit["strategy"] for fit in fits):
        for fit in _largest([fit for fit in fits if fit["strategy"] == strategy]):
            cost = 1e3 * median(fit["epochs"][1:]) / fit["blocks"]
            what = f"{strategy}, {fit['blocks']:,} blocks, {fit['workers']} workers: a later epoch, for each block"
            yield Line(what, 1.0, cost, "ms", less=True, why=WHY["rounds"])
    for fit in figures["rounds"].get("apart", ()):
        parts = parts_cost(fit)
        what = f"{fit['strategy']}, {fit['blocks']:,} blocks, {fit['workers']} workers: CPU of driver and scheduler, "
        cost = 1e3 * (parts["driver"] + parts["scheduler"])
        yield Line(what + "for each block in an epoch", 1.0, cost, "ms", less=True, why=WHY["scheduler"])


def _largest(fits: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With the most blocks, and with the most workers."""
    blocks, workers = (max(fit[key] for fit in fits) for key in ("blocks", "workers"))
    most = [fit for fit in fits if fit["workers"] == workers]
    return [fit for fit in fits if fit["blocks"] == blocks and fit not in most] + most[-1:]


def _scale_model(full: bool) -> Iterator[Line]:
    for one in kept("scale_model", full).get("validation", ()):
        real = median(one["real"])
        what = f"scale model, {one['strategy']}, {one['workers']} workers, stragglers: {one['pattern']}: off by"
        yield Line(what, 0.2, abs(one["model"] / real - 1), "%", less=True, why=WHY["model"])
