"""A process for each side: memory, threads and what a library does at its import are its own.

The parent holds the objective. The child puts each model into a file and waits to be told whether to go on, so that
judging models costs neither its time nor its memory.
"""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import psutil

from benchmarks.race._problem import Problem
from benchmarks.race._side import Config, Side

# A fit that is expected to last longer than the limit by this is not begun: not all of its time is in its passes.
LONGER = 1.25


def peaks() -> dict[str, int]:
    """The largest resident size of this process and of each below it, in bytes."""
    found = {}
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            name = f"{process.name()} {process.pid}"
        except (OSError, psutil.Error):
            continue
        # A process that has ended and was not waited for has no memory.
        peak = next((line for line in status.splitlines() if line.startswith("VmHWM")), None)
        if peak is not None:
            found[name] = int(peak.split()[1]) * 1024
    return found


def serve(pipe: Any, side_name: str, problem: Problem, few: Problem, start: str, scratch: str) -> None:
    """Be a side: until told to quit, train by the configurations that come."""
    warnings.simplefilter("ignore")
    try:
        began = perf_counter()
        side = _opened(side_name, few, start, scratch)
        of_few = copy.copy(side)
        side.problem = problem
        ready = {"start_up_seconds": perf_counter() - began}
        began = perf_counter()
        side.prepare()
        ready["preparation_seconds"] = perf_counter() - began - side.uncounted
        counted = ready["preparation_seconds"] if start == "files" else 0.0
        pipe.send(("ready", ready))
        while (config := pipe.recv()) is not None:
            # What these settings need was imported, loaded and compiled before they are timed.
            next(iter(of_few.steps(config)))
            # What Python has to collect of all that came before is not the fit's, whichever side's it is.
            gc.collect()
            _train(pipe, side, config, counted, scratch)
        pipe.send(("peaks", peaks()))
        side.close()
    except Exception as error:
        pipe.send(("failed", f"{type(error).__name__}: {error}", traceback.format_exc()))
        # Threads of a library that failed may keep the process alive.
        os._exit(1)


def _opened(name: str, few: Problem, start: str, scratch: str) -> Side:
    """A side that has been started, and has trained on a few rows: what that takes at first counts for nobody."""
    from benchmarks.peers import side_named

    make = side_named(name)
    side = make(few, start, scratch)
    side.open()
    side.prepare()
    next(iter(side.steps(make.grid(few)[0])))
    side.uncounted = 0.0
    return side


def _train(pipe: Any, side: Side, config: Config, counted: float, scratch: str) -> None:
    try:
        for step in side.steps(config):
            path = os.path.join(scratch, "model.npz")
            np.savez(path, coef=step.coef, intercept=step.intercept)
            about = (step.passes, counted + step.seconds, counted + step.before, step.note, step.following)
            pipe.send(("step", path, *about))
            if pipe.recv() == "stop":
                break
        pipe.send(("end", None))
    except Exception as error:
        pipe.send(("end", f"{type(error).__name__}: {error}"))


@dataclass
class Run:
    """What came of one configuration: (passes, seconds, objective) of each model, and why it ended.

    ``before``: which of the seconds went into preparing the rows.
    """

    config: Config
    steps: list[tuple[int, float, float]] = field(default_factory=list)
    notes: list[dict[str, float]] = field(default_factory=list)
    ended: str = ""
    before: float = 0.0

    def seconds_to(self, level: float) -> float | None:
        """Of the quickest that reached it: where each model is a fit of its own, that need not be the first."""
        return min((seconds for _, seconds, value in self.steps if value <= level), default=None)


class Child:
    """The parent's end of a side's process."""

    def __init__(self, pipe: Any, process: Any, value: Callable[[np.ndarray, np.ndarray], float]):
        self._pipe, self._process, self._value = pipe, process, value
        self.ready: dict[str, float] = {}

    def receive(self, until: float) -> Any:
        """The next message; TimeoutError after ``until``, ChildError for a side that failed."""
        if not self._pipe.poll(max(0.0, until - time.monotonic())):
            raise TimeoutError
        message = self._pipe.recv()
        if message[0] == "failed":
            raise ChildError(message[1])
        return message

    def train(self, config: Config, limit: float, until: float, enough: Callable[[Run], bool]) -> Run:
        """Train until it is enough, or longer than ``limit`` seconds; no later than ``until``.

        Preparing the rows does not count for the limit.
        """
        run = Run(config)
        self._pipe.send(config)
        try:
            while (message := self.receive(until))[0] == "step":
                _, path, passes, seconds, run.before, note, following = message
                with np.load(path) as model:
                    value = self._value(model["coef"], model["intercept"])
                run.steps.append((passes, seconds, value))
                run.notes.append(note)
                if enough(run):
                    run.ended = "reached"
                elif not np.isfinite(value):
                    run.ended = "diverged"
                elif (seconds - run.before) * (following or passes) / passes > (LONGER if following else 1) * limit:
                    run.ended = f"not within {limit:g} s"
                self._pipe.send("stop" if run.ended else "go")
            run.ended = message[1] or run.ended or f"no better after {run.steps[-1][0]} passes"
        except TimeoutError:
            run.ended = "stopped at the time limit of the command"
            raise Overdue(run) from None
        return run

    def quit(self, until: float) -> dict[str, int]:
        """End it, having its peak memory."""
        self._pipe.send(None)
        found = self.receive(until)[1]
        self._process.join(max(1.0, until - time.monotonic()))
        return found


class ChildError(Exception):
    """A side failed before it could train."""


class Overdue(Exception):
    """A run that had to be cut off; its first argument is what is known of it."""


@contextmanager
def child(
    side: str, problems: tuple[Problem, Problem], start: str, scratch: str, value: Callable[..., float], until: float
) -> Iterator[Child]:
    """A side's process, ready to train; it and what it started are gone afterwards.

    ``problems``: the one raced over, and one of few rows to warm up with.
    """
    # A fresh interpreter: what the parent has imported or started is not the side's.
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, side, *problems, start, scratch), daemon=False)
    process.start()
    there.close()
    try:
        found = Child(here, process, value)
        found.ready = found.receive(until)[1]
        yield found
    except EOFError:
        raise ChildError("its process died") from None
    finally:
        _end(process)
        here.close()


def _end(process: Any) -> None:
    """Kill a process, if it has not ended, with all it has started."""
    if process.is_alive():
        below = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for each in below:
            try:
                each.kill()
            except psutil.NoSuchProcess:
                continue
    process.join()
