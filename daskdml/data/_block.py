"""Row blocks, and the recipes that make them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True, slots=True)
class Block:
    """Some consecutive rows of the training data, as the kernels want them.

    ``X`` is a C-contiguous ndarray or a canonical CSR matrix with 32-bit indices, of shape
    (n_rows, n_features), float32 or float64; or such an array of a GPU, where it lies and is trained on there.
    ``y`` holds, in X's dtype, the targets of a regression or the codes 0..n_classes-1 of a classification.
    ``sample_weight`` is None where every row weighs 1.
    A block is shared by every replica of a process: never written to.
    """

    index: int
    X: Any
    y: np.ndarray | None = None
    sample_weight: np.ndarray | None = None

    @property
    def n_rows(self) -> int:
        return int(self.X.shape[0])

    @property
    def nbytes(self) -> int:
        X = self.X
        # CSR matrices do not say; ndarrays, and arrays on a GPU, do.
        size = X.data.nbytes + X.indices.nbytes + X.indptr.nbytes if hasattr(X, "indptr") else X.nbytes
        return size + sum(a.nbytes for a in (self.y, self.sample_weight) if a is not None)


@dataclass(frozen=True)
class Schema:
    """What is known of X before a block is made: columns and the dtype the kernels get.

    With ``sparse`` every block's X is CSR. Without it a chunk that turns out to be sparse, though its collection
    did not say so, still becomes CSR: a block's own X decides.
    """

    n_features: int
    dtype: np.dtype
    sparse: bool = False
    feature_names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Target:
    """How y is written in a block: class codes (``classes`` sorted) or real numbers (``classes`` None)."""

    classes: np.ndarray | None = None


class Recipe(Protocol):
    """How to make one block, wherever it is needed; opaque to Dask, picklable, and free of state.

    ``rows`` is None where the length is not known before the block is made. ``inputs`` are the
    resolved values of what ``Dataset.inputs`` returned for this block; empty for a self-contained recipe.
    """

    index: int
    rows: int | None

    def resolve(self, inputs: Sequence[Any] = ()) -> Block: ...
