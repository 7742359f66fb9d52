"""When to stop training: scikit-learn's rule for SGD, one decision a binary problem."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

RATE_DIVISOR = 5.0
"""What an adaptive learning rate is divided by when progress stalls."""

SMALLEST_RATE = 1e-6
"""An adaptive learning rate at or below this is not divided any more: the problem stops."""


@dataclass(frozen=True)
class StopDecision:
    """What to do with each problem after an epoch.

    ``stop`` is True for the problems that are over, now or since an earlier epoch. ``reduce_rate`` is
    True for those whose learning rate is to be divided by 5 before the next epoch; never both.
    """

    stop: npt.NDArray[np.bool_]
    reduce_rate: npt.NDArray[np.bool_]


@dataclass
class StoppingRule:
    """Stop a problem that has not improved by ``tol`` for ``n_iter_no_change`` epochs in a row.

    The comparisons are those of scikit-learn's SGD estimators. A training objective fails to improve where
    ``objective > best - tol``, a validation score where ``score < best + tol``; the best of either is kept,
    by however little it was beaten. Each problem (one for each class, one versus all) is judged by itself.

    Parameters
    ----------
    n_problems : int
        How many problems are trained side by side.
    tol : float or None, default 1e-3
        The improvement that counts, in the units of the objective or of the score; None never stops.
    n_iter_no_change : int, default 5
        Epochs in a row without improvement after which a problem stops.
    adaptive : bool, default False
        With ``learning_rate="adaptive"``: divide the rate by 5 and count anew, instead of stopping, as long
        as the rate is above 1e-6.

    Examples
    --------
    >>> import numpy as np
    >>> rule = StoppingRule(n_problems=2, tol=0.01, n_iter_no_change=2)
    >>> for objective in ([0.9, 0.9], [0.5, 0.9], [0.3, 0.9]):
    ...     decision = rule.update(np.array(objective), higher_is_better=False)
    >>> decision.stop
    array([False,  True])
    """

    n_problems: int
    tol: float | None = 1e-3
    n_iter_no_change: int = 5
    adaptive: bool = False
    best: npt.NDArray[np.float64] | None = field(default=None, init=False)
    stalled: npt.NDArray[np.int64] = field(init=False)
    stopped: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        if self.n_problems < 1:
            raise ValueError(f"n_problems must be at least 1, got {self.n_problems}")
        if self.n_iter_no_change < 1:
            raise ValueError(f"n_iter_no_change must be at least 1 epoch, got {self.n_iter_no_change}")
        self.stalled = np.zeros(self.n_problems, dtype=np.int64)
        self.stopped = np.zeros(self.n_problems, dtype=bool)

    def update(
        self,
        values: npt.ArrayLike,
        higher_is_better: bool = False,
        learning_rate: npt.ArrayLike | None = None,
    ) -> StopDecision:
        """Take note of an epoch's objectives or scores, and decide.

        Parameters
        ----------
        values : array-like of shape (n_problems,) or float
            Each problem's mean training objective or validation score; what a stopped problem reports is
            not looked at. A single number holds for every problem.
        higher_is_better : bool, default False
            True for validation scores, False for objectives. It stays the same for the life of a rule.
        learning_rate : array-like of shape (n_problems,) or float, optional
            Each problem's rate during this epoch; needed where ``adaptive``.
        """
        values = np.asarray(values, dtype=np.float64)
        if values.shape != (self.n_problems,):
            values = np.broadcast_to(values, (self.n_problems,))
        rate = self._rate(learning_rate)
        running = ~self.stopped
        stalled = (self.stalled + 1) * self._stalls(values, higher_is_better)
        np.copyto(self.stalled, stalled, where=running)
        out_of_patience = running & (self.stalled >= self.n_iter_no_change)
        if not out_of_patience.any():
            return StopDecision(stop=~running, reduce_rate=out_of_patience)
        reduce_rate = out_of_patience & (rate > SMALLEST_RATE)
        self.stalled[reduce_rate] = 0
        self.stopped |= out_of_patience & ~reduce_rate
        return StopDecision(stop=self.stopped.copy(), reduce_rate=reduce_rate)

    def progress(self) -> dict[str, Any]:
        """What it has seen, for a checkpoint."""
        best = None if self.best is None else self.best.copy()
        return {"best": best, "stalled": self.stalled.copy(), "stopped": self.stopped.copy()}

    def restore(self, progress: Mapping[str, Any]) -> None:
        """Go on from what :meth:`progress` gave."""
        self.best, self.stalled, self.stopped = (progress[name] for name in ("best", "stalled", "stopped"))

    def _rate(self, learning_rate: npt.ArrayLike | None) -> npt.NDArray[np.float64]:
        if not self.adaptive:
            return np.zeros(self.n_problems)
        if learning_rate is None:
            raise ValueError("an adaptive rule needs the learning_rate of the epoch; got None")
        return np.broadcast_to(np.asarray(learning_rate, dtype=np.float64), (self.n_problems,))

    def _stalls(self, values: npt.NDArray[np.float64], higher_is_better: bool) -> npt.NDArray[np.bool_]:
        """Which problems did not improve; the best is brought up to date."""
        if self.best is None:
            self.best = np.full(self.n_problems, -np.inf if higher_is_better else np.inf)
        best = self.best
        # Not np.maximum: a NaN does not become the best.
        self.best = (np.fmax if higher_is_better else np.fmin)(values, best)
        if self.tol is None or self.tol == -np.inf:
            return np.zeros(self.n_problems, dtype=bool)
        return values < best + self.tol if higher_is_better else values > best - self.tol
