"""scikit-learn: SGD by passes, and logistic regression by its deterministic solvers and SAGA."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, SGDClassifier

from benchmarks.race._problem import Problem
from benchmarks.race._side import TAILS, Config, Side, Step, anew, going_on, with_tail

RATES: list[Config] = [
    {"learning_rate": "optimal"},
    {"learning_rate": "optimal", "average": True},
    {"learning_rate": "invscaling", "eta0": 0.01, "power_t": 0.25},
    {"learning_rate": "invscaling", "eta0": 0.1, "power_t": 0.25},
    {"learning_rate": "invscaling", "eta0": 0.1, "power_t": 0.5},
    {"learning_rate": "invscaling", "eta0": 1.0, "power_t": 0.5},
    {"learning_rate": "constant", "eta0": 0.001},
    {"learning_rate": "constant", "eta0": 0.001, "average": True},
    {"learning_rate": "constant", "eta0": 0.01, "average": True},
    *TAILS,
]
ONE_VERSUS_ALL = "trains more than two classes one versus all, another objective"


def sgd(problem: Problem, config: Config) -> SGDClassifier:
    return SGDClassifier(loss="log_loss", alpha=problem.alpha, tol=None, random_state=0, **with_tail(config, problem))


class PlainSGD(Side):
    name = "scikit-learn, SGDClassifier"
    package = "scikit-learn"

    @classmethod
    def unfit(cls, problem: Problem) -> str | None:
        return ONE_VERSUS_ALL if problem.n_classes > 2 else None

    @classmethod
    def grid(cls, problem: Problem) -> list[Config]:
        return RATES

    def steps(self, config: Config) -> Iterator[Step]:
        clf = sgd(self.problem, config)
        return going_on(
            lambda: clf.partial_fit(self.X, self.y, classes=np.arange(2)),
            lambda: (clf.coef_.copy(), clf.intercept_.copy()),
        )


class PlainLogistic(Side):
    name = "scikit-learn, LogisticRegression"
    package = "scikit-learn"

    @classmethod
    def grid(cls, problem: Problem) -> list[Config]:
        solvers = ["lbfgs", "newton-cg", "sag", "saga"]
        # It forms the Hessian.
        if problem.n_features * problem.n_classes <= 2_000 and not problem.is_sparse:
            solvers.insert(1, "newton-cholesky")
        return [{"solver": solver} for solver in solvers]

    def steps(self, config: Config) -> Iterator[Step]:
        warnings.simplefilter("ignore", ConvergenceWarning)
        C = 1 / (self.problem.alpha * self.problem.n_rows)

        def fit(passes: int) -> Any:
            return LogisticRegression(C=C, max_iter=passes, tol=1e-10, random_state=0, **config).fit(self.X, self.y)

        return anew(fit, lambda clf: (clf.coef_, clf.intercept_), lambda clf: int(clf.n_iter_.max()))
