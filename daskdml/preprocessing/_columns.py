"""What kind each column of a table is, and how its values become numbers or names of categories."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pandas as pd
from pandas.api import types

from daskdml.io import InputError

NUMBER, TIME, SPAN, CATEGORY = "number", "time", "span", "category"
# What a time becomes: the trend, and where in the day and in the week it lies, without a jump at midnight.
TIME_PARTS = ("", "_day_sin", "_day_cos", "_week_sin", "_week_cos")
_DAY, _WEEK = 86_400.0, 7 * 86_400.0
# Numbers handled at a time; a slab of so many float64 stays in a core's cache.
_SLAB = 1 << 18


def kind_of(dtype: object) -> str:
    """The kind of a column by its dtype; booleans are numbers."""
    if isinstance(dtype, pd.CategoricalDtype):
        return CATEGORY
    if types.is_complex_dtype(dtype):
        raise InputError("complex numbers cannot be trained on; give their parts as two columns")
    if types.is_bool_dtype(dtype) or types.is_numeric_dtype(dtype):
        return NUMBER
    if types.is_datetime64_any_dtype(dtype):
        return TIME
    return SPAN if types.is_timedelta64_dtype(dtype) else CATEGORY


def is_identifier(name: str) -> bool:
    """Whether a column is called an identifier: its name is "id", or ends in "ID", "Id" or "_id" as a word.

    Examples
    --------
    >>> [is_identifier(name) for name in ("PULocationID", "shop_id", "userId", "ID", "paid", "Humid")]
    [True, True, True, True, False, False]
    """
    return re.search(r"(^|[^A-Za-z])(id|ID|Id)$|[a-z](ID|Id)$", name) is not None


def number_names(kinds: dict[str, str]) -> list[str]:
    """Names of the numeric features that the columns of ``kinds`` make, in order."""
    names: list[str] = []
    for column, kind in kinds.items():
        if kind == TIME:
            names += [column + part for part in TIME_PARTS]
        elif kind in (NUMBER, SPAN):
            names.append(column)
    return names


def slabs(frame: pd.DataFrame, kinds: dict[str, str], chosen: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """The numeric features of ``frame`` as float64 matrices of some rows each, missing values as NaN.

    Only of the rows ``chosen`` (positions in rising order), where given: picked slab by slab, they cost no copy of
    the frame.
    """
    columns = [c for c, kind in kinds.items() if kind != CATEGORY]
    width = max(len(number_names(kinds)), 1)
    step = max(_SLAB // width, 1)
    plain = all(isinstance(d, np.dtype) and d.kind in "iufb" for d in frame.dtypes[columns])
    numbers = (frame if columns == list(frame.columns) else frame[columns]) if plain else frame
    for start in range(0, len(frame), step):
        rows = numbers.iloc[start : start + step]
        if plain:
            slab = rows.to_numpy(dtype=np.float64)
        else:
            slab = np.empty((len(rows), width))
            at = 0
            for column in columns:
                for values in _numbers(rows[column], kinds[column]):
                    slab[:, at] = values
                    at += 1
        if chosen is not None:
            low, high = np.searchsorted(chosen, (start, start + len(rows)))
            if low == high:
                continue
            slab = slab[chosen[low:high] - start]
        elif plain:
            # An own copy: what follows works in place, and the frame may be shared.
            slab = np.array(slab, order="C", copy=True)
        yield np.ascontiguousarray(slab)


def _numbers(values: pd.Series, kind: str) -> list[np.ndarray]:
    if kind == TIME:
        return _time_parts(values)
    try:
        if kind == SPAN:
            return [values.dt.total_seconds().to_numpy(dtype=np.float64, na_value=np.nan)]
        if not (types.is_numeric_dtype(values.dtype) or types.is_bool_dtype(values.dtype)):
            values = pd.to_numeric(values)
        return [values.to_numpy(dtype=np.float64, na_value=np.nan)]
    except (ValueError, TypeError, AttributeError):
        raise InputError(
            f"column {values.name!r} held numbers when the model was trained but has the type {values.dtype} here; "
            "convert it to numbers"
        ) from None


def _time_parts(values: pd.Series) -> list[np.ndarray]:
    try:
        times = pd.to_datetime(values)
        if times.dt.tz is not None:
            times = times.dt.tz_convert("UTC").dt.tz_localize(None)
        seconds = times.astype("datetime64[us]").astype("int64").to_numpy() / 1e6
    except (ValueError, TypeError, AttributeError):
        raise InputError(
            f"column {values.name!r} held times when the model was trained but has the type {values.dtype} here; "
            "convert it with pandas.to_datetime"
        ) from None
    seconds = np.where(times.isna().to_numpy(), np.nan, seconds)
    day, week = 2 * np.pi / _DAY * seconds, 2 * np.pi / _WEEK * seconds
    return [seconds / _DAY, np.sin(day), np.cos(day), np.sin(week), np.cos(week)]


def codes_of(values: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Codes into a list of names, -1 where missing."""
    try:
        codes, names = pd.factorize(values)
    except TypeError:
        raise InputError(
            f"column {values.name!r} holds lists or other objects, which are neither numbers nor text; leave it out "
            f"(--drop {values.name})"
        ) from None
    return codes, [name_of(v) for v in names]


def name_of(value: object) -> str:
    """The name of a category: a whole number has no '.0', so that 3, 3.0 and '3' are the same."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)
