"""daskdml: one replica in memory, two on threads, two on processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import dask.array as da
import numpy as np

from benchmarks.peers._on_dask import WORKERS, OnDask
from benchmarks.race._problem import LABEL, PARTS, Problem
from benchmarks.race._side import TAILS, Config, Side, Step, anew, going_on, with_tail
from daskdml import SSP, Averaging, FullBatch
from daskdml.io import read_table
from daskdml.linear_model import SGDClassifier

RATES: list[Config] = [
    {"learning_rate": "adagrad", "coordinate_eta0": 0.1},
    {"learning_rate": "constant", "eta0": 0.001, "average": True},
    {"learning_rate": "constant", "eta0": 0.001},
    {"learning_rate": "constant", "eta0": 0.003, "average": True},
    {"learning_rate": "constant", "eta0": 0.01, "average": True},
    *TAILS,
    {"learning_rate": "invscaling", "eta0": 0.1, "power_t": 0.5},
    {"learning_rate": "adagrad", "coordinate_eta0": 0.02},
    {"learning_rate": "adagrad", "coordinate_eta0": 0.5},
    {"learning_rate": "normalized", "coordinate_eta0": 0.5},
    {"learning_rate": "optimal"},
]


def classifier(problem: Problem, strategy: Any, config: Config, passes: int) -> SGDClassifier:
    loss = "log_loss" if problem.n_classes == 2 else "multinomial"
    return SGDClassifier(
        loss, alpha=problem.alpha, max_iter=passes, tol=None, random_state=0, strategy=strategy,
        **with_tail(config, problem),
    )  # fmt: skip


class OneReplica(Side):
    name = "daskdml, 1 replica"
    package = "daskdml"

    @classmethod
    def grid(cls, problem: Problem) -> list[Config]:
        return RATES

    def steps(self, config: Config) -> Iterator[Step]:
        clf = classifier(self.problem, "averaging", config, 1)
        classes = np.arange(self.problem.n_classes)
        return going_on(
            lambda: clf.partial_fit(self.X, self.y, classes=classes), lambda: (clf.coef_.copy(), clf.intercept_.copy())
        )


# Without a step of SGD, and after one or two passes of it.
DESCENTS: list[Config] = [{}, *({"warm_up": n, **rate} for rate in (RATES[2], RATES[0]) for n in (1, 2))]


def _descent(problem: Problem, config: Config, replicas: int | None, passes: int) -> SGDClassifier:
    config = dict(config)
    strategy = FullBatch(replicas, warm_up=config.pop("warm_up", 0), gtol=1e-8)
    return classifier(problem, strategy, config, passes)


class Descent(Side):
    """One replica, with as many threads as BLAS takes."""

    name = "daskdml, FullBatch"
    package = "daskdml"

    @classmethod
    def grid(cls, problem: Problem) -> list[Config]:
        return DESCENTS

    def steps(self, config: Config) -> Iterator[Step]:
        return anew(
            lambda passes: _descent(self.problem, config, None, passes).fit(self.X, self.y),
            lambda clf: (clf.coef_, clf.intercept_),
            lambda clf: clf.n_iter_,
            _spent,
            fewest=2,
        )


class _Replicas(OnDask):
    """Fits from the start, of so many passes: what a fit costs besides its passes is in it."""

    package = "daskdml"

    def files(self) -> tuple[Any, Any]:
        """By daskdml's own reader, where it has one for them."""
        if self.problem.is_sparse:
            return super().files()
        frame = read_table(os.path.dirname(self.problem.parts[0])).frame()
        return frame.drop(columns=LABEL), frame[LABEL]

    def strategy(self, meetings: int) -> Any:
        return Averaging(WORKERS, rounds_per_epoch=meetings)

    @classmethod
    def grid(cls, problem: Problem) -> list[Config]:
        return [*RATES, RATES[0] | {"meetings": 8}, RATES[1] | {"meetings": 8}]

    def steps(self, config: Config) -> Iterator[Step]:
        config = dict(config)
        strategy = self.strategy(config.pop("meetings", 1))

        def fit(passes: int) -> Any:
            clf = classifier(self.problem, strategy, config, passes)
            return clf.fit(self.X, self.y)

        return anew(fit, lambda clf: (clf.coef_, clf.intercept_), note=_spent)


def _spent(clf: SGDClassifier) -> dict[str, float]:
    """Where the time of a fit went, summed over its replicas; ``seconds`` is the wall's."""
    return clf.history_[["seconds", "compute_seconds", "load_seconds", "wait_seconds"]].sum().to_dict()


class AveragingProcesses(_Replicas):
    name = "daskdml, Averaging, 2 processes"
    # To the bit: a result does not depend on where replicas are.
    tuned_as = "daskdml, Averaging, 2 threads"


class Threads(_Replicas):
    """Of this process, without a cluster of its own: nothing is copied between processes."""

    name = "daskdml, Averaging, 2 threads"

    def open(self) -> None:
        from daskdml.cluster import embedded

        embedded()

    def prepare(self) -> None:
        if self.start == "files":
            self.X, self.y = self.files()
            return
        X, y = self.problem.rows()
        rows = -(-len(y) // PARTS)
        self.X = da.from_array(X, chunks=(rows, X.shape[1]), asarray=False)
        self.y = da.from_array(y, chunks=rows)

    def close(self) -> None:
        from daskdml.cluster import close_embedded

        close_embedded()


class DescentThreads(Threads):
    name = "daskdml, FullBatch, 2 threads"

    @classmethod
    def grid(cls, problem: Problem) -> list[Config]:
        return DESCENTS

    def steps(self, config: Config) -> Iterator[Step]:
        return anew(
            lambda passes: _descent(self.problem, config, WORKERS, passes).fit(self.X, self.y),
            lambda clf: (clf.coef_, clf.intercept_),
            lambda clf: clf.n_iter_,
            _spent,
            fewest=2,
        )


class SSPProcesses(_Replicas):
    name = "daskdml, SSP(3), 2 processes"

    @classmethod
    def grid(cls, problem: Problem) -> list[Config]:
        return [*RATES, RATES[0] | {"meetings": 16}, RATES[1] | {"meetings": 16}]

    def strategy(self, meetings: int) -> Any:
        # Clocks of its own choice, or so many in a pass.
        rows = None if meetings == 1 else max(1, self.problem.n_rows // WORKERS // meetings)
        return SSP(3, WORKERS, clock_rows=rows)
