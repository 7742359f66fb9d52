"""Bad data: the error names the thing, where it is, and what to do."""

import dask
import dask.array as da
import dask.bag
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from daskdml.data import Target, as_dataset
from daskdml.linear_model import SGDClassifier


def every_block(data):
    return [r.resolve() for r in data.recipes]


def x_with(value, row=35, dtype=float):
    X = np.ones((40, 3), dtype)
    X[row, 1] = value
    return X


@pytest.mark.parametrize(("value", "text"), [(np.nan, "NaN"), (np.inf, "infinity or a value too large for dtype")])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda X: da.from_array(X, chunks=(2, 3)),
        lambda X: da.from_array(X, chunks=(2, 3)).map_blocks(sp.csr_matrix),
        lambda X: dd.from_pandas(pd.DataFrame(X, columns=list("abc")), npartitions=20),
    ],
)
def test_missing_and_infinite_values_in_block_17(value, text, wrap):
    with pytest.raises(ValueError, match=rf"Input X contains {text}.*block 17, row"):
        every_block(as_dataset(wrap(x_with(value)), target=None))


@pytest.mark.parametrize("column", [3, -1])
@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csr_array])
def test_columns_that_a_sparse_matrix_does_not_have(column, kind):
    parts = np.ones(3), np.array([0, column, 2]), np.array([0, 2, 3])
    bad = kind(parts, shape=(2, 3))
    lazy = da.from_array(np.arange(20.0).reshape(20, 1), chunks=(2, 1)).map_blocks(
        lambda x: bad if x[0, 0] == 14 else sp.csr_matrix(np.ones((2, 3))), meta=sp.csr_matrix((0, 3)), chunks=(2, 3)
    )
    wrong = f"row 0 has a value in column {column}, but X has 3 columns"
    with pytest.raises(ValueError, match=f"no valid sparse matrix: block 7, {wrong}"):
        every_block(as_dataset(lazy, target=None))
    fitted = SGDClassifier().fit(np.eye(3), [0, 1, 1])
    for use in (lambda: fitted.fit(bad, [0, 1]), lambda: fitted.partial_fit(bad, [0, 1]), lambda: fitted.predict(bad)):
        with pytest.raises(ValueError, match=f"no valid sparse matrix: {wrong}"):
            use()
    with pytest.raises(ValueError, match=f"no valid sparse matrix: block 7, {wrong}"):
        fitted.predict(lazy).compute()


def test_the_column_of_a_missing_value_is_named():
    frame = dd.from_pandas(pd.DataFrame(x_with(np.nan), columns=list("abc")), npartitions=20)
    with pytest.raises(ValueError, match="block 17, row 1, column 'b'; drop or impute"):
        every_block(as_dataset(frame, target=None))


@pytest.mark.parametrize("dtype", ["Float64", "Int64", "double[pyarrow]", "object", "category"])
def test_missing_values_of_every_dtype(dtype):
    column = pd.Series([1, None, 2], dtype=dtype)
    with pytest.raises(ValueError, match="Input X contains NaN"):
        every_block(as_dataset(pd.DataFrame({"a": column}), target=None))


def test_values_too_large_for_float32():
    with pytest.raises(ValueError, match=r"Input X contains infinity or a value too large for dtype\('float32'\)"):
        every_block(as_dataset(x_with(1e300), target=None, dtype=np.float32))


def test_a_large_sum_is_not_infinity():
    X = np.full((10, 2), np.finfo(np.float32).max, np.float32)
    assert every_block(as_dataset(X, target=None))[0].n_rows == 10


@pytest.mark.parametrize(("y", "text"), [([1.0, np.nan], "NaN"), ([1.0, -np.inf], "infinity")])
def test_y_that_is_not_finite(y, text):
    for target in (Target(), Target(np.array([0.0, 1.0]))):
        with pytest.raises(ValueError, match=f"Input y contains {text}"):
            every_block(as_dataset(np.ones((2, 1)), y, target=target))


@pytest.mark.parametrize(
    "y", [np.array(["a", None], object), pd.Series(["a", None]), pd.Series(["a", pd.NA], dtype="string")]
)
def test_missing_text_labels(y):
    with pytest.raises(ValueError, match="Input y contains NaN"):
        every_block(as_dataset(np.ones((2, 1)), y, target=Target(np.array(["a", "b"], object))))


def test_unknown_labels_are_named():
    y = da.from_array(np.array(list("aabbcd")), chunks=2)
    data = as_dataset(da.ones((6, 1), chunks=2), y, target=Target(np.array(["a", "b"])))
    with pytest.raises(ValueError, match=r"y has labels \['c', 'd'\] \(block 2\) that are not in classes=\['a', 'b'\]"):
        every_block(data)


def test_weights_follow_scikit_learn():
    assert every_block(as_dataset(np.ones((2, 1)), None, [-1.0, 2.0], target=None))[0].sample_weight.tolist() == [-1, 2]
    with pytest.raises(ValueError, match="Input sample_weight contains NaN"):
        every_block(as_dataset(np.ones((2, 1)), None, [np.nan, 2.0], target=None))


def test_text_is_named_by_its_column():
    frame = pd.DataFrame({"size": [1.0, 2.0], "city": ["Oslo", "Rome"]})
    for X in (frame, dd.from_pandas(frame, npartitions=1), frame.astype({"city": "category"})):
        with pytest.raises(ValueError, match="column 'city' of X holds what is not a number .*encode it first"):
            every_block(as_dataset(X, target=None))


def test_text_for_a_regression():
    with pytest.raises(ValueError, match="y must be numbers"):
        every_block(as_dataset(np.ones((2, 1)), ["a", "b"], target=Target()))


def test_dates_and_complex_numbers():
    frame = pd.DataFrame({"when": pd.to_datetime(["2020-01-01"])})
    for X in (frame, dd.from_pandas(frame, npartitions=1)):
        with pytest.raises(TypeError, match="column 'when' of X has dtype datetime64.*turn it into one"):
            as_dataset(X, target=None)
    with pytest.raises(ValueError, match="Complex data not supported"):
        as_dataset(da.ones((2, 2), dtype=complex), target=None)


@pytest.mark.parametrize("X", [np.ones(3), da.ones(3), np.ones((2, 2, 2)), da.ones((2, 2, 2)), np.float64(3)])
def test_wrong_dimensions(X):
    with pytest.raises(ValueError, match="Expected 2D array, got"):
        as_dataset(X, target=None)


def test_no_rows_and_no_columns():
    with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\)"):
        as_dataset(np.ones((0, 2)), target=None)
    with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\)"):
        as_dataset(da.ones((0, 2)), target=None)
    with pytest.raises(ValueError, match=r"Found array with 0 feature\(s\)"):
        as_dataset(np.ones((2, 0)), target=None)


def test_blocks_of_another_width():
    chunks = [dask.delayed(np.ones)((2, width)) for width in (3, 4)]
    X = da.concatenate([da.from_delayed(c, (2, 3), float) for c in chunks])
    with pytest.raises(ValueError, match="X has 4 columns in block 1, but 3 were expected"):
        every_block(as_dataset(X, target=None))


def test_blocks_of_another_length_than_their_chunks_say():
    X = da.from_delayed(dask.delayed(np.ones)((3, 2)), (4, 2), float)
    with pytest.raises(ValueError, match="block 0 of X has 3 rows but its chunks say 4"):
        every_block(as_dataset(X, target=None))


def test_an_error_of_the_users_graph_names_the_block():
    def fail(block, block_info=None):
        if block_info[0]["chunk-location"][0] == 1:
            raise OSError("the disk is gone")
        return block

    X = da.ones((4, 2), chunks=2).map_blocks(fail, dtype=float, meta=np.empty((0, 0)))
    with pytest.raises(OSError, match="the disk is gone") as caught:
        every_block(as_dataset(X, target=None))
    assert caught.value.__notes__ == ["while making block 1 of the data"]


def test_arguments_that_do_not_fit():
    with pytest.raises(TypeError, match="X is a dask.bag.core.Bag, but a dask Array or DataFrame"):
        as_dataset(dask.bag.from_sequence([1]), target=None)
    with pytest.raises(ValueError, match="dtype must be float32 or float64"):
        as_dataset(np.ones((2, 2)), target=None, dtype=int)
    with pytest.raises(ValueError, match="block_rows=3 divides in-memory data"):
        as_dataset(da.ones((2, 2)), target=None, block_rows=3)
    with pytest.raises(ValueError, match="block_rows must be at least 1"):
        as_dataset(np.ones((2, 2)), target=None, block_rows=0)
    with pytest.raises(TypeError, match="Sparse data was passed for y"):
        as_dataset(np.ones((2, 2)), sp.csr_matrix(np.ones((2, 1))), target=Target())
    with pytest.raises(ValueError, match="block 0 needs 1 inputs but got 0"):
        chunks = da.ones((8, 2), chunks=(4, 2)).map_blocks(np.copy).rechunk((3, 2))
        every_block(as_dataset(chunks, target=None))


def test_a_block_too_large_to_join_its_columns():
    X = da.ones((10**9, 100), chunks=(10**8, 50))
    with pytest.raises(ValueError, match=r"block 0 needs .* but a worker has .*rechunk X to at most \d+ rows a block"):
        as_dataset(X, target=None)
