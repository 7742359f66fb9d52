"""The user's containers, told apart once: rows in memory, or chunks of a Dask collection."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import scipy.sparse as sp
from dask.base import is_dask_collection
from dask.delayed import Delayed

from daskdml.data._block import Schema
from daskdml.data._counting import per_block
from daskdml.data._decode import column, float_dtype, is_sparse, on_host, refuse_dtype
from daskdml.data._labelled import feature_labels, from_xarray, is_xarray

__all__ = [
    "Source",
    "any_weight",
    "features",
    "is_frame",
    "is_in_memory",
    "per_row",
    "refuse_dataset",
    "schema_of",
]


def is_in_memory(X: Any) -> bool:
    """Whether ``X`` lies in this process: NumPy, pandas, scipy.sparse, lists, xarray backed by NumPy.

    Examples
    --------
    >>> import dask.array as da, numpy as np
    >>> is_in_memory(np.ones((3, 2))), is_in_memory(da.ones((3, 2)))
    (True, False)
    """
    # An xarray object answers __dask_graph__ with None where no variable of it is a dask array.
    return not is_dask_collection(X)


def is_frame(X: Any) -> bool:
    """Whether ``X`` is a dask DataFrame or Series."""
    # A Delayed has any attribute that one asks for; a Bag has partitions and no dimensions.
    lazy = not isinstance(X, Delayed) and is_dask_collection(X)
    return lazy and hasattr(X, "map_partitions") and hasattr(X, "ndim")


@dataclass(frozen=True)
class Source:
    """X, y or sample_weight, ready to be divided into row blocks.

    ``data`` is an in-memory container that is cut by rows, a dask DataFrame or Series, or a dask array with one
    chunk across its columns. ``lengths`` are the rows of its chunks, None where unknown or in memory.
    ``names`` are those of X's columns, where they are all text; ``merged`` says that chunks across its columns
    had to be joined.
    """

    name: str
    data: Any
    lengths: tuple[int, ...] | None
    names: tuple[str, ...] | None = None
    merged: bool = False

    @property
    def lazy(self) -> bool:
        return is_dask_collection(self.data)

    @property
    def n_blocks(self) -> int:
        if not self.lazy:
            return 1
        return self.data.npartitions if is_frame(self.data) else self.data.numblocks[0]

    @property
    def n_rows(self) -> int | None:
        if not self.lazy:
            return int(self.data.shape[0])
        return None if self.lengths is None else sum(self.lengths)

    def rows(self, start: int, stop: int) -> Any:
        """Rows of an in-memory container."""
        data = self.data
        return data.iloc[start:stop] if isinstance(data, (pd.DataFrame, pd.Series)) else data[start:stop]


def _lengths(data: Any) -> tuple[int, ...] | None:
    if not is_dask_collection(data) or is_frame(data) or any(np.isnan(c) for c in data.chunks[0]):
        return None
    return tuple(int(c) for c in data.chunks[0])


def features(X: Any) -> Source:
    """X as a source: two-dimensional, one chunk across the columns."""
    names, merged = None, False
    if is_xarray(X):
        names, X = feature_labels(X), from_xarray(X)
    if is_frame(X):
        X = X.to_frame() if X.ndim == 1 else X
    elif is_dask_collection(X):
        _check_dask_matrix(X)
        merged = X.numblocks[1] > 1
        X = X.rechunk({1: -1}) if merged else X
    else:
        X = _memory_matrix(X)
    if hasattr(X, "columns"):
        names = list(X.columns)
    # scikit-learn's rule: names count only where every column has one that is text.
    named = bool(names) and all(isinstance(c, str) for c in names or ())
    return Source("X", X, _lengths(X), tuple(names or ()) if named else None, merged)


def _check_dask_matrix(X: Any) -> None:
    if not isinstance(X, da.Array):
        raise TypeError(
            f"X is a {type(X).__module__}.{type(X).__name__}, but a dask Array or DataFrame is expected: "
            "convert it (e.g. Bag.to_dataframe(), dask.array.from_delayed)"
        )
    if X.ndim != 2:
        raise ValueError(
            f"Expected 2D array, got {X.ndim}D array instead: X has shape {X.shape}; "
            "reshape it with X.reshape(-1, 1) where it has a single feature"
        )
    if np.isnan(X.shape[1]):
        raise ValueError("the number of X's columns is unknown: call X.compute_chunk_sizes() first")


def _memory_matrix(X: Any) -> Any:
    X = on_host(X)
    if isinstance(X, pd.Series):
        X = X.to_frame()
    if isinstance(X, pd.DataFrame):
        return X
    if is_sparse(X):
        return X.tocsr() if sp.issparse(X) or hasattr(X, "tocsr") else X.to_scipy_sparse().tocsr()
    array = np.asarray(X)
    if array.ndim != 2:
        raise ValueError(
            f"Expected 2D array, got {'scalar' if array.ndim == 0 else f'{array.ndim}D'} array instead:\n"
            f"array={array}.\nReshape your data either using array.reshape(-1, 1) if your data has a "
            "single feature or array.reshape(1, -1) if it contains a single sample."
        )
    return array


def per_row(values: Any, name: str) -> Source:
    """One value a row: y or sample_weight as a source."""
    refuse_dataset(values, name)
    if is_xarray(values):
        values = values.data
    if is_frame(values):
        if values.ndim == 2:
            values = values[values.columns[_one(name, values.shape[1], ("?", values.shape[1]))]]
    elif is_dask_collection(values):
        if not isinstance(values, da.Array):
            raise TypeError(f"{name} is a {type(values).__name__}, but a dask Array or Series is expected")
        if values.ndim == 2:
            values = values[:, _one(name, values.shape[1], values.shape)]
    elif isinstance(values, pd.DataFrame):
        values = values.iloc[:, _one(name, values.shape[1], values.shape)]
    elif not isinstance(values, pd.Series):
        values = _vector(values, name)
    if not is_frame(values) and values.ndim != 1:
        raise ValueError(f"{name} should be a 1d array, got an array of shape {values.shape} instead.")
    return Source(name, values, _lengths(values))


def refuse_dataset(values: Any, name: str) -> None:
    """Raise TypeError for an xarray Dataset where one value a row is expected."""
    if is_xarray(values) and hasattr(values, "data_vars"):
        names = list(values.data_vars)
        raise TypeError(
            f"{name} is an xarray Dataset, but one value a row is expected: pass one of its variables, "
            f"{', '.join(map(repr, names[:10])) or 'of which it has none'}"
        )


def any_weight(sample_weight: Any, client: Any = None) -> bool:
    """Whether a row has another weight than 0: one pass over the weights alone, of NumPy's or on ``client``."""
    if isinstance(sample_weight, Real):
        return bool(sample_weight)
    source = per_row(sample_weight, "sample_weight")
    if not source.lazy:
        return bool(np.any(column(source.data)))
    return any(per_block([source.data], _weighs, client, name="sample_weight"))


def _weighs(chunk: Any, where: str) -> bool:
    return bool(np.any(column(chunk)))


def _vector(values: Any, name: str) -> np.ndarray:
    values = on_host(values)
    if is_sparse(values):
        raise TypeError(f"Sparse data was passed for {name}, but dense data is required: use .toarray()")
    array = np.asarray(values)
    return array[:, _one(name, array.shape[1], array.shape)] if array.ndim == 2 else array


def _one(name: str, n_columns: int, shape: Any) -> int:
    if n_columns != 1:
        raise ValueError(f"{name} should be a 1d array, got an array of shape {shape} instead.")
    # Workers read their blocks by this module, and have no other use for scikit-learn.
    from sklearn.exceptions import DataConversionWarning

    warnings.warn(
        f"A column-vector {name} was passed when a 1d array was expected. Please change the shape of "
        f"{name} to (n_samples,), for example using ravel().",
        DataConversionWarning,
        stacklevel=4,
    )
    return 0


def schema_of(X: Source, dtype: Any = None) -> Schema:
    """Columns and dtype of the blocks, from the container alone."""
    data = X.data
    if is_frame(data) or isinstance(data, pd.DataFrame):
        columns = list(data.columns)
        dtypes = list(data.dtypes)
        for label, kind in zip(columns, dtypes, strict=True):
            refuse_dtype(kind, label)
        sparse, width = False, len(columns)
    else:
        dtypes, width = [data.dtype], int(data.shape[1])
        refuse_dtype(data.dtype)
        sparse = is_sparse(data._meta if X.lazy else data)
    if width == 0:
        raise ValueError(f"Found array with 0 feature(s) (shape=({X.n_rows}, 0)) while a minimum of 1 is required.")
    return Schema(width, np.dtype(dtype) if dtype is not None else float_dtype(dtypes), sparse, X.names)


def measured(source: Source, client: Any = None) -> Source:
    """The same with its chunks' lengths computed: one pass over the data, only where nothing else will do."""
    if source.lengths is not None or not source.lazy:
        return source
    lengths = per_block([source.data], _rows, client, name=source.name)
    return replace(source, lengths=tuple(int(n) for n in lengths))


def _rows(chunk: Any, where: str) -> int:
    return int(chunk.shape[0])
