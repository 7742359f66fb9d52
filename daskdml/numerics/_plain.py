"""The kernel of the common case: one linear problem, a scalar rate, an l2 penalty or none.

The rules are those of :mod:`daskdml.numerics._sgd`, and so is the result; but here everything about a row that is
not its features stays in registers, which makes a pass about 1.5 times faster. What a row costs then is the latency
of dot product, exponential, one division and update, one after another. A running mean is updated beside that, since
no row waits for it.
"""

from __future__ import annotations

from math import log

import numpy as np

from daskdml.numerics._compiled import inner_part, kernel, part
from daskdml.numerics._losses import LOG_LOSS, shared_log_loss, value_and_slope
from daskdml.numerics._rows import foreseen, norms, row_add, row_dot, row_prefetch, weights_prefetch
from daskdml.numerics._settings import BINARY, L2
from daskdml.numerics._sgd import AHEAD, LAG, MANY_WEIGHTS, SMALL_WITH_MEAN, WEIGHTS_AHEAD, learning_rate
from daskdml.numerics._targets import MAX_GRADIENT

# The logarithm of a product of so many factors between 1 and 2 is taken at once.
_LARGE = 1e250


@part
def _scaled_back(needed, coef, average, factor, scale, lag):
    """Write the factor back into the weights; the lag of their mean is relative to them."""
    if needed is not None and lag.shape[0] > 0:
        if lag[0] > LAG * scale[0] * factor:
            for j in range(coef.shape[1]):
                average[0, j] += lag[0] * coef[0, j]
            lag[0] = 0.0
        elif lag[0] != 0.0:
            lag[0] /= factor
    for j in range(coef.shape[1]):
        coef[0, j] *= factor


@inner_part
def _in_mean(needed, rows, i, average, average_b, scale, lag, count, change, factor, b):
    """Take the weights into their mean, row ``i`` having just changed them by ``change`` times itself (Xu 2011, 3)."""
    if needed is not None and lag.shape[0] > 0 and count > 0.0:
        if change != 0.0 and lag[0] != 0.0:
            row_add(rows, i, average, 0, -(lag[0] * change), 0.0)
        if count > 1.0:
            scale[0] /= 1.0 - 1.0 / count
        lag[0] += scale[0] * factor / count
        average_b[0] += (b - average_b[0]) / count


@kernel
def train_rows_plain(rows, y, sample_weight, order, state, settings, positive_weight, negative_weight, active, totals):
    """The contract of :func:`daskdml.numerics.train_rows`, for the settings :func:`is_plain` allows."""
    coef = state.coef
    tiny = SMALL_WITH_MEAN if settings.average > 0 else 1e-6 if coef.itemsize == 4 else 1e-9
    kept, t, b = state.eta[0], state.clock[0], state.intercept[0]
    decay = settings.intercept_decay if settings.fit_intercept else 0.0
    ridge = settings.alpha if settings.penalty == L2 else 0.0
    positive, negative = positive_weight[0], negative_weight[0]
    binary, logistic = settings.mode == BINARY, settings.loss == LOG_LOSS
    miss = 0.0 if logistic else -1.0
    weighted = sample_weight.shape[0] > 0
    factor, losses, product, penalties = 1.0, 0.0, 1.0, 0.0
    squares, _ = norms(coef, 0)
    needed, average, average_b = settings.needs.mean, state.average_coef, state.average_intercept
    scale, lag = state.average_scale, state.average_lag

    n_rows, scattered = order.shape[0], coef.shape[1] >= MANY_WEIGHTS
    for n in range(n_rows):
        i = order[n]
        if n + AHEAD < n_rows:
            if not foreseen(rows, order[n + AHEAD - 1], order[n + AHEAD]):
                row_prefetch(rows, y, order[n + AHEAD])
            if scattered:
                weights_prefetch(rows, coef, order[n + WEIGHTS_AHEAD])
        target, weight = np.float64(y[i]), 1.0
        if binary:
            hit = target > 0.0
            target, weight = np.float64(1.0 if hit else miss), positive if hit else negative
        if weighted:
            weight *= sample_weight[i]
        eta = learning_rate(settings, t, kept)
        shrink = max(0.0, 1.0 - eta * ridge)
        penalties += squares * (factor * factor)
        p = factor * np.float64(row_dot(rows, i, coef, 0)) + b
        if logistic:
            value, one_plus, gradient = shared_log_loss(target, p)
            losses += value
            product *= one_plus
            if product > _LARGE:
                losses += log(product)
                product = 1.0
        else:
            value, gradient = value_and_slope(settings.loss, target, p, settings.epsilon)
            gradient = min(max(gradient, -MAX_GRADIENT), MAX_GRADIENT)
            losses += value
        step = -eta * gradient * weight
        factor *= shrink
        if factor < tiny:
            _scaled_back(needed, coef, average, factor, scale, lag)
            squares *= factor * factor
            factor = 1.0
        # The division does not wait for the step: it is done while the score is computed.
        change = step * (1.0 / factor)
        if step != 0.0:
            squares = row_add(rows, i, coef, 0, change, squares)
        b += step * decay
        _in_mean(needed, rows, i, average, average_b, scale, lag, t - settings.average + 1.0, change, factor, b)
        t += 1.0

    _scaled_back(needed, coef, average, factor, scale, lag)
    losses += log(product)
    totals[0, 0] += losses
    totals[1, 0] += losses + 0.5 * ridge * penalties
    state.intercept[0], state.clock[0] = b, t
