"""dask-ml: scikit-learn's SGD block after block, and its generalised linear model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.peers._on_dask import OnDask
from benchmarks.peers._scikit_learn import ONE_VERSUS_ALL, RATES, sgd
from benchmarks.race._problem import Problem
from benchmarks.race._side import Config, Step, anew, going_on


class _Arrays(OnDask):
    """dask-ml wants Arrays of known lengths."""

    package = "dask-ml"

    @classmethod
    def unfit(cls, problem: Problem) -> str | None:
        return ONE_VERSUS_ALL if problem.n_classes > 2 else None

    def prepare(self) -> None:
        super().prepare()
        if self.start == "files":
            import dask

            # Tuning joins partitions of few columns, and then finds lengths for fewer than there are.
            with dask.config.set({"optimization.tune.active": False}):
                if not self.problem.is_sparse:
                    self.X, self.y = (part.to_dask_array(lengths=True) for part in (self.X, self.y))
                # Every pass would read the files again: with room for the rows, its users persist them.
                self.X, self.y = dask.persist(self.X, self.y)


class IncrementalSGD(_Arrays):
    name = "dask-ml, Incremental(SGDClassifier)"

    @classmethod
    def grid(cls, problem: Problem) -> list[Config]:
        return RATES

    def steps(self, config: Config) -> Iterator[Step]:
        from dask_ml.wrappers import Incremental

        clf = Incremental(sgd(self.problem, config), random_state=0)
        return going_on(
            lambda: clf.partial_fit(self.X, self.y, classes=[0, 1]),
            lambda: (clf.estimator_.coef_.copy(), clf.estimator_.intercept_.copy()),
        )


class GLM(_Arrays):
    """Its penalty is on the sum of losses, and on the intercept too; standardising within the penalty is left off."""

    name = "dask-ml, LogisticRegression"

    @classmethod
    def unfit(cls, problem: Problem) -> str | None:
        if problem.is_sparse:
            return "cannot train on sparse chunks"
        return "knows two classes only" if problem.n_classes > 2 else None

    @classmethod
    def grid(cls, problem: Problem) -> list[Config]:
        # Its other two solvers, "newton" and "gradient_descent", know no penalty.
        return [{"solver": "lbfgs"}, {"solver": "proximal_grad"}, {"solver": "admm"}]

    def steps(self, config: Config) -> Iterator[Step]:
        from dask_ml.linear_model import LogisticRegression

        C = 1 / (self.problem.alpha * self.problem.n_rows)

        def fit(passes: int) -> Any:
            own = {"normalize": False}
            return LogisticRegression(C=C, max_iter=passes, tol=1e-12, solver_kwargs=own, **config).fit(self.X, self.y)

        return anew(fit, lambda clf: (np.atleast_2d(clf.coef_), np.atleast_1d(clf.intercept_)))
