"""From one raw chunk (ndarray, DataFrame, sparse of any kind) to what the kernels take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.sparse as sp

from daskdml.data._buffers import empty_rows
from daskdml.numerics import turn

# Copied at a time when columns are gathered into rows: the tile stays in the CPU's cache.
_TILE_BYTES = 2**20
_LEAST_ROWS = 64
_ODD = 16
# From rows of so many values on: for fewer the code is not worth being loaded, or made. Not from so many at once, since
# readers bring columns a few at a time.
_COMPILED = 2**20
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_NARROW = tuple(np.dtype(t) for t in ("bool", "int8", "uint8", "int16", "uint16", "float16"))


def float_dtype(dtypes: Any) -> np.dtype:
    """The kernels' dtype for columns of these dtypes: float32 only where no column loses by it."""
    bases = {_numpy_dtype(d) for d in dtypes}
    floats = {d for d in bases if d is not None and d.kind == "f"}
    narrow = all(d is not None and (d == np.float32 or d in _NARROW) for d in bases)
    return np.dtype(np.float32 if floats and narrow else np.float64)


def _numpy_dtype(dtype: Any) -> np.dtype | None:
    """The NumPy dtype of the values, also of nullable and Arrow columns; None for object, text and the like."""
    if isinstance(dtype, pd.CategoricalDtype):
        return _numpy_dtype(dtype.categories.dtype)
    if not isinstance(dtype, np.dtype):
        dtype = getattr(dtype, "numpy_dtype", None)
    return dtype if isinstance(dtype, np.dtype) and dtype.kind in "fiub" else None


def refuse_dtype(dtype: Any, column: Any = None) -> None:
    """Raise where no value of ``dtype`` can be a feature: dates, durations, complex numbers."""
    kind = getattr(dtype, "kind", "O")
    if kind == "c":
        raise ValueError(f"Complex data not supported: {_named(column)} has dtype {dtype}")
    if kind in "mM":
        raise TypeError(
            f"{_named(column)} has dtype {dtype}, which is not a number: turn it into one first "
            "(e.g. the hour, or seconds since a date), or drop it"
        )


def _named(column: Any) -> str:
    return "X" if column is None else f"column {column!r} of X"


def is_sparse(value: Any) -> bool:
    """Whether a chunk, or the meta of one, is a scipy.sparse or pydata/sparse container."""
    return sp.issparse(value) or type(value).__module__.partition(".")[0] == "sparse"


def on_host(value: Any) -> Any:
    """A chunk of a GPU library as what NumPy, pandas and SciPy know; anything else as it is.

    CuPy's arrays, and its sparse ones, have ``get()``; cuDF's frames and columns have ``to_pandas()``.
    """
    library = type(value).__module__.partition(".")[0]
    if library in ("cupy", "cupyx"):
        return value.get()
    return value.to_pandas() if library == "cudf" else value


def device_matrix(value: Any, dtype: np.dtype) -> Any:
    """A dense chunk that lies on a GPU as a C-contiguous array there, without a copy where it is one of ``dtype``.

    None for what does not lie there, or not densely: that goes through the host.
    """
    library = type(value).__module__.partition(".")[0]
    if library == "cudf" and hasattr(value, "to_cupy"):
        value = value.to_cupy()
    elif library != "cupy":
        return None
    refuse_dtype(value.dtype)
    value = value.reshape(-1, 1) if value.ndim == 1 else value
    return value.astype(dtype, order="C", copy=False)


def matrix(
    value: Any, dtype: np.dtype, sparse: bool = False, where: str = ""
) -> np.ndarray | sp.csr_matrix | sp.csr_array:
    """One raw chunk as a C-contiguous ndarray or canonical CSR of ``dtype``; no copy where it is one already.

    ``where`` is how an error names the chunk.
    """
    value = on_host(value)
    if isinstance(value, pd.Series):
        value = value.to_frame()
    if isinstance(value, pd.DataFrame):
        result: Any = _frame(value, dtype)
    elif is_sparse(value):
        return _csr(value, dtype, where)
    else:
        result = np.asarray(value)
        refuse_dtype(result.dtype)
        result = _numbers(result, dtype, None)
    if result.ndim == 1:
        result = result.reshape(-1, 1)
    result = np.ascontiguousarray(result)
    return _csr(sp.csr_matrix(result), dtype) if sparse else result


def _csr(value: Any, dtype: np.dtype, where: str = "") -> Any:
    if not sp.issparse(value):
        value = value.tocsr() if hasattr(value, "tocsr") else value.to_scipy_sparse().tocsr()
    csr = value.tocsr()
    refuse_dtype(csr.dtype)
    check_columns(csr, where)
    if csr.dtype != dtype:
        csr = csr.astype(dtype)
    if not csr.has_canonical_format:
        # The chunk may be shared with other readers: sort a copy, never the user's own arrays.
        csr = csr.copy() if csr is value or np.shares_memory(csr.data, value.data) else csr
        csr.sum_duplicates()
    if csr.indices.dtype != np.int32 or csr.indptr.dtype != np.int32:
        if csr.nnz > np.iinfo(np.int32).max:
            raise ValueError(
                f"a sparse block has {csr.nnz} stored values but 32-bit indices allow {2**31 - 1}; "
                "rechunk X to fewer rows a block"
            )
        parts = (csr.data, csr.indices.astype(np.int32), csr.indptr.astype(np.int32))
        csr = type(csr)(parts, shape=csr.shape)
    return csr


def check_columns(csr: Any, where: str = "") -> None:
    """Raise ValueError for a column that is not there.

    SciPy does not look at the columns that it is given, and compiled code would write over other memory.
    """
    # As unsigned numbers those below 0 are large: one look at each finds both.
    columns = csr.indices.view(f"u{csr.indices.itemsize}")
    if len(columns) and columns.max() >= csr.shape[1]:
        at = int(np.argmax(columns))
        row = int(np.searchsorted(csr.indptr, at, side="right")) - 1
        raise ValueError(
            f"Input X is no valid sparse matrix: {where}row {row} has a value in column {csr.indices[at]}, "
            f"but X has {csr.shape[1]} columns; build it anew with its full shape"
        )


def _frame(frame: pd.DataFrame, dtype: np.dtype) -> np.ndarray:
    """A DataFrame's values, gathered tile by tile: at most one extra copy of the block exists, none if it has rows."""
    for name, kind in zip(frame.columns, frame.dtypes, strict=True):
        refuse_dtype(kind, name)
    if set(frame.dtypes) == {dtype} and _has_rows(frame):
        return frame.to_numpy()
    n_rows, n_columns = frame.shape
    out = empty_rows(n_rows, n_columns, dtype)
    with np.errstate(over="ignore"):
        _gather(frame, out)
    return out


def _has_rows(frame: pd.DataFrame) -> bool:
    """Whether a frame of one dtype is an array by rows; found without one, which would be a copy of columns."""
    first, last = (frame.iloc[:, j].to_numpy() for j in (0, -1))
    width = first.itemsize * frame.shape[1]
    apart = last.ctypes.data - first.ctypes.data
    return first.strides == last.strides == (width,) and apart == width - first.itemsize


def _gather(frame: pd.DataFrame, out: np.ndarray) -> None:
    columns = [_column(column, out.dtype, name) for name, column in frame.items()]
    plain = all(isinstance(d, np.dtype) and d.kind in "fiub" for d in frame.dtypes)
    if plain and not all(values.flags.c_contiguous for values in columns):
        # Rows of an array, where the values of a row are neighbours already.
        step = max(1, _TILE_BYTES // max(1, 8 * frame.shape[1]))
        for start in range(0, len(frame), step):
            out[start : start + step] = frame.iloc[start : start + step].to_numpy()
        return
    rows_of(columns, out)


def rows_of(columns: Sequence[np.ndarray | pa.Array], out: np.ndarray, first: int = 0) -> None:
    """Write columns of any numbers into ``out``, C-contiguous and of so many rows, side by side from ``first`` on.

    Where they are of the dtype of ``out`` already, and that is large, compiled code does it.

    Examples
    --------
    >>> import numpy as np
    >>> rows_of([np.array([1, 2]), np.array([3.5, 4.5])], out := np.empty((2, 2)))
    >>> out.tolist()
    [[1.0, 3.5], [2.0, 4.5]]
    """
    if out.size >= _COMPILED and (places := _addresses(columns, out)) is not None:
        turn(places, out, first)
        return
    # Pieces of all columns, one below the other, then turned: written to where it belongs at once, each value would
    # cost a line of cache. Lines of a power of two would share the same few places there.
    arrays = [c if isinstance(c, np.ndarray) else c.to_numpy(zero_copy_only=False) for c in columns]
    n_rows = len(out)
    step = min(max(_LEAST_ROWS, _TILE_BYTES // max(1, out.itemsize * len(arrays))), max(1, n_rows))
    tile = np.empty((len(arrays), step + _ODD), out.dtype)
    for start in range(0, n_rows, step):
        stop = min(start + step, n_rows)
        for line, values in zip(tile, arrays, strict=True):
            line[: stop - start] = values[start:stop]
        out[start:stop, first : first + len(arrays)] = tile[:, : stop - start].T


def _addresses(columns: Sequence[np.ndarray | pa.Array], out: np.ndarray) -> np.ndarray | None:
    """Where each column begins, if all are plain numbers of the dtype of ``out``, one after the other; else None."""
    if out.dtype not in _FLOATS or not out.flags.c_contiguous:
        return None
    kind, found = pa.from_numpy_dtype(out.dtype), []
    for values in columns:
        if isinstance(values, np.ndarray):
            if values.dtype != out.dtype or not values.flags.c_contiguous or not values.flags.aligned:
                return None
            found.append(values.ctypes.data)
        elif values.type == kind and not values.null_count:
            found.append(values.buffers()[1].address + values.offset * out.itemsize)
        else:
            return None
    return np.array(found, np.int64) if all(len(c) == len(out) for c in columns) else None


def _column(column: pd.Series, dtype: np.dtype, name: Any) -> np.ndarray:
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "fiub":
        return column.to_numpy()
    if isinstance(column.dtype, pd.CategoricalDtype):
        categories = _numbers(np.asarray(column.cat.categories), dtype, name)
        return np.append(categories, dtype.type(np.nan))[column.cat.codes.to_numpy()]
    if _numpy_dtype(column.dtype) is not None:
        return column.to_numpy(dtype=dtype, na_value=np.nan)
    values = column.to_numpy(dtype=object, na_value=np.nan)
    return _numbers(values, dtype, name)


def _numbers(values: np.ndarray, dtype: np.dtype, column: Any) -> np.ndarray:
    try:
        # What becomes infinite is found, and named, by the finite check.
        with np.errstate(over="ignore"):
            return values.astype(dtype, copy=False)
    except (ValueError, TypeError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"{_named(column)} holds what is not a number ({error}): "
            "encode it first (e.g. dask_ml.preprocessing.OneHotEncoder), or drop it"
        ) from error


def column(value: Any) -> np.ndarray:
    """One raw chunk of y or of the weights as a 1-D array; NA of nullable dtypes as NaN."""
    value = on_host(value)
    if is_sparse(value):
        raise TypeError("Sparse data was passed for y or sample_weight, but dense data is required: use .toarray()")
    if isinstance(value, pd.DataFrame):
        value = value.iloc[:, 0]
    if isinstance(value, pd.Series):
        return _series(value)
    array = np.asarray(value)
    return array.reshape(-1) if array.ndim != 1 else array


def _series(series: pd.Series) -> np.ndarray:
    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        return series.to_numpy()
    base = _numpy_dtype(dtype)
    if base is None:
        return series.to_numpy(dtype=object, na_value=np.nan)
    if series.isna().any():
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    return series.to_numpy(dtype=base)
