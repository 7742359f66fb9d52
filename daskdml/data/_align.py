"""X, y and sample_weight divided into the same row blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dask
import dask.array as da
import numpy as np

from daskdml.data._checks import inconsistent
from daskdml.data._sources import Source, is_frame, measured
from daskdml.data._waiting import results_of

# Rows of in-memory data are cut into blocks of about this many bytes.
BLOCK_BYTES = 4 * 2**20


def align(X: Source, others: list[Source | None], client: Any, block_rows: int | None, n_blocks: int) -> list[Any]:
    """The sources, each lazy with matching row blocks or cut in memory at the same rows.

    Returns a list with an entry for each source: None, a dask collection, or a list of in-memory pieces.
    """
    lengths = [s.n_rows for s in (X, *others) if s is not None]
    _same_total(lengths)
    if not X.lazy:
        return _in_memory(X, others, client, block_rows, n_blocks)
    if block_rows is not None:
        raise ValueError(
            f"block_rows={block_rows} divides in-memory data, but X is a Dask collection: "
            "rechunk or repartition it instead"
        )
    # Lengths are a pass over the data: only where the chunks cannot be matched by their number.
    if any(s is not None and not _pairs(X, s) and not _cuttable(X, s) for s in others):
        X = measured(X, client)
        others = [None if s is None or _pairs(X, s) else measured(s, client) for s in others]
        _same_total([s.n_rows for s in (X, *others) if s is not None])
    return [X.data, *(None if s is None else _matched(X, s) for s in others)]


def _same_total(lengths: list[int | None]) -> None:
    known = [n for n in lengths if n is not None]
    if len(set(known)) > 1:
        raise inconsistent(known)
    if known and not known[0]:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")


def _pairs(X: Source, other: Source) -> bool:
    """Whether block i of ``other`` is taken to be block i of X."""
    if not other.lazy or X.n_blocks != other.n_blocks:
        return False
    return X.lengths is None or other.lengths is None or X.lengths == other.lengths


def _cuttable(X: Source, other: Source) -> bool:
    """Whether ``other`` can be divided at X's rows with what is known."""
    return X.lengths is not None and (not other.lazy or other.lengths is not None)


def _matched(X: Source, other: Source) -> Any:
    if _pairs(X, other):
        return other.data
    assert X.lengths is not None
    if not other.lazy:
        return _cut(other, X.lengths)
    data = other.data
    if is_frame(data):
        with dask.config.set({"optimization.tune.active": False}):
            return data.to_dask_array(lengths=list(other.lengths or ())).rechunk((X.lengths,))
    return _with_lengths(data, other.lengths).rechunk((X.lengths,))


def _with_lengths(data: da.Array, lengths: tuple[int, ...] | None) -> da.Array:
    """The same array, knowing its chunks; the user's own object is left as it was."""
    return da.Array(data.dask, data.name, (lengths, *data.chunks[1:]), meta=data._meta)


def _cut(source: Source, lengths: tuple[int, ...]) -> list[Any]:
    ends = np.cumsum(lengths)
    return [source.rows(int(end) - n, int(end)) for end, n in zip(ends, lengths, strict=True)]


def _in_memory(X: Source, others: list[Source | None], client: Any, block_rows: int | None, n_blocks: int) -> list[Any]:
    # y beside an X in memory is small, wherever it comes from.
    lazy = [s for s in others if s is not None and s.lazy]
    columns = [s.data for s in lazy]
    values = iter(dask.compute(*columns) if client is None else results_of(client, client.compute(columns)))
    others = [replace(s, data=next(values), lengths=None) if s is not None and s.lazy else s for s in others]
    _same_total([s.n_rows for s in (X, *others) if s is not None])
    n_rows = X.n_rows or 0
    if block_rows is None:
        block_rows = _block_rows(X, n_rows, n_blocks) if client is not None or n_blocks > 1 else n_rows
    elif block_rows < 1:
        raise ValueError(f"block_rows must be at least 1, got {block_rows}")
    lengths = tuple(min(block_rows, n_rows - start) for start in range(0, n_rows, block_rows))
    return [None if s is None else _cut(s, lengths) for s in (X, *others)]


def _block_rows(X: Source, n_rows: int, n_blocks: int) -> int:
    """A few megabytes a block, and at least ``n_blocks`` of them where there are rows enough."""
    nbytes = _nbytes(X.data)
    return max(1, min(-(-n_rows // max(n_blocks, 1)), n_rows * BLOCK_BYTES // max(nbytes, 1)))


def _nbytes(data: Any) -> int:
    if hasattr(data, "memory_usage"):
        return int(np.sum(data.memory_usage(index=False)))
    return int(data.nbytes if hasattr(data, "nbytes") else data.data.nbytes + data.indices.nbytes)


def chunk_lengths(data: Any) -> tuple[int | None, ...]:
    """Rows of each block of an aligned X, None where unknown."""
    if isinstance(data, list):
        return tuple(int(piece.shape[0]) for piece in data)
    if isinstance(data, da.Array):
        return tuple(None if np.isnan(c) else int(c) for c in data.chunks[0])
    return (None,) * data.npartitions
