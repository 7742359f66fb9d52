"""The objective of every side, and its optimum: mean log-loss + alpha/2 |w|^2, the intercept free.

Binary problems have one row of weights, others one for each class (softmax).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import optimize, sparse
from scipy.special import expit, logsumexp, softmax

from benchmarks.race._problem import Problem

BLOCK = 50_000


class Objective:
    """The objective over all rows of a problem, in float64."""

    def __init__(self, problem: Problem):
        self.X, self.y = problem.rows()
        if problem.is_sparse:
            self.X = self.X.astype(np.float64)
        self.alpha, self.n, self.d = problem.alpha, problem.n_rows, problem.n_features
        self.k = 1 if problem.n_classes == 2 else problem.n_classes

    def value(self, coef: np.ndarray, intercept: np.ndarray) -> float:
        """Of weights (k, d) and intercepts (k,)."""
        W, b = coef.reshape(self.k, self.d).astype(float), intercept.reshape(self.k).astype(float)
        if not (np.isfinite(W).all() and np.isfinite(b).all()):
            return float("inf")
        total = sum(self._loss(X @ W.T + b, y).sum() for X, y in self._blocks())
        return float(total / self.n + self.alpha / 2 * (W**2).sum())

    def with_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        W, b = self._split(theta)
        total, gradient = 0.0, np.zeros((self.k, self.d + 1))
        for X, y in self._blocks():
            scores = X @ W.T + b
            total += self._loss(scores, y).sum()
            slope = expit(scores) if self.k == 1 else softmax(scores, axis=1)
            slope[np.arange(len(y)), 0 if self.k == 1 else y] -= y if self.k == 1 else 1
            gradient[:, :-1] += (X.T @ slope).T
            gradient[:, -1] += slope.sum(axis=0)
        gradient /= self.n
        gradient[:, :-1] += self.alpha * W
        return total / self.n + self.alpha / 2 * (W**2).sum(), gradient.ravel()

    def curvature(self, theta: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The Hessian times a vector."""
        (W, b), (V, c) = self._split(theta), self._split(v)
        out = np.zeros((self.k, self.d + 1))
        for X, _ in self._blocks():
            scores, change = X @ W.T + b, X @ V.T + c
            p = expit(scores) if self.k == 1 else softmax(scores, axis=1)
            change = p * (1 - p) * change if self.k == 1 else p * (change - (p * change).sum(axis=1, keepdims=True))
            out[:, :-1] += (X.T @ change).T
            out[:, -1] += change.sum(axis=0)
        out /= self.n
        out[:, :-1] += self.alpha * V
        return out.ravel()

    def _loss(self, scores: np.ndarray, y: np.ndarray) -> np.ndarray:
        if self.k == 1:
            return np.logaddexp(0, np.where(y == 1, -scores[:, 0], scores[:, 0]))
        return logsumexp(scores, axis=1) - scores[np.arange(len(y)), y]

    def _split(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        both = theta.reshape(self.k, self.d + 1)
        return both[:, :-1], both[:, -1]

    def _blocks(self) -> Iterator[tuple[Any, np.ndarray]]:
        if sparse.issparse(self.X):
            yield self.X, self.y
            return
        # Of dense rows a few at a time are made float64.
        for low in range(0, self.n, BLOCK):
            yield self.X[low : low + BLOCK].astype(np.float64), self.y[low : low + BLOCK]


GOAL = 1e-8


def optimum(objective: Objective, until: float = math.inf) -> tuple[float, float]:
    """The least value, and the norm of the gradient there: at most ``GOAL``, unless time was up before that.

    L-BFGS does most of it; where rounding ends its line search, Newton steps by conjugate gradients do the rest.
    By strong convexity the value is within norm^2 / (2 alpha) of the least, but for the intercept's part.
    """

    def on_time(_: Any) -> None:
        if time.monotonic() > until:
            raise StopIteration

    start = np.zeros(objective.k * (objective.d + 1))
    options = {"maxiter": 2000, "maxfun": 3000, "ftol": 0, "gtol": GOAL, "maxcor": 30}
    theta = optimize.minimize(
        objective.with_gradient, start, jac=True, method="L-BFGS-B", options=options, callback=on_time
    ).x
    value, gradient = objective.with_gradient(theta)
    for _ in range(20):
        if np.linalg.norm(gradient) <= GOAL or time.monotonic() > until:
            break
        here = theta
        hessian = sparse.linalg.LinearOperator(
            (len(theta), len(theta)), matvec=lambda v, at=here: objective.curvature(at, v), dtype=float
        )
        step, _ = sparse.linalg.cg(hessian, -gradient, rtol=1e-2, maxiter=200)
        theta = here + step
        value, gradient = objective.with_gradient(theta)
    return float(value), float(np.linalg.norm(gradient))
