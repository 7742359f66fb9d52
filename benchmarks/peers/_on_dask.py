"""What the sides that train on a Dask cluster share: the cluster, and rows on it."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np
from scipy import sparse

from benchmarks.race._problem import LABEL, Problem
from benchmarks.race._side import Side

WORKERS = 2


class OnDask(Side):
    """Two worker processes of one thread each. Rows in memory lie in the workers' memory."""

    def open(self) -> None:
        from daskdml.cluster import local

        # No limit: the block cache and the data of either side are not what is compared here.
        self.client = local(WORKERS, memory_limit=0, threads_per_worker=1, dashboard_address="127.0.0.1:0")
        self.client.wait_for_workers(WORKERS)

    def prepare(self) -> None:
        if self.start == "files":
            self.X, self.y = self.files()
        else:
            self.X, self.y = dask.persist(*from_arrays(self.problem))
            self.client.cluster.sync(_done, self.X, self.y)

    def files(self) -> tuple[Any, Any]:
        """X and y of the files, lazily, by Dask's reader."""
        return from_files(self.problem)

    def close(self) -> None:
        self.client.close()


async def _done(*collections: Any) -> None:
    from distributed import futures_of, wait

    await wait([future for each in collections for future in futures_of(each)])


def from_arrays(problem: Problem) -> tuple[Any, Any]:
    """X and y of the arrays on disk, a chunk for each part; each worker reads its own."""
    return _joined(problem, [dask.delayed(problem.rows, pure=True)(low, high) for low, high in problem.bounds])


def from_files(problem: Problem) -> tuple[Any, Any]:
    """X and y of the Parquet files, lazily: a DataFrame, or an Array of CSR chunks."""
    if problem.is_sparse:
        # Labels by themselves, as a DataFrame reads a column: who looks for the classes reads no rows for it.
        rows, labels = (dask.delayed(each, pure=True) for each in (problem.read, problem.labels))
        return _joined(problem, [(rows([path])[0], labels(path)) for path in problem.parts])
    import dask.dataframe as dd

    frame = dd.read_parquet(problem.parts)
    return frame.drop(columns=LABEL), frame[LABEL]


def _joined(problem: Problem, pairs: list[Any]) -> tuple[Any, Any]:
    meta = sparse.csr_matrix((0, 0), dtype=np.float32) if problem.is_sparse else np.empty((0, 0), np.float32)
    X, y = [], []
    for pair, (low, high) in zip(pairs, problem.bounds, strict=True):
        X.append(da.from_delayed(pair[0], (high - low, problem.n_features), meta=meta))
        y.append(da.from_delayed(pair[1], (high - low,), dtype=np.int64))
    return da.concatenate(X), da.concatenate(y)
