"""A trained model with the pipeline that feeds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from daskdml.io import InputError, Table


@dataclass
class TrainedModel:
    """What :func:`train` makes and a model file holds: pipeline, estimator, and how they came about.

    Parameters
    ----------
    pipeline : TablePipeline or SparseScaler
        From columns to features.
    estimator : SGDClassifier or SGDRegressor
        Fitted on those features.
    task : {"classification", "regression"}
    target : str or None
        Name of the target column; None for svmlight files, which have labels of their own.
    record : dict
        Rows, epochs, seconds, metrics, losses by epoch and versions of the training.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.linear_model import LinearRegression
    >>> from daskdml.preprocessing import TablePipeline
    >>> from daskdml.workflow import TrainedModel
    >>> table = pd.DataFrame({"x": [1.0, 2.0, 3.0]})
    >>> pipeline = TablePipeline().fit(table)
    >>> line = LinearRegression().fit(pipeline.transform(table), [2.0, 4.0, 6.0])
    >>> TrainedModel(pipeline, line, "regression", "y").predict(table).round(3).tolist()
    [2.0, 4.0, 6.0]
    """

    pipeline: Any
    estimator: Any
    task: str
    target: str | None
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def sparse(self) -> bool:
        """Whether the model takes CSR rows (of svmlight files) rather than DataFrames."""
        return self.target is None

    def predict(self, X: Any) -> Any:
        """Labels or numbers for a DataFrame with the training columns (CSR for a sparse model); lazy for Dask."""
        return self.estimator.predict(self.pipeline.transform(X))

    def predict_proba(self, X: Any) -> Any:
        """Probabilities of the classes, in the order of ``estimator.classes_``."""
        if not hasattr(self.estimator, "predict_proba"):
            loss = getattr(self.estimator, "loss", None)
            raise InputError(f"a model with loss {loss!r} has no probabilities; train one with --model logistic")
        return self.estimator.predict_proba(self.pipeline.transform(X))

    def features_of(self, table: Table) -> list[str] | None:
        """The columns of a table the model needs, checked to be there; None for a sparse model."""
        if self.sparse != table.sparse:
            kinds = ("svmlight files", "tables with columns")
            wanted, got = kinds if self.sparse else kinds[::-1]
            raise InputError(f"the model was trained on {wanted}, but {table.source} is of the other sort, {got}")
        if self.sparse:
            return None
        names = list(self.pipeline.feature_names_in_)
        table.check_columns(names)
        return names
