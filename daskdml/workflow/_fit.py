"""The estimator of a problem, fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from daskdml.checkpoint import CheckpointError
from daskdml.io import InputError
from daskdml.workflow._errors import RunError
from daskdml.workflow._estimator import build
from daskdml.workflow._models import Choice
from daskdml.workflow._units import Units


@dataclass(frozen=True)
class Problem:
    """A task, the model for it, of a classification the classes, and of a regression the units of the target."""

    task: str
    model: str
    choice: Choice
    classes: np.ndarray | None
    units: Units | None = None


def fit_estimator(X: Any, y: Any, problem: Problem, settings: Any) -> Any:
    """Train on lazy X and y, of a regression the standardised one; the estimator is in the target's own units.

    What goes wrong in a block becomes one :class:`RunError`.
    """
    estimator = build(problem.task, loss_of(problem), settings)
    if problem.units is not None:
        problem.units.enter(estimator, settings.params)
    try:
        estimator.fit(X, y, resume=settings.resume)
    except CheckpointError as error:
        raise InputError(str(error)) from None
    if not np.isfinite(estimator.coef_).all():
        raise RunError("the training diverged: lower the step, for example --param coordinate_eta0=0.01")
    if problem.units is not None:
        problem.units.leave(estimator)
    return estimator


def loss_of(problem: Problem) -> str:
    """The estimator's loss: softmax takes the place of the logistic loss for three classes or more."""
    several = problem.classes is not None and len(problem.classes) > 2
    return problem.choice.multiclass if several and problem.choice.multiclass else problem.choice.loss
