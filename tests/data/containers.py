"""The same rows in every container that daskdml accepts."""

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import scipy.sparse as sp
import sparse
import xarray as xr

N, P = 23, 4
NAMES = list("abcd")
SAMPLES = np.arange(N) * 10


def rows():
    """X, y and weights, with whole numbers so that every dtype can hold them."""
    rng = np.random.default_rng(0)
    X = rng.integers(-5, 6, (N, P)).astype(float)
    X[X == -5] = 0
    return X, np.arange(N) % 3, 1.0 + np.arange(N) % 2


X, Y, W = rows()
DF = pd.DataFrame(X, columns=NAMES, index=SAMPLES)


def _unknown(X):
    array = dd.from_pandas(pd.DataFrame(X), npartitions=4).to_dask_array()
    assert np.isnan(array.shape[0])
    return array


def _arrow(frame):
    return frame.convert_dtypes(dtype_backend="pyarrow")


def _chunked(rows=6, columns=P):
    return da.from_array(X, chunks=(rows, columns))


def _xarray(dims=("sample", "feature")):
    values = X if dims[0] == "sample" else X.T
    return xr.DataArray(values, dims=dims, coords={"sample": SAMPLES, "feature": NAMES})


def _dataset():
    return xr.Dataset({n: ("sample", X[:, j]) for j, n in enumerate(NAMES)}, coords={"sample": SAMPLES})


def _mixed_dataset():
    return xr.Dataset({"a": ("sample", X[:, 0]), "rest": (("feature", "sample"), X[:, 1:].T)})


IN_MEMORY = {
    "numpy": lambda: X,
    "numpy, column-major": lambda: np.asfortranarray(X),
    "list": lambda: X.tolist(),
    "integers": lambda: X.astype(np.int32),
    "pandas": lambda: DF,
    "pandas, mixed": lambda: DF.astype({"a": "int16", "b": "Int64", "c": "object", "d": "category"}),
    "pandas, arrow": lambda: _arrow(DF),
    "scipy csr": lambda: sp.csr_matrix(X),
    "scipy csc array": lambda: sp.csc_array(X),
    "pydata sparse": lambda: sparse.COO.from_numpy(X),
    "xarray": _xarray,
    "xarray dataset": _dataset,
}
LAZY = {
    "array": _chunked,
    "array, one chunk": lambda: _chunked(N),
    "array, column chunks": lambda: _chunked(6, 2),
    "array, unknown chunks": lambda: _unknown(X),
    "array, empty chunks": lambda: da.concatenate([_chunked()[:0], _chunked()[:9], _chunked()[9:9], _chunked()[9:]]),
    "array, scipy csr": lambda: _chunked().map_blocks(sp.csr_matrix),
    "array, scipy csr array": lambda: _chunked().map_blocks(sp.csr_array),
    "array, pydata sparse": lambda: _chunked().map_blocks(sparse.COO.from_numpy),
    "frame": lambda: dd.from_pandas(DF, npartitions=4),
    "frame, empty partitions": lambda: dd.from_pandas(DF, npartitions=4).query("index < 50 or index >= 120"),
    "frame, mixed": lambda: dd.from_pandas(DF.astype({"a": "int16", "b": "Int64", "d": "category"}), npartitions=4),
    "frame, arrow": lambda: dd.from_pandas(_arrow(DF), npartitions=4),
    "xarray": lambda: _xarray().chunk(sample=6),
    "xarray, features first": lambda: _xarray(("feature", "sample")).chunk(sample=6, feature=2),
    "xarray dataset": lambda: _dataset().chunk(sample=6),
    "xarray dataset, wide variable": lambda: _mixed_dataset().chunk(sample=6),
}


def expected(name):
    """The rows a container holds: all, but for the frame that has lost some."""
    keep = (SAMPLES < 50) | (SAMPLES >= 120) if name == "frame, empty partitions" else np.ones(N, bool)
    return X[keep], Y[keep], W[keep]


def dense(values):
    """A block of any kind as an ndarray."""
    return values.toarray() if sp.issparse(values) else values
