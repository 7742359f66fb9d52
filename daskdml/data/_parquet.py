"""Columns of Parquet files, decoded straight into rows.

Arrow decodes a table column by column, pandas makes a frame of that, and training wants rows: the values of a block
exist three times, and of all columns at once each has its file's bytes, its dictionary and a page in memory. Here some
columns at a time become rows while the cache has them. That is what readers of :mod:`daskdml.io` do; and in place of
Dask's own reader, as ``dask.dataframe.read_parquet`` leaves it in a graph, where it would give the same frame.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from dask._task_spec import GraphNode, Task

from daskdml.data._buffers import empty_rows
from daskdml.data._decode import rows_of

# Decoded at a time: columns whose values fill lines of cache in a row, and of them what the cache holds. In a fresh
# process the system takes longer to find memory for all columns at once than decoding takes.
_COLUMNS, _BATCH_BYTES = 16, 12 * 2**20
# From so many columns of one type on, side by side, rows are wanted.
_MANY = 8


def parquet_batches(
    file: pq.ParquetFile, groups: Sequence[int], columns: list[str], rows: tuple[int, int], size: int
) -> Iterator[pa.RecordBatch]:
    """Rows from the first up to the second number, of row groups, so many at a time.

    They are decoded one after the other and dropped before ``rows``: memory is that of the rows, not that of a row
    group of any size.

    Examples
    --------
    >>> import io
    >>> import pyarrow as pa, pyarrow.parquet as pq
    >>> pq.write_table(pa.table({"a": [1, 2, 3, 4, 5]}), file := io.BytesIO())
    >>> [b.column("a").to_pylist() for b in parquet_batches(pq.ParquetFile(file), [0], ["a"], (1, 4), 2)]
    [[2], [3, 4]]
    """
    start, stop = rows
    seen = 0
    for batch in file.iter_batches(size, row_groups=list(groups), columns=columns, use_threads=False):
        low, high = max(start - seen, 0), min(stop - seen, len(batch))
        seen += len(batch)
        if low < high:
            yield batch.slice(low, high - low)
        if seen >= stop:
            break


def parquet_rows(
    file: pq.ParquetFile, groups: Sequence[int], names: Sequence[str], rows: tuple[int, int], dtype: Any
) -> np.ndarray:
    """Columns of one floating-point type as rows, in an array of shape (rows, columns).

    Parameters
    ----------
    file : pyarrow.parquet.ParquetFile
    groups : sequence of int
        Row groups, one after the other.
    names : sequence of str
        Columns of the file, each once.
    rows : (int, int)
        First row, and the one after the last, counted over the groups.
    dtype : numpy dtype
        What the columns are.

    Returns
    -------
    ndarray
        With fewer rows where the file has fewer.

    Examples
    --------
    >>> import io
    >>> import pyarrow as pa, pyarrow.parquet as pq
    >>> pq.write_table(pa.table({"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0]}), file := io.BytesIO())
    >>> parquet_rows(pq.ParquetFile(file), [0], ["b", "a"], (1, 3), "f8").tolist()
    [[5.0, 2.0], [6.0, 3.0]]
    """
    n_rows = rows[1] - rows[0]
    out = empty_rows(n_rows, len(names), dtype)
    for first in range(0, len(names), _COLUMNS):
        some = list(names[first : first + _COLUMNS])
        at = 0
        for batch in parquet_batches(file, groups, some, rows, max(1024, _BATCH_BYTES // (8 * len(some)))):
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            rows_of([columns[name] for name in some], out[at : at + len(batch)], first)
            at += len(batch)
        if at != n_rows:
            return out[:at]
    return out


def parquet_runs(kinds: Sequence[Any]) -> list[range]:
    """Where many columns of one type stand side by side, for which rows are wanted; None is no such type.

    Examples
    --------
    >>> parquet_runs([None, *["f4"] * 9, "f8"])
    [range(1, 10)]
    """
    runs, start = [], 0
    for stop in range(1, len(kinds) + 1):
        if stop == len(kinds) or kinds[stop] != kinds[start]:
            if kinds[start] is not None and stop - start >= _MANY:
                runs.append(range(start, stop))
            start = stop
    return runs


def read_by_rows(node: GraphNode) -> GraphNode:
    """A node of a graph that reads Parquet by Dask's reader, or runs tasks that do, as one that reads by rows."""
    if not isinstance(node, Task):
        return node
    if _is_reader(node.func):
        return Task(node.key, _Reader(node.func), *node.args, **node.kwargs)
    if getattr(node.func, "__name__", "") != "_execute_subgraph" or not isinstance(node.args[0], dict):
        return node
    # Tasks that were fused into one.
    inner = {key: read_by_rows(task) for key, task in node.args[0].items()}
    if all(task is node.args[0][key] for key, task in inner.items()):
        return node
    return Task(node.key, node.func, inner, *node.args[1:], **node.kwargs)


def _is_reader(function: Any) -> bool:
    return (type(function).__module__, type(function).__name__) == _READER


_READER = ("dask.dataframe.io.parquet.core", "ParquetFunctionWrapper")
_ENGINE = ("dask.dataframe.io.parquet.arrow", "ArrowDatasetEngine")
_LOCAL = ("fsspec.implementations.local", "LocalFileSystem")


class _Reader:
    """Dask's reader of a part of a data set, which leaves it the columns that do not become rows."""

    def __init__(self, reader: Any):
        self.reader = reader

    def __call__(self, part: Any) -> pd.DataFrame:
        frame = _by_rows(self.reader, part) if _is_plain(self.reader) else None
        return self.reader(part) if frame is None else frame


def _is_plain(reader: Any) -> bool:
    """Whether it does no more than to read columns, from files of this machine."""
    places = [(type_.__module__, type_.__name__) for type_ in (reader.engine, type(reader.fs))]
    given, names = reader.common_kwargs, reader.columns
    # What says how the data set is found and files are opened, and not what becomes of a part of it.
    unknown = {k for k, v in given.items() if v and k not in ("dataset", "schema", "convert_string")}
    if given.get("read") in ({}, {"open_file_options": {}}):
        unknown -= {"read"}
    listed = isinstance(names, list) and len(set(names)) == len(names) and set(names) <= set(reader.meta.columns)
    return places == [_ENGINE, _LOCAL] and listed and not (unknown or reader.dtype_backend)


def _by_rows(reader: Any, part: Any) -> pd.DataFrame | None:
    """The frame with its many columns of one type by rows; None where there are none, or it would be another one."""
    names, parts = reader.columns, part if isinstance(part, list) else [part]
    kinds = dict(zip(reader.meta.columns, reader.meta.dtypes, strict=True))
    # By their names: NumPy takes None for float64.
    floats = [str(kinds[name]) if kinds[name] in (np.dtype("f4"), np.dtype("f8")) else None for name in names]
    runs = parquet_runs(floats)
    if not runs or len(parts) != 1 or not isinstance(parts[0], dict) or set(parts[0]) != {"piece"}:
        return None
    path, groups, keys = parts[0]["piece"]
    wanted = {names[k] for run in runs for k in run}
    others = [name for name in names if name not in wanted]
    # Without other columns Dask is not asked for the index. ``[None]`` is what pandas writes where rows are counted.
    if keys or not isinstance(path, str) or not (others or reader.index in (None, [], [None])):
        return None
    some = {name: kind for name, kind in kinds.items() if name in wanted}
    arrays = _decoded(path, groups, [[names[k] for k in run] for run in runs], some, counted=not others)
    if arrays is None:
        return None
    left: Any = reader.project_columns(others)(part) if others else None
    index = pd.RangeIndex(len(arrays[0])) if left is None else left.index
    if len(arrays[0]) != len(index):
        return None
    pieces, done = [], 0
    for run, rows in zip(runs, arrays, strict=True):
        if done < run.start:
            pieces.append(left[names[done : run.start]])
        pieces.append(pd.DataFrame(rows, index=index, columns=names[run.start : run.stop], copy=False))
        done = run.stop
    if done < len(names):
        pieces.append(left[names[done:]])
    return pieces[0] if len(pieces) == 1 else pd.concat(pieces, axis=1)


def _decoded(
    path: str, groups: Any, runs: list[list[str]], kinds: dict[str, np.dtype], counted: bool
) -> list[np.ndarray] | None:
    """The rows of each run of columns; None where they are not what was expected."""
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            if not _has_plain_columns(file.schema_arrow, kinds, counted):
                return None
            found = range(file.metadata.num_row_groups) if groups in (None, [None]) else groups
            found = [found] if isinstance(found, int) else list(found)
            n_rows = sum(file.metadata.row_group(group).num_rows for group in found)
            arrays = [parquet_rows(file, found, run, (0, n_rows), kinds[run[0]]) for run in runs]
    except (OSError, pa.ArrowInvalid, IndexError):
        # Dask will say what is the matter, as it says it.
        return None
    return arrays if all(len(rows) == n_rows for rows in arrays) else None


def _has_plain_columns(schema: pa.Schema, kinds: dict[str, np.dtype], counted: bool) -> bool:
    """Whether the columns are what is wanted, and a frame of them gets no other labels than their names.

    If ``counted``, its rows must have no other ones than their numbers.
    """
    if len(set(schema.names)) != len(schema.names) or not set(kinds) <= set(schema.names):
        return False
    if any(schema.field(name).type != pa.from_numpy_dtype(kind) for name, kind in kinds.items()):
        return False
    written = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    labels = [(each.get("pandas_type"), each.get("name")) for each in written.get("column_indexes", ())]
    rows = [
        (each.get("start"), each.get("step"), each.get("name")) if isinstance(each, dict) else each
        for each in written.get("index_columns", ())
    ]
    return labels in ([], [("unicode", None)]) and (not counted or rows in ([], [(0, 1, None)]))
