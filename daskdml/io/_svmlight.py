"""svmlight files as bounded CSR parts."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import partial

import dask
import numpy as np
import pandas as pd
from dask.delayed import delayed
from scipy import sparse
from sklearn.datasets import load_svmlight_file

from daskdml.io._bytes import LineRange, line_ranges
from daskdml.io._errors import InputError
from daskdml.io._table import Table

_MAX_FEATURES = 2**31 - 1


@dataclass(frozen=True)
class Extent:
    """What one range of lines holds."""

    rows: int
    smallest: int
    largest: int

    def __or__(self, other: Extent) -> Extent:
        return Extent(self.rows + other.rows, min(self.smallest, other.smallest), max(self.largest, other.largest))


def read_svmlight(
    paths: list[str], block_bytes: int, source: str, n_features: int | None = None, zero_based: bool | None = None
) -> Table:
    """Ranges of lines become (CSR matrix, labels) parts, all with the same number of features.

    Unless ``n_features`` is given, the files are read once to find the largest index: every part must have the
    same columns. Files whose smallest index is 0 count from 0, others from 1, as in scikit-learn.
    """
    ranges = [r for path in paths for r in line_ranges(path, block_bytes)]
    rows = None
    if n_features is None or zero_based is None:
        extents = dask.compute(*[delayed(measure, pure=True)(r) for r in ranges])
        whole = extents[0]
        for extent in extents[1:]:
            whole = whole | extent
        if not whole.rows:
            raise InputError(f"{source} holds no rows; there is nothing to read")
        rows, zero_based = whole.rows, whole.smallest == 0
        n_features = max(whole.largest + 1 if zero_based else whole.largest, 1)
    loaders = [partial(load_rows, r, n_features, zero_based) for r in ranges]
    names = pd.DataFrame(columns=[str(i + (not zero_based)) for i in range(n_features)], dtype=np.float32)
    return Table.of_loaders(loaders, names, source, sparse=True, zero_based=zero_based, rows=rows)


def measure(lines: LineRange) -> Extent:
    """Rows, smallest and largest index of a range; indices are as written in the file."""
    X, _ = _parse(lines, zero_based=True)
    if not X.nnz:
        return Extent(X.shape[0], _MAX_FEATURES, 0)
    return Extent(X.shape[0], int(X.indices.min()), int(X.indices.max()))


def load_rows(lines: LineRange, n_features: int, zero_based: bool) -> tuple[sparse.csr_matrix, np.ndarray]:
    """The rows of a range as a float32 CSR matrix of ``n_features`` columns, and their labels.

    Features beyond ``n_features`` are left out, with a warning: a model has no weights for them.
    """
    X, y = _parse(lines, zero_based)
    if X.shape[1] > n_features:
        extra = int((X.indices >= n_features).sum())
        if extra:
            warnings.warn(
                f"{lines.path}: {extra} values of features beyond the {n_features} known ones are left out",
                stacklevel=2,
            )
        X = X[:, :n_features]
    X = sparse.csr_matrix(
        (X.data, X.indices.astype(np.int32), X.indptr.astype(np.int32)), shape=(X.shape[0], n_features)
    )
    X.sort_indices()
    return X, y


def _parse(lines: LineRange, zero_based: bool) -> tuple[sparse.csr_matrix, np.ndarray]:
    body = lines.read()
    if not body.strip():
        return sparse.csr_matrix((0, 1), dtype=np.float32), np.empty(0)
    try:
        X, y = load_svmlight_file(io.BytesIO(body), dtype=np.float32, zero_based=zero_based)
    except (ValueError, OverflowError) as error:
        raise _explained(error, body, lines, zero_based) from None
    return X, np.asarray(y, dtype=np.float64)


def _explained(error: Exception, body: bytes, lines: LineRange, zero_based: bool) -> InputError:
    """Parse line by line, now that one is known to be wrong, to name it."""
    first = lines.first_line_number()
    for i, line in enumerate(body.splitlines()):
        try:
            load_svmlight_file(io.BytesIO(line + b"\n"), zero_based=zero_based)
        except (ValueError, OverflowError) as reason:
            shown = line[:60].decode("utf-8", "replace")
            return InputError(
                f"{lines.path}, line {first + i}: {shown!r} is no svmlight row ({reason}); mend or remove it"
            )
    return InputError(f"{lines.path}: {error}; mend the lines from {first} on")
