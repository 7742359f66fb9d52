"""Columns turned into rows: the very values, of any shape, with and without whole squares."""

import numpy as np
import pyarrow as pa
import pytest

from daskdml.data import _decode, rows_of
from daskdml.data._buffers import Buffers, empty_rows, lending
from daskdml.numerics import turn


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_columns", [1, 3, 4, 8, 13, 16, 101])
@pytest.mark.parametrize("n_rows", [0, 1, 7, 8, 255, 256, 261, 1000])
def test_rows_are_the_columns_turned(n_rows, n_columns, dtype):
    table = np.random.default_rng(0).random((n_rows, n_columns)).astype(dtype)
    columns = [np.ascontiguousarray(c) for c in table.T]
    # What lies behind is not written to.
    room = np.full(n_rows * n_columns + 64, -1, dtype)
    out = room[: n_rows * n_columns].reshape(n_rows, n_columns)
    turn(np.array([c.ctypes.data for c in columns], np.int64), out, 0)
    np.testing.assert_array_equal(out, table)
    assert (room[n_rows * n_columns :] == -1).all()


@pytest.mark.parametrize("n_columns", [3, 8, 13])
def test_columns_go_where_they_are_told(n_columns):
    table = np.random.default_rng(0).random((261, n_columns))
    columns = [np.ascontiguousarray(c) for c in table.T]
    out = np.full((261, n_columns + 7), -1.0)
    turn(np.array([c.ctypes.data for c in columns], np.int64), out, 5)
    np.testing.assert_array_equal(out[:, 5:-2], table)
    assert (out[:, :5] == -1).all() and (out[:, -2:] == -1).all()


@pytest.fixture
def compiled(monkeypatch):
    """Calls of the compiled code, which few values are enough for."""
    calls = []
    monkeypatch.setattr(_decode, "_COMPILED", 1)
    monkeypatch.setattr(_decode, "turn", lambda *given: (calls.append(1), turn(*given)))
    return calls


def test_arrow_columns_and_slices_of_them_are_turned_where_they_lie(compiled):
    rows = np.random.default_rng(1).random((50, 9))
    batch = pa.record_batch([pa.array(c) for c in rows.T], names=[str(k) for k in range(9)]).slice(13, 20)
    rows_of(batch.columns, out := np.empty((20, 9)))
    np.testing.assert_array_equal(out, rows[13:33])
    assert compiled == [1]


def test_columns_of_either_kind_go_beside_others(compiled):
    out = np.zeros((2, 4), np.float32)
    rows_of([np.array([1, 2])], out, 1)
    rows_of([np.array([3.0, 4.0], np.float32)], out, 2)
    assert out.tolist() == [[0, 1, 3, 0], [0, 2, 4, 0]] and compiled == [1]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.5, None, 3.0]),
        pa.array([1, 2, 3]),
        np.array([1, 2, 3]),
        np.arange(6.0)[::2],
        np.array([1.5, 2.5, 3.5], np.float32),
    ],
    ids=["with nulls", "arrow of another type", "of another type", "with gaps", "of another width"],
)
def test_other_columns_are_converted(compiled, column):
    plain = np.array([7.0, 8.0, 9.0])
    rows_of([plain, column], out := np.empty((3, 2)))
    expected = column if isinstance(column, np.ndarray) else column.to_numpy(zero_copy_only=False)
    np.testing.assert_array_equal(out, np.column_stack([plain, expected]))
    assert not compiled


def test_rows_of_another_dtype_are_converted(compiled):
    rows_of([np.array([1.0, 2.0])], out := np.empty((2, 1), np.float32))
    assert out.tolist() == [[1.0], [2.0]] and not compiled


def test_rows_are_made_in_memory_that_an_earlier_block_had():
    buffers = Buffers()
    with lending(buffers):
        first = empty_rows(2**20, 2, np.float32)
        address = first.ctypes.data
        view = first[5:]
        del first
        second = empty_rows(2**20, 2, np.float32)
        assert second.ctypes.data != address
        del view
        assert empty_rows(2**20, 2, np.float32).ctypes.data == address
        # Too small to be worth it.
        assert empty_rows(2, 2, np.float32).base is None
    assert empty_rows(2**20, 2, np.float32).base is None


def test_columns_of_many_rows_are_turned_however_few_come_at_once(monkeypatch):
    """A reader brings them sixteen at a time, of row groups of any size."""
    turned = []
    monkeypatch.setattr(_decode, "turn", lambda places, out, first: turned.append((len(places), first)))
    out = np.empty((_decode._COMPILED // 8, 8))
    rows_of([np.ones(len(out))] * 2, out, 4)
    assert turned == [(2, 4)]
    rows_of([np.ones(len(out) - 1)] * 2, out[1:], 4)
    assert turned == [(2, 4)]
    np.testing.assert_array_equal(out[1:, 4:6], 1.0)
