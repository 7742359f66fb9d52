"""What a model's name on the command line means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from daskdml.io import InputError
from daskdml.workflow._target import CLASSIFICATION, REGRESSION


@dataclass(frozen=True)
class Choice:
    """A task and a loss; ``multiclass`` takes the loss's place where there are three classes or more."""

    task: str
    loss: str
    multiclass: str | None = None


MODELS = {
    "logistic": Choice(CLASSIFICATION, "log_loss", "multinomial"),
    "svm": Choice(CLASSIFICATION, "hinge"),
    "modified_huber": Choice(CLASSIFICATION, "modified_huber"),
    "perceptron": Choice(CLASSIFICATION, "perceptron"),
    "linear": Choice(REGRESSION, "squared_error"),
    "huber": Choice(REGRESSION, "huber"),
    "svr": Choice(REGRESSION, "epsilon_insensitive"),
}
_DEFAULT = {CLASSIFICATION: "logistic", REGRESSION: "linear"}

# Found by trying on covtype and a9a, standardised. Nothing is claimed for tables unlike these two: --param
# changes each.
DEFAULTS: dict[str, Any] = {"alpha": 1e-5, "learning_rate": "adagrad", "coordinate_eta0": 0.2}


def choose(name: str | None, task: str) -> tuple[str, Choice]:
    """The model for a task: the one asked for, checked, or the usual one."""
    name = name or _DEFAULT[task]
    check_name(name)
    if MODELS[name].task != task:
        fitting = [n for n, c in MODELS.items() if c.task == task]
        raise InputError(
            f"the model {name!r} is for {MODELS[name].task}, the task is {task}; choose {' or '.join(fitting)}"
        )
    return name, MODELS[name]


def check_name(name: str) -> None:
    """Raise :class:`InputError` for a model there is not."""
    if name not in MODELS:
        raise InputError(f"unknown model {name!r}; it is one of {', '.join(MODELS)}")
