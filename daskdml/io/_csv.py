"""CSV files as bounded parts."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pc

from daskdml.io._bytes import LineRange, has_quotes, line_ranges, whole_records
from daskdml.io._errors import InputError, unknown_name
from daskdml.io._paths import compression_of, open_text
from daskdml.io._table import Table

_SAMPLE = 1 << 20
_MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "none", "?", "#N/A", "<NA>"]
# A column of text of which no more than this part are no numbers was most likely meant to be numbers.
_STRAY = 0.1
_DELIMITERS = (",", "\t", ";", "|", " ")


@dataclass(frozen=True)
class Dialect:
    """How the files of one table are written: delimiter, names, whether a first line holds them, types.

    In the columns of ``numeric`` a value that is no number is a missing one.
    """

    delimiter: str
    names: tuple[str, ...]
    header: bool
    types: tuple[tuple[str, pa.DataType], ...] = ()
    numeric: frozenset[str] = frozenset()

    @property
    def schema(self) -> pa.Schema:
        return pa.schema(list(self.types))


def read_csv(
    paths: list[str],
    columns: list[str] | None,
    block_bytes: int,
    source: str,
    text: frozenset[str] = frozenset(),
    numeric: frozenset[str] = frozenset(),
) -> Table:
    """Ranges of lines become parts. Types come from samples at the start, middle and end of the files."""
    files = [line_ranges(path, block_bytes, has_quotes(path, compression_of(path))) for path in paths]
    dialect = _dialect(paths[0], files[0][0].compression)
    for path, ranges in zip(paths[1:], files[1:], strict=True):
        other = _dialect(path, ranges[0].compression)
        if other.names != dialect.names:
            raise InputError(
                f"{path} has other columns than {paths[0]}: {_difference(other, dialect)}; make them alike"
            )
    for name in columns or ():
        if name not in dialect.names:
            raise unknown_name("column", name, dialect.names, source)
    dialect, strays = _typed(replace(dialect, numeric=numeric), files, text)
    keep = tuple(columns) if columns is not None else dialect.names
    meta = dialect.schema.empty_table().to_pandas()[list(keep)]
    loaders = [partial(load_lines, r, dialect, keep) for ranges in files for r in ranges]
    notes = tuple(strays[name] for name in keep if name in strays)
    return Table.of_loaders(loaders, meta, source, notes=notes)


def load_lines(lines: LineRange, dialect: Dialect, columns: tuple[str, ...]) -> pd.DataFrame:
    """The rows of one range of lines; an :class:`InputError` names the file and the line that does not fit."""
    body = lines.read()
    if dialect.header and lines.start == 0:
        body = _after_header(body)
    if not body.strip():
        return dialect.schema.empty_table().to_pandas()[list(columns)]
    try:
        table = _parse_numbers(body, dialect)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise _explained(error, body, lines, dialect) from None
    return table.select(list(columns)).to_pandas(split_blocks=True, self_destruct=True)


def _parse(body: bytes, dialect: Dialect, schema: pa.Schema | None) -> pa.Table:
    return pc.read_csv(
        pa.BufferReader(body),
        read_options=pc.ReadOptions(column_names=list(dialect.names), use_threads=False, block_size=max(len(body), 1)),
        parse_options=pc.ParseOptions(delimiter=dialect.delimiter, newlines_in_values=b'"' in body),
        convert_options=pc.ConvertOptions(
            column_types=schema, null_values=_MISSING, strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    )


def _parse_numbers(body: bytes, dialect: Dialect) -> pa.Table:
    """As the schema says; again, value by value in the columns of ``numeric``, where that does not go."""
    schema = dialect.schema
    try:
        return _parse(body, dialect, schema)
    except pa.ArrowInvalid:
        asked = [i for i, f in enumerate(schema) if f.name in dialect.numeric and pa.types.is_floating(f.type)]
        if not asked:
            raise
    loose = schema
    for i in asked:
        loose = loose.set(i, pa.field(schema.field(i).name, pa.string()))
    table = _parse(body, dialect, loose)
    for i in asked:
        values = pd.to_numeric(table.column(i).to_pandas(), errors="coerce").astype("float64")
        table = table.set_column(i, schema.field(i), pa.array(values, pa.float64()))
    return table


def _after_header(body: bytes) -> bytes:
    stripped = body.lstrip(b"\xef\xbb\xbf\r\n")
    return stripped.partition(b"\n")[2]


def _dialect(path: str, compression: str | None) -> Dialect:
    with open_text(path, compression) as file:
        sample = file.read(1 << 16)
    lines = [s for s in sample.decode("utf-8-sig", "replace").splitlines()[:21] if s.strip()]
    delimiter = max(_DELIMITERS, key=lambda d: _regularity(lines, d))
    rows = [[c.strip() for c in row] for row in csv.reader(lines, delimiter=delimiter)]
    if any(map(_is_number, rows[0])) or (len(rows) == 1 and len(rows[0]) > 1 and not all(rows[0])):
        return Dialect(delimiter, tuple(f"column_{i}" for i in range(len(rows[0]))), header=False)
    names = rows[0]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise InputError(f"{path}: the first line names the column {twice[0]!r} twice; give every column its own name")
    return Dialect(delimiter, tuple(names), header=True)


def _regularity(lines: list[str], delimiter: str) -> tuple[float, int]:
    """How many of the lines have as many fields as the first, where that has two or more."""
    counts = [len(row) for row in csv.reader(lines, delimiter=delimiter)]
    if not counts or counts[0] < 2:
        return (0.0, 0)
    return (sum(c == counts[0] for c in counts) / len(counts), -_DELIMITERS.index(delimiter))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _typed(dialect: Dialect, files: list[list[LineRange]], text: frozenset[str]) -> tuple[Dialect, dict[str, str]]:
    """Types for all columns that hold every sample, and notes on columns that are text because of a few values.

    Whole numbers are read as floats, for gaps may come later.
    """
    tables = []
    for ranges in _spread(files):
        for r in _spread(ranges) if ranges[0].compression is None else ranges[:1]:
            body = whole_records(replace(r, stop=min(r.stop, r.start + _SAMPLE)).read())
            body = _after_header(body) if dialect.header and r.start == 0 else body
            if body.strip():
                try:
                    tables.append(_parse(body, dialect, None))
                except pa.ArrowInvalid as error:
                    raise _explained(error, body, r, dialect) from None
    if not tables:
        raise InputError(f"{files[0][0].path} has a line of column names but no rows; there is nothing to read")
    types, strays = [], {}
    for name in dialect.names:
        kinds = {t.schema.field(name).type for t in tables}
        kind = pa.string() if name in text else _common_type(kinds)
        if pa.types.is_string(kind) and name not in text:
            bad, looked, first = _no_numbers([t.column(name) for t in tables])
            found = f"{bad:,} of {looked:,} values looked at {'is no number' if bad == 1 else 'are no numbers'}"
            if name in dialect.numeric:
                if bad == looked:
                    raise InputError(f"--numeric {name}: {found}, the first {first[:40]!r}; leave --numeric out for it")
                kind = pa.float64()
            elif bad <= _STRAY * looked:
                strays[name] = (
                    f"column {name!r} is taken as text, for {found}, the first {first[:40]!r}; "
                    f"to have numbers, and such values as missing, give --numeric {name}"
                )
        types.append((name, kind))
    return replace(dialect, types=tuple(types)), strays


def _spread(sequence: list[Any]) -> list[Any]:
    """The first, middle and last, each once."""
    return [sequence[i] for i in sorted({0, len(sequence) // 2, len(sequence) - 1})]


def _common_type(kinds: set[pa.DataType]) -> pa.DataType:
    kinds = {k for k in kinds if not pa.types.is_null(k)}
    if all(pa.types.is_integer(k) or pa.types.is_floating(k) for k in kinds):
        return pa.float64()
    if all(pa.types.is_boolean(k) for k in kinds):
        return pa.bool_()
    if all(pa.types.is_timestamp(k) or pa.types.is_date(k) for k in kinds):
        return pa.timestamp("ns")
    return pa.string()


def _no_numbers(columns: list[pa.ChunkedArray]) -> tuple[int, int, str]:
    """How many of the values there are no numbers, of how many, and the first such."""
    bad, looked, first = 0, 0, ""
    for column in columns:
        values = column.drop_null()
        looked += len(values)
        if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
            continue
        text = values.to_pandas().astype(str)
        wrong = text[pd.to_numeric(text, errors="coerce").isna()]
        if len(wrong) and not bad:
            first = str(wrong.iloc[0])
        bad += len(wrong)
    return bad, looked, first


def _explained(error: Exception, body: bytes, lines: LineRange, dialect: Dialect) -> InputError:
    """The error with its file, line and remedy; the line is searched only now, when it is known that there is one."""
    skipped = 1 if dialect.header and lines.start == 0 else 0
    first, width = lines.first_line_number() + skipped, len(dialect.names)
    reader = csv.reader(io.StringIO(body.decode("utf-8", "replace")), delimiter=dialect.delimiter)
    types = dict(dialect.types)
    hint = " (where a line break within quotes was taken for its end, take the break out)" if b'"' in body else ""
    for row in reader:
        where = f"{lines.path}, line {first + reader.line_num - 1}"
        if row and len(row) != width:
            return InputError(
                f"{where}: {len(row)} fields where there should be {width}; mend or remove the line{hint}"
            )
        for name, value in zip(dialect.names, row, strict=False):
            if _misfit(value, types.get(name)):
                floating = pa.types.is_floating(types[name])
                missing = f", or as numbers with such values missing with --numeric {name}" if floating else ""
                return InputError(
                    f"{where}: column {name!r} holds {value[:40]!r} but numbers, dates or booleans elsewhere; "
                    f"mend the line, or read the column as text with --categorical {name}{missing}"
                )
    reason = str(error).strip().rstrip(".")
    return InputError(f"{lines.path}: {reason}; mend the file from line {first} on")


def _misfit(value: str, kind: pa.DataType | None) -> bool:
    value = value.strip()
    if kind is None or value in _MISSING or pa.types.is_string(kind):
        return False
    if pa.types.is_floating(kind):
        return not _is_number(value)
    if pa.types.is_boolean(kind):
        return value.lower() not in ("true", "false", "0", "1")
    return pd.isna(pd.to_datetime(value, errors="coerce"))


def _difference(other: Dialect, first: Dialect) -> str:
    missing = [n for n in first.names if n not in other.names]
    extra = [n for n in other.names if n not in first.names]
    if missing:
        return f"it lacks {missing[0]!r}"
    return f"it has also {extra[0]!r}" if extra else "they stand in another order"
