"""X, y and sample_weight meet row by row, however each is divided."""

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from daskdml.data import Target, as_dataset
from tests.data.containers import DF, N, X, Y, dense

FRAME = dd.from_pandas(DF.assign(y=Y), npartitions=4)
XS = {
    "numpy": lambda: X,
    "array": lambda: da.from_array(X, chunks=(6, 2)),
    "unknown": lambda: FRAME.drop(columns="y").to_dask_array(),
    "frame": lambda: FRAME.drop(columns="y"),
}
YS = {
    "numpy": lambda: Y,
    "list": lambda: Y.tolist(),
    "pandas": lambda: pd.Series(Y),
    "array": lambda: da.from_array(Y, chunks=6),
    "array, other chunks": lambda: da.from_array(Y, chunks=5),
    "array, one chunk": lambda: da.from_array(Y, chunks=N),
    "series": lambda: FRAME["y"],
    "series, other partitions": lambda: dd.from_pandas(pd.Series(Y), npartitions=3),
    "unknown, other chunks": lambda: dd.from_pandas(pd.Series(Y), npartitions=3).to_dask_array(),
}


@pytest.mark.parametrize("y", YS)
@pytest.mark.parametrize("x", XS)
def test_rows_meet(x, y, client):
    lazy_x, lazy_y = XS[x](), YS[y]()
    if (x, y) in {("array", "series"), ("unknown", "array"), ("frame", "array")}:
        # The numbers of blocks agree, so block meets block, and these differ in length: said, not guessed.
        lazy_y = lazy_y.repartition(divisions=[0, 60, 120, 180, 220]) if y == "series" else da.from_array(Y, 6)
        if x != "array":
            lazy_x = FRAME.drop(columns="y").repartition(divisions=[0, 60, 120, 180, 220])
    data = as_dataset(lazy_x, lazy_y, target=Target(np.arange(3)), client=client)
    made = [r.resolve(client.gather(list(data.inputs(client, r.index)))) for r in data.recipes]
    np.testing.assert_array_equal(np.concatenate([dense(b.X) for b in made]), X)
    np.testing.assert_array_equal(np.concatenate([b.y for b in made]), Y)


def test_lengths_are_not_computed_where_blocks_match():
    def refuse(*args, **kwargs):
        raise AssertionError("something was computed")

    frame = FRAME.drop(columns="y")
    with dask.config.set(scheduler=refuse):
        as_dataset(frame, FRAME["y"], FRAME["y"] + 1, target=Target())
        as_dataset(frame.to_dask_array(), FRAME["y"], target=Target())
        as_dataset(da.from_array(X, chunks=6), Y, da.ones(N, chunks=4), target=Target())
        with pytest.raises(AssertionError, match="computed"):
            as_dataset(frame.map_partitions(lambda part: part), Y, target=Target())
        # Looking at what is in memory takes no scheduler.
        as_dataset(frame, Y, target=Target())


def test_blocks_of_different_lengths_are_named():
    y = dd.concat([FRAME["y"].partitions[:3], FRAME["y"].partitions[3].loc[:210]])
    data = as_dataset(FRAME.drop(columns="y"), y, target=Target())
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[5, 4\] \(block 3, X has 5 rows and y"):
        for recipe in data.recipes:
            recipe.resolve()


@pytest.mark.parametrize("x", ["numpy", "array", "frame"])
def test_total_lengths_that_differ_are_refused(x):
    with pytest.raises(ValueError, match=r"Found input variables with inconsistent numbers of samples: \[23, 22\]"):
        as_dataset(XS[x](), Y[1:], target=Target())


def test_a_column_vector_is_flattened_with_a_warning():
    with pytest.warns(UserWarning, match="column-vector y was passed"):
        data = as_dataset(X, Y[:, None], target=Target())
    assert data.recipes[0].resolve().y.tolist() == Y.tolist()
    with pytest.raises(ValueError, match="y should be a 1d array, got an array of shape"):
        as_dataset(X, np.ones((N, 2)), target=Target())
    with pytest.raises(ValueError, match="y should be a 1d array, got an array of shape"):
        as_dataset(da.from_array(X), da.ones((N, 2)), target=Target())
