"""A function over rows, applied lazily and block by block, in the container the rows came in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd

from daskdml.data._block import Schema
from daskdml.data._checks import all_finite, check_finite, place
from daskdml.data._decode import device_matrix, matrix
from daskdml.data._labelled import is_xarray, sample_dim
from daskdml.data._sources import Source, features, is_frame, is_in_memory, schema_of

RowFunction = Callable[[Any], np.ndarray]


def columns_of(X: Any) -> tuple[int, tuple[str, ...] | None]:
    """The number of X's features, and their names where all are strings (as scikit-learn has it).

    Examples
    --------
    >>> import pandas as pd
    >>> columns_of(pd.DataFrame({"a": [1.0], "b": [2.0]}))
    (2, ('a', 'b'))
    """
    schema = schema_of(features(X))
    return schema.n_features, schema.feature_names


def map_rows(
    X: Any,
    function: RowFunction,
    *,
    dtype: Any,
    columns: Sequence[Any] | None = None,
    name: str = "predict",
    scores: RowFunction | None = None,
) -> Any:
    """Apply a function of rows to X, lazily where X is lazy.

    Parameters
    ----------
    X : array, DataFrame, sparse matrix or xarray object, in memory or of Dask
    function : callable
        Takes a C-contiguous ndarray or CSR matrix of floats, returns an ndarray of shape (n,), or
        (n, len(columns)) with ``columns``.
    dtype : dtype
        Of the result: of scores, or of labels.
    columns : sequence, optional
        The result is two-dimensional, with these names (a DataFrame's columns, an xarray "class" coordinate).
    name : str, default "predict"
        Of the result, where it has one.
    scores : callable, optional
        Comes before ``function``, which is then given its results. They must be finite for finite rows only, as sums of
        products are: then rows need not be looked through before. Where it has a method ``there``, dense chunks that
        lie on a GPU are given to that as they lie; it gives scores on the host.

    Returns
    -------
    ndarray, dask Array, dask Series or DataFrame, or xarray DataArray
        NumPy for what is in memory; a dask Array with X's chunks; a Series with the DataFrame's index and
        divisions; a DataArray with the samples' coordinates.

    Examples
    --------
    >>> import dask.array as da
    >>> map_rows(da.ones((4, 3), chunks=(2, 3)), lambda rows: rows.sum(axis=1), dtype=float).compute()
    array([3., 3., 3., 3.])
    """
    source = features(X)
    rows = partial(
        _rows,
        function=function,
        scores=scores,
        schema=schema_of(source),
        dtype=np.dtype(dtype),
        width=None if columns is None else len(columns),
        n_blocks=source.n_blocks,
    )
    if is_xarray(X):
        return _labelled(X, _mapped(source, rows, columns, name), columns, name)
    return _mapped(source, rows, columns, name)


def _mapped(source: Source, rows: Callable[..., np.ndarray], columns: Sequence[Any] | None, name: str) -> Any:
    data = source.data
    if is_in_memory(data):
        return rows(data)
    if is_frame(data):
        return _frame(data, rows, columns, name)
    dtype = rows.keywords["dtype"]  # type: ignore[attr-defined]
    width = 1 if columns is None else len(columns)
    function = partial(_column, rows=rows) if columns is None else rows
    found = data.map_blocks(function, dtype=dtype, chunks=(data.chunks[0], (width,)), meta=np.empty((0, 0), dtype))
    return found[:, 0] if columns is None else found


def _column(chunk: Any, *, rows: Callable[..., np.ndarray], block_id: tuple[int, ...] = (0,)) -> np.ndarray:
    """One value a row as a column, which is taken apart again: where an axis is dropped, Dask copies each chunk."""
    return rows(chunk, block_id=block_id)[:, None]


def _rows(
    chunk: Any,
    *,
    function: RowFunction,
    scores: RowFunction | None,
    schema: Schema,
    dtype: np.dtype,
    width: int | None,
    n_blocks: int,
    block_id: tuple[int, ...] = (0,),
) -> np.ndarray:
    """One chunk's results; a chunk without rows is not shown to the function. Dask gives ``block_id``."""
    n = chunk.shape[0]
    shape = (n,) if width is None else (n, width)
    if not n:
        return np.empty(shape, dtype)
    there = getattr(scores, "there", None)
    on_device = None if there is None or schema.sparse else device_matrix(chunk, schema.dtype)
    where = place(block_id[0], n_blocks)
    X = matrix(chunk, schema.dtype, schema.sparse, where) if on_device is None else on_device
    if X.shape[1] != schema.n_features:
        raise ValueError(
            f"X has {X.shape[1]} columns in block {block_id[0]}, but {schema.n_features} in its first; "
            "every block must have the same columns"
        )
    given: Any = X if scores is None else scores(X) if there is None or on_device is None else there(on_device)
    if scores is None or not all_finite(given):
        X = X if on_device is None else matrix(chunk, schema.dtype)
        names = schema.feature_names if isinstance(X, np.ndarray) else None
        check_finite(X if isinstance(X, np.ndarray) else X.data, "X", where, names)
    result = np.asarray(function(given))
    if result.shape != shape:
        raise ValueError(f"the function gave shape {result.shape} for {n} rows, but {shape} was expected")
    return result.astype(dtype, copy=False)


def _frame(frame: Any, rows: Callable[..., np.ndarray], columns: Sequence[Any] | None, name: str) -> Any:
    dtype = _column_dtype(rows.keywords["dtype"])  # type: ignore[attr-defined]
    part = partial(_pandas, rows=rows, dtype=dtype, columns=columns, name=name)
    meta = _wrapped(
        np.empty(0 if columns is None else (0, len(columns)), object), frame._meta.index[:0], dtype, columns, name
    )
    return frame.map_partitions(part, meta=meta)


def _column_dtype(dtype: np.dtype) -> Any:
    """The dtype of a pandas column: fixed-width text becomes pandas' own."""
    return pd.Series(np.array(["a"], dtype)).dtype if dtype.kind in "US" else dtype


def _pandas(
    part: pd.DataFrame,
    *,
    rows: Callable[..., np.ndarray],
    dtype: Any,
    columns: Sequence[Any] | None,
    name: str,
    partition_info: dict[str, Any] | None = None,
) -> pd.Series | pd.DataFrame:
    block = 0 if partition_info is None else int(partition_info["number"])
    return _wrapped(rows(part, block_id=(block,)), part.index, dtype, columns, name)


def _wrapped(
    values: np.ndarray, index: pd.Index, dtype: Any, columns: Sequence[Any] | None, name: str
) -> pd.Series | pd.DataFrame:
    if columns is None:
        return pd.Series(values, index=index, name=name, dtype=dtype)
    return pd.DataFrame(values, index=index, columns=list(columns), dtype=dtype)


def _labelled(X: Any, values: np.ndarray | da.Array, columns: Sequence[Any] | None, name: str) -> Any:
    import xarray as xr

    dim = sample_dim(X)
    coords: dict[Any, Any] = {k: c for k, c in X.coords.items() if set(c.dims) <= {dim}}
    if columns is None:
        return xr.DataArray(values, coords=coords, dims=(dim,), name=name)
    coords["class"] = np.asarray(columns)
    return xr.DataArray(values, coords=coords, dims=(dim, "class"), name=name)
