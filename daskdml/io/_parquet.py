"""Parquet files as bounded parts."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from daskdml.data import parquet_batches, parquet_rows, parquet_runs
from daskdml.io._errors import InputError, unknown_name
from daskdml.io._table import Table, part_bytes

# Row groups, for so many replicas to have something to do.
_FEW = 8
_HIVE = re.compile(r"^([^=/]+)=([^=/]*)$")


@dataclass(frozen=True)
class Slice:
    """Rows ``start`` to ``stop`` of the given row groups of one file."""

    path: str
    groups: tuple[int, ...]
    start: int
    stop: int
    keys: tuple[tuple[str, str], ...] = ()


def read_parquet(paths: list[str], columns: list[str] | None, block_bytes: int, source: str) -> Table:
    """Row groups become parts: small ones together, those larger than a block cut by rows.

    To read rows in the middle of a row group, those before them are decoded too. So none is cut finer than memory asks
    for, but where there are few: a cut brings more processors to it, and as much more for them to do.
    """
    footers = [_footer(path) for path in paths]
    keys = [_hive_keys(path) for path in paths]
    schema = _common_schema(paths, footers, keys)
    if columns is not None:
        for name in columns:
            if name not in schema.names:
                raise unknown_name("column", name, schema.names, source)
        schema = pa.schema([schema.field(name) for name in columns])
    total = sum(_memory(f.metadata.row_group(g), schema) for f in footers for g in range(f.metadata.num_row_groups))
    block = part_bytes(total, block_bytes)
    few = sum(f.metadata.num_row_groups for f in footers) < _FEW
    most = min(block_bytes, max(block, -(-total // _FEW))) if few else block_bytes
    slices = [
        s
        for path, footer, key in zip(paths, footers, keys, strict=True)
        for s in _slices(path, footer.metadata, key, schema, block, most)
    ]
    rows = sum(f.metadata.num_rows for f in footers)
    if not rows:
        raise InputError(f"{source} holds no rows; there is nothing to read")
    meta = schema.empty_table().to_pandas()
    return Table.of_loaders([partial(load_slice, s, schema) for s in slices], meta, source, rows=rows, _columnar=True)


def load_slice(part: Slice, schema: pa.Schema, only: tuple[str, ...] | None = None) -> pd.DataFrame:
    """The rows of one slice, with the columns and types of ``schema``.

    Many floating-point columns side by side lie in the frame row by row, as training wants them.
    """
    schema = schema if only is None else pa.schema([schema.field(name) for name in only])
    keys = dict(part.keys)
    with pq.ParquetFile(part.path, pre_buffer=False) as file:
        there = set(file.schema_arrow.names)
        wanted = [n for n in schema.names if n in there]
        if runs := _runs(schema, file.schema_arrow):
            return _by_rows(file, part, schema, runs, wanted, keys)
        table = _table(file, part, wanted)
    return _frame(table, schema, keys)


def _table(file: pq.ParquetFile, part: Slice, columns: list[str]) -> pa.Table:
    if part.start == 0 and part.stop == sum(file.metadata.row_group(g).num_rows for g in part.groups):
        return file.read_row_groups(list(part.groups), columns=columns, use_threads=False)
    return pa.Table.from_batches(list(parquet_batches(file, part.groups, columns, (part.start, part.stop), 1 << 16)))


def _runs(schema: pa.Schema, file: pa.Schema) -> list[range]:
    """Where in ``schema`` many columns of one floating-point type, of the file's own columns, stand side by side."""
    floats = (pa.float32(), pa.float64())
    there = {field.name for field in file if field.type in floats} if len(set(file.names)) == len(file.names) else set()
    kinds = [field.type if field.name in there and field.type in floats else None for field in schema]
    return parquet_runs(kinds)


def _by_rows(
    file: pq.ParquetFile, part: Slice, schema: pa.Schema, runs: list[range], wanted: list[str], keys: dict[str, str]
) -> pd.DataFrame:
    """The slice, decoded a few columns at a time: they are put in their place while the CPU's cache has them."""
    n_rows, names, arrays = part.stop - part.start, schema.names, []
    for run in runs:
        kind = schema.field(run.start).type.to_pandas_dtype()
        rows = parquet_rows(file, part.groups, [names[k] for k in run], (part.start, part.stop), kind)
        if len(rows) != n_rows:
            raise InputError(
                f"{part.path} holds {len(rows)} rows where it had {n_rows}: it was written again meanwhile; read the "
                "table anew"
            )
        arrays.append(rows)
    inside = {names[k] for run in runs for k in run}
    table = _table(file, part, [name for name in wanted if name not in inside])
    pieces, done = [], 0
    for run, rows in zip(runs, arrays, strict=True):
        if done < run.start:
            pieces.append(_frame(table, pa.schema([schema.field(k) for k in range(done, run.start)]), keys, n_rows))
        pieces.append(pd.DataFrame(rows, columns=names[run.start : run.stop], copy=False))
        done = run.stop
    if done < len(names):
        pieces.append(_frame(table, pa.schema([schema.field(k) for k in range(done, len(names))]), keys, n_rows))
    return pieces[0] if len(pieces) == 1 else pd.concat(pieces, axis=1)


def _frame(table: pa.Table, schema: pa.Schema, keys: dict[str, str], n_rows: int | None = None) -> pd.DataFrame:
    n_rows = len(table) if n_rows is None else n_rows
    found = dict(zip(table.column_names, table.columns, strict=True))
    arrays = [_column(found.get(field.name), n_rows, keys.get(field.name), field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema).to_pandas(split_blocks=True, self_destruct=True)


def _column(column: pa.ChunkedArray | None, rows: int, key: str | None, kind: pa.DataType) -> Any:
    if column is not None:
        return column if column.type == kind else column.cast(kind)
    if key is not None:
        return pa.array([key] * rows, pa.string()).cast(kind)
    return pa.nulls(rows, kind)


def _footer(path: str) -> pq.ParquetFile:
    try:
        with pq.ParquetFile(path) as file:
            return file
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is not a readable Parquet file ({_first_line(error)}); write it again") from None


def _common_schema(paths: list[str], footers: list[pq.ParquetFile], keys: list[tuple]) -> pa.Schema:
    schemas: list[pa.Schema] = []
    for path, footer in zip(paths, footers, strict=True):
        schema = footer.schema_arrow.remove_metadata()
        try:
            # One by one, so that the message names the file.
            schemas = [pa.unify_schemas([*schemas, schema], promote_options="permissive")]
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InputError(
                f"{path} has other columns than {paths[0]}: {_first_line(error)}; make them alike"
            ) from None
    fields = [pa.field(f.name, _plain(f.type)) for f in schemas[0] if not f.name.startswith("__index_level_")]
    names = dict.fromkeys(name for key in keys for name, _ in key)
    for name in names:
        values = {value for key in keys for n, value in key if n == name}
        if name not in schemas[0].names:
            whole = all(re.fullmatch(r"-?\d{1,18}", v) for v in values)
            fields.append(pa.field(name, pa.int64() if whole else pa.string()))
    return pa.schema(fields)


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_decimal(kind) or pa.types.is_float16(kind):
        return pa.float64()
    if pa.types.is_date(kind):
        return pa.timestamp("s")
    if pa.types.is_null(kind):
        return pa.float64()
    return kind


def _slices(path: str, meta: pq.FileMetaData, keys: tuple, schema: pa.Schema, together: int, most: int) -> list[Slice]:
    """Row groups of up to ``together`` bytes in one part, and no part of more than ``most``."""
    slices: list[Slice] = []
    pending: list[int] = []
    pending_rows = pending_bytes = 0

    def flush() -> None:
        nonlocal pending, pending_rows, pending_bytes
        if pending:
            slices.append(Slice(path, tuple(pending), 0, pending_rows, keys))
        pending, pending_rows, pending_bytes = [], 0, 0

    for group in range(meta.num_row_groups):
        rows, size = meta.row_group(group).num_rows, _memory(meta.row_group(group), schema)
        if not rows:
            continue
        if pending_bytes + size > together:
            flush()
        if size > most:
            n = -(-size // most)
            cuts = [rows * i // n for i in range(n + 1)]
            slices += [Slice(path, (group,), a, b, keys) for a, b in zip(cuts[:-1], cuts[1:], strict=True) if b > a]
            continue
        pending.append(group)
        pending_rows, pending_bytes = pending_rows + rows, pending_bytes + size
    flush()
    return slices


def _memory(group: pq.RowGroupMetaData, schema: pa.Schema) -> int:
    """An estimate of a row group's bytes as pandas columns: widths, and for text what the file says of it."""
    fixed = text = 0
    names = set(schema.names)
    for field in schema:
        try:
            fixed += max(1, field.type.bit_width // 8) * group.num_rows
        except ValueError:
            fixed += 24 * group.num_rows  # offsets and a short text; the file's own size is added below
    for i in range(group.num_columns):
        column = group.column(i)
        if column.path_in_schema.split(".")[0] in names and column.physical_type == "BYTE_ARRAY":
            text += column.total_uncompressed_size
    return fixed + text


def _hive_keys(path: str) -> tuple[tuple[str, str], ...]:
    folders = os.path.dirname(path).split(os.sep)
    return tuple((m[1], unquote(m[2])) for m in map(_HIVE.match, folders) if m)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
