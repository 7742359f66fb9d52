"""What reading the rows of a race from its files takes, and nothing else: no side that reads all can be quicker."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np
import pyarrow.parquet as pq

from benchmarks.race._problem import Problem
from daskdml.data._buffers import Buffers, lending
from daskdml.data._parquet import parquet_rows

THREADS = 2


def decoding_seconds(problem: Problem) -> tuple[float, float]:
    """All files to rows, as our sides have them decoded, on two threads: at once, and again with the memory at hand."""
    of_thread = threading.local()

    def decode(path: str) -> None:
        if problem.is_sparse:
            problem.read([path])
            return
        if not hasattr(of_thread, "buffers"):
            of_thread.buffers = Buffers()
        with lending(of_thread.buffers), pq.ParquetFile(path, pre_buffer=False) as file:
            names = [str(j) for j in range(problem.n_features)]
            groups = range(file.metadata.num_row_groups)
            parquet_rows(file, groups, names, (0, file.metadata.num_rows), np.float32)

    with ThreadPoolExecutor(THREADS) as pool:
        found = []
        for _ in range(2):
            start = perf_counter()
            list(pool.map(decode, problem.parts))
            found.append(perf_counter() - start)
    return found[0], found[1]
