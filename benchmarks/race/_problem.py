"""Rows of a workload on disk: as arrays, for a start in memory, and as Parquet, for a start from files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

PARTS = 8
LABEL = "label"


@dataclass(frozen=True)
class Problem:
    """What every side is told: where the rows are, of what shape, and how strong the penalty is.

    Labels are 0 to ``n_classes`` - 1. Rows are in random order, so that a peer that visits them as they lie is as
    well off as one that shuffles.
    """

    name: str
    folder: str
    n_rows: int
    n_features: int
    n_classes: int
    is_sparse: bool
    alpha: float = 1e-4

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """First and last row of each part."""
        edges = np.linspace(0, self.n_rows, PARTS + 1).astype(int).tolist()
        return list(zip(edges[:-1], edges[1:], strict=True))

    @property
    def parts(self) -> list[str]:
        """The Parquet files."""
        return sorted(str(path) for path in (Path(self.folder) / "parquet").glob("*.parquet"))

    def rows(self, low: int = 0, high: int | None = None) -> tuple[Any, np.ndarray]:
        """X and y of some rows, read from the arrays into memory."""
        high = self.n_rows if high is None else high
        y = self._array("y")[low:high].astype(np.int64)
        if not self.is_sparse:
            return np.array(self._array("X")[low:high]), y
        indptr = np.array(self._array("indptr")[low : high + 1])
        data, indices = (np.array(self._array(name)[indptr[0] : indptr[-1]]) for name in ("data", "indices"))
        return sparse.csr_matrix((data, indices, indptr - indptr[0]), shape=(high - low, self.n_features)), y

    def _array(self, name: str) -> np.ndarray:
        return np.load(Path(self.folder) / f"{name}.npy", mmap_mode="r")

    def read(self, paths: list[str] | None = None) -> tuple[Any, np.ndarray]:
        """X and y of Parquet files, by default of all."""
        table = pa.concat_tables([pq.read_table(path) for path in paths or self.parts])
        y = _labels(table)
        if not self.is_sparse:
            X = np.empty((len(y), self.n_features), np.float32)
            for j in range(self.n_features):
                X[:, j] = table[str(j)].to_numpy()
            return X, y
        indices, values = (table[name].combine_chunks() for name in ("indices", "values"))
        counts = np.diff(indices.offsets.to_numpy())
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        shape = (len(y), self.n_features)
        return sparse.csr_matrix((values.flatten().to_numpy(), indices.flatten().to_numpy(), indptr), shape=shape), y

    def labels(self, path: str) -> np.ndarray:
        """Of a Parquet file, of which nothing else is read."""
        return _labels(pq.read_table(path, columns=[LABEL]))


def _labels(table: pa.Table) -> np.ndarray:
    return np.asarray(table[LABEL].to_numpy().astype(np.int64))


def write(name: str, folder: str, X: Any, y: np.ndarray, n_classes: int) -> Problem:
    """Put rows down in both forms."""
    problem = Problem(name, folder, X.shape[0], X.shape[1], n_classes, sparse.issparse(X))
    root = Path(folder)
    (root / "parquet").mkdir(parents=True)
    arrays = {"y": y.astype(np.int8)}
    arrays |= {k: getattr(X, k) for k in ("data", "indices", "indptr")} if problem.is_sparse else {"X": X}
    for key, array in arrays.items():
        np.save(root / f"{key}.npy", array)
    for k, (low, high) in enumerate(problem.bounds):
        pq.write_table(_table(X[low:high], arrays["y"][low:high]), root / "parquet" / f"part-{k}.parquet")
    return problem


def _table(X: Any, y: np.ndarray) -> pa.Table:
    if not sparse.issparse(X):
        columns = {str(j): pa.array(np.ascontiguousarray(X[:, j])) for j in range(X.shape[1])}
        return pa.table(columns | {LABEL: pa.array(y)})
    lists = {
        name: pa.ListArray.from_arrays(pa.array(X.indptr.astype(np.int32)), pa.array(values))
        for name, values in (("indices", X.indices.astype(np.int32)), ("values", X.data))
    }
    return pa.table(lists | {LABEL: pa.array(y)})
