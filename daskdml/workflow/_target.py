"""The target of a table: what one pass tells of it, and which task that makes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from daskdml.io import InputError

CLASSIFICATION, REGRESSION = "classification", "regression"
TASKS = (CLASSIFICATION, REGRESSION)
# Whole numbers with more distinct values than this are taken for amounts, with fewer for classes.
_FEW = 50
# A classification of more classes than this is a mistake more likely than a wish.
_MANY = 1000


@dataclass
class TargetSurvey:
    """Counted values (until they are too many), mean and summed squared deviations where they are numbers."""

    rows: int = 0
    missing: int = 0
    whole: bool = True
    mean: float = 0.0
    m2: float = 0.0
    counts: Counter = field(default_factory=Counter)
    overflow: bool = False
    infinite: int = -1

    def add(self, other: TargetSurvey) -> TargetSurvey:
        total = self.rows + other.rows
        delta = other.mean - self.mean
        self.m2 += other.m2 + delta**2 * self.rows * other.rows / max(total, 1)
        self.mean += delta * other.rows / max(total, 1)
        self.rows = total
        self.missing += other.missing
        self.whole &= other.whole
        self.counts.update(other.counts)
        self.overflow |= other.overflow or len(self.counts) > _MANY
        if self.overflow:
            self.counts.clear()
        if other.infinite >= 0:
            self.infinite = other.infinite if self.infinite < 0 else min(self.infinite, other.infinite)
        return self


def survey_target(y: np.ndarray, part: int) -> TargetSurvey:
    """The survey of one part's labels, missing ones left out by :func:`values_of` before."""
    found = TargetSurvey(rows=len(y))
    if y.dtype.kind in "fiub" and len(y):
        numbers = y.astype(np.float64)
        if np.isinf(numbers).any():
            found.infinite = part
            return found
        found.mean = float(numbers.mean())
        found.m2 = float(((numbers - found.mean) ** 2).sum())
        found.whole = y.dtype.kind != "f" or bool((numbers == np.floor(numbers)).all())
    codes, names = pd.factorize(y)
    if len(names) > _MANY:
        found.overflow = True
    else:
        found.counts = Counter(
            dict(zip(names.tolist(), np.bincount(codes, minlength=len(names)).tolist(), strict=True))
        )
    return found


def values_of(y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Labels as a plain array, and which of them are there."""
    values = pd.Series(y)
    there = values.notna().to_numpy()
    values = values[there]
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(values.dtype.categories.dtype)
    if types.is_bool_dtype(values.dtype):
        return values.to_numpy(dtype=bool), there
    if types.is_integer_dtype(values.dtype):
        return values.to_numpy(dtype=np.int64), there
    if types.is_float_dtype(values.dtype):
        return values.to_numpy(dtype=np.float64), there
    if types.is_datetime64_any_dtype(values.dtype) or types.is_timedelta64_dtype(values.dtype):
        raise InputError(f"the target is of type {values.dtype}; turn it into numbers first, for example seconds")
    return values.astype(str).to_numpy(dtype=object), there


def task_of(found: TargetSurvey, kind: str, wanted: str | None) -> tuple[str, str]:
    """The task and the reason for it; ``kind`` is 'text' or 'number', as the files declare the target."""
    if found.infinite >= 0:
        raise InputError(f"the target holds an infinity in block {found.infinite}; remove or replace it")
    if not found.rows:
        raise InputError("no row has a value in the target; choose another column")
    if wanted is not None:
        return _checked(found, kind, wanted), "as asked for"
    if kind == "text":
        return _checked(found, kind, CLASSIFICATION), "the target is text or boolean"
    distinct = len(found.counts)
    # Of the values, not of the dtype: whole numbers with gaps between them are floats in most files.
    if not found.whole:
        return REGRESSION, "the target has numbers with fractions"
    if found.overflow or distinct > _FEW:
        return REGRESSION, f"the target has whole numbers, more than {_FEW} different ones"
    return _checked(found, kind, CLASSIFICATION), f"the target has whole numbers, {distinct} different ones"


def _checked(found: TargetSurvey, kind: str, task: str) -> str:
    if task == REGRESSION:
        if kind == "text":
            raise InputError("the target is text, which is no regression; leave out --task, or choose another --target")
        return task
    if found.overflow:
        raise InputError(f"the target has more than {_MANY} different values, too many classes; try --task regression")
    if not found.whole:
        raise InputError("the target has numbers with fractions, which are no classes; use --task regression")
    if len(found.counts) < 2:
        raise InputError(
            f"the target has only one class, {next(iter(found.counts))!r}; two are needed to learn to tell apart"
        )
    return task


def priors(found: TargetSurvey, classes: np.ndarray) -> np.ndarray:
    """The frequency of each of ``classes``."""
    counts = np.array([found.counts.get(c, 0) for c in classes.tolist()], dtype=float)
    return counts / max(counts.sum(), 1)
