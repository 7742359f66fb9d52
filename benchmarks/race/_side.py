"""A side of a race: how a library is started, given the rows, and trained for more and more passes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, ClassVar

import numpy as np

from benchmarks.race._problem import Problem

Config = dict[str, Any]
# For both libraries of SGD that have running means: such as begin "after" so many passes, the first being the worst.
TAILS: list[Config] = [
    {"learning_rate": "constant", "eta0": 0.001, "after": 1},
    {"learning_rate": "constant", "eta0": 0.001, "after": 3},
    {"learning_rate": "constant", "eta0": 0.01, "after": 5},
    {"learning_rate": "invscaling", "eta0": 1.0, "power_t": 0.4, "after": 10},
]


def with_tail(config: Config, problem: Problem) -> Config:
    """A configuration in scikit-learn's words: ``average`` counts rows."""
    rest = {name: value for name, value in config.items() if name != "after"}
    return rest | {"average": config["after"] * problem.n_rows + 1} if "after" in config else rest


@dataclass(frozen=True, eq=False)
class Step:
    """A model, and what it took: ``seconds`` from the rows to it, without anything that only the race needs.

    ``before`` of these seconds went into making the library's own form of the rows. ``following``: the passes of the
    next fit, where each step is a fit from the start.
    """

    passes: int
    seconds: float
    coef: np.ndarray
    intercept: np.ndarray
    note: dict[str, float] = field(default_factory=dict)
    before: float = 0.0
    following: int | None = None


class Side:
    """Base of the sides.

    ``open`` and ``prepare`` come first; the seconds of ``prepare`` count with a start from files. In memory they do
    not: it then only puts the rows where the library keeps rows that are in memory, be that its workers' memory.
    ``steps`` trains by a configuration, giving a :class:`Step` after each pass (of a fit that can go on), or for each
    of several fits of 1, 2, 3, 4, 6, 8, ... passes; it ends by itself when its library has nothing to improve any more.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    # What it is tuned from; what tuning finds holds for both.
    tuned_from: ClassVar[str] = "memory"
    # The side that is tuned in its place, whose models are the same.
    tuned_as: ClassVar[str | None] = None
    starts: ClassVar[tuple[str, ...]] = ("memory", "files")

    def __init__(self, problem: Problem, start: str, scratch: str):
        self.problem, self.start, self.scratch = problem, start, scratch
        # Seconds in ``prepare`` that were only needed to measure.
        self.uncounted = 0.0

    @classmethod
    def unfit(cls, problem: Problem) -> str | None:
        """Why this side cannot take part in a problem; None where it can."""
        return None

    @classmethod
    def grid(cls, problem: Problem) -> list[Config]:
        """What is tried in tuning; the first is what is taken without."""
        return [{}]

    def open(self) -> None:
        """Start what has to run before rows come: a cluster, a virtual machine."""

    def prepare(self) -> None:
        """Take the problem's rows."""
        self.X, self.y = self.problem.read() if self.start == "files" else self.problem.rows()

    def steps(self, config: Config) -> Iterator[Step]:
        raise TypeError(f"{type(self).__name__} does not train")

    def close(self) -> None:
        """Stop what was started."""


def growing() -> Iterator[int]:
    """1, 2, 3, 4, 6, 8, 12, ..."""
    yield 1
    for power in itertools.count(1):
        yield 2**power
        yield 3 * 2 ** (power - 1)


Model = tuple[np.ndarray, np.ndarray]


def going_on(train: Callable[[], Any], model: Callable[[], Model]) -> Iterator[Step]:
    """Steps of something that can be trained for one pass more.

    After 20 passes only some models are shown: judging them all would take longer than making them.
    """
    seconds, shown = 0.0, 0
    for passes in itertools.count(1):
        start = perf_counter()
        train()
        seconds += perf_counter() - start
        if passes <= 20 or passes >= 1.05 * shown:
            shown = passes
            yield Step(passes, seconds, *model())


def anew(
    fit: Callable[[int], Any],
    model: Callable[[Any], Model],
    used: Callable[[Any], int] | None = None,
    note: Callable[[Any], dict[str, float]] | None = None,
    fewest: int = 1,
) -> Iterator[Step]:
    """Steps of fits from the start, each longer; ``used`` tells how many of its passes a fit has made."""
    for passes, following in itertools.pairwise(n for n in growing() if n >= fewest):
        start = perf_counter()
        fitted = fit(passes)
        seconds = perf_counter() - start
        made = used(fitted) if used else passes
        yield Step(made, seconds, *model(fitted), note(fitted) if note else {}, following=following)
        if made < passes:
            return
