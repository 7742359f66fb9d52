"""Matching row pieces of several containers, and a reduction over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dask
import numpy as np
from dask.delayed import delayed


def reduce_rows(of_piece: Callable[..., Any], *columns: Any) -> list[Any]:
    """``of_piece`` of each row piece of ``columns`` (None stays None), in order; one pass over the data."""
    pieces = row_pieces(columns)
    if not any(_is_lazy(c) for c in columns):
        return [of_piece(*piece) for piece in pieces]
    task = delayed(of_piece, pure=False)
    return list(dask.compute(*[task(*piece) for piece in pieces]))


def row_pieces(columns: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Pieces of the same rows of each of ``columns``: all of it in memory, row blocks of Dask."""
    lazy = [c for c in columns if _is_lazy(c)]
    if not lazy:
        arrays = [None if c is None else np.asarray(c) for c in columns]
        _check_lengths([len(a) for a in arrays if a is not None])
        return [tuple(arrays)]
    arrays = _alike([c if c is None else _as_array(c) for c in columns])
    return list(zip(*[_blocks(a, arrays) for a in arrays], strict=True))


def _is_lazy(column: Any) -> bool:
    return dask.is_dask_collection(column)


def _as_array(column: Any) -> Any:
    if not _is_lazy(column):
        return np.asarray(column)
    if hasattr(column, "to_dask_array"):
        column = column.to_dask_array()
    column = getattr(column, "data", column) if type(column).__name__ == "DataArray" else column
    if column.ndim == 2 and column.numblocks[1] > 1:
        column = column.rechunk({1: -1})
    return column


def _alike(arrays: list[Any]) -> list[Any]:
    """The arrays in the row chunks of the first lazy one; unknown lengths are computed only where they differ."""
    lazy = [a for a in arrays if _is_lazy(a)]
    first = lazy[0]
    if all(a.numblocks[0] == first.numblocks[0] for a in lazy) and len(lazy) == sum(a is not None for a in arrays):
        known = {a.chunks[0] for a in lazy if not np.isnan(a.chunks[0]).any()}
        if len(known) <= 1:
            return arrays
    known_arrays = [a.compute_chunk_sizes() if _is_lazy(a) and np.isnan(a.shape[0]) else a for a in arrays]
    _check_lengths([a.shape[0] for a in known_arrays if a is not None])
    rows = next(a for a in known_arrays if _is_lazy(a)).chunks[0]
    return [None if a is None else _in_rows(a, rows) for a in known_arrays]


def _in_rows(array: Any, rows: tuple[int, ...]) -> Any:
    """An array in these row chunks, told in full: Dask cannot choose chunks of objects, whose size it does not know."""
    import dask.array as da

    if _is_lazy(array):
        return array.rechunk({0: rows})
    return da.from_array(array, chunks=(rows, *((n,) for n in array.shape[1:])))


def _blocks(array: Any, arrays: list[Any]) -> list[Any]:
    if array is None:
        return [None] * next(a for a in arrays if a is not None).numblocks[0]
    return list(array.to_delayed().ravel())


def _check_lengths(lengths: list[int]) -> None:
    if len(set(lengths)) > 1:
        raise ValueError(f"Found input variables with inconsistent numbers of samples: {lengths}")


def weights_of(weight: Any, n: int) -> np.ndarray:
    """The weights of a piece, ones where there are none."""
    if weight is None:
        return np.ones(n)
    weight = np.asarray(weight, dtype=np.float64)
    if len(weight) != n:
        raise ValueError(f"Found input variables with inconsistent numbers of samples: {[n, len(weight)]}")
    return weight


def check_piece(a: Any, b: Any) -> None:
    """Rows of two pieces must agree; where lengths were unknown this is the first chance to see."""
    if len(a) != len(b):
        raise ValueError(f"Found input variables with inconsistent numbers of samples: {[len(a), len(b)]}")
