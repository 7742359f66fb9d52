"""The estimator that options ask for; what it cannot be is said before any data are read."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskdml.io import InputError
from daskdml.io._errors import unknown_name
from daskdml.workflow._models import DEFAULTS, MODELS, check_name, choose
from daskdml.workflow._options import TrainOptions
from daskdml.workflow._target import CLASSIFICATION, TASKS

# Given in two places, one would win in silence.
_OPTIONS = {
    "checkpoint": "checkpoint",
    "checkpoint_every": "checkpoint-every",
    "max_iter": "epochs",
    "random_state": "seed",
    "strategy": "strategy",
    "verbose": "quiet",
}


def check_params(settings: TrainOptions) -> None:
    """Raise :class:`InputError` for a model or parameters that no task the target may turn out to be can have."""
    for name, option in _OPTIONS.items():
        if name in settings.params:
            value = settings.params[name]
            raise InputError(f"--param {name}={value}: {name} has an option of its own; use --{option}")
    tasks = [settings.task] if settings.task is not None else list(TASKS)
    if settings.model is not None:
        check_name(settings.model)
        tasks = [t for t in tasks if t == MODELS[settings.model].task] or tasks
    complaints: list[InputError] = []
    for task in tasks:
        try:
            build(task, choose(settings.model, task)[1].loss, settings)
        except InputError as error:
            complaints.append(error)
    if len(complaints) == len(tasks):
        raise complaints[0]


def build(task: str, loss: str, settings: TrainOptions) -> Any:
    """The estimator of a task, not fitted, all its parameters checked."""
    from daskdml.linear_model import SGDClassifier, SGDRegressor

    estimator = (SGDClassifier if task == CLASSIFICATION else SGDRegressor)(
        loss=loss,
        max_iter=settings.epochs,
        random_state=settings.seed,
        strategy=strategy_of(settings.strategy, settings.replicas, settings.staleness),
        verbose=int(settings.progress),
        checkpoint=settings.checkpoint,
        checkpoint_every=settings.checkpoint_every,
    )
    known = sorted(set(estimator.get_params(deep=False)) - set(_OPTIONS))
    for name in settings.params:
        if name not in known:
            raise _unknown(name, known)
    estimator.set_params(**{**DEFAULTS, **settings.params})
    try:
        _check(estimator, task)
    except (ValueError, TypeError) as error:
        raise InputError(f"the model cannot be trained so: {' '.join(str(error).split())}") from None
    return estimator


def _unknown(name: str, known: list[str]) -> InputError:
    error = unknown_name("parameter", name, known, "the model")
    return (
        error
        if "did you mean" in str(error)
        else InputError(f"no parameter {name!r} in the model; there are: {', '.join(known)}")
    )


def _check(estimator: Any, task: str) -> None:
    """All that a fit checks before it looks at its data."""
    from daskdml.data import budget_bytes
    from daskdml.models import LinearModel
    from daskdml.monitor import CallbackList
    from daskdml.numerics import BINARY, REGRESSION

    estimator._validate_params()
    estimator._check_parameters()
    CallbackList(estimator.callbacks)
    if estimator.memory_budget is not None:
        budget_bytes(estimator.memory_budget)
    settings = estimator._settings(BINARY if task == CLASSIFICATION else REGRESSION, False)
    # How many features and classes there are is not known yet, and no strategy minds.
    estimator.strategy.check(LinearModel(settings, 1, 1, np.dtype(np.float32), np.ones(1), np.ones(1)))


def strategy_of(name: str, replicas: int | None, staleness: int | None = None) -> Any:
    """The strategy object of a name."""
    from daskdml.strategies import STRATEGIES

    if name not in STRATEGIES:
        raise InputError(f"unknown strategy {name!r}; it is one of {', '.join(STRATEGIES)}")
    more = {} if staleness is None else {"staleness": staleness}
    return STRATEGIES[name](n_replicas=replicas, **more)
