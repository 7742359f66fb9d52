"""From what the user typed to a list of files, and what each of them holds."""

from __future__ import annotations

import bz2
import glob
import gzip
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from daskdml.io._errors import InputError

FORMATS = ("csv", "parquet", "zarr", "svmlight")
_ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
_MAGIC = {
    b"PAR1": "parquet",
    b"\x89HDF": "HDF5",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet",
    b"ARROW1": "Feather",
    b"ORC": "ORC",
    b"SQLite format 3": "SQLite",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
}
_OPENERS: dict[str | None, Any] = {"gzip": gzip.open, "bz2": bz2.open, None: open}
_NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf)"
_SVMLIGHT_LINE = re.compile(rf"^{_NUMBER}(?:\s+qid:\d+)?(?:\s+\d+:{_NUMBER})*\s*(?:#.*)?$", re.IGNORECASE)
_REMEDY = "daskdml reads CSV (plain or .gz), Parquet, Zarr and svmlight (plain, .gz or .bz2)"


def is_zarr(path: str) -> bool:
    """Whether a directory is a Zarr store."""
    return any(os.path.exists(os.path.join(path, mark)) for mark in _ZARR_MARKS)


def compression_of(path: str) -> str | None:
    """'gzip', 'bz2' or None, by the first bytes and not by the name."""
    with open(path, "rb") as file:
        head = file.read(3)
    return "gzip" if head[:2] == b"\x1f\x8b" else "bz2" if head == b"BZh" else None


def open_text(path: str, compression: str | None):  # noqa: ANN201 - one of three file types
    """The (uncompressed) bytes of a file."""
    return _OPENERS[compression](path, "rb")


def files_of(data: Any) -> list[str]:
    """The files behind what a user gave as data: none for a table in memory or of Dask."""
    return [] if hasattr(data, "columns") else expand(data)


def expand(paths: str | os.PathLike | Sequence[str | os.PathLike]) -> list[str]:
    """Files and Zarr stores behind a path, a directory, a glob or a list of them, each in sorted order."""
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not given:
        raise InputError("no input files given; name at least one file, directory or glob")
    found = [file for path in given for file in _expand_one(os.fspath(path))]
    return list(dict.fromkeys(found))


def _expand_one(path: str) -> list[str]:
    if "://" in path:
        raise InputError(f"{path}: remote addresses are read with Dask and given to daskdml.workflow.train from Python")
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        return [path] if is_zarr(path) else _directory(path)
    if os.path.exists(path):
        return [path]
    if glob.has_magic(path):
        hits = [file for hit in sorted(glob.glob(path, recursive=True)) for file in _expand_one(hit)]
        if hits:
            return hits
        raise InputError(f"no file matches {path!r}; check the pattern, relative to {os.getcwd()}")
    parent = Path(path).parent
    near = sorted(p.name for p in parent.iterdir() if not p.name.startswith("."))[:8] if parent.is_dir() else []
    hint = f"; {parent} holds {', '.join(near)}" if near else f"; there is no directory {parent} with files in it"
    raise InputError(f"no such file: {path}{hint}")


def _directory(path: str) -> list[str]:
    files: list[str] = []
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(f for f in folders if not f.startswith((".", "_")))
        for sub in [f for f in folders if is_zarr(os.path.join(folder, f))]:
            files.append(os.path.join(folder, sub))
            folders.remove(sub)
        files += [os.path.join(folder, n) for n in sorted(names) if not n.startswith((".", "_"))]
    if not files:
        raise InputError(f"the directory {path} holds no data files; {_REMEDY}")
    return files


def sniff(path: str) -> str:
    """The format of one file, by its content; :class:`InputError` where it is none that is known."""
    if os.path.isdir(path):
        return "zarr"
    try:
        with open(path, "rb") as file:
            head = file.read(16)
        if not head:
            raise InputError(f"{path} is empty (0 bytes); leave it out")
        for magic, name in _MAGIC.items():
            if head.startswith(magic):
                if name in FORMATS:
                    return name
                raise InputError(f"{path} is {name}; {_REMEDY}: convert it first")
        with open_text(path, compression_of(path)) as file:
            return _sniff_text(path, file.read(1 << 16))
    except PermissionError:
        raise InputError(f"{path} may not be read by you; change its permissions (chmod u+r)") from None
    except (EOFError, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is a damaged compressed file ({error}); fetch it again") from None


def _sniff_text(path: str, sample: bytes) -> str:
    if not sample.strip():
        raise InputError(f"{path} holds no rows; leave it out")
    if b"\x00" in sample:
        raise InputError(f"{path} has an unknown binary format; {_REMEDY}")
    try:
        text = sample.decode("utf-8", errors="strict" if len(sample) < 1 << 16 else "ignore")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}); convert it, for example with iconv") from None
    lines = [line.strip() for line in text.splitlines()[:-1] or text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")][:50]
    if lines and all(map(_SVMLIGHT_LINE.match, lines)) and any(":" in line for line in lines):
        return "svmlight"
    if lines and lines[0].startswith(("{", "[")):
        raise InputError(
            f"{path} looks like JSON; {_REMEDY}: convert it first, for example with dask.dataframe.read_json"
        )
    return "csv"
