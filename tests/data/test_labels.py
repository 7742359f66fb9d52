"""Which labels there are, in any container, and what is no label."""

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from daskdml.data import label_counts

LABELS = {
    "text": np.array(["no", "yes", "maybe", "no", "no", "yes"]),
    "objects": np.array(["no", "yes", "maybe", "no", "no", "yes"], object),
    "booleans": np.array([True, False, False, True, True, True]),
    "integers": np.array([3, -1, 3, 3, 7, -1], np.int32),
    "whole floats": np.array([3, -1, 3, 3, 7, -1], np.float32),
}
WRAPS = {
    "numpy": np.asarray,
    "list": list,
    "pandas": pd.Series,
    "array": lambda y: da.from_array(y, chunks=2),
    "series": lambda y: dd.from_pandas(pd.Series(y), npartitions=3),
    "frame": lambda y: dd.from_pandas(pd.DataFrame({"y": y}), npartitions=3)["y"],
    "array of unknown chunks": lambda y: dd.from_pandas(pd.Series(y), npartitions=3).to_dask_array(),
    "xarray": lambda y: xr.DataArray(y, dims="sample"),
}


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("kind", LABELS)
def test_classes_and_counts(kind, wrap):
    y = LABELS[kind]
    classes, counts = label_counts(WRAPS[wrap](y))
    wanted, wanted_counts = np.unique(y, return_counts=True)
    assert classes.tolist() == wanted.tolist()
    assert counts.tolist() == wanted_counts.tolist()
    text = {"U", "O"}
    assert classes.dtype.kind == wanted.dtype.kind or {classes.dtype.kind, wanted.dtype.kind} == text


@pytest.mark.parametrize("weight", [np.arange(6.0), da.arange(6.0, chunks=4), pd.Series(np.arange(6.0))])
@pytest.mark.parametrize("wrap", WRAPS)
def test_weighted_counts(wrap, weight):
    classes, counts = label_counts(WRAPS[wrap](LABELS["integers"]), weight)
    assert dict(zip(classes.tolist(), counts.tolist(), strict=True)) == {-1: 6.0, 3: 5.0, 7: 4.0}


def test_many_blocks_categories_and_empty_partitions():
    y = pd.Series(np.arange(200) % 7).astype("category")
    frame = dd.from_pandas(y.to_frame("y"), npartitions=40)
    frame = frame.query("index >= 20")
    classes, counts = label_counts(frame["y"])
    assert classes.tolist() == list(range(7))
    assert counts.tolist() == np.bincount(np.arange(20, 200) % 7).tolist()


def test_on_a_cluster(client):
    y = da.from_array(LABELS["text"], chunks=2).persist()
    assert label_counts(y)[1].tolist() == label_counts(y, client=client)[1].tolist() == [1, 3, 2]


@pytest.mark.parametrize("wrap", ["numpy", "array", "series"])
@pytest.mark.parametrize(
    ("y", "error", "text"),
    [
        ([0.0, 1.5, 2.0, 1.0], ValueError, "Unknown label type: continuous"),
        ([0.0, np.nan, 2.0, 1.0], ValueError, "Input y contains NaN"),
        ([0.0, np.inf, 2.0, 1.0], ValueError, "Input y contains infinity"),
    ],
)
def test_what_is_no_label(wrap, y, error, text):
    with pytest.raises(error, match=text):
        label_counts(WRAPS[wrap](np.array(y)))


@pytest.mark.parametrize("missing", [np.nan, None])
@pytest.mark.parametrize("on_cluster", [False, True])
def test_the_block_without_a_label_is_named(client, on_cluster, missing):
    y = np.array([0, 1] * 20, dtype=float if missing is not None else object)
    y[37] = missing
    with pytest.raises(ValueError, match="^Input y contains NaN. First seen at block 18, row 1: drop the rows"):
        label_counts(da.from_array(y, chunks=2), client=client if on_cluster else None)


def test_more_labels_than_are_counted_at_once(monkeypatch):
    monkeypatch.setattr("daskdml.data._labels._SLAB", 3)
    classes, counts = label_counts(LABELS["integers"], np.arange(6.0))
    assert dict(zip(classes.tolist(), counts.tolist(), strict=True)) == {-1: 6.0, 3: 5.0, 7: 4.0}
    with pytest.raises(ValueError, match="First seen at row 4: drop"):
        label_counts(np.array([0, 1, 0, 1, np.nan]))


def test_missing_and_mixed_labels():
    with pytest.raises(ValueError, match="Input y contains NaN"):
        label_counts(np.array(["a", None], object))
    with pytest.raises(TypeError, match=r"all text or all numbers, got types \['int', 'str'\]"):
        label_counts(np.array(["a", 1], object))
    with pytest.raises(ValueError, match="Unknown label type: datetime64"):
        label_counts(np.array(["2020-01-01"], "M8[D]"))


def test_only_y_is_read(tmp_path):
    pd.DataFrame({"x": np.arange(8.0), "y": [0, 1] * 4}).to_parquet(tmp_path / "a.parquet", row_group_size=2)
    frame = dd.read_parquet(tmp_path, split_row_groups=True)
    assert label_counts(frame["y"], frame["x"] + 1)[1].tolist() == [16.0, 20.0]


def test_labels_of_many_blocks_are_counted_several_blocks_a_task(client, monkeypatch):
    y = np.random.default_rng(0).integers(0, 4, 2_000)
    many = da.from_array(y, chunks=5).map_blocks(np.negative)
    graphs = []
    get = client.get
    monkeypatch.setattr(client, "get", lambda graph, *a, **k: graphs.append(len(graph)) or get(graph, *a, **k))
    classes, counts = label_counts(many, client=client)
    assert classes.tolist() == [-3, -2, -1, 0]
    assert counts.tolist() == np.bincount(y)[::-1].tolist()
    assert graphs[0] < 400 / 2
    shared = many.rechunk(2_000).rechunk(5)
    assert label_counts(shared, client=client)[1].tolist() == counts.tolist()


def test_a_chunk_is_read_and_counted_in_one_task(monkeypatch):
    graphs, get = [], dask.threaded.get
    monkeypatch.setattr(dask.threaded, "get", lambda graph, keys: (graphs.append(dict(graph)), get(graph, keys))[1])
    y = da.map_blocks(lambda block_info=None: np.arange(10) % 3, chunks=((10, 10, 10),), dtype=np.int64)
    classes, counts = label_counts(y)
    np.testing.assert_array_equal((classes, counts), ([0, 1, 2], [12, 9, 9]))
    # And one that merges what they found.
    assert len(graphs[-1]) == 4


def test_many_chunks_of_this_process_are_counted_several_a_task(monkeypatch):
    graphs, get = [], dask.threaded.get
    monkeypatch.setattr(dask.threaded, "get", lambda graph, keys: (graphs.append(dict(graph)), get(graph, keys))[1])
    label_counts(da.from_array(np.arange(2_000) % 4, chunks=5))
    label_counts(da.from_array(np.arange(8) % 4, chunks=4))
    assert len(graphs[0]) < 400 / 2
    # Two chunks, a task for each, and one that merges.
    assert len(graphs[1]) == 5
