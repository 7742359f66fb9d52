"""The labels of a classification: which there are, how many of each, and their codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils.multiclass import unique_labels

from daskdml.data import codes_in


@dataclass(frozen=True, eq=False)
class Labels:
    """``classes`` sorted; ``counts`` of each where they were counted; ``y`` where it is in memory."""

    classes: np.ndarray
    counts: np.ndarray | None = None
    y: np.ndarray | None = None

    @classmethod
    def known(cls, estimator: Any, classes: Any) -> Any:
        """The classes of a partial_fit: those of the first call, which later ones may only repeat."""
        before = getattr(estimator, "classes_", None)
        if before is None and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if classes is None:
            return before
        given = unique_labels(classes)
        if before is not None and not np.array_equal(before, given):
            raise ValueError(f"`classes={classes!r}` is not the same as on last call to partial_fit, was: {before!r}")
        return given

    def check(self) -> None:
        """Raise ValueError for fewer than two classes."""
        if self.counts is not None and not len(self.classes):
            raise ValueError(
                "Found array with 0 sample(s) while a minimum of 1 is required: no block of the data has a row"
            )
        if len(self.classes) < 2:
            raise ValueError(
                f"The number of classes has to be greater than one; got {len(self.classes)} class"
                + (f" ({self.classes.tolist()[0]!r})" if len(self.classes) else "")
            )

    def codes(self, dtype: np.dtype) -> np.ndarray:
        """``y`` as codes 0..n_classes-1."""
        assert self.y is not None
        codes = codes_in(self.classes, self.y, dtype)
        if codes is None:
            unknown = sorted(set(np.setdiff1d(self.y, self.classes).tolist()))
            raise ValueError(f"y contains labels that are not in classes {self.classes!r}: {unknown}")
        return codes

    @staticmethod
    def canonical(X: Any) -> Any:
        """A CSR matrix with each column at most once a row, as the kernels want it."""
        if not X.has_canonical_format:
            X = X.copy()
            X.sum_duplicates()
        return X
