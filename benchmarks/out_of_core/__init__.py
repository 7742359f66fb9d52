"""Data larger than the workers' memory, from Parquet and from Zarr: speed beside the limits, and peak memory.

Files of float32 rows, of ten times the workers' memory together, are trained on by two workers of 1 GB. The limits are
measured in the same run, with the same files, in as many processes as there are workers:

* *decoding*: the recipes of the same data set made into row-major blocks one after the other, without Dask and without
  training; before the fit and after it. Beside it what a few lines with pyarrow or zarr do, that keep nothing.
* *reading back*: the very files that the block cache wrote, read into one buffer, between the epochs that read them.
  Half of these epochs find the files where the system keeps them, the others find the page cache emptied of them.

Each says how much of its files the page cache held. ``--only parquet,zarr`` measures some formats only; what was kept
of the others stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.out_of_core._report import picture

__all__ = ["CAPTION", "picture", "run"]

CAPTION = "rows read by second of each epoch beside the limits, and peak memory"


def run(full: bool = False, arguments: Sequence[str] = ()) -> dict[str, Any]:
    # The processes that read import parts of this: they have no use for what directs them.
    from benchmarks.out_of_core._run import run

    return run(full, arguments)
