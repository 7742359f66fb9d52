"""What more workers would bring, from what fits have taken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from daskdml.monitor._measured import Measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DRAWS = 200
_LOW, _HIGH = 5, 95
_POWERS = (1, 2, 4, 8, 16, 32, 64)
_TERMS = ("constant", "per_row", "log", "linear")


@dataclass(frozen=True, eq=False)
class ScalingEstimate:
    """What :func:`estimate_scaling` found.

    Attributes
    ----------
    table : DataFrame
        Indexed by ``workers``: ``seconds`` of an epoch, between ``low`` and ``high`` with a probability of 90 % as far
        as the model holds; ``speedup`` over one worker, and ``efficiency``, that divided by the number of workers.
    measured : DataFrame
        Indexed by ``workers``, a line for each fit: ``rows`` and ``seconds`` of an epoch, ``work`` (seconds of it that
        more workers share) and ``rest``, and what the model makes of it, ``fitted``.
    coefficients : dict of str to float
        Seconds: "constant", "per_row" (of one worker, for a row), "log" (for each e-fold of workers), "linear" (for
        each worker). Of fewer than three different fits, those of the middle model: with what grows by the logarithm.
    fastest : int
        The number of workers, of those asked for, with the shortest epoch.
    fastest_range : (int, int)
        Between what it is with a probability of 90 %.
    worthwhile : int
        The largest number of workers, of those asked for, of whom at least half the time is used: an efficiency of 50 %
        or more.
    worthwhile_range : (int, int)
    """

    table: pd.DataFrame
    measured: pd.DataFrame
    coefficients: dict[str, float]
    fastest: int
    fastest_range: tuple[int, int]
    worthwhile: int
    worthwhile_range: tuple[int, int]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw seconds of an epoch against workers: measured, predicted, and without any costs.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            By default of a new figure.

        Returns
        -------
        Axes

        Raises
        ------
        ImportError
            Where matplotlib is not installed.
        """
        from daskdml.monitor._scaling_plot import draw_scaling

        return draw_scaling(self, ax)

    @property
    def sentence(self) -> str:
        """The answer in words."""
        most, (low, high), (least, last) = self.table.index[-1], self.worthwhile_range, self.fastest_range
        pays = f"Up to {_counted(self.worthwhile)} (between {low} and {high}) at least half of their time is used"
        if self.fastest == most:
            return f"{pays}; up to {most}, the most asked for, an epoch still becomes shorter."
        return f"{pays}; beyond {_counted(self.fastest)} (between {least} and {last}) an epoch becomes longer."

    def __repr__(self) -> str:
        return f"<ScalingEstimate: {self.sentence}>\n{self.table.to_string(float_format='{:.4g}'.format)}"

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.sentence)}</p>{self.table.to_html(float_format='{:.4g}'.format)}"


def _counted(workers: int) -> str:
    return f"{workers} worker{'' if workers == 1 else 's'}"


def estimate_scaling(
    clf: Any, workers: Sequence[int] = _POWERS, *, rows: int | None = None, random_state: int = 0
) -> ScalingEstimate:
    """Estimate how long an epoch would take with other numbers of workers, and where more of them stop paying.

    The model is Ernest's: an epoch of n rows on m workers takes ::

        constant + per_row * n / m + log * ln(m) + linear * m

    none of the four below zero. ``per_row`` comes from the time that replicas trained, waited for blocks or for the
    slowest of them, the others from what is left of an epoch. Fits with three different numbers of workers or more
    tell them apart. From fewer it cannot be known how the rest grows, so several models that agree with what was
    measured are asked, and the estimate is the middle one of what they say, its bounds the ends.

    Parameters
    ----------
    clf : estimator, or list of them
        Fitted daskdml estimators, of one strategy, with different numbers of workers where there are several.
    workers : sequence of int, default (1, 2, 4, 8, 16, 32, 64)
        Threads that train, each one replica at a time.
    rows : int, optional
        Rows of an epoch; by default those of the last fit.
    random_state : int, default 0
        Of the bootstrap, which draws rounds of each fit.

    Returns
    -------
    ScalingEstimate

    Raises
    ------
    TypeError
        For what is not fitted.
    ValueError
        For no fits, fits of different strategies, or numbers that are none.

    References
    ----------
    Venkataraman et al., "Ernest: efficient performance prediction for large-scale advanced analytics", NSDI 2016.

    Examples
    --------
    >>> from daskdml.linear_model import SGDClassifier
    >>> from daskdml.monitor import estimate_scaling
    >>> clf = SGDClassifier(max_iter=3, tol=None).fit([[0.0], [1.0]] * 500, [0, 1] * 500)
    >>> estimate = estimate_scaling(clf, workers=[1, 2, 4])
    >>> estimate.table.columns.tolist()
    ['seconds', 'low', 'high', 'speedup', 'efficiency']
    """
    fits = [Measured.of(one) for one in (clf if isinstance(clf, Iterable) else [clf])]
    asked = _checked(fits, workers, rows)
    size = fits[-1].rows if rows is None else float(rows)
    generator = np.random.default_rng(random_state)
    thetas = np.array([theta for _ in range(_DRAWS) for theta in _models(fits, [f.draw(generator) for f in fits])])
    drawn = thetas @ _terms(size, asked).T
    drawn *= 1.0 + _residuals(fits, generator, len(drawn))
    models = _models(fits, [fit.epoch() for fit in fits])
    theta = models[(len(models) - 1) // 2]
    alone = (thetas @ _terms(size, np.array([1])).T)[:, 0]
    seconds = np.median(drawn, axis=0)
    efficiency = np.median(alone) / asked / seconds
    table = pd.DataFrame(
        {
            "seconds": seconds,
            "low": np.percentile(drawn, _LOW, axis=0),
            "high": np.percentile(drawn, _HIGH, axis=0),
            "speedup": efficiency * asked,
            "efficiency": efficiency,
        },
        index=pd.Index(asked, name="workers"),
    )
    fastest = asked[np.argmin(thetas @ _terms(size, asked).T, axis=1)]
    pays = _last_that(alone[:, None] / asked / (thetas @ _terms(size, asked).T) >= 0.5, asked)
    return ScalingEstimate(
        table,
        _measured(fits, theta),
        dict(zip(_TERMS, theta.tolist(), strict=True)),
        int(asked[np.argmin(seconds)]),
        _range(fastest),
        int(_last_that((efficiency >= 0.5)[None], asked)[0]),
        _range(pays),
    )


def _checked(fits: list[Measured], workers: Sequence[int], rows: int | None) -> npt.NDArray[np.int64]:
    if not fits:
        raise ValueError("there is nothing to estimate from: pass a fitted estimator, or a list of them")
    kinds = sorted({fit.strategy for fit in fits})
    if len(kinds) > 1:
        raise ValueError(f"fits by {' and '.join(kinds)} scale differently; estimate each strategy by itself")
    asked = np.unique(np.asarray(list(workers)))
    if not len(asked) or asked.dtype.kind not in "iu" or asked[0] < 1:
        raise ValueError(f"workers must be numbers of at least 1, got {workers!r}")
    if rows is not None and rows < 1:
        raise ValueError(f"rows must be at least 1, got {rows!r}")
    return asked.astype(np.int64)


def _terms(rows: float, workers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """What each coefficient is multiplied by."""
    return np.column_stack([np.ones(len(workers)), rows / workers, np.log(workers), workers])


def _models(fits: list[Measured], epochs: list[tuple[float, float]]) -> list[npt.NDArray[np.float64]]:
    """Coefficients from (seconds, work) of an epoch of each fit: of each model that so many fits leave open."""
    seconds, work = np.array(epochs).T
    workers, rows = np.array([fit.workers for fit in fits]), np.array([fit.rows for fit in fits])
    share = rows / workers
    # Relative to the whole, so that long epochs on few workers do not outweigh short ones on many.
    per_row = _solve((share / seconds)[:, None], work / seconds)[0]
    columns = _terms(1.0, workers)[:, [0, 2, 3]] / seconds[:, None]
    found = []
    for terms in _left_open(workers):
        theta = np.zeros(4)
        theta[1] = per_row
        theta[[(0, 2, 3)[t] for t in terms]] = _solve(columns[:, terms], (seconds - work) / seconds)
        found.append(theta)
    return found


def _left_open(workers: npt.NDArray[np.int64]) -> list[list[int]]:
    """The combinations of constant (0), log (1) and linear (2) that measurements do not tell apart."""
    different = np.unique(workers)
    if len(different) > 2:
        return [[0, 1, 2]]
    if len(different) == 2:
        return [[0, 1], [0, 2]]
    # A logarithm is nothing at one worker: a rest that is there is not one.
    return [[0], [1], [2]] if different[0] > 1 else [[0], [0], [2]]


def _solve(columns: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    # Workers import this room for what they report, and SciPy's optimizers would take as long as the rest of it.
    from scipy.optimize import nnls

    return nnls(columns, values)[0]


def _residuals(fits: list[Measured], generator: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """By which part predictions may be off for what the model does not know, drawn from where it is off here."""
    epochs = [fit.epoch() for fit in fits]
    off = [
        _seconds(fit, theta) / seconds - 1.0
        for theta in _models(fits, epochs)
        for fit, (seconds, _) in zip(fits, epochs, strict=True)
    ]
    return generator.choice(off, size=(count, 1)) * generator.choice([-1.0, 1.0], size=(count, 1))


def _seconds(fit: Measured, theta: npt.NDArray[np.float64]) -> float:
    """What a model makes of an epoch that was measured."""
    return float((_terms(fit.rows, np.array([fit.workers])) @ theta)[0])


def _last_that(holds: npt.NDArray[np.bool_], asked: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The largest of ``asked`` for which a row ``holds``; the smallest where it holds for none."""
    last = len(asked) - 1 - np.argmax(holds[:, ::-1], axis=1)
    return asked[np.where(holds.any(axis=1), last, 0)]


def _range(values: npt.NDArray[np.int64]) -> tuple[int, int]:
    low, high = np.percentile(values, [_LOW, _HIGH], method="nearest")
    return int(low), int(high)


def _measured(fits: list[Measured], theta: npt.NDArray[np.float64]) -> pd.DataFrame:
    epochs = [fit.epoch() for fit in fits]
    workers = np.array([fit.workers for fit in fits])
    return pd.DataFrame(
        {
            "rows": [fit.rows for fit in fits],
            "seconds": [seconds for seconds, _ in epochs],
            "work": [work for _, work in epochs],
            "rest": [seconds - work for seconds, work in epochs],
            "fitted": [_seconds(fit, theta) for fit in fits],
        },
        index=pd.Index(workers, name="workers"),
    )
