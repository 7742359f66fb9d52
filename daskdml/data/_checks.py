"""What a block must satisfy before it is trained on; errors in scikit-learn's words, with the block named."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd

from daskdml.data._block import Target
from daskdml.data._distinct import codes_in


def all_finite(values: np.ndarray) -> bool:
    """Whether no value is NaN or infinite: one sum first, as in scikit-learn, since that nearly always settles it."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum()):
            return True
    return bool(np.isfinite(values).all())


def namespace_of(values: Any) -> Any:
    """The library of an array that lies elsewhere; those of CuPy 14 do not name theirs as the array API asks."""
    named = getattr(values, "__array_namespace__", None)
    return import_module(type(values).__module__.partition(".")[0]) if named is None else named()


def all_finite_there(values: Any) -> bool:
    """The same of an array that lies elsewhere, in terms of its own library: one number comes back."""
    xp = namespace_of(values)
    return bool(xp.all(xp.isfinite(values)))


def check_finite(values: np.ndarray, name: str, where: str, columns: tuple[str, ...] | None = None) -> None:
    """Raise ValueError for NaN or infinity in a float array, naming the first such place."""
    if values.dtype.kind != "f" or all_finite(values):
        return
    bad = np.argwhere(~np.isfinite(values))[0]
    nan = bool(np.isnan(values).any())
    what = "NaN" if nan else f"infinity or a value too large for {values.dtype!r}"
    place = f"{where}row {bad[0]}"
    if len(bad) == 2:
        place += f", column {columns[bad[1]]!r}" if columns else f", column {bad[1]}"
    raise ValueError(
        f"Input {name} contains {what}. First seen at {place}; drop or impute such rows first"
        + (" (e.g. dask_ml.impute.SimpleImputer)." if name == "X" else ".")
    )


def codes(labels: np.ndarray, classes: np.ndarray, dtype: np.dtype, where: str) -> np.ndarray:
    """The position of each label in ``classes``, as ``dtype``; ValueError for NaN and for labels unknown to it."""
    if labels.dtype.kind == "f":
        check_finite(labels, "y", where)
    if labels.dtype.kind in "fiub" and classes.dtype.kind in "fiub":
        if (quick := codes_in(classes, labels, dtype)) is not None:
            return quick
        found = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
        known = classes[found] == labels
    else:
        found = pd.Index(classes, dtype=object).get_indexer(labels.astype(object))
        known = found >= 0
    if not known.all():
        unknown = pd.unique(labels[~known])
        if any(pd.isna(u) for u in unknown):
            raise ValueError(f"Input y contains NaN. First seen at {where}row {np.flatnonzero(~known)[0]}.")
        raise ValueError(
            f"y has labels {sorted(unknown.tolist(), key=str)[:10]} ({where.rstrip(', ')}) that are not in "
            f"classes={classes.tolist()[:20]}: pass every label in `classes`, or let fit find them"
        )
    return found.astype(dtype)


def target_values(y: np.ndarray, target: Target, dtype: np.dtype, where: str) -> np.ndarray:
    """A chunk of y as a block holds it: class codes, or finite numbers."""
    if target.classes is not None:
        return codes(y, target.classes, dtype, where)
    values = _real(y, "y", where)
    check_finite(values, "y", where)
    return np.ascontiguousarray(values, dtype=dtype)


def weight_values(weight: np.ndarray, dtype: np.dtype, where: str) -> np.ndarray:
    """A chunk of sample_weight: finite numbers; negative ones are allowed, as in scikit-learn's SGD."""
    values = _real(weight, "sample_weight", where)
    check_finite(values, "sample_weight", where)
    return np.ascontiguousarray(values, dtype=dtype)


def _real(values: np.ndarray, name: str, where: str) -> np.ndarray:
    if values.dtype.kind in "fiub":
        return values
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers but {where}holds {values.dtype}: {error}") from error


def check_length(rows: int, other: int, name: str, where: str) -> None:
    """Raise ValueError where a chunk of ``name`` is not as long as X's."""
    if rows != other:
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: [{rows}, {other}] "
            f"({where}X has {rows} rows and {name} has {other}); X and {name} must be divided into the same row "
            "blocks, or have known chunk sizes (compute_chunk_sizes())"
        )


def place(index: int, n_blocks: int) -> str:
    """How errors name a block: nothing where there is only one."""
    return f"block {index}, " if n_blocks > 1 else ""


def inconsistent(lengths: list[Any]) -> ValueError:
    """scikit-learn's error for X, y and sample_weight of different lengths."""
    return ValueError(f"Found input variables with inconsistent numbers of samples: {lengths}")
