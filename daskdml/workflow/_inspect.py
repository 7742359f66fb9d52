"""What a model file holds."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from daskdml.workflow._predict import load_trained
from daskdml.workflow._trained import TrainedModel


@dataclass(frozen=True)
class Coefficient:
    """A weight: of a feature and, where there are three classes or more, for a class."""

    feature: str
    value: float
    label: str | None = None


@dataclass(frozen=True)
class Inspection:
    """The contents of a model in plain types."""

    task: str
    target: str | None
    classes: list[Any] | None
    columns: list[str]
    n_features: int
    estimator: str
    params: dict[str, Any]
    training: dict[str, Any]
    versions: dict[str, str]
    coefficients: list[Coefficient]

    def to_json(self) -> dict[str, Any]:
        """Nested plain dicts."""
        return asdict(self)


def inspect(model: str | os.PathLike | TrainedModel, top: int = 10) -> Inspection:
    """Describe a model of :func:`train`.

    Parameters
    ----------
    model : path or TrainedModel
    top : int, default 10
        How many of the largest weights to list.

    Returns
    -------
    Inspection

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from daskdml.workflow import inspect, train
    >>> table = pd.DataFrame({"x": np.linspace(-1, 1, 100)}).assign(y=lambda t: 2 * t.x + 0.5)
    >>> found = inspect(train(table, "y", epochs=5, test_size=0).model)
    >>> found.task, found.columns, found.coefficients[0].feature
    ('regression', ['x'], 'x')
    """
    trained = model if isinstance(model, TrainedModel) else load_trained(model)
    estimator, names = trained.estimator, trained.pipeline.get_feature_names_out()
    classes = getattr(estimator, "classes_", None)
    record = dict(trained.record)
    versions = record.pop("versions", {})
    columns = [] if trained.sparse else [str(c) for c in trained.pipeline.feature_names_in_]
    return Inspection(
        task=trained.task,
        target=trained.target,
        classes=None if classes is None else classes.tolist(),
        columns=columns,
        n_features=len(names),
        estimator=type(estimator).__name__,
        params={
            k: v if isinstance(v, (int, float, str, bool, type(None))) else repr(v) for k, v in _changed(estimator)
        },
        training=record,
        versions=versions,
        coefficients=_top(np.atleast_2d(estimator.coef_), names, classes, top),
    )


def _changed(estimator: Any) -> list[tuple[str, Any]]:
    """The parameters that are not the estimator's defaults."""
    defaults = type(estimator)().get_params(deep=False)
    return [(k, v) for k, v in estimator.get_params(deep=False).items() if v is not defaults[k] and v != defaults[k]]


def _top(weights: np.ndarray, names: np.ndarray, classes: np.ndarray | None, top: int) -> list[Coefficient]:
    size = np.abs(weights).ravel()
    order = np.argsort(-size, kind="stable")[: max(top, 0)]
    several = classes is not None and len(weights) > 1
    return [
        Coefficient(
            str(names[i % weights.shape[1]]),
            float(weights.ravel()[i]),
            str(classes[i // weights.shape[1]]) if several and classes is not None else None,
        )
        for i in order
    ]
