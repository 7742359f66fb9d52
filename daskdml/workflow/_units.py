"""The units of a regression's target: it is standardised to train on, and everything told is in its own units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from daskdml.workflow._target import TargetSurvey

# A loss is this power of the target's unit, its epsilon being in that unit too.
_POWER = {"squared_error": 2, "huber": 2, "epsilon_insensitive": 1, "squared_epsilon_insensitive": 2}
_WITH_EPSILON = ("huber", "epsilon_insensitive", "squared_epsilon_insensitive")
# A spread below this part of the mean is rounding: the target is constant.
_ROUNDING = 8 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Units:
    """Mean and standard deviation of the target over the training rows.

    The steps of SGD have a size that does not know the target's: one of houses' prices in dollars is never
    reached, one of seconds in a millionth overshot.

    Examples
    --------
    >>> import numpy as np
    >>> from daskdml.workflow._target import survey_target
    >>> from daskdml.workflow._units import Units
    >>> units = Units.of(survey_target(np.array([100.0, 300.0]), 0))
    >>> units, units.standardised(np.array([400.0])).tolist()
    (Units(mean=200.0, scale=100.0), [2.0])
    """

    mean: float
    scale: float

    @classmethod
    def of(cls, found: TargetSurvey) -> Units:
        """Those of a surveyed target; a constant one is only shifted."""
        scale = float(np.sqrt(found.m2 / max(found.rows, 1)))
        usable = np.isfinite(scale) and scale > _ROUNDING * abs(found.mean)
        return cls(found.mean, scale if usable else 1.0)

    def standardised(self, y: np.ndarray) -> np.ndarray:
        """The target as it is trained on."""
        return (y.astype(np.float64) - self.mean) / self.scale

    def enter(self, estimator: Any, params: dict[str, Any]) -> None:
        """Make an estimator ready to train: the epsilon that the user gave as standard deviations of the target.

        What it tells while it trains will be in the target's units.
        """
        estimator._loss_scale = self._loss_scale(estimator)
        if estimator.loss in _WITH_EPSILON and "epsilon" in params:
            estimator.epsilon = estimator.epsilon / self.scale

    def leave(self, estimator: Any) -> None:
        """Bring a fitted estimator to the target's own units: coefficients, history and epsilon."""
        for name in ("coef_", "_standard_coef", "_average_coef"):
            if hasattr(estimator, name):
                setattr(estimator, name, _like(getattr(estimator, name), self.scale))
        for name in ("intercept_", "_standard_intercept", "_average_intercept"):
            if hasattr(estimator, name):
                # In float64 whatever the features: beside a large mean float32 would lose the predictions' digits.
                setattr(estimator, name, np.asarray(getattr(estimator, name), np.float64) * self.scale + self.mean)
        if estimator.loss in _WITH_EPSILON:
            estimator.epsilon = estimator.epsilon * self.scale
        columns = ["loss", "objective"]
        estimator.history_[columns] = estimator.history_[columns] * self._loss_scale(estimator)
        del estimator._loss_scale

    def _loss_scale(self, estimator: Any) -> float:
        return self.scale ** _POWER[estimator.loss]


def _like(coef: np.ndarray, scale: float) -> np.ndarray:
    return (coef.astype(np.float64) * scale).astype(coef.dtype)
