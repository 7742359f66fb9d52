"""What the kernels of a linear model are told (settings) and what they change (state)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

NO_PENALTY, L1, L2, ELASTICNET = 0, 1, 2, 3
PENALTIES = {"none": NO_PENALTY, "l1": L1, "l2": L2, "elasticnet": ELASTICNET}

CONSTANT, OPTIMAL, INVSCALING, ADAPTIVE, PA1, PA2, ADAGRAD, NORMALIZED = range(1, 9)
SCHEDULES = {
    "constant": CONSTANT,
    "optimal": OPTIMAL,
    "invscaling": INVSCALING,
    "adaptive": ADAPTIVE,
    "pa1": PA1,
    "pa2": PA2,
    "adagrad": ADAGRAD,
    "normalized": NORMALIZED,
}

REGRESSION, BINARY, ONE_VERSUS_ALL, SOFTMAX = 0, 1, 2, 3


class Needs(NamedTuple):
    """Which rarer parts a kernel is compiled with: True, and settings say at run time; or None, and it has none.

    None is another type than True, so numba makes a smaller kernel: a first fit waits for what it needs only.
    """

    softmax: bool | None = True
    independent: bool | None = True  # losses of one problem each
    mean: bool | None = True  # a running mean of the parameters
    lasso: bool | None = True  # the cumulative l1 penalty
    passive: bool | None = True  # the passive-aggressive rules
    scales: bool | None = True  # of the features, for the normalized rate


class Settings(NamedTuple):
    """How a linear model is trained; numbers only, so that one compiled kernel takes them all."""

    loss: int
    mode: int
    epsilon: float = 0.1
    penalty: int = L2
    alpha: float = 1e-4
    l1_ratio: float = 0.0
    schedule: int = OPTIMAL
    eta0: float = 0.01
    power_t: float = 0.5
    fit_intercept: bool = True
    intercept_decay: float = 1.0
    average: int = 0
    first_class: int = 0  # of the problems at hand, where one-versus-all problems are divided among threads
    needs: Needs = Needs()


class State(NamedTuple):
    """The parameters and all that the optimizer remembers, for K linear problems over d features.

    Arrays a setting does not use have length 0. All change in place.
    """

    coef: np.ndarray  # (K, d)
    intercept: np.ndarray  # (K,)
    clock: np.ndarray  # (2,): rows seen plus 1; sum over rows and features of (x / scale)^2
    eta: np.ndarray  # (K,): present learning rate, of the schedules that keep one
    average_coef: np.ndarray  # (K, d): (average_coef + lag coef) / scale is the running mean of coef
    average_intercept: np.ndarray  # (K,)
    average_lag: np.ndarray  # (K,)
    average_scale: np.ndarray  # (K,)
    l1_applied: np.ndarray  # (K, d): cumulative penalty each weight has received
    l1_total: np.ndarray  # (K,): cumulative penalty each weight could have received
    squares: np.ndarray  # (K, d): sum of squared gradients
    intercept_squares: np.ndarray  # (K,)
    scale: np.ndarray  # (d,): largest |x| seen


def init_state(n_problems: int, n_features: int, dtype: np.dtype, settings: Settings) -> State:
    """A state with all parameters zero."""
    shape = (n_problems, n_features)

    def matrix(used: bool) -> np.ndarray:
        return np.zeros(shape if used else (0, 0), dtype=dtype)

    def vector(used: bool) -> np.ndarray:
        return np.zeros(n_problems if used else 0)

    adaptive = settings.schedule in (ADAGRAD, NORMALIZED)
    truncated = settings.penalty in (L1, ELASTICNET) and not adaptive
    return State(
        coef=matrix(True),
        intercept=vector(True),
        clock=np.array([1.0, 0.0]),
        eta=np.full(n_problems, settings.eta0),
        average_coef=matrix(settings.average > 0),
        average_intercept=vector(settings.average > 0),
        average_lag=vector(settings.average > 0),
        average_scale=vector(settings.average > 0) + 1.0,
        l1_applied=matrix(truncated),
        l1_total=vector(truncated),
        squares=matrix(adaptive),
        intercept_squares=vector(adaptive),
        scale=np.zeros(n_features if settings.schedule == NORMALIZED else 0, dtype=dtype),
    )


def narrowed(settings: Settings) -> Settings:
    """The same settings, for kernels with no more than they need."""

    def where(used: bool) -> bool | None:
        return True if used else None

    scalar = settings.schedule not in (ADAGRAD, NORMALIZED)
    needs = Needs(
        softmax=where(settings.mode == SOFTMAX),
        independent=where(settings.mode != SOFTMAX),
        mean=where(settings.average > 0),
        lasso=where(settings.penalty in (L1, ELASTICNET) and scalar),
        passive=where(settings.schedule in (PA1, PA2)),
        scales=where(settings.schedule == NORMALIZED),
    )
    return settings._replace(needs=needs)


def is_plain(settings: Settings, n_problems: int) -> bool:
    """Whether the kernel of the common case does what ``settings`` say."""
    return n_problems == 1 and _is_common(settings)


def is_many(settings: Settings, n_problems: int) -> bool:
    """Whether the kernel of several problems does what ``settings`` say."""
    return n_problems > 1 and _is_common(settings) and settings.mode in (ONE_VERSUS_ALL, SOFTMAX)


def _is_common(settings: Settings) -> bool:
    return settings.schedule in (CONSTANT, OPTIMAL, INVSCALING, ADAPTIVE) and settings.penalty in (NO_PENALTY, L2)


def settle(state: State) -> State:
    """A state whose running mean is in ``average_coef`` itself, so that it can be shown, or averaged with others."""
    if not len(state.average_lag):
        return state
    mean = (state.average_coef + state.average_lag[:, None] * state.coef) / state.average_scale[:, None]
    return state._replace(
        average_coef=mean.astype(state.coef.dtype),
        average_lag=np.zeros_like(state.average_lag),
        average_scale=np.ones_like(state.average_scale),
    )


def copy_state(state: State) -> State:
    """A deep copy: a task that may run twice never changes the state it was given."""
    return State._make([array.copy() for array in state])
