"""Zarr's chunks, read without zarr: the same values, and what is unusual is still zarr's."""

from pathlib import Path

import dask
import dask.array as da
import dask.dataframe as dd
import numcodecs
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from dask._task_spec import List, Task, TaskRef, _execute_subgraph
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from daskdml.data import _zarr as module
from daskdml.data import as_dataset, read_region
from daskdml.data._graph import _only_slices
from daskdml.data._zarr import chunked

COMPRESSORS = {
    "none": (None, None),
    "zstd": (ZstdCodec(), numcodecs.Zstd()),
    "zstd with checksum": (ZstdCodec(level=3, checksum=True), numcodecs.Zstd(level=3, checksum=True)),
    "blosc": (BloscCodec(), numcodecs.Blosc()),
    "gzip": (GzipCodec(), numcodecs.GZip()),
}
# Shape, chunks, and regions of them.
TABLES = {
    "rows": ((50, 3), (20, 3), [np.s_[:], np.s_[20:40], np.s_[5:45], np.s_[40:], np.s_[3:4, 1:], np.s_[:, 0:2]]),
    "tiles": ((50, 7), (20, 3), [np.s_[:], np.s_[10:50, 2:7], np.s_[20:40, 3:6]]),
    "labels": ((50,), (20,), [np.s_[:], np.s_[20:40], np.s_[7:21], np.s_[-5:]]),
    "images": ((10, 4, 4), (3, 4, 4), [np.s_[:], np.s_[3:6], np.s_[2:9, 1:3]]),
}


def values(shape, dtype):
    return np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)


def made(folder, table="rows", how="zstd", dtype="f4", version=3, **options):
    shape, chunks, _ = TABLES[table]
    options = {"compressors": COMPRESSORS[how][version == 2], **options}
    array = zarr.create_array(
        str(folder), shape=shape, chunks=chunks, dtype=dtype, zarr_format=version, fill_value=7, **options
    )
    array[:] = values(shape, dtype)
    return array


@pytest.fixture
def zarr_reads(monkeypatch):
    """The keys for which zarr itself was asked."""
    asked, given = [], zarr.Array.__getitem__
    monkeypatch.setattr(zarr.Array, "__getitem__", lambda self, key: asked.append(key) or given(self, key))
    return asked


@pytest.mark.parametrize("how", COMPRESSORS)
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("version", [2, 3])
def test_any_region_is_what_zarr_reads(tmp_path, table, how, version, zarr_reads):
    array = made(tmp_path / "x", table, how, version=version)
    for region in TABLES[table][2]:
        found = read_region(array, region)
        assert not zarr_reads
        expected = array[region]
        zarr_reads.clear()
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype and found.flags.c_contiguous


@pytest.mark.parametrize("dtype", ["bool", "i1", "u2", "i8", "f2", "f8"])
def test_numbers_of_any_kind(tmp_path, dtype, zarr_reads):
    array = made(tmp_path / "x", dtype=dtype)
    np.testing.assert_array_equal(read_region(array, slice(7, 33)), values((50, 3), dtype)[7:33])
    assert not zarr_reads


UNUSUAL = {
    "bytes in another order": {"dtype": ">f4"},
    "bytes in another order, format 2": {"dtype": ">f4", "version": 2},
    "chunks within chunks": {"shards": (40, 3)},
    "columns first": {"version": 2, "order": "F"},
    "filters": {"version": 2, "filters": [numcodecs.Delta("f4")]},
    "two compressors": {"compressors": [ZstdCodec(), GzipCodec()]},
    "another compressor": {"version": 2, "compressors": numcodecs.LZ4()},
    "complex numbers": {"dtype": "c8"},
}


@pytest.mark.parametrize("options", UNUSUAL.values(), ids=list(UNUSUAL))
def test_what_is_unusual_is_left_to_zarr(tmp_path, options, zarr_reads):
    array = made(tmp_path / "x", **options)
    found = read_region(array, slice(5, 45))
    assert len(zarr_reads) == 1 and chunked(array) is array
    np.testing.assert_array_equal(found, values((50, 3), options.get("dtype", "f4"))[5:45])


def test_a_store_that_is_no_folder_is_left_to_zarr():
    array = zarr.create_array(zarr.storage.MemoryStore(), shape=(4, 2), chunks=(2, 2), dtype="f4")
    array[:] = 3
    assert chunked(array) is array
    np.testing.assert_array_equal(read_region(array, slice(1, 3)), np.full((2, 2), 3))


@pytest.mark.parametrize(
    "key", [3, -1, np.s_[::2], np.s_[5:5], np.s_[2, 1], np.s_[...], np.s_[1:3, 0], np.s_[60:70], np.s_[:, :, 0]]
)
def test_keys_of_other_kinds_are_left_to_zarr(tmp_path, key):
    array = made(tmp_path / "x")
    try:
        expected = array[key]
    except Exception as error:
        with pytest.raises(type(error)):
            read_region(array, key)
    else:
        np.testing.assert_array_equal(read_region(array, key), expected)


def chunk_file(array, *place):
    return Path(module._layout(array).folder) / array.metadata.encode_chunk_key(place)


def test_a_chunk_that_is_missing_has_the_fill_value(tmp_path):
    array = made(tmp_path / "x")
    chunk_file(array, 1, 0).unlink()
    expected = values((50, 3), "f4")
    expected[20:40] = 7
    np.testing.assert_array_equal(read_region(array, slice(0, 50)), expected)


@pytest.mark.parametrize("how", COMPRESSORS)
@pytest.mark.parametrize("damage", ["cut short", "of fewer rows", "of more rows"])
def test_a_damaged_chunk_is_an_error_and_never_other_values(tmp_path, how, damage):
    array = made(tmp_path / "x", how=how)
    path = chunk_file(array, 1, 0)
    if damage == "cut short":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        n = 10 if damage == "of fewer rows" else 30
        other = zarr.create_array(
            str(tmp_path / "y"), shape=(n, 3), chunks=(n, 3), dtype="f4", compressors=COMPRESSORS[how][0]
        )
        other[:] = 1
        path.write_bytes(chunk_file(other, 0, 0).read_bytes())
    with pytest.raises(Exception):  # noqa: B017 - zarr's, of a dozen kinds
        read_region(array, slice(0, 50))
    np.testing.assert_array_equal(read_region(array, slice(0, 20)), values((50, 3), "f4")[:20])


@pytest.mark.parametrize("kind", ["from_zarr", "from_zarr of an array", "from_array", "xarray"])
def test_blocks_of_dask_arrays_are_read_so(tmp_path, kind, zarr_reads):
    folder, expected = str(tmp_path / "x"), values((50, 3), "f4")
    if kind == "xarray":
        frame = xr.Dataset({"x": (("row", "column"), expected)})
        frame.to_zarr(folder, encoding={"x": {"chunks": (20, 3)}}, zarr_format=2)
        X = xr.open_zarr(folder)["x"].data
    else:
        array = made(folder)
        X = {
            "from_zarr": lambda: da.from_zarr(folder),
            "from_zarr of an array": lambda: da.from_zarr(array),
            "from_array": lambda: da.from_array(array, chunks=(20, 3)),
        }[kind]()
    zarr_reads.clear()
    blocks = [recipe.resolve() for recipe in as_dataset(X, target=None).recipes]
    np.testing.assert_array_equal(np.concatenate([b.X for b in blocks]), expected)
    assert [b.n_rows for b in blocks] == [20, 20, 10] and not zarr_reads


def test_slices_within_fused_tasks_are_read_so(tmp_path, zarr_reads):
    made(tmp_path / "x")
    X = (da.from_zarr(str(tmp_path / "x")) * 2 + 1)[:, 1:]
    zarr_reads.clear()
    blocks = [recipe.resolve() for recipe in as_dataset(X, target=None).recipes]
    np.testing.assert_array_equal(np.concatenate([b.X for b in blocks]), values((50, 3), "f4")[:, 1:] * 2 + 1)
    assert not zarr_reads


def test_who_is_given_a_list_of_arrays_gets_them():
    inner = {"all": Task("all", len, TaskRef("in"))}
    fused = Task("all", _execute_subgraph, inner, "all", ("in",), List(TaskRef("x"), TaskRef("x")))
    assert not _only_slices(fused, "x") and fused({"x": 1}) == 2


@pytest.mark.parametrize("how", ["as it is", "as a value of the graph"])
def test_who_wants_the_array_itself_gets_it(tmp_path, how):
    array = made(tmp_path / "x")

    def load(given, start):
        assert isinstance(given, zarr.Array)
        assert isinstance(given.attrs.asdict(), dict)
        return pd.DataFrame(given[start : start + 25], columns=list("abc"))

    given = array if how == "as it is" else dask.delayed(array)
    parts = [dask.delayed(load)(given, start) for start in (0, 25)]
    frame = dd.from_delayed(parts, meta=pd.DataFrame(np.zeros((0, 3), np.float32), columns=list("abc")))
    blocks = [recipe.resolve() for recipe in as_dataset(frame, target=None).recipes]
    np.testing.assert_array_equal(np.concatenate([b.X for b in blocks]), values((50, 3), "f4"))


def test_what_xarray_changes_on_reading_is_xarrays(tmp_path):
    expected = np.array([[0.5], [1.5], [np.nan]])
    frame = xr.Dataset({"x": (("row", "column"), expected)})
    how = {"dtype": "i2", "scale_factor": 0.5, "_FillValue": -1, "chunks": (2, 1)}
    frame.to_zarr(tmp_path / "x", encoding={"x": how}, zarr_format=2)
    X = xr.open_zarr(tmp_path / "x")["x"].data
    found = np.concatenate([recipe.resolve().X for recipe in as_dataset(X[:2], target=None).recipes])
    np.testing.assert_array_equal(found, expected[:2])
