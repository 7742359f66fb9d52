"""The contract of every container: the same rows come back as blocks, in a form the kernels take."""

import cloudpickle
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from daskdml.data import Schema, Target, as_dataset, columns_of, is_in_memory
from daskdml.data._decode import _has_rows, matrix
from tests.data.containers import DF, IN_MEMORY, LAZY, NAMES, N, P, X, Y, dense, expected

CLASSES = Target(np.arange(3))
ALL = [pytest.param(make, name, id=name) for name, make in LAZY.items()]
ALL += [pytest.param(make, "in memory " + name, id="in memory " + name) for name, make in IN_MEMORY.items()]


def blocks(data):
    """Every block, its recipe having been through a pickle."""
    assert data.self_contained
    return [cloudpickle.loads(cloudpickle.dumps(recipe)).resolve() for recipe in data.recipes]


def joined(made):
    return (
        np.concatenate([dense(b.X) for b in made]),
        np.concatenate([b.y for b in made]),
        np.concatenate([b.sample_weight for b in made]),
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("make", "name"), ALL)
def test_the_rows_come_back(make, name, dtype):
    rows, y, w = expected(name)
    block_rows = 5 if name.startswith("in memory") else None
    made = blocks(as_dataset(make(), y, w, target=CLASSES, dtype=dtype, block_rows=block_rows))

    for found, wanted in zip(joined(made), (rows, y, w), strict=True):
        np.testing.assert_array_equal(found, wanted)
    for index, block in enumerate(made):
        assert block.index == index
        assert {block.X.dtype, block.y.dtype, block.sample_weight.dtype} == {np.dtype(dtype)}
        if sp.issparse(block.X):
            assert block.X.has_canonical_format
            assert block.X.indices.dtype == block.X.indptr.dtype == np.int32
        else:
            assert block.X.flags.c_contiguous


@pytest.mark.parametrize(("make", "name"), ALL)
def test_what_is_known_before_a_block_is_made(make, name):
    data = as_dataset(make(), target=None)
    assert data.schema.n_features == P
    assert data.schema.sparse == ("scipy" in name or "pydata" in name)
    assert data.n_rows in (None, len(expected(name)[0]))
    assert is_in_memory(make()) == name.startswith("in memory")
    assert columns_of(make()) == (P, data.schema.feature_names)
    named = any(kind in name for kind in ("frame", "pandas", "xarray")) and "wide" not in name
    assert data.schema.feature_names == (
        tuple(NAMES) if named else ("a", "rest_0", "rest_1", "rest_2") if "wide" in name else None
    )


def test_in_memory_without_a_cluster_is_one_block_and_not_copied():
    (block,) = blocks_of = [r.resolve() for r in as_dataset(X, Y, target=CLASSES).recipes]
    assert len(blocks_of) == 1
    assert np.shares_memory(block.X, X)


def test_sparse_chunks_that_nobody_announced_stay_sparse():
    lazy = da.from_array(X, chunks=(6, P)).map_blocks(sp.csr_matrix, meta=np.empty((0, 0)))
    made = blocks(as_dataset(lazy, target=None))
    assert all(sp.issparse(b.X) for b in made)


def test_the_users_sparse_matrix_is_not_reordered():
    raw = sp.csr_matrix((np.array([1.0, 2.0]), np.array([3, 1]), np.array([0, 2])), shape=(1, P))
    (block,) = blocks(as_dataset(raw, target=None))
    assert block.X.indices.tolist() == [1, 3]
    assert raw.indices.tolist() == [3, 1]


@pytest.mark.parametrize(
    ("dtypes", "wanted"),
    [
        (["float32", "float32"], "float32"),
        (["float32", "int8"], "float32"),
        (["float16", "bool"], "float32"),
        (["float32", "int64"], "float64"),
        (["float32", "float64"], "float64"),
        (["int32", "bool"], "float64"),
        (["Float32", "Int16"], "float32"),
        (["float[pyarrow]", "int64[pyarrow]"], "float64"),
    ],
)
def test_float32_is_kept_where_nothing_is_lost(dtypes, wanted):
    frame = pd.DataFrame({i: pd.array([0, 1], dtype=d) for i, d in enumerate(dtypes)})
    assert as_dataset(frame, target=None).schema == Schema(2, np.dtype(wanted))
    (block,) = blocks(as_dataset(dd.from_pandas(frame, npartitions=1), target=None))
    assert block.X.dtype == wanted
    assert block.X.tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize("labels", [["x", "y", "z"], [False, True], [-1, 1], [0.5, 2.0]])
@pytest.mark.parametrize(
    "wrap",
    [
        np.asarray,
        pd.Series,
        lambda y: pd.Series(y).astype("category"),
        lambda y: dd.from_pandas(pd.Series(y), npartitions=1),
    ],
)
def test_labels_of_any_type_become_codes(labels, wrap):
    y = [labels[i] for i in (1, 0, 1)]
    (block,) = blocks(as_dataset(np.ones((3, 1)), wrap(y), target=Target(np.asarray(labels))))
    assert block.y.tolist() == [1, 0, 1]


def test_a_block_of_one_class_keeps_the_codes_of_all():
    made = blocks(as_dataset(np.ones((4, 1)), ["b", "b", "a", "a"], target=Target(np.array(["a", "b"])), block_rows=2))
    assert [b.y.tolist() for b in made] == [[1, 1], [0, 0]]


def test_a_number_as_weight_is_the_weight_of_every_row():
    (block,) = blocks(as_dataset(np.ones((2, 1)), None, 3, target=None))
    assert block.sample_weight.tolist() == [3, 3]
    (block,) = blocks(as_dataset(np.ones((2, 1)), None, 1, target=None))
    assert block.sample_weight is None


def test_xy_of_one_file_are_read_together_and_only_their_columns(tmp_path):
    DF.assign(y=Y, unused="text").to_parquet(tmp_path / "rows.parquet", row_group_size=6)
    frame = dd.read_parquet(tmp_path, split_row_groups=True)
    data = as_dataset(frame[["a", "c"]], frame["y"], target=Target())
    reads = [sum("read_parquet" in str(k) for k in r._graph) for r in data.recipes]
    assert reads == [1] * data.n_blocks
    assert data.n_blocks == 4
    made = blocks(data)
    np.testing.assert_array_equal(np.concatenate([b.X for b in made]), DF[["a", "c"]])
    np.testing.assert_array_equal(np.concatenate([b.y for b in made]), Y)
    assert sum(b.n_rows for b in made) == N


def test_zarr_is_read_by_the_recipe_itself(tmp_path, client):
    da.from_array(X, chunks=(6, 2)).to_zarr(str(tmp_path / "x.zarr"))
    data = as_dataset(da.from_zarr(str(tmp_path / "x.zarr")), Y, target=CLASSES, client=client)
    np.testing.assert_array_equal(np.concatenate([b.X for b in blocks(data)]), X)


def of_columns(rows, width, rng):
    """Columns that lie each by itself, of every kind there is."""
    kinds = ["f4", "f8", "i2", "u8", "?", "Int32", "Float64", "category"]
    values = {j: pd.Series(rng.integers(0, 2, rows)).astype(kinds[j % len(kinds)]) for j in range(width)}
    return pd.DataFrame(values, copy=False)


@pytest.mark.parametrize("width", [1, 3, 100, 3_000])
@pytest.mark.parametrize("rows", [0, 1, 63, 700, 9_001])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_columns_become_rows_whatever_tiles_they_are_cut_into(width, rows, dtype):
    rng = np.random.default_rng(0)
    rows = min(rows, 3_000_000 // width)
    for frame in (of_columns(rows, width, rng), pd.DataFrame(rng.standard_normal((rows, width)).astype("f4"))):
        found = matrix(frame, np.dtype(dtype))
        assert found.dtype == dtype and found.flags.c_contiguous
        np.testing.assert_array_equal(found, frame.astype(dtype).to_numpy())


def test_rows_are_taken_as_they_are_and_columns_are_not_joined_to_find_out():
    rows = np.arange(60, dtype="f4").reshape(12, 5)
    frame = pd.DataFrame(rows, copy=False)
    assert np.shares_memory(matrix(frame, np.dtype("f4")), rows)
    columns = pd.DataFrame({j: rows[:, j].copy() for j in range(5)}, copy=False)
    apart = pd.concat([frame.iloc[:, :2], frame.iloc[:, 3:]], axis=1)
    joined = pd.DataFrame(np.asfortranarray(rows), copy=False)
    for other in (columns, apart, joined, frame.iloc[:, 1:]):
        assert not _has_rows(other)
        np.testing.assert_array_equal(matrix(other, np.dtype("f4")), other.to_numpy())
