"""From paths to a table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from daskdml.io._errors import InputError
from daskdml.io._paths import FORMATS, compression_of, expand, sniff
from daskdml.io._table import MIN_PARTS, Table

_BLOCK_BYTES = 48 << 20
# Numbers written as text take about half to twice their bytes in memory; CSR parts keep 8 bytes a value.
_TEXT_BYTES = 24 << 20
_MIN_TEXT, _MIN_BZ2 = 256 << 10, 2 << 20


def read_table(
    paths: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    columns: Sequence[str] | None = None,
    format: str | None = None,  # noqa: A002 - the word the user knows
    block_bytes: int | None = None,
    n_features: int | None = None,
    zero_based: bool | None = None,
    text: Iterable[str] = (),
    numeric: Iterable[str] = (),
) -> Table:
    r"""Find files and make a lazy table of them: only headers, footers and samples are read.

    Parameters
    ----------
    paths : path, or list of paths
        Files, directories, Zarr stores and globs of them, all of one format. The workers must see them under the
        same names.
    columns : list of str, optional
        Read only these; default all. Not for svmlight.
    format : {"csv", "parquet", "zarr", "svmlight"}, optional
        Default: found out from the content of each file, not from its name.
    block_bytes : int, optional
        About how many bytes (in memory; of text for CSV and svmlight) one part has at most; default 48 MB, 24 MB
        of text.
    n_features, zero_based : int and bool, optional
        Of svmlight: the number of columns, and whether they count from 0. Default: found by reading the files once.
    text : iterable of str
        Columns of a CSV to read as text although they look like numbers.
    numeric : iterable of str
        Columns of a CSV to read as numbers, with what is no number as a missing value.

    Returns
    -------
    Table

    Raises
    ------
    InputError
        Where a file or a column is missing, or a file has an unknown format or no rows.

    Examples
    --------
    >>> import tempfile, os
    >>> from daskdml.io import read_table
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "a.csv")
    ...     with open(path, "w") as file:
    ...         _ = file.write("x,label\n1.5,yes\n2.5,no\n")
    ...     read_table(path).frame().compute()["label"].tolist()
    ['yes', 'no']
    """
    files = expand(paths)
    kind = _one_format(files, format)
    source = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more file{'s' * (len(files) > 2)}"
    wanted = list(columns) if columns is not None else None
    if block_bytes is not None and block_bytes < 1:
        raise InputError(f"block_bytes={block_bytes} must be at least 1")
    block = block_bytes or _block_bytes(kind, files)
    if kind != "svmlight" and (n_features is not None or zero_based is not None):
        raise InputError(f"n_features and zero_based are for svmlight files, but {files[0]} is {kind}; leave them out")
    if kind == "parquet":
        from daskdml.io._parquet import read_parquet

        return read_parquet(files, wanted, block, source)
    if kind == "csv":
        from daskdml.io._csv import read_csv

        return read_csv(files, wanted, block, source, frozenset(text), frozenset(numeric))
    if kind == "zarr":
        from daskdml.io._zarr import read_zarr

        return read_zarr(files, wanted, block, source)
    from daskdml.io._svmlight import read_svmlight

    if wanted is not None:
        raise InputError(f"{source} is svmlight, which has no column names; leave out columns (and --target)")
    return read_svmlight(files, block, source, n_features, zero_based)


def _block_bytes(kind: str, files: list[str]) -> int:
    """Fine enough for several replicas where the data are small, bounded where they are large."""
    if kind not in ("csv", "svmlight"):
        return _BLOCK_BYTES
    size, low = 0, _MIN_TEXT
    for file in files:
        compression = compression_of(file)
        # Text packs about five times; bzip2 unpacks so slowly that going over a file often is worse than few parts.
        size += os.path.getsize(file) * (5 if compression else 1)
        low = max(low, _MIN_BZ2 if compression == "bz2" else 0)
    return min(_TEXT_BYTES, max(low, size // MIN_PARTS))


def _one_format(files: list[str], given: str | None) -> str:
    if given is not None:
        if given not in FORMATS:
            raise InputError(f"unknown format {given!r}; it is one of {', '.join(FORMATS)}")
        return given
    kinds: dict[str, str] = {}
    for file in files:
        kinds.setdefault(sniff(file), file)
    if len(kinds) > 1:
        (a, x), (b, y) = list(kinds.items())[:2]
        raise InputError(f"{x} is {a} but {y} is {b}; give files of one format at a time")
    return next(iter(kinds))
