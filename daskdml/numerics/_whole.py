"""Value, gradient and curvature of all rows together: what a deterministic step is made of.

Dense rows go through BLAS in tiles that stay in the cache: scores, slopes and, for Newton's step, products of
columns are made of a tile while it is there, so memory is read once a pass. Sums of a tile are in the rows' own dtype,
those of tiles in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from daskdml.numerics._compiled import kernel
from daskdml.numerics._gradient import MANY_SUMS, Gradient, gradient_rows, zero_gradient
from daskdml.numerics._hessian import (
    FAR,
    ON_LINES,
    Products,
    Sample,
    add_hessians,
    begun_sample,
    curvature,
    diagonals_of,
    gram_seats,
    mean_bends,
    seats_of,
)
from daskdml.numerics._losses import (
    EPSILON_INSENSITIVE,
    HINGE,
    HUBER,
    LOG_LOSS,
    PERCEPTRON,
    SQUARED_ERROR,
)
from daskdml.numerics._one_pass import sum_one_pass
from daskdml.numerics._rows import CsrRows, as_rows, row_add, unlocked, weights_prefetch
from daskdml.numerics._settings import BINARY, NO_PENALTY, REGRESSION, SOFTMAX, Settings, State
from daskdml.numerics._sgd import WEIGHTS_AHEAD
from daskdml.numerics._targets import independent_gradient, problem_target, problem_weight, softmax_gradient

# Of a tile of rows: it is read four times, and has a share of the last cache to stay in; in smaller ones, calls of BLAS
# and NumPy cost more than what they do.
TILE_BYTES = 2**22
# Blocks of so many numbers are read once, by compiled code: for less that is not worth being loaded, or made.
COMPILED = 2**22
# Up to so many columns, and bytes in all descents, their products are made for L-BFGS to begin with.
GRAM_COLUMNS, GRAM_BYTES = 1024, 2**26
# Losses with a kink, at which a step along the gradient may not descend however short it is.
KINKED = (HINGE, PERCEPTRON, EPSILON_INSENSITIVE)


class Surface(NamedTuple):
    """The objective around a point, without its l1 part: one entry, or row, for each of P problems of p parameters."""

    values: np.ndarray  # (P,)
    slopes: np.ndarray  # (P, p)
    hessians: np.ndarray  # (P, p, p); (0, 0, 0) where they were not asked for
    diagonal: np.ndarray  # (P, p): about the hessians' diagonals; (0, 0) where it was not asked for
    bound: (
        np.ndarray
    )  # (b, b): the inverse of about the hessian of each output; (0, 0) where it was not asked for, or has none


def parameters(settings: Settings, n_outputs: int, n_features: int) -> tuple[int, int]:
    """How many problems there are, and how many parameters each has."""
    own = n_features + bool(settings.fit_intercept)
    return (1, n_outputs * own) if settings.mode == SOFTMAX else (n_outputs, own)


def zero_sums(state: State, settings: Settings, curved: bool, scaled: bool) -> Gradient:
    """The sums of no rows; ``curved`` with hessians, ``scaled`` with the columns' squares, and products if few."""
    squares = np.zeros(state.coef.shape[1] if scaled else 0)
    sums = zero_gradient(state, settings)._replace(largest=np.zeros(0), column_squares=squares)
    problems, _ = parameters(settings, *state.coef.shape)
    columns = state.coef.shape[1] + bool(settings.fit_intercept)
    lasso = settings.penalty != NO_PENALTY and settings.l1_ratio > 0.0
    if scaled and not lasso and columns <= GRAM_COLUMNS and 8 * problems * columns**2 <= GRAM_BYTES:
        sums = sums._replace(gram=np.zeros((columns, columns)))
    if curved:
        problems, own = parameters(settings, *state.coef.shape)
        sums = sums._replace(hessian=np.zeros((problems, own, own)))
    return sums


@kernel
def slopes_of(scores, y, sample_weight, settings, positive, negative, active, slopes, curvatures, totals, value):
    """From the scores (n, K) of rows to their losses, added to ``totals`` and ``value``, and ``slopes`` (n, K).

    ``curvatures`` of shape (n, K), or (0, 0) for none, are the derivatives of the slopes; of a softmax, probabilities,
    and the rows' weights in a last column.
    """
    n_rows, n_problems = scores.shape
    softmax = settings.mode == SOFTMAX
    mine, gradients = np.zeros(n_problems), np.zeros(n_problems)
    curved = curvatures.shape[0] > 0
    for i in range(n_rows):
        target = np.float64(y[i])
        weight = np.float64(sample_weight[i]) if sample_weight.shape[0] > 0 else 1.0
        if softmax:
            for k in range(n_problems):
                mine[k] = scores[i, k]
            loss = softmax_gradient(settings.needs.softmax, mine, target, gradients)
            weight *= problem_weight(settings.mode, target, 0, settings.first_class, positive, negative)
            totals[0, 0] += loss
            value[0] += loss * weight
            for k in range(n_problems):
                slopes[i, k] = gradients[k] * weight
                if curved:
                    curvatures[i, k] = gradients[k] + (1.0 if k == int(target) else 0.0)
            if curved:
                curvatures[i, n_problems] = weight
            continue
        for k in range(n_problems):
            if not active[k]:
                slopes[i, k] = 0.0
                if curved:
                    curvatures[i, k] = 0.0
                continue
            share = weight * problem_weight(settings.mode, target, k, settings.first_class, positive, negative)
            loss, slope = independent_gradient(settings, target, np.float64(scores[i, k]), k)
            totals[0, k] += loss
            value[k] += loss * share
            slopes[i, k] = slope * share
            if curved:
                wanted = problem_target(settings.mode, settings.loss, target, k + settings.first_class)
                curvatures[i, k] = share * curvature(
                    settings.loss, wanted, np.float64(scores[i, k]), slope, settings.epsilon
                )


def logistic_slopes(
    scores: np.ndarray,
    y: np.ndarray,
    sample_weight: np.ndarray,
    settings: Settings,
    positive: np.ndarray,
    negative: np.ndarray,
    active: np.ndarray,
    slopes: np.ndarray,
    curvatures: np.ndarray,
    totals: np.ndarray,
    value: np.ndarray,
) -> None:
    """:func:`slopes_of` for the log-loss and the softmax, by NumPy's exponential and logarithm of many rows at once.

    In the dtype of the scores, and so in vectors of 8 or 16: five times as fast as row after row.
    """
    n_rows, n_outputs = scores.shape
    s = np.ascontiguousarray(scores.T)
    share = np.ones(1, dtype=s.dtype) if not len(sample_weight) else sample_weight
    if settings.mode == SOFTMAX:
        label = y.astype(np.intp)
        s -= s.max(axis=0)
        own = s[label, np.arange(n_rows)]
        np.exp(s, out=s)
        total = s.sum(axis=0)
        losses = np.log(total)[None] - own
        s /= total
        share = np.broadcast_to(share * positive.astype(s.dtype)[label], n_rows)
        if len(curvatures):
            curvatures[:, :-1], curvatures[:, -1] = s.T, share
        s[label, np.arange(n_rows)] -= 1.0
        found = s
    else:
        classes = np.arange(n_outputs)[:, None] + settings.first_class
        hit = y > 0 if settings.mode == BINARY else y == classes
        hit = np.broadcast_to(hit, s.shape)
        if (positive != 1.0).any() or (negative != 1.0).any():
            share = share * np.where(hit, positive[:, None], negative[:, None]).astype(s.dtype)
        size = np.abs(s)
        falling = np.exp(-size)
        grown = 1.0 + falling
        losses = np.maximum(s, 0.0) - np.where(hit, s, 0.0) + np.log(grown)
        chance = np.where(s > 0, 1.0, falling) / grown
        found = chance - hit
        share = np.broadcast_to(share, s.shape)
        if len(curvatures):
            curves = chance * (1.0 - chance)
            # Of rows far on the wrong side, as a start elsewhere than at 0 may have, the loss is nearly a line.
            far = np.nonzero((size > FAR) & (hit == (s < 0)))
            curves[far] = np.maximum(curves[far], ON_LINES * np.abs(found[far]) / size[far])
            curvatures[...] = (share * curves * active[:, None]).T
    weighted = losses * share
    problems = len(losses)
    totals[0, :problems] += np.where(active[:problems], losses.sum(axis=1, dtype=np.float64), 0.0)
    value[:problems] += np.where(active[:problems], weighted.sum(axis=1, dtype=np.float64), 0.0)
    np.multiply(found, share * active[:, None], out=slopes.T, casting="same_kind")


@kernel
def _add_columns(rows, order, out):
    """Add rows to ``out``, (1, d)."""
    n_rows, scattered = order.shape[0], out.shape[1] >= MANY_SUMS
    for n in range(n_rows):
        if scattered and n + WEIGHTS_AHEAD < n_rows:
            weights_prefetch(rows, out, order[n + WEIGHTS_AHEAD])
        row_add(rows, order[n], out, 0, 1.0, 0.0)


def sum_sparse(
    X: Any,
    y: np.ndarray,
    sample_weight: np.ndarray,
    order: np.ndarray,
    state: State,
    settings: Settings,
    positive: np.ndarray,
    negative: np.ndarray,
    active: np.ndarray,
    out: Gradient,
) -> None:
    """Add rows of a CSR matrix to ``out``, which has no hessian."""
    if len(out.column_squares):
        _add_columns(CsrRows(X.data * X.data, X.indices, X.indptr), order, out.column_squares[None])
        # The gradient's own way of it knows no faster loop.
        out = out._replace(column_squares=np.zeros(0))
    gradient_rows(as_rows(X), y, sample_weight, order, state, settings, positive, negative, active, out)


def sum_matrix(
    X: Any,
    y: np.ndarray,
    sample_weight: np.ndarray,
    order: np.ndarray,
    state: State,
    settings: Settings,
    positive: np.ndarray,
    negative: np.ndarray,
    active: np.ndarray,
    out: Gradient,
    sample: Sample | None = None,
) -> None:
    """Add rows of a matrix to ``out``. One that is sparse is made dense, tile after tile.

    Of the rows of ``sample`` come the second derivatives, if they are wanted; all else is of all rows.
    """
    d = state.coef.shape[1]
    coef = np.ascontiguousarray(state.coef.T, dtype=X.dtype)
    intercept = state.intercept.astype(X.dtype)
    curved, scaled, grams = out.hessian.shape[0] > 0, out.column_squares.shape[0] > 0, out.gram.shape[0] > 0
    add = logistic_slopes if settings.mode == SOFTMAX or settings.loss == LOG_LOSS else slopes_of

    def bends(rows: np.ndarray, chosen: Any, out: Gradient) -> tuple[np.ndarray, np.ndarray]:
        """The slopes and curvatures of chosen rows, their losses being added to ``out``."""
        weight = sample_weight[chosen] if len(sample_weight) else sample_weight
        scores = rows @ coef
        scores += intercept
        slopes = np.empty_like(scores)
        n_curves = scores.shape[1] + (settings.mode == SOFTMAX)
        curves = np.empty((len(rows), n_curves) if curved or grams else (0, 0), dtype=X.dtype)
        sides = (positive, negative, active)
        add(scores, y[chosen], weight, settings, *sides, slopes, curves, out.totals, out.value)
        return slopes, curves

    def look(few: np.ndarray) -> np.ndarray:
        rows = _dense(X, few)
        return diagonals_of(rows, bends(rows, few, zero_gradient(state, settings))[1], settings)

    # What is no number shows in the sums, and is told of by whoever has them all.
    with np.errstate(over="ignore", invalid="ignore"):
        if curved and sample is not None and not sample.shares.size:
            sample = begun_sample(sample, settings, X.shape[0], d, look)
        tiles = _tiles(order, max(64, TILE_BYTES // (d * X.dtype.itemsize)))
        if isinstance(X, np.ndarray) and X.size >= COMPILED and settings.mode in (BINARY, REGRESSION) and not scaled:
            _sum_at_once(X, y, sample_weight, tiles, coef.T, intercept, settings, positive, negative, out, sample)
            return
        products = Products(X.dtype, bool(settings.fit_intercept), out.gram) if grams else None
        for chosen in tiles:
            rows = _dense(X, chosen)
            slopes, curves = bends(rows, chosen, out)
            out.coef[...] += slopes.T @ rows
            out.intercept[...] += slopes.sum(axis=0, dtype=np.float64)
            out.rows[0] += len(rows)
            if products is not None:
                bend = mean_bends(curves, settings)
                out.column_squares[...] += np.einsum("i,ij,ij->j", bend, rows, rows, dtype=np.float64)
                taken, each = gram_seats(_places(chosen), X.shape[0], len(out.gram))
                products.add(rows[taken], np.sqrt(bend[taken] * each))
            elif scaled:
                out.column_squares[...] += np.einsum("ij,ij->j", rows, rows, dtype=np.float64)
            if curved:
                add_hessians(rows, _places(chosen), curves, settings, sample, out.hessian)
        if products is not None:
            products.end()


def _sum_at_once(
    X: np.ndarray,
    y: np.ndarray,
    sample_weight: np.ndarray,
    tiles: Iterator[slice | np.ndarray],
    coef: np.ndarray,
    intercept: np.ndarray,
    settings: Settings,
    positive: np.ndarray,
    negative: np.ndarray,
    out: Gradient,
    sample: Sample | None,
) -> None:
    """The same for one problem, by :func:`sum_one_pass`."""
    X, y, sample_weight = unlocked(X), unlocked(y), unlocked(sample_weight)
    curved = len(out.hessian) > 0
    some = curved and sample is not None and bool(np.isfinite(sample.shares).all())
    shares, sums = np.zeros((1, X.shape[1] + 1), X.dtype), np.zeros_like(coef)
    products = Products(X.dtype, bool(settings.fit_intercept), out.hessian[0]) if curved else None
    if some and sample is not None:
        shares[:, : sample.shares.shape[1]] = sample.shares
    for chosen in tiles:
        rows = X[chosen]
        seats = seats_of(sample, _places(chosen)) if some and sample is not None else np.empty(0)
        kept, factors = np.empty(len(rows) if some else 0, np.intp), np.empty(len(rows) if curved else 0, X.dtype)
        given = (settings, positive, negative, sums, kept, factors, out)
        weight = sample_weight[chosen] if len(sample_weight) else sample_weight
        count = sum_one_pass(rows, y[chosen], weight, seats, shares, coef, intercept, *given)
        if products is not None:
            products.add(rows[kept[:count]] if some else rows, factors[:count])
    if products is not None:
        products.end()


def _places(chosen: slice | np.ndarray) -> np.ndarray:
    return np.arange(chosen.start, chosen.stop) if isinstance(chosen, slice) else chosen


def _dense(X: Any, chosen: Any) -> np.ndarray:
    return X[chosen] if isinstance(X, np.ndarray) else X[chosen].toarray()


def _tiles(order: np.ndarray, size: int) -> Iterator[slice | np.ndarray]:
    """Some rows after others; as slices, which copy nothing, where they stand one after another."""
    if len(order) and np.array_equal(order, np.arange(order[0], order[0] + len(order))):
        first, last = int(order[0]), int(order[0]) + len(order)
        for at in range(first, last, size):
            yield slice(at, min(at + size, last))
        return
    for at in range(0, len(order), size):
        yield order[at : at + size]


def surface_of(state: State, settings: Settings, sums: Gradient) -> Surface:
    """The mean over rows, and the smooth part of the penalty, from the sums over all rows."""
    n_outputs, d = state.coef.shape
    problems, own = parameters(settings, n_outputs, d)
    rows, bias = float(sums.rows[0]), bool(settings.fit_intercept)
    ridge = 0.0 if settings.penalty == NO_PENALTY else settings.alpha * (1.0 - settings.l1_ratio)
    coef = state.coef.astype(np.float64)
    norms = 0.5 * ridge * np.einsum("kj,kj->k", coef, coef)
    values = sums.value / rows + norms
    if settings.mode == SOFTMAX:
        values = np.array([sums.value[0] / rows + norms.sum()])
    slopes = np.empty((n_outputs, d + bias))
    np.divide(sums.coef, rows, out=slopes[:, :d])
    slopes[:, :d] += ridge * coef
    slopes[:, d:] = sums.intercept[:, None] / rows
    hessians = sums.hessian / rows
    diagonal, bound = np.empty((0, 0)), np.empty((0, 0))
    if len(hessians):
        ridges = np.full(d + bias, ridge)
        ridges[d:] = 0.0
        at = np.arange(own)
        hessians[:, at, at] += np.tile(ridges, own // (d + bias))
    elif len(sums.gram):
        bound = _bound(sums.gram / rows, sums.column_squares / rows, ridge)
    elif len(sums.column_squares):
        once = np.full(d + bias, _steepest(settings))
        once[:d] *= sums.column_squares / rows
        once[:d] += ridge
        # A column of zeros pulls nowhere, and any scale is right for it.
        once[once <= 0.0] = 1.0
        diagonal = np.tile(once, (problems, own // (d + bias)))
    return Surface(values, slopes.reshape(problems, own), hessians, diagonal, bound)


def _bound(gram: np.ndarray, squares: np.ndarray, ridge: float) -> np.ndarray:
    """The inverse of products of columns with their penalty.

    The products are of some rows, and the ``squares`` of all: columns that only others know of are as without products.
    """
    d, at = len(squares), np.arange(len(gram))
    gram = gram.copy()
    gram[at[:d], at[:d]] = np.maximum(gram[at[:d], at[:d]], squares) + ridge
    size = gram[at, at]
    # What is singular in its last digits is given a little; a column of zeros pulls nowhere.
    gram[at, at] = np.where(size > 0.0, size * (1.0 + 1e-6), 1.0)
    # Products may be beyond a dtype that the columns themselves are not beyond.
    if not np.isfinite(gram).all():
        return np.zeros((0, 0))
    try:
        return np.linalg.inv(gram)
    except np.linalg.LinAlgError:
        return np.zeros((0, 0))


def _steepest(settings: Settings) -> float:
    """The largest second derivative of the loss."""
    return {LOG_LOSS: 0.25, SQUARED_ERROR: 1.0, HUBER: 1.0}.get(
        settings.loss, 0.25 if settings.mode == SOFTMAX else 2.0
    )


def flat(state: State, settings: Settings) -> np.ndarray:
    """The parameters of each problem in a row of float64, (P, p): coefficients, then the intercept, of each output."""
    columns = [state.coef, state.intercept[:, None]] if settings.fit_intercept else [state.coef]
    problems, own = parameters(settings, *state.coef.shape)
    return np.hstack(columns, dtype=np.float64, casting="unsafe").reshape(problems, own)


def unflat(values: Any, state: State, settings: Settings) -> State:
    """``state`` with the parameters that :func:`flat` would give as ``values``, an array or a list of its rows."""
    table = (values[0] if len(values) == 1 else np.asarray(values)).reshape(len(state.coef), -1)
    d = state.coef.shape[1]
    intercept = table[:, d].astype(state.intercept.dtype) if settings.fit_intercept else state.intercept.copy()
    return state._replace(coef=np.ascontiguousarray(table[:, :d], dtype=state.coef.dtype), intercept=intercept)


def lassos(state: State, settings: Settings) -> np.ndarray:
    """The weight of each parameter's absolute value in the objective, (p,)."""
    strength = 0.0 if settings.penalty == NO_PENALTY else settings.alpha * settings.l1_ratio
    problems, own = parameters(settings, *state.coef.shape)
    d = state.coef.shape[1]
    once = np.full(d + bool(settings.fit_intercept), strength)
    once[d:] = 0.0
    return np.tile(once, own // len(once))
