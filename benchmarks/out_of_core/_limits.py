"""What the files alone allow, in as many processes as there are workers: no Dask, no training."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.out_of_core._files import LABEL, Files, resident

# Bytes of a file that is written.
_WRITTEN = 40 * 10**6
# Dask sets variables for its workers, in this process first, and they stay: an allocator set so takes twice as long
# to decode, in processes that are no workers, too.
_ENVIRON = dict(os.environ)


class Processes:
    """So many processes, each given its own share of the work, and timed together."""

    def __init__(self, n: int):
        # A pool each: one pool of many may give two shares to the same process.
        self._pools = [ProcessPoolExecutor(1, get_context("spawn")) for _ in range(n)]
        with mock.patch.dict(os.environ, _ENVIRON, clear=True):
            self.each(_nothing)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *error: object) -> None:
        for pool in self._pools:
            pool.shutdown()

    def __len__(self) -> int:
        return len(self._pools)

    def each(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """``function(*args, i, n)`` in process i of n; what each returns."""
        n = len(self)
        return [f.result() for f in [p.submit(function, *args, i, n) for i, p in enumerate(self._pools)]]

    def timed(self, function: Callable[..., Any], *args: Any) -> dict[str, float]:
        """Seconds until the last is done, and what they returned, which is bytes, together."""
        start = time.perf_counter()
        nbytes = sum(self.each(function, *args))
        return {"seconds": time.perf_counter() - start, "bytes": nbytes}


def decoding(processes: Processes, files: Files) -> dict[str, float]:
    """By daskdml's own recipes."""
    processes.each(_prepare, files)
    held = resident(files.paths)
    return {"resident": held} | processes.timed(_decode)


def naive(processes: Processes, files: Files) -> dict[str, float]:
    """By a few lines with pyarrow or zarr, as many rows at a time as a file or chunk has."""
    processes.each(_nothing)
    held = resident(files.paths)
    return {"resident": held} | processes.timed(_few_lines, files)


def reading_back(processes: Processes, paths: Sequence[str]) -> dict[str, float]:
    """The files of the block cache, read into a buffer."""
    processes.each(_nothing)
    held = resident(paths)
    return {"resident": held} | processes.timed(_read, list(paths))


def writing(processes: Processes, folder: str, nbytes: float) -> dict[str, float]:
    """Files as the block cache writes them, of so many bytes in all: what the disk takes."""
    processes.each(_nothing)
    place = os.path.join(folder, "written")
    os.makedirs(place)
    try:
        return processes.timed(_write, place, nbytes)
    finally:
        shutil.rmtree(place)


_recipes: list[Any] = []


def _nothing(i: int, n: int) -> None:
    pass


def _prepare(files: Files, i: int, n: int) -> None:
    from daskdml.data import Target, as_dataset

    X, y = files.open()
    data = as_dataset(X, y, target=Target(np.array([0, 1])))
    _recipes[:] = data.recipes[i::n]
    # The first one also imports.
    _recipes[0].resolve(())


def _decode(i: int, n: int) -> int:
    return sum(recipe.resolve(()).nbytes for recipe in _recipes)


def _few_lines(files: Files, i: int, n: int) -> int:
    nbytes = 0
    if files.kind == "parquet":
        import pyarrow.parquet as pq

        for path in files.paths[i::n]:
            table = pq.read_table(path, use_threads=False)
            y = table[LABEL].to_numpy().astype(np.float32)
            X = np.column_stack([table[name].to_numpy() for name in table.column_names if name != LABEL])
            nbytes += np.ascontiguousarray(X).nbytes + y.nbytes
        return nbytes
    import zarr

    group = zarr.open_group(files.folder, mode="r")
    step = group["x"].chunks[0]
    for at in range(i * step, files.rows, n * step):
        nbytes += group["x"][at : at + step].nbytes + group[LABEL][at : at + step].astype(np.float32).nbytes
    return nbytes


def _write(folder: str, nbytes: float, i: int, n: int) -> int:
    from daskdml.data import Block, _files

    block, done = Block(i, np.random.default_rng(i).random((_WRITTEN // 8, 1))), 0
    while done < nbytes / n:
        done += _files.write(folder, block, straight=True).nbytes
    return done


def _read(paths: list[str], i: int, n: int) -> int:
    mine, done = paths[i::n], 0
    buffer = bytearray(max(map(os.path.getsize, mine), default=0))
    for path in mine:
        with open(path, "rb", buffering=0) as file:
            at = 0
            while got := file.readinto(memoryview(buffer)[at:]):
                at += got
        done += at
    return done
