"""Second derivatives: sums over all rows, or over those that have the most to say.

A Newton step needs the Hessian to some percent only, while the gradient has to be exact. Rows are kept by chance, and
count the more the smaller their chance was: so the sum is the whole one's on average. With chances in the ratio of what
a row adds to the Hessian, seen from the whole one, it is near with a number of rows that grows with that of parameters,
not of rows [1]_ (leverage; here by the diagonal). Rows that alone know of a parameter, as those of a rare category, are
kept; among rows taken evenly they would be missed, and steps go far astray.

References
----------
.. [1] Xu, Yang, Roosta-Khorasani, Re, Mahoney, "Sub-sampled Newton Methods with Non-uniform Sampling", NIPS 2016,
       section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from daskdml.numerics._compiled import part
from daskdml.numerics._losses import HUBER, LOG_LOSS, MODIFIED_HUBER, SQUARED_ERROR, SQUARED_HINGE
from daskdml.numerics._settings import SOFTMAX, Settings

# Of the parabola above a loss where that is a line: see curvature.
ON_LINES = 0.1
# Nearer to the margin than this a log-loss has more curvature than that.
FAR = 3.0

# Multiples of these are spread over 0 to 1 more evenly than random numbers are, and need no more than a row's place.
ROWS, _BLOCKS, _PASSES = 0.6180339887498949, 0.41421356237309515, 0.7320508075688772
# Of a block of which nothing is known yet: how many rows are looked at, and what part is kept at least.
_PILOT, _FIRST = 1024, 1 / 8
# For products of columns, of which curvature is made as long as nothing better is known: rows for each column.
_GRAM = 32
# Rows whose products are made at once.
_AT_ONCE = 4096
# Rows that are the only ones to know of a parameter are sure to be kept, also in float32.
_SURE = 1e30


@part
def curvature(kind, y, p, slope, epsilon):
    """The second derivative of a loss by its score; where a loss is a line, a part of its parabola's above it.

    That parabola touches the loss at ``p`` and has its vertex where the loss is least (iteratively reweighted least
    squares). With all of it every step descends, but they come near slowly; with 0 the first ones go much too far.
    """
    if kind == LOG_LOSS:
        bend, size = (slope + y) * (1.0 - slope - y), abs(p)
        # Far on the wrong side, as a start elsewhere than at 0 may have rows, the loss is nearly a line.
        return max(bend, ON_LINES * abs(slope) / size) if size > FAR and slope * p > 0.0 else bend
    if kind == SQUARED_ERROR:
        return 1.0
    if kind == HUBER:
        size = abs(p - y)
        return 1.0 if size <= epsilon else ON_LINES * epsilon / size
    if kind == SQUARED_HINGE:
        return 2.0 if slope != 0.0 else 0.0
    if kind == MODIFIED_HUBER:
        gap = 1.0 - p * y
        if gap <= 0.0:
            return 0.0
        return 2.0 if gap <= 2.0 else ON_LINES * 4.0 / gap
    return 2.0 if slope != 0.0 else 0.0


class Sample(NamedTuple):
    """Which rows the second derivatives are made of.

    Attributes
    ----------
    rows : float
        About how many for each feature.
    shares : ndarray, shape (P, p) or (0, 0)
        By parameter, the chance of a row for each unit of what it adds to the diagonal there; infinite for all rows.
        Empty where nothing is known of the diagonal yet: a few rows of each block then tell.
    turn : float
        From 0 to 1. Which rows are kept depends on it, the shares and the row's place in its block alone.
    """

    rows: float
    shares: np.ndarray
    turn: float

    def of_block(self, index: int) -> Sample:
        """That of one block, in which other places are kept than in the next one."""
        return self._replace(turn=(self.turn + index * _BLOCKS) % 1.0)


def sample_for(rows: float, shares: np.ndarray | None, number: int) -> Sample:
    """The sample of one pass of several, of which each has other rows."""
    return Sample(rows, np.zeros((0, 0)) if shares is None else shares, number * _PASSES % 1.0)


def shares_for(
    diagonals: np.ndarray, settings: Settings, n_features: int, n_rows: float, rows: np.ndarray | float
) -> np.ndarray:
    """The shares by which about so many ``rows`` are kept for each feature, the hessians' sums having these diagonals.

    All are kept where that is more than half of them: by all of them a step is nearly exact.

    Parameters
    ----------
    diagonals : ndarray, shape (P, p)
    n_rows : float
        Of how many.
    rows : float or ndarray, shape (P,)
    """
    own = n_features + bool(settings.fit_intercept)
    wanted = np.broadcast_to(rows, len(diagonals)).astype(float)
    # A softmax has as many parameters for a feature as classes, of which each row tells.
    each = wanted * own / max(1, diagonals.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.minimum(each[:, None] / diagonals, _SURE)
    known = np.isfinite(diagonals).all(axis=1) & (n_rows > 2 * wanted * own)
    shares[~known] = np.inf
    return np.nan_to_num(shares, nan=0.0, posinf=np.inf)


def begun_sample(
    sample: Sample, settings: Settings, n_rows: int, n_features: int, look: Callable[[np.ndarray], np.ndarray]
) -> Sample:
    """The sample of a block of which nothing is known yet, from a ``look`` at some of its rows.

    More is taken than in a pass that follows, since how many blocks there are is not known, nor how much a few rows
    tell.

    Parameters
    ----------
    look : callable
        From places of rows, (n,), to the diagonals of the sums of their second derivatives, (P, p).
    """
    looked_at = np.linspace(0, n_rows - 1, min(n_rows, _PILOT)).astype(np.intp)
    wanted = max(sample.rows, n_rows * _FIRST / (n_features + 1))
    found = look(looked_at) * (n_rows / len(looked_at))
    return sample._replace(shares=shares_for(found, settings, n_features, n_rows, wanted))


def gram_seats(places: np.ndarray, n_rows: int, n_columns: int) -> tuple[np.ndarray, float]:
    """Which of these places of a block are taken for the products of so many columns, and what each row counts for."""
    part = gram_part(n_rows, n_columns)
    turned = places * ROWS
    return np.flatnonzero(turned - np.floor(turned) < part), 1.0 / part


def gram_part(n_rows: int, n_columns: int) -> float:
    """Which part of a block's rows is taken for the products of so many columns."""
    return min(max(max(_GRAM * n_columns, _AT_ONCE) / n_rows, _FIRST), 1.0)


def mean_bends(curvatures: np.ndarray, settings: Settings) -> np.ndarray:
    """The curvature of the loss along a row's scores, in their mean, (n,)."""
    return _bends(curvatures, settings).mean(axis=1)


def diagonals_of(rows: np.ndarray, curvatures: np.ndarray, settings: Settings) -> np.ndarray:
    """The diagonals of the sums of :func:`add_hessians` over rows, (P, p)."""
    bends = _bends(curvatures, settings).astype(np.float64)
    found = bends.T @ np.square(rows, dtype=np.float64)
    if settings.fit_intercept:
        found = np.hstack([found, bends.sum(axis=0)[:, None]])
    return found.reshape(1, -1) if settings.mode == SOFTMAX else found


def _bends(curvatures: np.ndarray, settings: Settings) -> np.ndarray:
    """The curvature of the loss along each score, (n, K)."""
    if settings.mode != SOFTMAX:
        return curvatures
    chances = curvatures[:, :-1]
    return curvatures[:, -1:] * chances * (1 - chances)


def _chances(rows: np.ndarray, curvatures: np.ndarray, settings: Settings, shares: np.ndarray) -> np.ndarray:
    """Those of each row to be kept, (n, P)."""
    d, bends = rows.shape[1], _bends(curvatures, settings)
    parts = shares.reshape(bends.shape[1], -1).astype(rows.dtype)
    found = np.square(rows) @ parts[:, :d].T
    if settings.fit_intercept:
        found += parts[:, d]
    found *= bends
    return found.sum(axis=1, keepdims=True) if settings.mode == SOFTMAX else found


def seats_of(sample: Sample, places: np.ndarray) -> np.ndarray:
    """From 0 to 1, by rows' places in their block: a row is kept whose chance is larger."""
    turned = places * ROWS + sample.turn
    return turned - np.floor(turned)


class Products:
    """The sum of rows' products with themselves, each row times its factor; of many rows at once.

    BLAS is told of enough rows for its threads to have something to do: of a few hundred, they take longer to meet.

    Parameters
    ----------
    intercept : bool
        Whether a row has a 1 at its end.
    out : ndarray, shape (p, p)
        What is added to, at the latest by :meth:`end`.
    """

    def __init__(self, dtype: np.dtype, intercept: bool, out: np.ndarray):
        self._rows = np.empty((0, len(out)), dtype)
        self._intercept = intercept
        self._out = out
        self._count = 0

    def add(self, rows: np.ndarray, factors: np.ndarray) -> None:
        """Add rows, (n, d), with their factors, (n,)."""
        stop = self._count + len(rows)
        if stop > len(self._rows):
            self.end()
            stop = len(rows)
            if stop > len(self._rows):
                self._rows = np.empty((max(stop, _AT_ONCE), self._rows.shape[1]), self._rows.dtype)
        made = self._rows[self._count : stop]
        np.multiply(rows, factors[:, None], out=made[:, : rows.shape[1]])
        if self._intercept:
            made[:, -1] = factors
        self._count = stop

    def end(self) -> None:
        """Add what was not added yet."""
        made = self._rows[: self._count]
        # A matrix by itself: BLAS makes half of it.
        self._out += made.T @ made
        self._count = 0


def add_hessians(
    rows: np.ndarray,
    places: np.ndarray,
    curvatures: np.ndarray,
    settings: Settings,
    sample: Sample | None,
    out: np.ndarray,
) -> None:
    """Add the second derivatives of a tile of dense rows to ``out``, (P, p, p).

    Parameters
    ----------
    rows : ndarray, shape (n, d)
    places : ndarray, shape (n,)
        Where in their block they are.
    curvatures : ndarray, shape (n, P)
        Of the loss by the score; of a softmax (n, K + 1), probabilities and the rows' weights.
    sample : Sample, optional
        All rows without it.
    """
    d = rows.shape[1]
    bias = bool(settings.fit_intercept)
    # Of problems that want all rows, no row's chance matters.
    some = np.isfinite(sample.shares).all(axis=1) if sample is not None else np.zeros(len(out), dtype=bool)
    seats, known = np.empty(0), np.empty((0, 0))
    if sample is not None and some.any():
        seats = seats_of(sample, places)
        known = _chances(rows, curvatures, settings, np.where(some[:, None], sample.shares, 0.0))
    if settings.mode != SOFTMAX:
        for k in range(len(out)):
            curves = curvatures[:, k]
            if some[k]:
                kept, chances = _kept(known[:, k], seats)
                products = (rows[kept], np.sqrt(curves[kept] / chances))
            else:
                products = (rows, np.sqrt(curves))
            adding = Products(rows.dtype, bias, out[k])
            adding.add(*products)
            adding.end()
        return
    weight, chances = curvatures[:, -1], curvatures[:, :-1]
    if some[0]:
        kept, kept_by = _kept(known[:, 0], seats)
        rows, chances, weight = rows[kept], chances[kept], weight[kept] / kept_by
    full = np.ones((len(rows), d + bias), dtype=rows.dtype)
    weighted = np.empty_like(full)
    full[:, :d] = rows
    classes = chances.shape[1]
    blocks = out.reshape(classes, d + bias, classes, d + bias)
    for k in range(classes):
        for other in range(k + 1):
            factors = weight * chances[:, k] * ((k == other) - chances[:, other])
            np.multiply(full, factors[:, None], out=weighted)
            product = full.T @ weighted
            blocks[k, :, other] += product
            if other < k:
                blocks[other, :, k] += product


def _kept(chances: np.ndarray, seats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows are kept, and the chances they had."""
    kept = np.flatnonzero(seats < chances)
    return kept, np.minimum(chances[kept], 1)
