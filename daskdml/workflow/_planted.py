"""A data set whose best possible accuracy is known, written by the workers as Parquet files."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

# Rows of a file: with 50 features of 4 bytes some 40 MB, which any worker can hold.
_FILE_BYTES = 40e6
_GROUP_ROWS = 1 << 16


@dataclass(frozen=True)
class Planted:
    """Two classes drawn with the probabilities of a logistic model with known weights, from features in [-1/2, 1/2).

    ``noise`` divides the scores: the larger, the more often a row's label is not the likelier one.
    """

    n_features: int = 50
    seed: int = 0
    noise: float = 1.0

    @property
    def weights(self) -> np.ndarray:
        """Weights of the features; scores have a standard deviation of 3 over the noise."""
        w = np.random.default_rng([self.seed, 0]).standard_normal(self.n_features)
        # Uniform features have a variance of 1/12.
        return (3.0 * np.sqrt(12) / self.noise * w / np.linalg.norm(w)).astype(np.float32)

    @property
    def row_bytes(self) -> int:
        return 4 * self.n_features + 8

    def draw(self, part: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features (a row each), labels, and the probability of label 1, of ``n`` rows of group number ``part``."""
        # The cheapest of good generators: what is shown is the training, not the making of data.
        rng = np.random.Generator(np.random.SFC64([self.seed, 1, part]))
        columns = rng.random((self.n_features, n), dtype=np.float32)
        columns -= np.float32(0.5)
        p = 1 / (1 + np.exp(-(self.weights @ columns).astype(np.float64)))
        return columns, (rng.random(n) < p).astype(np.int64), p


@dataclass(frozen=True)
class Written:
    """Rows and bytes of a file, and the accuracy of who knows the planted weights: that of the likelier label."""

    rows: int
    nbytes: int
    right: int


def write_file(planted: Planted, folder: str, part: int, rows: int) -> Written:
    """Write file number ``part``; group by group, so that a worker holds one group of rows at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = os.path.join(folder, f"part-{part:04d}.parquet")
    names = [f"x{j}" for j in range(planted.n_features)]
    kinds = [pa.float32()] * len(names) + [pa.int64()]
    schema = pa.schema([pa.field(n, k, nullable=False) for n, k in zip([*names, "label"], kinds, strict=True)])
    right = 0
    # Random floats neither pack nor repeat: packing them would only cost time.
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False, write_statistics=False) as writer:
        for group, start in enumerate(range(0, rows, _GROUP_ROWS)):
            columns, y, p = planted.draw(part * 1_000_000 + group, min(_GROUP_ROWS, rows - start))
            writer.write_table(pa.Table.from_arrays([*map(pa.array, columns), pa.array(y)], schema=schema))
            right += int(((p > 0.5) == y).sum())
    return Written(rows, os.path.getsize(path), right)


def file_rows(planted: Planted, total_bytes: float) -> list[int]:
    """Rows of each file of a data set of about ``total_bytes``."""
    rows = max(int(total_bytes // planted.row_bytes), 1)
    n = max(1, int(np.ceil(rows * planted.row_bytes / _FILE_BYTES)))
    return [rows * (i + 1) // n - rows * i // n for i in range(n)]
