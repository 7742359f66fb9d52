"""Format by format: write, measure the limits, fit, and delete."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks._measure import keep, kept
from benchmarks.out_of_core import _limits
from benchmarks.out_of_core._files import FORMATS, PLANTED, Files, check_room, write
from benchmarks.out_of_core._fit import fit
from benchmarks.out_of_core._report import text

WORKERS = 2


@dataclass(frozen=True)
class Size:
    """Bytes of rows, memory of a worker, epochs, and which of them find the page cache empty of the cache's files."""

    nbytes: float
    limit: str
    epochs: int
    cold: frozenset[int]
    alone_epochs: int


FULL = Size(10e9, "1GB", 5, frozenset({4, 5}), 3)
QUICK = Size(0.4e9, "700MB", 3, frozenset({3}), 2)


def run(full: bool, arguments: Sequence[str] = ()) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks out_of_core")
    usual = ",".join(FORMATS) if full else "parquet"
    parser.add_argument("--only", default=usual, help=f"formats of {','.join(FORMATS)}; default {usual}")
    parser.add_argument("--gigabytes", type=float, help="of rows; default 10, quick 0.4")
    options = parser.parse_args(list(arguments))
    kinds = options.only.split(",")
    if unknown := set(kinds) - set(FORMATS):
        parser.error(f"--only: {unknown.pop()!r} is none of {', '.join(FORMATS)}")
    size = FULL if full else QUICK
    nbytes = options.gigabytes * 1e9 if options.gigabytes else size.nbytes
    figures: dict[str, Any] = {"formats": kept("out_of_core", full).get("formats", {})}
    for kind in kinds:
        figures["formats"][kind] = one_format(kind, nbytes, size)
        keep("out_of_core", figures, text(figures), full)
    return figures


def one_format(kind: str, nbytes: float, size: Size) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="daskdml-bench-") as folder:
        check_room(folder, nbytes)
        start = time.perf_counter()
        files = write(kind, f"{folder}/rows", nbytes, WORKERS)
        print(f"{kind}: {files.rows:,} rows written in {time.perf_counter() - start:.1f} s", flush=True)
        return measure(files, size)


def measure(files: Files, size: Size) -> dict[str, Any]:
    """Decoding before and after the fit, so that drift of the machine is seen."""
    found: dict[str, Any] = {
        "rows": files.rows,
        "features": PLANTED.n_features,
        "block_bytes": files.block_bytes,
        "file_bytes": sum(map(os.path.getsize, files.paths)),
        "planted_accuracy": files.right / files.scored,
        "decoding": [],
        "naive": [],
        "writing": [],
    }
    spare, some = os.path.dirname(files.folder), min(files.block_bytes, 3e9)
    with _limits.Processes(WORKERS) as processes:
        read = partial(_limits.reading_back, processes)
        found["naive"].append(_limits.naive(processes, files))
        found["decoding"].append(_limits.decoding(processes, files))
        found["writing"].append(_limits.writing(processes, spare, some))
        found["fit"] = fit(files, WORKERS, size.limit, size.epochs, read, set(size.cold))
        found["decoding"].append(_limits.decoding(processes, files))
        found["writing"].append(_limits.writing(processes, spare, some))
        found["once"] = fit(files, WORKERS, size.limit, 1, lambda paths: {}, set())
        found["decoding"].append(_limits.decoding(processes, files))
        found["alone"] = fit(files, 1, size.limit, size.alone_epochs, lambda paths: {}, set())
        found["decoding"].append(_limits.decoding(processes, files))
        found["naive"].append(_limits.naive(processes, files))
    return found
