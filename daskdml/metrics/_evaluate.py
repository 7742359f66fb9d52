"""All metrics of a fitted model, and those of a trivial one, in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from daskdml.metrics._pieces import check_piece, reduce_rows
from daskdml.metrics._regression import Errors


@dataclass(frozen=True)
class Evaluation:
    """What a model and a trivial baseline reach on the same rows.

    ``model`` and ``baseline`` map names of metrics to numbers. A classifier's: accuracy, log_loss (with
    probabilities), roc_auc (two classes, both present); the baseline says the most frequent class, with the
    class frequencies as probabilities. A regressor's: rmse, mae, r2; the baseline says the mean.
    """

    rows: int
    model: dict[str, float]
    baseline: dict[str, float]


def evaluate(model: Any, X: Any, y: Any, *, priors: Any = None, mean: float | None = None) -> Evaluation:
    """Evaluate a fitted classifier or regressor on data of any size, reading them once.

    Parameters
    ----------
    model : fitted estimator
        With ``classes_`` (classifier) or without; asked block by block with NumPy or CSR.
    X, y : arrays, in memory or of Dask
        Row blocks of both must agree.
    priors : array, optional
        Class frequencies of the training rows, in the order of ``classes_``: the classifier's baseline. Default: those
        of ``y`` itself.
    mean : float, optional
        Mean of the training rows: the regressor's baseline. Default: that of ``y`` itself.

    Returns
    -------
    Evaluation

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LinearRegression
    >>> from daskdml.metrics import evaluate
    >>> X, y = np.arange(4.0)[:, None], np.arange(4.0)
    >>> result = evaluate(LinearRegression().fit(X, y), X, y)
    >>> round(result.model["r2"], 6), result.baseline["r2"]
    (1.0, 0.0)
    """
    if hasattr(model, "classes_"):
        return _classifier(model, X, y, priors)
    return _regressor(model, X, y, mean)


def _regressor(model: Any, X: Any, y: Any, mean: float | None) -> Evaluation:
    pieces = reduce_rows(_Errors(model, mean), X, y)
    total, trivial, rows = Errors(), Errors(), 0
    for errors, base, n in pieces:
        total.add(errors)
        trivial.add(base)
        rows += n
    _check_rows(rows)
    if mean is None:
        trivial.squared, trivial.absolute = trivial.m2, float("nan")
    baseline = trivial.metrics()
    return Evaluation(rows, total.metrics(), {k: v for k, v in baseline.items() if v == v})


@dataclass(frozen=True)
class _Errors:
    model: Any
    mean: float | None

    def __call__(self, X: Any, y: Any) -> tuple[Errors, Errors, int]:
        if not X.shape[0]:
            return Errors(), Errors(), 0
        y = np.asarray(y, dtype=np.float64)
        trivial = np.full(len(y), 0.0 if self.mean is None else self.mean)
        return Errors.of(y, self.model.predict(X)), Errors.of(y, trivial), len(y)


@dataclass
class _Sums:
    """Rows, right ones, summed log loss, rows of each class; scores and labels where the AUC is wanted."""

    counts: np.ndarray
    right: int = 0
    loss: float = 0.0
    other: int = 0
    scores: list[np.ndarray] | None = None
    positive: list[np.ndarray] | None = None


@dataclass(frozen=True)
class _Outcome:
    model: Any

    def __call__(self, X: Any, y: Any) -> _Sums:
        classes = self.model.classes_
        sums = _Sums(np.zeros(len(classes), dtype=np.int64), scores=[], positive=[])
        if not X.shape[0]:
            return sums
        check_piece(np.empty(X.shape[0]), y)
        codes = _codes(np.asarray(y), classes)
        known = codes >= 0
        sums.other = int((~known).sum())
        sums.counts += np.bincount(codes[known], minlength=len(classes))
        score, proba = _scores(self.model, X)
        best = score.argmax(axis=1) if score.ndim == 2 else (score > 0).astype(int)
        sums.right = int((best == codes).sum())
        if proba is not None:
            eps = np.finfo(proba.dtype).eps
            picked = proba[np.arange(len(codes)), np.maximum(codes, 0)][known]
            sums.loss = -float(np.log(np.clip(picked, eps, 1 - eps).astype(np.float64)).sum())
            if not np.isfinite(sums.loss):
                raise ValueError("the model predicts NaN: it diverged; lower its learning rate or scale the data")
        if len(classes) == 2:
            sums.scores, sums.positive = [score[known].astype(np.float32)], [codes[known].astype(bool)]
        return sums


def _scores(model: Any, X: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Scores (of the second class alone, where there are two) and probabilities, where the model has them."""
    score = np.asarray(model.decision_function(X)) if hasattr(model, "decision_function") else None
    proba = np.asarray(model.predict_proba(X)) if hasattr(model, "predict_proba") else None
    if score is None and proba is None:
        raise TypeError(f"{type(model).__name__} has neither decision_function nor predict_proba")
    if score is None and proba is not None:
        score = proba[:, 1] - proba[:, 0] if proba.shape[1] == 2 else proba
    return np.asarray(score), proba


def _codes(y: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Positions in ``classes``, -1 for a label the model has not seen."""
    if y.dtype.kind in "OUST" or classes.dtype.kind in "OUST":
        table = {label: i for i, label in enumerate(classes.tolist())}
        return np.array([table.get(label, -1) for label in y.tolist()], dtype=np.int64)
    at = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
    return np.where(classes[at] == y, at, -1)


def _classifier(model: Any, X: Any, y: Any, priors: Any) -> Evaluation:
    pieces = reduce_rows(_Outcome(model), X, y)
    counts = sum(p.counts for p in pieces)
    other = sum(p.other for p in pieces)
    rows = int(counts.sum()) + other
    _check_rows(rows)
    frequency = counts / max(counts.sum(), 1) if priors is None else np.asarray(priors, dtype=float)
    result = {"accuracy": sum(p.right for p in pieces) / rows}
    baseline = {"accuracy": float(counts[int(np.argmax(frequency))]) / rows}
    if hasattr(model, "predict_proba") and rows > other:
        result["log_loss"] = sum(p.loss for p in pieces) / (rows - other)
        logs = np.log(np.clip(frequency, np.finfo(float).eps, 1))
        baseline["log_loss"] = -float(counts @ logs) / (rows - other)
    if len(counts) == 2 and counts.all():
        from sklearn.metrics import roc_auc_score

        score = np.concatenate([s for p in pieces for s in p.scores or ()])
        result["roc_auc"] = float(roc_auc_score(np.concatenate([s for p in pieces for s in p.positive or ()]), score))
        baseline["roc_auc"] = 0.5
    return Evaluation(rows, result, baseline)


def _check_rows(rows: int) -> None:
    if not rows:
        raise ValueError("there are no rows to evaluate on; make the test part larger")
