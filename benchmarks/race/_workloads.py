"""The rows that are raced over: three planted problems and four real ones."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.datasets import load_svmlight_file

# Beside the checkout; a set that is absent is passed over.
DATA = Path(__file__).parents[3] / "shared" / "data"
FIELDS = 39


@dataclass(frozen=True)
class Workload:
    """How rows are made: all of them, and fewer for the quick size."""

    make: Callable[[int], tuple[Any, np.ndarray]]
    full: int
    quick: int
    n_classes: int = 2
    is_real: bool = False


def correlated(n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """Standardised columns whose covariance has a condition number of about a hundred, as real tables have."""
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    X = rng.standard_normal((n, d), dtype=np.float32) @ ((turn * np.geomspace(1, 0.1, d)) @ turn.T).astype(np.float32)
    return X / X.std(axis=0)


def dense(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    d = 100 if n > 50_000 else 50
    X = correlated(n, d, rng)
    margin = X @ rng.standard_normal(d).astype(np.float32) * np.float32(2 / np.sqrt(d)) - 0.5
    return X, (margin + rng.logistic(size=n) > 0).astype(int)


def wide(n: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Rows of a click log: of each of 39 fields one category, whose frequencies follow a power law; few clicks."""
    rng = np.random.default_rng(2)
    d = 2**20 if n > 50_000 else 2**14
    size = d // FIELDS
    rank = np.exp(rng.random((n, FIELDS), dtype=np.float32) * np.log(size)).astype(np.int32) - 1
    indices = np.minimum(rank, size - 1) + np.arange(FIELDS, dtype=np.int32) * size
    w = rng.standard_normal(d).astype(np.float32) / np.sqrt(FIELDS) * 2
    margin = w[indices].sum(axis=1) - 1.5
    y = (margin + rng.logistic(size=n) > 0).astype(int)
    indptr = np.arange(n + 1, dtype=np.int32) * FIELDS
    return sparse.csr_matrix((np.ones(n * FIELDS, np.float32), indices.ravel(), indptr), shape=(n, d)), y


def multiclass(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    d = 100 if n > 50_000 else 30
    X = correlated(n, d, rng)
    scores = X @ rng.standard_normal((d, 10)).astype(np.float32) * np.float32(1.5 / np.sqrt(d))
    return X, (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)


def covtype(n: int) -> tuple[np.ndarray, np.ndarray]:
    frame = pd.read_parquet(DATA / "covtype.parquet")
    y = (frame.pop("Cover_Type").to_numpy() == 2).astype(int)
    return _some(_standard(frame.to_numpy(dtype=float)), y, n)


def kddcup99(n: int) -> tuple[np.ndarray, np.ndarray]:
    frame = pd.read_parquet(DATA / "kddcup99_train.parquet")
    y = (frame.pop("label").astype(str).str.strip() != "normal.").to_numpy().astype(int)
    text = frame.select_dtypes(exclude="number").columns
    numbers = np.log1p(frame.drop(columns=text).to_numpy(dtype=float))
    return _some(_standard(np.hstack([numbers, pd.get_dummies(frame[text].astype(str)).to_numpy(dtype=float)])), y, n)


def mnist(n: int) -> tuple[np.ndarray, np.ndarray]:
    def read(name: str, header: int) -> np.ndarray:
        return np.frombuffer(gzip.decompress((DATA / "mnist" / name).read_bytes()), np.uint8, offset=header)

    X = (read("train-images-idx3-ubyte.gz", 16).reshape(-1, 784) / 255).astype(np.float32)
    return _some(X, read("train-labels-idx1-ubyte.gz", 8).astype(int), n)


def a9a(n: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    X, y = load_svmlight_file(DATA / "a9a.gz", n_features=123, dtype=np.float32)
    return _some(sparse.csr_matrix(X), (y > 0).astype(int), n)


def _standard(X: np.ndarray) -> np.ndarray:
    """Mean 0 and deviation 1; columns that never change are left out."""
    deviation = X.std(axis=0)
    kept = deviation > 0
    return ((X[:, kept] - X[:, kept].mean(axis=0)) / deviation[kept]).astype(np.float32)


def _some(X: Any, y: np.ndarray, n: int) -> tuple[Any, np.ndarray]:
    order = np.random.default_rng(0).permutation(len(y))[:n]
    return X[order], y[order]


WORKLOADS = {
    "dense": Workload(dense, 1_000_000, 20_000),
    "wide": Workload(wide, 1_000_000, 20_000),
    "multiclass": Workload(multiclass, 300_000, 10_000, n_classes=10),
    "covtype": Workload(covtype, 1_000_000, 10_000, is_real=True),
    "kddcup99": Workload(kddcup99, 1_000_000, 10_000, is_real=True),
    "mnist": Workload(mnist, 60_000, 5_000, n_classes=10, is_real=True),
    "a9a": Workload(a9a, 1_000_000, 10_000, is_real=True),
}
