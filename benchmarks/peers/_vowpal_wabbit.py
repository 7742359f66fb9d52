"""Vowpal Wabbit: examples made by its Python API from rows in memory; from files its text and its cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from vowpalwabbit import Workspace

from benchmarks.peers._scikit_learn import ONE_VERSUS_ALL
from benchmarks.race._problem import Problem
from benchmarks.race._side import Config, Side, Step, anew, going_on

# The feature that is 1 in every example.
CONSTANT = 11650396
LINES = 50_000


def lines(X: Any, y: np.ndarray) -> pa.Array:
    """Rows as Vowpal Wabbit's text, a line each; zeros are left out of sparse rows."""
    head = pc.binary_join_element_wise(pc.cast(pa.array(2 * y - 1), pa.string()), "|", " ")
    if not hasattr(X, "indptr"):
        columns = [pc.cast(pa.array(np.ascontiguousarray(X[:, j])), pa.string()) for j in range(X.shape[1])]
        named = [pc.binary_join_element_wise(str(j), column, ":") for j, column in enumerate(columns)]
        return pc.binary_join_element_wise(head, *named, " ")
    names, values = (pc.cast(pa.array(array), pa.string()) for array in (X.indices, X.data))
    # A value of 1 goes without saying.
    pairs = names if (X.data == 1).all() else pc.binary_join_element_wise(names, values, ":")
    rows = pa.ListArray.from_arrays(pa.array(X.indptr.astype(np.int32)), pairs)
    return pc.binary_join_element_wise(head, pc.binary_join(rows, " "), " ")


class VowpalFiles(Side):
    """One thread parses, one learns."""

    name = "Vowpal Wabbit, text and cache"
    package = "vowpalwabbit"
    starts = ("files",)
    tuned_from = "files"

    @classmethod
    def unfit(cls, problem: Problem) -> str | None:
        return ONE_VERSUS_ALL if problem.n_classes > 2 else None

    @classmethod
    def grid(cls, problem: Problem) -> list[Config]:
        # Of its SGD the strength is tuned too: where rates adapt, what it penalises is not the objective's penalty.
        return [
            {"how": "--bfgs"},
            {"how": "--sgd", "learning_rate": 0.1},
            {"how": "--sgd", "learning_rate": 0.5, "power_t": 0.5, "initial_t": 1.0},
            {"how": "--sgd", "learning_rate": 5.0, "power_t": 0.5, "initial_t": 100.0},
            {"how": "--adaptive --invariant", "learning_rate": 0.1},
            {"learning_rate": 0.5},
            {"learning_rate": 0.5, "l2": 1e-5},
            {"learning_rate": 0.5, "l2": 0.0},
            {"learning_rate": 0.1, "l2": 0.0},
        ]

    def prepare(self) -> None:
        # Every index needs a weight of its own, the constant too.
        self.bits = max(18, (2 * self.problem.n_features - 1).bit_length())
        if self.start == "memory":
            super().prepare()
            return
        stem = os.path.join(self.scratch, f"rows-{self.problem.n_rows}")
        self.text, self.cache = f"{stem}.txt", f"{stem}.cache"
        with open(self.text, "w") as file:
            for path in self.problem.parts:
                file.writelines(f"{line}\n" for line in self._lines(*self.problem.read([path])))
        # The first pass parses the text while it learns, and leaves the cache that all later ones read. What parsing
        # adds to a pass is found once, by a pass with it and one without; fits then read the cache.
        self._learn({}, 1).finish()
        start = perf_counter()
        self._learn({}, 1).finish()
        self.uncounted += 2 * (perf_counter() - start)

    @staticmethod
    def _lines(X: Any, y: np.ndarray) -> Iterator[str]:
        for low in range(0, len(y), LINES):
            yield from lines(X[low : low + LINES], y[low : low + LINES]).to_pylist()

    def steps(self, config: Config) -> Iterator[Step]:
        return self._from_files(config) if self.start == "files" else self._from_memory(config)

    def _arguments(self, config: Config) -> str:
        config = {"l2": self.problem.alpha} | config
        how = config.pop("how", "")
        if how == "--bfgs":
            # Here the penalty is on the sum of losses.
            config["l2"] *= self.problem.n_rows
            how += " --termination 1e-12"
        given = " ".join(f"--{name} {value}" for name, value in config.items())
        return f"--loss_function logistic -b {self.bits} --quiet --holdout_off --no_bias_regularization {how} {given}"

    def _from_files(self, config: Config) -> Iterator[Step]:
        def model(vw: Workspace) -> Any:
            found = self._read(vw)
            vw.finish()
            return found

        # Its bfgs refuses a single pass.
        fewest = 2 if config.get("how") == "--bfgs" else 1
        return anew(lambda passes: self._learn(config, passes), model, fewest=fewest)

    def _learn(self, config: Config, passes: int) -> Workspace:
        source = f"-d {self.text} --cache_file {self.cache} --passes {passes}"
        return Workspace(f"{source} {self._arguments(config)}")

    def _from_memory(self, config: Config) -> Iterator[Step]:
        # How an example is laid out depends on the settings: it cannot be made before these are known. Rates that fall
        # with the number of rows count the examples that are finished: there each is made anew in each pass.
        kept = "--sgd" not in config.get("how", "")
        start = perf_counter()
        vw = Workspace(self._arguments(config) + " --no_stdin")
        rows = list(map(vw.example, self._lines(self.X, self.y)) if kept else self._lines(self.X, self.y))
        before = perf_counter() - start

        def train() -> None:
            for row in rows:
                vw.learn(row)

        try:
            for step in going_on(train, lambda: self._read(vw)):
                yield replace(step, seconds=before + step.seconds, before=before)
        finally:
            for row in rows if kept else ():
                vw.finish_example(row)
            vw.finish()

    def _read(self, vw: Workspace) -> Any:
        coef = np.array([[vw.get_weight(j) for j in range(self.problem.n_features)]])
        constant = vw.get_weight(CONSTANT % 2**self.bits)
        # Weights are kept apart from the factor by which the penalty has shrunk them all: a prediction shows it.
        j = int(np.abs(coef + constant).argmax())
        score = coef[0, j] + constant
        shrunk = vw.predict(f"| {j}:1") / score if score else 1.0
        return coef * shrunk, np.array([constant * shrunk])


class VowpalMemory(VowpalFiles):
    """Tuned from files, where examples are not made anew for each of the settings."""

    name = "Vowpal Wabbit, Python API"
    starts = ("memory",)

    @classmethod
    def grid(cls, problem: Problem) -> list[Config]:
        # Its bfgs learns from a cache only.
        return [config for config in super().grid(problem) if config.get("how") != "--bfgs"]
