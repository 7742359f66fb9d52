"""The pipeline from a table's columns to the numbers a linear model takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from dask.delayed import delayed
from dask_ml.impute import SimpleImputer
from dask_ml.preprocessing import StandardScaler
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from daskdml.data._checks import all_finite
from daskdml.io import InputError, Table
from daskdml.io._errors import unknown_name
from daskdml.preprocessing._columns import CATEGORY, NUMBER, codes_of, is_identifier, kind_of, number_names, slabs
from daskdml.preprocessing._plan import Plan, decide
from daskdml.preprocessing._survey import Survey, survey

_OTHER, _MISSING = "infrequent", "missing"


class TablePipeline(TransformerMixin, BaseEstimator):
    """Encode the columns of a DataFrame as float32 features, fitted in one pass over the data.

    Numbers and booleans: missing values become the mean (dask-ml's SimpleImputer), counters that spread over
    orders of magnitude their log1p, and all are standardised (dask-ml's StandardScaler); a constant column
    becomes zeros. Times become a trend and their place in the day and the week; time spans seconds. Text and
    categories become one-hot columns of the most frequent names, with a column for the others together and, where
    training rows lack it, one for a missing value; a name never seen is one of the others, or all zeros.

    The dask-ml transformers hold the fitted state and transform the blocks, but are given their statistics
    rather than fitted: each ``fit`` of theirs is a pass over the data, ``StandardScaler`` refuses gaps in arrays
    and Dask ``OneHotEncoder`` refuses names it has not seen and pandas' strings; here one pass does for all.

    Parameters
    ----------
    max_categories : int, default 100
        One-hot columns of a text column at most.
    min_frequency : int, default 2
        Rows a name must have to get its own column.
    categorical : sequence of str, default ()
        Numeric columns to take as categories (codes of zones, say).
    numeric : sequence of str, default ()
        Columns to take as the numbers they are, although they are called identifiers. Otherwise a number whose
        name ends in "ID", "Id" or "_id" (``PULocationID``, ``shop_id``) names a thing, and is a category.
    max_dense : int, default 512
        With more one-hot columns than this the output is CSR, else dense.

    clip : float, default 10.0
        Standardised numbers are cut to so many standard deviations: one value 500 deviations out, as rare flags
        have, would undo what thousands of rows have taught.

    Attributes
    ----------
    feature_names_in_ : ndarray of str
        The columns ``transform`` needs; others are left alone.
    imputer_, scaler_ : dask_ml.impute.SimpleImputer, dask_ml.preprocessing.StandardScaler
        Of the numeric features.
    log_ : ndarray of bool
        Which numeric features are taken by their logarithm.
    categories_ : dict of str to list of str
        The names that have a column.

    Examples
    --------
    >>> import pandas as pd
    >>> from daskdml.preprocessing import TablePipeline
    >>> table = pd.DataFrame({"size": [1.0, None, 3.0, 2.0], "colour": ["red", "blue", "red", "blue"]})
    >>> pipeline = TablePipeline().fit(table)
    >>> pipeline.get_feature_names_out().tolist()
    ['size', 'colour=blue', 'colour=red']
    >>> pipeline.transform(table)[1].tolist()
    [0.0, 1.0, 0.0]
    """

    def __init__(
        self,
        *,
        max_categories: int = 100,
        min_frequency: int = 2,
        categorical: Sequence[str] = (),
        numeric: Sequence[str] = (),
        max_dense: int = 512,
        clip: float = 10.0,
    ) -> None:
        self.max_categories = max_categories
        self.min_frequency = min_frequency
        self.categorical = categorical
        self.numeric = numeric
        self.max_dense = max_dense
        self.clip = clip

    def fit(self, X: Any, y: Any = None) -> TablePipeline:
        """Survey a dask or pandas DataFrame in one pass, and decide. ``y`` is not looked at."""
        table = Table.from_frame(X)
        kinds = self.kinds(table.meta)
        if isinstance(X, pd.DataFrame):
            return self.fit_survey(survey(X, kinds), kinds)
        import dask

        found = dask.compute(*[delayed(survey)(part, kinds, i) for i, part in enumerate(table.parts)])
        whole = Survey.empty(len(number_names(kinds)))
        for one in found:
            whole.add(one)
        return self.fit_survey(whole, kinds)

    def kinds(self, meta: pd.DataFrame) -> dict[str, str]:
        """The kind of each column, from the dtypes of ``meta`` and ``categorical``."""
        if not len(meta.columns):
            raise InputError("the table has no columns besides the target; there is nothing to learn from")
        for name in (*self.categorical, *self.numeric):
            if name not in meta.columns:
                raise unknown_name("column", name, meta.columns, "the table")
        return {str(c): self._kind(c, meta.dtypes.iloc[i]) for i, c in enumerate(meta)}

    def _kind(self, column: Any, dtype: Any) -> str:
        if column in self.categorical:
            return CATEGORY
        kind = kind_of(dtype)
        if kind == CATEGORY and column in self.numeric:
            raise InputError(
                f"column {column!r} has the type {dtype}, which is not taken as a number; convert it first, or leave "
                f"out --numeric {column}"
            )
        if kind == NUMBER and column not in self.numeric and is_identifier(str(column)):
            return CATEGORY
        return kind

    def fit_survey(self, found: Survey, kinds: dict[str, str]) -> TablePipeline:
        """Decide from a survey made elsewhere, as by a pass that also holds a test part out."""
        plan = decide(found, kinds, self.max_categories, self.min_frequency)
        self.kinds_ = dict(kinds)
        self.feature_names_in_ = np.array(list(kinds), dtype=object)
        self.n_features_in_ = len(kinds)
        self.log_ = plan.log
        self.categories_, self.infrequent_, self.missing_ = plan.categories, plan.infrequent, plan.missing
        self.imputer_, self.scaler_ = _steps(plan, found.rows)
        self.sparse_output_ = self._onehot_width() > self.max_dense
        return self

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the features: ``column``, ``log1p(column)`` or ``column=name``."""
        check_is_fitted(self)
        if input_features is not None and list(input_features) != list(self.feature_names_in_):
            raise ValueError("input_features is not equal to feature_names_in_")
        numbers = [f"log1p({n})" if log else n for n, log in zip(number_names(self.kinds_), self.log_, strict=True)]
        return np.array(numbers + [f"{c}={name}" for c in self.categories_ for name in self._slots(c)], dtype=object)

    def transform(self, X: Any) -> Any:
        """The features: of pandas a float32 array (CSR where wide), of dask a lazy array of such blocks."""
        check_is_fitted(self)
        if isinstance(X, pd.DataFrame):
            return self.encode(X)
        return blocks(Table.from_frame(X).parts, self, len(self.get_feature_names_out()))

    def encode(self, frame: pd.DataFrame, chosen: np.ndarray | None = None) -> Any:
        """The features of the rows ``chosen`` (positions in rising order; default all), without a copy of those rows.

        Examples
        --------
        >>> import numpy as np, pandas as pd
        >>> from daskdml.preprocessing import TablePipeline
        >>> table = pd.DataFrame({"size": [1.0, 3.0]})
        >>> TablePipeline().fit(table).encode(table, np.array([1])).tolist()
        [[1.0]]
        """
        for name in self.feature_names_in_:
            if name not in frame.columns:
                raise unknown_name("column", name, frame.columns, "the table, which the model was trained on")
        frame = frame[list(self.feature_names_in_)]
        numbers = self._numbers(frame, chosen)
        if not self.categories_:
            return numbers
        texts = {c: frame[c] if chosen is None else frame[c].iloc[chosen] for c in self.categories_}
        codes = {c: self._codes(values, c) for c, values in texts.items()}
        return self._csr(numbers, codes) if self.sparse_output_ else self._dense(numbers, codes)

    def _numbers(self, frame: pd.DataFrame, chosen: np.ndarray | None) -> np.ndarray:
        extra = 0 if self.sparse_output_ else self._onehot_width()
        width = len(self.log_)
        out = np.empty((len(frame) if chosen is None else len(chosen), width + extra), dtype=np.float32)
        out[:, width:] = 0
        if not width:
            return out
        logs = np.flatnonzero(self.log_)
        at = 0
        for slab in slabs(frame, self.kinds_, chosen):
            if logs.size:
                slab[:, logs] = np.log1p(np.maximum(slab[:, logs], 0))
            if not all_finite(slab):
                slab = self._filled(slab)
            slab = self.scaler_.transform(slab)
            out[at : at + len(slab), :width] = np.clip(slab, -self.clip, self.clip, out=slab)
            at += len(slab)
        return out

    def _filled(self, slab: np.ndarray) -> np.ndarray:
        infinite = np.isinf(slab).any(axis=0)
        if infinite.any():
            name = number_names(self.kinds_)[int(np.flatnonzero(infinite)[0])]
            raise InputError(f"column {name!r} holds an infinity; replace infinities, for example by missing values")
        return self.imputer_.transform(slab)

    def _slots(self, column: str) -> list[str]:
        other, gap = column in self.infrequent_, column in self.missing_
        return [*self.categories_[column], *[_OTHER] * other, *[_MISSING] * gap]

    def _onehot_width(self) -> int:
        return sum(len(self._slots(c)) for c in self.categories_)

    def _codes(self, values: pd.Series, column: str) -> np.ndarray:
        """The slot of each row, -1 where it has none."""
        known = {name: i for i, name in enumerate(self.categories_[column])}
        other = len(known) if column in self.infrequent_ else -1
        gap = len(known) + (column in self.infrequent_) if column in self.missing_ else -1
        codes, names = codes_of(values)
        slot = np.array([known.get(n, other) for n in names] + [gap], dtype=np.int64)
        return slot[codes]

    def _dense(self, out: np.ndarray, codes: dict[str, np.ndarray]) -> np.ndarray:
        at = len(self.log_)
        for column, code in codes.items():
            rows = np.flatnonzero(code >= 0)
            out[rows, at + code[rows]] = 1
            at += len(self._slots(column))
        return out

    def _csr(self, numbers: np.ndarray, codes: dict[str, np.ndarray]) -> sparse.csr_matrix:
        n = len(numbers)
        pieces, at = [sparse.csr_matrix(numbers)], 0
        for column, code in codes.items():
            rows, width = np.flatnonzero(code >= 0), len(self._slots(column))
            ones = np.ones(len(rows), dtype=np.float32)
            pieces.append(sparse.csr_matrix((ones, (rows, code[rows])), shape=(n, width)))
            at += width
        out = sparse.hstack(pieces, format="csr", dtype=np.float32)
        out.indices, out.indptr = out.indices.astype(np.int32), out.indptr.astype(np.int32)
        return out


def blocks(parts: Sequence[Any], transformer: Any, width: int) -> Any:
    """A lazy dask array, one row block a part, of unknown lengths."""
    import dask.array as da

    encode = delayed(transformer.transform, pure=True)
    empty = sparse.csr_matrix((0, 0), dtype=np.float32) if transformer.sparse_output_ else np.empty((0, 0), np.float32)
    arrays = [da.from_delayed(encode(part), (np.nan, width), dtype=np.float32, meta=empty) for part in parts]
    return da.concatenate(arrays, allow_unknown_chunksizes=True) if len(arrays) > 1 else arrays[0]


def _steps(plan: Plan, rows: int) -> tuple[SimpleImputer, StandardScaler]:
    width = len(plan.mean)
    imputer, scaler = SimpleImputer(), StandardScaler()
    if width:
        imputer.fit(plan.mean[None, :])
    scaler.mean_, scaler.scale_, scaler.var_ = plan.mean, plan.scale, plan.scale**2
    scaler.n_samples_seen_, scaler.n_features_in_ = rows, width
    return imputer, scaler
