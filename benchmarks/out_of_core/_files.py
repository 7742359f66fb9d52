"""The files: planted rows as Parquet and as Zarr, room for them, and what of them the page cache holds."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from daskdml.workflow._planted import Planted, file_rows, write_file

PLANTED = Planted(n_features=100)
# Rows of a file, and of a chunk: 16 MB.
ROWS = 40_000
FORMATS = {"parquet": "Parquet", "zarr": "Zarr, zarr's default compression", "zarr-plain": "Zarr, uncompressed"}
LABEL = "label"


@dataclass(frozen=True)
class Files:
    """What was written: ``right`` of the rows ``scored``, the first ones, have the label that is likelier."""

    kind: str
    folder: str
    rows: int
    scored: int
    right: int

    @property
    def paths(self) -> list[str]:
        return sorted(str(p) for p in Path(self.folder).rglob("*") if p.is_file())

    @property
    def block_bytes(self) -> int:
        """The bytes of all rows as float32, with their labels, as training holds them."""
        return self.rows * 4 * (PLANTED.n_features + 1)

    def open(self) -> tuple[Any, Any]:
        """X and y, lazy."""
        if self.kind == "parquet":
            from daskdml.io import read_table

            frame = read_table(self.folder).frame()
            return frame.drop(columns=LABEL), frame[LABEL]
        import dask.array as da

        return da.from_zarr(self.folder, component="x"), da.from_zarr(self.folder, component=LABEL)


def check_room(folder: str, nbytes: float) -> None:
    """Raise where the disk has no room for the files, and as much again for the block cache."""
    free = shutil.disk_usage(folder).free
    need = 2.2 * nbytes + 2e9
    if free < need:
        raise OSError(
            f"{folder} has {free / 1e9:.0f} GB free, but the files and the cache need {need / 1e9:.0f} GB: "
            "free some, or set TMPDIR to a larger disk"
        )


def write(kind: str, folder: str, nbytes: float, processes: int) -> Files:
    """Write about so many bytes of rows, by several processes."""
    os.makedirs(folder)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        if kind == "parquet":
            counts = file_rows(PLANTED, nbytes)
            written = pool.map(write_file, [PLANTED] * len(counts), [folder] * len(counts), range(len(counts)), counts)
            right = [w.right for w in written]
        else:
            n = int(nbytes / PLANTED.row_bytes)
            counts = [min(ROWS, n - at) for at in range(0, n, ROWS)]
            _make_store(folder, n, kind == "zarr")
            right = list(pool.map(_write_chunk, [folder] * len(counts), range(len(counts)), counts))
    scored = max(1, len(counts) // 10)
    return Files(kind, folder, sum(counts), sum(counts[:scored]), sum(right[:scored]))


def _make_store(folder: str, n: int, compressed: bool) -> None:
    import zarr

    group = zarr.open_group(folder, mode="w")
    how: dict[str, Any] = {} if compressed else {"compressors": None}
    group.create_array("x", shape=(n, PLANTED.n_features), chunks=(ROWS, PLANTED.n_features), dtype="f4", **how)
    group.create_array(LABEL, shape=(n,), chunks=(ROWS,), dtype="i8", **how)


def _write_chunk(folder: str, part: int, rows: int) -> int:
    """Write one chunk; returns in how many rows the likelier label is the label."""
    import zarr

    group = zarr.open_group(folder, mode="r+")
    columns, y, p = PLANTED.draw(part, rows)
    at = slice(part * ROWS, part * ROWS + rows)
    group["x"][at] = np.ascontiguousarray(columns.T)
    group[LABEL][at] = y
    return int(((p > 0.5) == y).sum())


def resident(paths: Iterable[str]) -> float:
    """The part of files that the page cache holds; NaN where the system does not say."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "mincore"):
        return float("nan")
    held = total = 0
    for path in paths:
        size = os.path.getsize(path)
        if not size:
            continue
        with open(path, "rb") as file, mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as mapped:
            pages = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
            view = np.frombuffer(mapped, np.uint8)
            failed = libc.mincore(
                ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(size), ctypes.c_void_p(pages.ctypes.data)
            )
            del view
        if failed:
            return float("nan")
        held, total = held + int((pages & 1).sum()), total + len(pages)
    return held / total if total else float("nan")


def forget(paths: Iterable[str]) -> None:
    """Empty the page cache of files; what has not reached the disk is written first."""
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
