"""Errors of a regression, from sums over row blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from daskdml.metrics._pieces import check_piece, reduce_rows, weights_of


@dataclass
class Errors:
    """Weight, mean and squared deviation of y, and the squared and absolute errors: enough for every metric here."""

    weight: float = 0.0
    mean: float = 0.0
    m2: float = 0.0
    squared: float = 0.0
    absolute: float = 0.0

    @classmethod
    def of(cls, y: Any, prediction: Any, weight: Any = None) -> Errors:
        y, prediction = np.asarray(y, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
        y, prediction = (a[:, 0] if a.ndim == 2 and a.shape[1] == 1 else a for a in (y, prediction))
        check_piece(y, prediction)
        w = weights_of(weight, len(y))
        total = float(w.sum())
        if not total:
            return cls()
        mean = float(w @ y) / total
        error = y - prediction
        return cls(total, mean, float(w @ (y - mean) ** 2), float(w @ error**2), float(w @ np.abs(error)))

    def add(self, other: Errors) -> Errors:
        total = self.weight + other.weight
        if total:
            delta = other.mean - self.mean
            self.mean += delta * other.weight / total
            self.m2 += other.m2 + delta**2 * self.weight * other.weight / total
        self.weight = total
        self.squared += other.squared
        self.absolute += other.absolute
        return self

    def metrics(self) -> dict[str, float]:
        return {"rmse": float(np.sqrt(self.mse)), "mae": self.absolute / self.weight, "r2": self.r2}

    @property
    def mse(self) -> float:
        return self.squared / self.weight

    @property
    def r2(self) -> float:
        """As scikit-learn: 1 where all is exact, 0 where y is constant and the prediction is not."""
        if self.m2 == 0:
            return 1.0 if self.squared == 0 else 0.0
        return 1 - self.squared / self.m2


def _errors(y_true: Any, y_pred: Any, sample_weight: Any) -> Errors:
    total = Errors()
    for piece in reduce_rows(Errors.of, y_true, y_pred, sample_weight):
        total.add(piece)
    if not total.weight:
        raise ValueError("a metric needs at least one row of positive weight; there is none")
    return total


def mean_squared_error(y_true: Any, y_pred: Any, *, sample_weight: Any = None) -> float:
    """Mean of the squared errors, in one pass.

    Parameters
    ----------
    y_true, y_pred : array, Series or one-column frame, in memory or of Dask
    sample_weight : the same, optional

    Examples
    --------
    >>> from daskdml.metrics import mean_squared_error
    >>> mean_squared_error([1.0, 2.0], [1.0, 4.0])
    2.0
    """
    return _errors(y_true, y_pred, sample_weight).mse


def root_mean_squared_error(y_true: Any, y_pred: Any, *, sample_weight: Any = None) -> float:
    """Root of the mean of the squared errors, in one pass; parameters as of :func:`mean_squared_error`.

    Examples
    --------
    >>> from daskdml.metrics import root_mean_squared_error
    >>> root_mean_squared_error([1.0, 2.0], [1.0, 6.0]).__round__(4)
    2.8284
    """
    return float(np.sqrt(mean_squared_error(y_true, y_pred, sample_weight=sample_weight)))


def mean_absolute_error(y_true: Any, y_pred: Any, *, sample_weight: Any = None) -> float:
    """Mean of the absolute errors, in one pass; parameters as of :func:`mean_squared_error`.

    Examples
    --------
    >>> from daskdml.metrics import mean_absolute_error
    >>> mean_absolute_error([1.0, 2.0], [1.0, 4.0])
    1.0
    """
    total = _errors(y_true, y_pred, sample_weight)
    return total.absolute / total.weight


def r2_score(y_true: Any, y_pred: Any, *, sample_weight: Any = None) -> float:
    """The coefficient of determination, in one pass; parameters as of :func:`mean_squared_error`.

    Examples
    --------
    >>> from daskdml.metrics import r2_score
    >>> r2_score([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    1.0
    """
    return _errors(y_true, y_pred, sample_weight).r2
