"""SGD with a learning rate for each coordinate: AdaGrad, and its form that does not see the scale of a feature.

``adagrad``: Duchi, Hazan and Singer 2011, section 3.1, figure 1 with diagonal matrices, the penalty taken by its proximal
operator (their equation 4; composite mirror descent). ``normalized``: Ross, Mineiro and Langford 2013, "Normalized online
learning", algorithm 2 (NAG): multiply a column by a constant and its weight is divided by it, every prediction
staying the same.

A coordinate that a sparse row does not name has no gradient, so its rate stands still and the penalty of the
rows it missed is made up for in one proximal step when it is next named, or at the end of the call.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from numba import njit

from daskdml.numerics._rows import row_dot, row_entry, row_length
from daskdml.numerics._settings import NO_PENALTY, NORMALIZED, SOFTMAX
from daskdml.numerics._targets import independent_gradient, problem_weight, softmax_gradient

# Keeps the first division finite; far below any squared gradient that matters.
TINY = 1e-10


@njit(cache=True, nogil=True, error_model="numpy")
def shrink(w, step, ridge, lasso):
    """The proximal operator of ``step (ridge/2 w^2 + lasso |w|)``."""
    size = abs(w) - step * lasso
    if size <= 0.0:
        return 0.0
    return (size if w > 0.0 else -size) / (1.0 + step * ridge)


@njit(cache=True, nogil=True, error_model="numpy")
def _penalty(coef, k, settings):
    """``alpha`` times the penalty of problem ``k``."""
    ridge, lasso = 0.0, 0.0
    if settings.penalty != NO_PENALTY:
        for j in range(coef.shape[1]):
            ridge += coef[k, j] * coef[k, j]
            lasso += abs(coef[k, j])
    return settings.alpha * ((1.0 - settings.l1_ratio) * 0.5 * ridge + settings.l1_ratio * lasso)


@njit(cache=True, nogil=True, error_model="numpy")
def _grow_scales(rows, i, scale, coef, active):
    """Let each feature's scale grow to ``|x|`` of this row; return the row's sum of (x / scale)^2."""
    total = 0.0
    for j in range(row_length(rows, i)):
        column, value = row_entry(rows, i, j)
        size = abs(value)
        if size > scale[column]:
            for k in range(coef.shape[0]):
                if active[k]:
                    coef[k, column] *= scale[column] / size
            scale[column] = size
        if size > 0.0:
            total += (value / scale[column]) ** 2
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _catch_up(rows, i, coef, squares, scale, last, n, eta, ridge, lasso, active):
    """Give the columns of row ``i`` the penalty of the rows since they were last named."""
    for j in range(row_length(rows, i)):
        column, _ = row_entry(rows, i, j)
        missed = n - last[column]
        if missed > 0:
            unit = scale[column] if scale.shape[0] > 0 else 1.0
            for k in range(coef.shape[0]):
                if unit > 0.0 and active[k]:
                    rate = eta / (unit * (sqrt(squares[k, column]) + TINY))
                    coef[k, column] = shrink(coef[k, column], missed * rate, ridge, lasso)
        last[column] = n + 1


@njit(cache=True, nogil=True, error_model="numpy")
def _step_row(rows, i, coef, squares, scale, k, gradient, eta, ridge, lasso):
    """One AdaGrad step of problem ``k`` on the columns of row ``i``."""
    for j in range(row_length(rows, i)):
        column, value = row_entry(rows, i, j)
        g = gradient * value
        squares[k, column] += g * g
        unit = scale[column] if scale.shape[0] > 0 else 1.0
        if unit > 0.0:
            rate = eta / (unit * (sqrt(squares[k, column]) + TINY))
            coef[k, column] = shrink(coef[k, column] - rate * g, rate, ridge, lasso)


@njit(cache=True, nogil=True, error_model="numpy")
def train_rows_adaptive(
    rows, y, sample_weight, order, state, settings, positive_weight, negative_weight, active, totals
):
    """The contract of :func:`daskdml.numerics.train_rows`, with per-coordinate rates."""
    coef, intercept, clock, scale = state.coef, state.intercept, state.clock, state.scale
    squares, intercept_squares = state.squares, state.intercept_squares
    n_problems, n_features = coef.shape
    softmax = settings.mode == SOFTMAX
    normalized = settings.schedule == NORMALIZED
    ridge = 0.0 if settings.penalty == NO_PENALTY else settings.alpha * (1.0 - settings.l1_ratio)
    lasso = 0.0 if settings.penalty == NO_PENALTY else settings.alpha * settings.l1_ratio
    scores = np.zeros(n_problems)
    gradients = np.zeros(n_problems)
    before = np.zeros(n_problems)
    last = np.zeros(n_features, dtype=np.int64)
    eta = settings.eta0
    for k in range(n_problems):
        before[k] = _penalty(coef, k, settings)

    n_rows = order.shape[0]
    for n in range(n_rows):
        i = order[n]
        target = np.float64(y[i])
        weight = np.float64(sample_weight[i]) if sample_weight.shape[0] > 0 else 1.0
        if normalized:
            clock[1] += _grow_scales(rows, i, scale, coef, active) + 1.0
            # The mean of sum (x / scale)^2 a row: how many features, in effect, share one step.
            eta = settings.eta0 * sqrt(clock[0] / clock[1])
        _catch_up(rows, i, coef, squares, scale, last, n, eta, ridge, lasso, active)
        for k in range(n_problems):
            scores[k] = np.float64(row_dot(rows, i, coef, k)) + intercept[k]
        if softmax:
            value = softmax_gradient(scores, target, gradients)
            totals[0, 0] += value
            totals[1, 0] += value
        for k in range(n_problems):
            if not active[k]:
                continue
            if not softmax:
                value, gradients[k] = independent_gradient(settings, target, scores[k], k)
                totals[0, k] += value
                totals[1, k] += value
            gradient = gradients[k] * weight
            gradient *= problem_weight(settings.mode, target, k, settings.first_class, positive_weight, negative_weight)
            _step_row(rows, i, coef, squares, scale, k, gradient, eta, ridge, lasso)
            if settings.fit_intercept:
                intercept_squares[k] += gradient * gradient
                intercept[k] -= settings.intercept_decay * eta * gradient / (sqrt(intercept_squares[k]) + TINY)
        clock[0] += 1.0

    for k in range(n_problems):
        for column in range(n_features):
            missed = n_rows - last[column]
            unit = scale[column] if normalized else 1.0
            if missed > 0 and unit > 0.0 and active[k] and n_rows > 0:
                rate = eta / (unit * (sqrt(squares[k, column]) + TINY))
                coef[k, column] = shrink(coef[k, column], missed * rate, ridge, lasso)
        # The norm moves while rows go by: its mean over the call stands for each row's.
        totals[1, 0 if softmax else k] += n_rows * 0.5 * (before[k] + _penalty(coef, k, settings))
