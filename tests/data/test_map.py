"""A function of rows over every container: lazily where the rows are lazy, in the container they came in."""

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import xarray as xr

from daskdml.data import is_in_memory, map_rows
from tests.data.containers import DF, IN_MEMORY, LAZY, SAMPLES, X, dense, expected


def total(block):
    assert sp.issparse(block) or block.flags.c_contiguous
    return dense(block).sum(axis=1)


def first_two(block):
    return dense(block)[:, :2]


def sign(block):
    return np.array(["minus", "zero", "plus"])[np.sign(dense(block)[:, 0]).astype(int) + 1]


def values(result):
    return np.asarray(result.compute() if hasattr(result, "compute") else result)


@pytest.mark.parametrize("name", IN_MEMORY)
def test_memory_in_memory_out(name):
    for function, columns in ((total, None), (first_two, ["p", "q"])):
        result = map_rows(IN_MEMORY[name](), function, dtype=float, columns=columns)
        assert isinstance(result, xr.DataArray if "xarray" in name else np.ndarray)
        np.testing.assert_array_equal(values(result), function(X))


@pytest.mark.parametrize("name", LAZY)
@pytest.mark.parametrize(
    ("function", "columns", "dtype"),
    [(total, None, "f4"), (first_two, ["p", "q"], "f8"), (sign, None, "<U5"), (sign, None, object)],
)
def test_lazy_in_lazy_out(name, function, columns, dtype):
    def refuse(*args, **kwargs):
        raise AssertionError("something was computed")

    with dask.config.set(scheduler=refuse):
        result = map_rows(LAZY[name](), function, dtype=dtype, columns=columns)
    assert not is_in_memory(result)
    computed = result.compute()
    np.testing.assert_array_equal(np.asarray(computed), function(expected(name)[0]))
    announced = result.dtypes if columns and "frame" in name else result.dtype
    found = computed.dtypes if columns and "frame" in name else computed.dtype
    assert np.all(announced == found)


def test_chunks_are_kept():
    known, unknown = LAZY["array, column chunks"](), LAZY["array, unknown chunks"]()
    assert map_rows(known, total, dtype=float).chunks == ((6, 6, 6, 5),)
    assert map_rows(known, first_two, dtype=float, columns="pq").chunks == ((6, 6, 6, 5), (2,))
    assert map_rows(unknown, total, dtype=float).numblocks == (4,)


def test_a_series_keeps_its_index_and_divisions():
    frame = dd.from_pandas(DF, npartitions=4)
    result = map_rows(frame, total, dtype=float)
    assert isinstance(result, dd.Series)
    assert result.divisions == frame.divisions
    pd.testing.assert_series_equal(result.compute(), pd.Series(total(X), index=SAMPLES, name="predict"))
    wide = map_rows(frame, first_two, dtype=float, columns=["p", "q"])
    assert wide.divisions == frame.divisions
    pd.testing.assert_frame_equal(wide.compute(), pd.DataFrame(X[:, :2], SAMPLES, ["p", "q"]))
    assert (frame["a"] - map_rows(frame, total, dtype=float)).compute().index.tolist() == SAMPLES.tolist()


@pytest.mark.parametrize("name", ["xarray", "xarray, features first", "xarray dataset"])
def test_xarray_keeps_the_samples_coordinates(name):
    result = map_rows(LAZY[name](), first_two, dtype=float, columns=["p", "q"], name="score")
    assert result.dims == ("sample", "class")
    assert result.name == "score"
    assert result.sel(sample=50, **{"class": "q"}).values == X[5, 1]
    flat = map_rows(LAZY[name](), total, dtype=float)
    assert flat.dims == ("sample",)
    assert set(flat.coords) == {"sample"}


def test_a_first_dimension_of_another_name_holds_the_samples():
    result = map_rows(xr.DataArray(X, dims=("time", "band")), total, dtype=float)
    assert result.dims == ("time",)


def test_bad_rows_are_refused_when_they_are_reached():
    bad = X.copy()
    bad[7, 2] = np.nan
    result = map_rows(da.from_array(bad, chunks=6), total, dtype=float)
    with pytest.raises(ValueError, match="Input X contains NaN"):
        result.compute()
    with pytest.raises(ValueError, match=r"gave shape \(23, 2\) for 23 rows, but \(23,\) was expected"):
        map_rows(X, first_two, dtype=float)


@pytest.mark.parametrize("container", ["array", "frame", "xarray"])
def test_a_block_that_is_not_finite_is_named(container):
    bad = np.ones((40, 2))
    bad[37, 1] = np.nan
    lazy = {
        "array": lambda: da.from_array(bad, chunks=(2, 2)),
        "frame": lambda: dd.from_pandas(pd.DataFrame(bad, columns=["a", "b"]), npartitions=20),
        "xarray": lambda: xr.DataArray(da.from_array(bad, chunks=(2, 1)), dims=("sample", "feature")),
    }[container]()
    columns = "'b'" if container == "frame" else "1"
    with pytest.raises(ValueError, match=f"^Input X contains NaN. First seen at block 18, row 1, column {columns}"):
        map_rows(lazy, total, dtype=float).compute()
