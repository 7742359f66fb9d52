"""Which labels y has, and how many of each: one pass over y alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from daskdml.data._align import align
from daskdml.data._checks import all_finite, check_length, place
from daskdml.data._counting import per_block
from daskdml.data._decode import column
from daskdml.data._distinct import distinct_counts
from daskdml.data._sources import per_row

Counts = tuple[np.ndarray, np.ndarray]
# Labels counted at a time: finding distinct ones takes several times their memory.
_SLAB = 2**20


def label_counts(y: Any, sample_weight: Any = None, *, client: Any = None) -> Counts:
    """The sorted classes of y and the number of rows, or the weight, of each.

    Parameters
    ----------
    y : one label a row, in any container
    sample_weight : one weight a row, optional
        Counts are then sums of weights.
    client : distributed.Client, optional
        Where to count; by default Dask's current scheduler.

    Returns
    -------
    classes, counts : ndarray

    Raises
    ------
    ValueError
        For a continuous target, and for missing labels.

    Examples
    --------
    >>> label_counts(["b", "a", "b"])
    (array(['a', 'b'], dtype='<U1'), array([1, 2]))
    """
    labels = per_row(y, "y")
    weights = None if sample_weight is None else per_row(sample_weight, "sample_weight")
    if not labels.lazy and (weights is None or not weights.lazy):
        return _merge([_count(labels.data, None if weights is None else weights.data)])
    parts = align(labels, [weights], client, None, 1)
    if not labels.lazy:
        return _merge([_count(y, w, place(i, len(parts[0]))) for i, (y, w) in enumerate(zip(*parts, strict=True))])
    counts: Counts = per_block(parts, _count, client, _merge, name="y")[0]
    return counts


def _count(y: Any, weight: Any = None, where: str = "") -> Counts:
    labels = column(y)
    weights = None if weight is None else column(weight)
    if weights is not None:
        check_length(len(labels), len(weights), "sample_weight", where)
    starts = range(0, max(len(labels), 1), _SLAB)
    slabs = ((labels[i : i + _SLAB], None if weights is None else weights[i : i + _SLAB], i) for i in starts)
    return _merge([_count_slab(*slab, where) for slab in slabs])


def _count_slab(labels: np.ndarray, weights: np.ndarray | None, start: int, where: str) -> Counts:
    _check_discrete(labels, start, where)
    if labels.dtype.kind == "O":
        classes, codes = _object_classes(labels, start, where)
    else:
        return distinct_counts(labels, weights)
    return classes, np.bincount(codes, weights, minlength=len(classes)) if len(classes) else np.zeros(0, np.int64)


def _object_classes(labels: np.ndarray, start: int, where: str) -> Counts:
    """As ``np.unique``, but by hashing: text is slow to sort, and there are few distinct labels."""
    codes, found = pd.factorize(labels)
    if (codes < 0).any():
        raise _missing("NaN", int(np.flatnonzero(codes < 0)[0]) + start, where)
    try:
        order = np.argsort(found)
    except TypeError as error:
        types = sorted({type(v).__name__ for v in found})
        raise TypeError(f"labels of y must be all text or all numbers, got types {types}: convert y first") from error
    rank = np.empty(len(order), np.intp)
    rank[order] = np.arange(len(order))
    return found[order], rank[codes]


def _missing(what: str, row: int, where: str) -> ValueError:
    return ValueError(f"Input y contains {what}. First seen at {where}row {row}: drop the rows without a label first.")


def _check_discrete(labels: np.ndarray, start: int, where: str) -> None:
    if labels.dtype.kind == "f":
        if not all_finite(labels):
            what = "NaN" if np.isnan(labels).any() else f"infinity or a value too large for {labels.dtype!r}"
            raise _missing(what, int(np.flatnonzero(~np.isfinite(labels))[0]) + start, where)
        if (labels != np.floor(labels)).any():
            raise ValueError(
                "Unknown label type: continuous. Maybe you are trying to fit a classifier, which expects discrete "
                "classes on a regression target with continuous values."
            )
    elif labels.dtype.kind not in "iubOUS":
        raise ValueError(f"Unknown label type: {labels.dtype}; labels are text, whole numbers or booleans")


def _merge(counts: list[Counts]) -> Counts:
    filled = [c for c in counts if len(c[0])]
    if not filled:
        return counts[0]
    classes, codes = np.unique(np.concatenate([c[0] for c in filled]), return_inverse=True)
    totals = np.concatenate([c[1] for c in filled])
    summed = np.zeros(len(classes), totals.dtype)
    np.add.at(summed, codes, totals)
    return classes, summed
