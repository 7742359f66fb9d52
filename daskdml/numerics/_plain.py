"""The kernel of the common case: one linear problem, a scalar rate, an l2 penalty or none.

The rules are those of :mod:`daskdml.numerics._sgd`, and so is the result; but here everything about a row that is
not its features stays in registers, which makes a pass about 1.5 times faster. What a row costs then is latency: dot
product, exponential, one division and update, one after another. Of these only exponential and division are left where
rows are dense: the next row's score is had from the weights before the update, since ``(w + c x) . z = w . z +
c (x . z)``, and the update is made beside the next row's exponential. A running mean is updated beside that, too: no
row waits for it.
"""

from __future__ import annotations

from math import log

import numpy as np

from daskdml.numerics._calls import Kernel
from daskdml.numerics._compiled import fused_part, part
from daskdml.numerics._losses import LOG_LOSS, shared_log_loss, value_and_slope
from daskdml.numerics._rows import (
    looks_ahead,
    norms,
    row_add,
    row_dot,
    row_step,
    rows_prefetch,
    weights_prefetch,
)
from daskdml.numerics._settings import BINARY, L2
from daskdml.numerics._sgd import MANY_WEIGHTS, SMALL_WITH_MEAN, WEIGHTS_AHEAD, learning_rate, mean_step, scaled_back
from daskdml.numerics._targets import clipped

# The logarithm of a product of so many factors between 1 and 2 is taken at once.
_LARGE = 1e250


@fused_part
def _score(factor, score, intercept, lever, gradient):
    """The score of a row; what the row before has to do with it comes last, because it is known last."""
    return (factor * score + intercept) + lever * gradient


@part
def _settled(rows, before, i, coef, change, squares):
    """The update by the row before at once: the sum of squares of the weights, and the score of row i."""
    squares = row_add(rows, before, coef, 0, change, squares)
    return np.float64(squares), row_dot(rows, i, coef, 0)


@Kernel
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
    factor, losses, product_of_factors, penalties = 1.0, 0.0, 1.0, 0.0
    squares, _ = norms(coef, 0)
    needed, average, scale, lag = settings.needs.mean, state.average_coef, state.average_scale, state.average_lag
    averaging, mean_scale, mean_lag, mean_b = needed is not None and scale.shape[0] > 0, 1.0, 0.0, 0.0
    if averaging:
        mean_scale, mean_lag, mean_b = scale[0], lag[0], state.average_intercept[0]

    delayed = looks_ahead(rows, coef)
    n_rows, scattered = order.shape[0], coef.shape[1] >= MANY_WEIGHTS
    # Of the row before: what it changed, how, and from which factor and intercept; and of the one earlier than that.
    before = earlier = np.int64(order[0]) if n_rows > 0 else 0
    change, waiting, slope, gradient, seen, held = 0.0, 0.0, 0.0, 0.0, 0.0, b
    for n in range(n_rows):
        i = np.int64(order[n])
        squares, score, product = row_step(rows, earlier, before, i, coef, 0, waiting, change, squares)
        if delayed:
            penalties += squares * (seen * seen)
            if not abs(product) < np.inf:
                # The rows are so large that their product overflows, or one has a NaN.
                if change != 0.0:
                    squares, score = _settled(rows, before, i, coef, change, squares)
                change, product = 0.0, coef.dtype.type(0)
        else:
            penalties += squares * (factor * factor)
        rows_prefetch(rows, y, order, n)
        if scattered and n + WEIGHTS_AHEAD < n_rows:
            weights_prefetch(rows, coef, order[n + WEIGHTS_AHEAD])
        target, weight = np.float64(y[i]), 1.0
        if binary:
            hit = target > 0.0
            target, weight = np.float64(1.0 if hit else miss), positive if hit else negative
        if weighted:
            weight *= sample_weight[i]
        eta = learning_rate(settings, t, kept)
        shrink = 1.0 - eta * ridge
        shrink = shrink if shrink > 0.0 else 0.0
        p = _score(factor, np.float64(score), held, slope * (decay + product), gradient)
        if logistic:
            value, one_plus, gradient = shared_log_loss(target, p)
            losses += value
            product_of_factors *= one_plus
            if product_of_factors > _LARGE:
                losses += log(product_of_factors)
                product_of_factors = 1.0
        else:
            value, gradient = value_and_slope(settings.loss, target, p, settings.epsilon)
            gradient = clipped(gradient)
            losses += value
        slope = -eta * weight
        step = slope * gradient
        seen = factor
        factor *= shrink
        if factor < tiny:
            if delayed:
                if change != 0.0:
                    squares, _ = _settled(rows, before, i, coef, change, squares)
                penalties += squares * (seen * seen)
                change, seen = 0.0, 0.0
            if averaging:
                scale[0], lag[0] = mean_scale, mean_lag
            scaled_back(needed, coef, average, 0, factor, scale, lag)
            mean_lag = lag[0] if averaging else 0.0
            squares *= factor * factor
            factor = 1.0
        # The division does not wait for the step: it is done while the score is computed.
        earlier, waiting, before, change = before, change, i, step * (1.0 / factor)
        held, b = b, b + step * decay
        count = t - settings.average + 1.0
        if averaging and count > 0.0:
            # Take the weights into their mean, row i having just changed them (Xu 2011, section 3).
            if change != 0.0 and mean_lag != 0.0:
                mean_step(needed, rows, i, average, 0, -(mean_lag * change))
            if count > 1.0:
                mean_scale /= 1.0 - 1.0 / count
            mean_lag += mean_scale * factor / count
            mean_b += (b - mean_b) / count
        t += 1.0

    if delayed:
        if waiting != 0.0:
            squares, _ = _settled(rows, earlier, before, coef, waiting, squares)
        penalties += squares * (seen * seen)
    if change != 0.0:
        _settled(rows, before, before, coef, change, squares)
    if averaging:
        scale[0], lag[0], state.average_intercept[0] = mean_scale, mean_lag, mean_b
    scaled_back(needed, coef, average, 0, factor, scale, lag)
    losses += log(product_of_factors)
    totals[0, 0] += losses
    totals[1, 0] += losses + 0.5 * ridge * penalties
    state.intercept[0], state.clock[0] = b, t
