"""Parquet as Dask's reader leaves it in a graph: by rows where that gives the same frame, and Dask's way elsewhere."""

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from daskdml.data import Target, _graph, _parquet, as_dataset
from daskdml.data._graph import materialise, run, split

ROWS, NAMES = 50, [f"x{k}" for k in range(_parquet._MANY + 2)]
VALUES = np.random.default_rng(0).standard_normal((ROWS, len(NAMES))).astype("f4")


def table(values=VALUES, names=NAMES, **more):
    return pa.table({n: values[:, k] for k, n in enumerate(names)} | more)


@pytest.fixture
def by_rows(monkeypatch):
    """How many parts were read by rows."""
    found = []
    original = _parquet._by_rows

    def noted(*given):
        frame = original(*given)
        found.extend([] if frame is None else [len(frame)])
        return frame

    monkeypatch.setattr(_parquet, "_by_rows", noted)
    return found


def partitions(frame):
    graph, (keys,) = materialise([frame])
    found = []
    for key in keys:
        order, given = split(graph, [key], set())
        assert not given
        found += run({k: graph[k] for k in order}, {}, [key])
    return found


def assert_same(frame, monkeypatch):
    """What is read is what Dask reads, with its index, labels and dtypes."""
    ours = partitions(frame)
    with monkeypatch.context() as patched:
        patched.setattr(_graph, "read_by_rows", lambda node: node)
        theirs = partitions(frame)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert type(a) is type(b)
        (pd.testing.assert_frame_equal if a.ndim == 2 else pd.testing.assert_series_equal)(a, b)


def write_plain(path):
    pq.write_table(table(y=np.arange(ROWS)), path)


def write_groups(path):
    pq.write_table(table(y=np.arange(ROWS)), path, row_group_size=20)


def write_float64(path):
    pq.write_table(table(VALUES.astype("f8"), y=np.arange(ROWS)), path)


def write_pandas(path):
    pd.DataFrame(VALUES, columns=NAMES).assign(y=np.arange(ROWS)).to_parquet(path)


def write_nulls(path):
    columns = {n: pa.array(VALUES[:, k], mask=np.arange(ROWS) % 7 == k) for k, n in enumerate(NAMES)}
    pq.write_table(pa.table(columns | {"y": np.arange(ROWS)}), path)


def write_text_beside(path):
    pq.write_table(table(y=np.arange(ROWS), name=[f"n{k}" for k in range(ROWS)]), path)


def write_two_widths(path):
    more = {f"z{k}": VALUES[:, k].astype("f8") for k in range(_parquet._MANY)}
    pq.write_table(table(y=np.arange(ROWS), **more), path)


def write_index_beside(path):
    index = pd.Index(np.arange(ROWS) * 3, name="id")
    pd.DataFrame(VALUES, columns=NAMES, index=index).assign(y=np.arange(ROWS)).to_parquet(path)


@pytest.mark.parametrize(
    "write",
    [
        write_plain,
        write_groups,
        write_float64,
        write_pandas,
        write_nulls,
        write_text_beside,
    ],
)
@pytest.mark.parametrize("split_row_groups", [False, True, 2])
def test_columns_of_numbers_are_read_by_rows(tmp_path, by_rows, monkeypatch, write, split_row_groups):
    for k in range(2):
        write(tmp_path / f"{k}.parquet")
    frame = dd.read_parquet(tmp_path, split_row_groups=split_row_groups)
    assert_same(frame[NAMES], monkeypatch)
    assert sum(by_rows) == 2 * ROWS
    assert_same(frame[NAMES[::-1]], monkeypatch)
    assert sum(by_rows) == 4 * ROWS
    # With others before, between and after them.
    assert_same(frame[["y", *NAMES]], monkeypatch)
    assert_same(frame[[*NAMES, "y"]], monkeypatch)
    assert sum(by_rows) == 8 * ROWS


@pytest.mark.parametrize("write", [write_text_beside, write_two_widths, write_index_beside])
def test_other_columns_are_read_by_dask(tmp_path, by_rows, monkeypatch, write):
    for k in range(2):
        write(tmp_path / f"{k}.parquet")
    assert_same(dd.read_parquet(tmp_path), monkeypatch)
    assert by_rows == [ROWS, ROWS]


def test_what_is_done_to_them_is_done(tmp_path, by_rows, monkeypatch):
    write_plain(tmp_path / "0.parquet")
    frame = dd.read_parquet(tmp_path)
    for changed in (
        frame.drop(columns="y"),
        frame[NAMES].astype("f8") * 2 - 1,
        frame[NAMES].fillna(0.0).rename(columns=str.upper),
        frame[NAMES].loc[frame.x0 > 0],
        frame[NAMES].map_partitions(lambda part: part.assign(sum=part.sum(axis=1))),
    ):
        by_rows.clear()
        assert_same(changed, monkeypatch)
        assert by_rows == [ROWS]


def test_a_data_set_of_them_is_what_it_was(tmp_path, by_rows):
    for k in range(3):
        write_pandas(tmp_path / f"{k}.parquet")
    frame = dd.read_parquet(tmp_path)
    data = as_dataset(frame[NAMES], frame["y"], target=Target())
    blocks = [recipe.resolve(()) for recipe in data.recipes]
    np.testing.assert_array_equal(np.concatenate([block.X for block in blocks]), np.concatenate([VALUES] * 3))
    np.testing.assert_array_equal(np.concatenate([block.y for block in blocks]), np.tile(np.arange(ROWS), 3))
    assert len(by_rows) == 3 and all(block.X.flags.c_contiguous for block in blocks)


def named_index(path):
    frame = pd.DataFrame(VALUES, columns=NAMES, index=pd.Index(np.arange(ROWS) * 3, name="id"))
    frame.to_parquet(path)


def index_from_ten(path):
    pd.DataFrame(VALUES, columns=NAMES, index=pd.RangeIndex(10, 10 + ROWS)).to_parquet(path)


def named_columns(path):
    pd.DataFrame(VALUES, columns=pd.Index(NAMES, name="feature")).to_parquet(path)


def nullable(path):
    pd.DataFrame(VALUES, columns=NAMES).astype("Float32").to_parquet(path)


def whole_numbers(path):
    pq.write_table(table(VALUES.astype("i4")), path)


def two_widths(path):
    pq.write_table(table().set_column(3, "x3", pa.array(VALUES[:, 3].astype("f8"))), path)


def few(path):
    pq.write_table(table().select(NAMES[: _parquet._MANY - 1]), path)


@pytest.mark.parametrize(
    "write",
    [named_index, index_from_ten, named_columns, nullable, whole_numbers, two_widths, few],
)
def test_what_becomes_another_frame_is_left_to_dask(tmp_path, by_rows, monkeypatch, write):
    for k in range(2):
        write(tmp_path / f"{k}.parquet")
    assert_same(dd.read_parquet(tmp_path), monkeypatch)
    assert not by_rows


@pytest.mark.parametrize(
    "options",
    [
        {"index": "x0"},
        {"filters": [("x0", ">", 0.0)]},
        {"dtype_backend": "pyarrow"},
        {"filesystem": "arrow"},
        {"arrow_to_pandas": {"zero_copy_only": False}},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_asks_for_more_is_left_to_dask(tmp_path, by_rows, monkeypatch, options):
    write_plain(tmp_path / "0.parquet")
    assert_same(dd.read_parquet(tmp_path, **options)[NAMES[1:]], monkeypatch)
    assert not by_rows


def test_keys_in_names_of_folders_are_left_to_dask(tmp_path, by_rows, monkeypatch):
    for key in ("a", "b"):
        (tmp_path / f"kind={key}").mkdir()
        write_plain(tmp_path / f"kind={key}" / "0.parquet")
    assert_same(dd.read_parquet(tmp_path), monkeypatch)
    assert not by_rows


def test_a_file_of_another_kind_among_them_is_left_to_dask(tmp_path, by_rows, monkeypatch):
    write_plain(tmp_path / "0.parquet")
    write_float64(tmp_path / "1.parquet")
    assert_same(dd.read_parquet(tmp_path)[NAMES], monkeypatch)
    assert by_rows == [ROWS]


def test_errors_are_those_of_dask(tmp_path, by_rows):
    path = tmp_path / "0.parquet"
    write_plain(path)
    frame = dd.read_parquet(tmp_path)[NAMES]
    graph, (keys,) = materialise([frame])
    good = path.read_bytes()
    errors = []
    for damaged in (None, good[:100], good[: len(good) // 4] + bytes(len(good) // 2) + good[3 * len(good) // 4 :]):
        path.unlink(missing_ok=True)
        if damaged is not None:
            path.write_bytes(damaged)
        found = []
        for way in (_parquet.read_by_rows, lambda node: node):
            with pytest.raises(Exception) as caught:  # noqa: PT011
                way(graph[keys[0]])({})
            found.append((type(caught.value), str(caught.value)))
        assert found[0] == found[1]
        errors.append(found[0])
    assert len(set(errors)) == 3 and not by_rows
