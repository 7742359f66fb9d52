"""Scaling of sparse rows, which keeps them sparse."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from daskdml.io import InputError


class SparseScaler(TransformerMixin, BaseEstimator):
    """Divide each feature of CSR blocks by its largest absolute value; zeros stay zeros.

    Features within [-1, 1] already, such as 0/1 indicators or normalised texts, are left as they are, for a rare
    feature's small values are small on purpose.

    Attributes
    ----------
    scale_ : ndarray
        What each feature is divided by.

    Examples
    --------
    >>> from scipy.sparse import csr_matrix
    >>> from daskdml.preprocessing import SparseScaler
    >>> X = csr_matrix([[4.0, 0.0], [2.0, 0.5]])
    >>> SparseScaler().fit(X).transform(X).toarray().tolist()
    [[1.0, 0.0], [0.5, 0.5]]
    """

    sparse_output_ = True

    def fit(self, X: Any, y: Any = None) -> SparseScaler:
        """Find the largest absolute values of a CSR matrix. ``y`` is not looked at."""
        return self.fit_largest(largest(X))

    def fit_largest(self, top: np.ndarray, zero_based: bool = False) -> SparseScaler:
        """Take the largest absolute values found elsewhere, block by block."""
        bad = np.flatnonzero(~np.isfinite(top))
        if bad.size:
            raise InputError(f"feature {bad[0] + (not zero_based)} holds a NaN or an infinity; mend the file")
        self.scale_ = np.where(top > 1, top, 1.0).astype(np.float32)
        self.n_features_in_ = len(top)
        self.zero_based_ = bool(zero_based)
        return self

    def transform(self, X: Any) -> Any:
        """The scaled float32 CSR matrix; of a dask array of CSR blocks a lazy one."""
        check_is_fitted(self)
        if X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {X.shape[1]} features, but SparseScaler is expecting {self.n_features_in_} features"
            )
        if hasattr(X, "map_blocks"):
            return X.map_blocks(self.transform, dtype=np.float32)
        X = sparse.csr_matrix(X, dtype=np.float32)
        if (self.scale_ == 1).all():
            return X
        return sparse.csr_matrix((X.data / self.scale_[X.indices], X.indices, X.indptr), shape=X.shape)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """The numbers of the features as the file writes them."""
        check_is_fitted(self)
        if input_features is not None:
            return np.asarray(input_features, dtype=object)
        return np.array([str(i + (not self.zero_based_)) for i in range(self.n_features_in_)], dtype=object)


def largest(X: Any) -> np.ndarray:
    """Largest absolute value of each column of a CSR matrix, NaN where one is."""
    top = np.zeros(X.shape[1])
    with np.errstate(invalid="ignore"):  # a NaN is kept, and refused later by name
        np.maximum.at(top, X.indices, np.abs(X.data))
    return top
