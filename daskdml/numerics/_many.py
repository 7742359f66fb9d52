"""The kernel of several problems over the same rows: a softmax, or one versus all.

The rules are those of :mod:`daskdml.numerics._sgd`, for a scalar rate and an l2 penalty or none, and so is the
result. A row of K problems is K dot products and K updates, which here are one pass over the weights: the update by
the row before, and the score of this one, of two problems at once. The sum of squares of the weights, which the
penalty's part of the objective needs, is not taken in that pass: ``|w + c x|^2 = |w|^2 + 2 c (w . x) + c^2 |x|^2``,
whose scalars are known. What that loses to rounding does not add up, since the sums are taken anew after some rows.
"""

from __future__ import annotations

from math import log

import numpy as np

from daskdml.numerics._calls import Kernel
from daskdml.numerics._compiled import fused_part, inner_part, part
from daskdml.numerics._exponential import exp_of_negative
from daskdml.numerics._losses import LOG_LOSS, shared_log_loss, value_and_slope
from daskdml.numerics._rows import norms, row_pair, row_square, rows_prefetch
from daskdml.numerics._settings import ADAPTIVE, CONSTANT, L2, SOFTMAX
from daskdml.numerics._sgd import SMALL_WITH_MEAN, learning_rate, mean_step, scaled_back
from daskdml.numerics._targets import clipped

# Rows after which sums of squares are taken anew: at least so many, and no fewer than there are features, so that with
# rows of a few entries out of a million that does not take longer than all the rest.
_EXACT = 256
# Rows that share a logarithm: so many factors between 1 and 2 are a number.
_SHARED = 512
# The logarithm of a product of so many sums of exponentials is taken at once.
_LARGE = 1e250


@fused_part
def _softmax(needed, scores, label, slopes):
    """Fill ``slopes`` with the slopes of a softmax; a row's loss in two parts, value + log(factor)."""
    if needed is None:
        return 0.0, 1.0
    top = scores[0]
    for m in range(1, scores.shape[0]):
        top = scores[m] if scores[m] > top else top
    for m in range(scores.shape[0]):
        slopes[m] = exp_of_negative(scores[m] - top)
    total = 0.0
    for m in range(scores.shape[0]):
        total += slopes[m]
    part_of = 1.0 / total
    for m in range(scores.shape[0]):
        slopes[m] *= part_of
    slopes[label] -= 1.0
    return top - scores[label], total


@inner_part
def _independent(needed, settings, n_active, which, own, scores, positive, negative, slopes, losses, products):
    """Fill ``slopes`` with those of each active problem for itself, and count losses; ``own`` is the row's problem."""
    if needed is not None:
        if settings.loss == LOG_LOSS:
            for m in range(n_active):
                hit = which[m] == own
                value, one_plus, slope = shared_log_loss(1.0 if hit else 0.0, scores[m])
                losses[m] += value
                products[m] *= one_plus
                slopes[m] = slope * (positive[m] if hit else negative[m])
        else:
            for m in range(n_active):
                hit = which[m] == own
                value, slope = value_and_slope(settings.loss, 1.0 if hit else -1.0, scores[m], settings.epsilon)
                losses[m] += value
                slopes[m] = clipped(slope) * (positive[m] if hit else negative[m])


@part
def _into_means(needed, rows, i, average, average_intercept, count, n_active, which, change, factor, b, scale, lag):
    """Take the weights into their means, row i having just changed them."""
    if needed is not None:
        for m in range(n_active):
            k = which[m]
            if change[m] != 0.0 and lag[k] != 0.0:
                mean_step(needed, rows, i, average, k, -(lag[k] * change[m]))
            if count > 1.0:
                scale[k] /= 1.0 - 1.0 / count
            lag[k] += scale[k] * factor[m] / count
            average_intercept[k] += (b[m] - average_intercept[k]) / count


@Kernel
def train_rows_many(rows, y, sample_weight, order, state, settings, positive_weight, negative_weight, active, totals):
    """The contract of :func:`daskdml.numerics.train_rows`, for the settings :func:`is_many` allows."""
    coef, intercept = state.coef, state.intercept
    average, average_intercept = state.average_coef, state.average_intercept
    scale, lag = state.average_scale, state.average_lag
    averaging, softmax = settings.average > 0, settings.mode == SOFTMAX
    tiny = SMALL_WITH_MEAN if averaging else 1e-6 if coef.itemsize == 4 else 1e-9
    keeps_rate = settings.schedule == CONSTANT or settings.schedule == ADAPTIVE
    decay = settings.intercept_decay if settings.fit_intercept else 0.0
    ridge = settings.alpha if settings.penalty == L2 else 0.0
    t, n_rows = state.clock[0], order.shape[0]
    exact = coef.shape[1] if coef.shape[1] > _EXACT else _EXACT

    # What is known of the active problems, side by side. Copies of an array like them: np.zeros is a dozen functions.
    b, kept, which = intercept.copy(), intercept.copy(), intercept.astype(np.int64)
    positive, negative, products, losses, penalties = b.copy(), b.copy(), b.copy(), b.copy(), b.copy()
    factor, squares, dots, scores, slopes, change = b.copy(), b.copy(), b.copy(), b.copy(), b.copy(), b.copy()
    n_active = 0
    for k in range(coef.shape[0]):
        if active[k]:
            m, n_active = n_active, n_active + 1
            which[m], b[m], kept[m] = k, intercept[k], state.eta[k]
            positive[m], negative[m] = positive_weight[k], negative_weight[k]
            factor[m], products[m], dots[m], change[m], losses[m], penalties[m] = 1.0, 1.0, 0.0, 0.0, 0.0, 0.0
    before = np.int64(order[0]) if n_rows > 0 else 0

    # The last turn is only for the update by the last row.
    for n in range(n_rows + 1 if n_rows > 0 else 0):
        i = np.int64(order[n if n < n_rows else n_rows - 1])
        for m in range(0, n_active, 2):
            other = m + 1 if m + 1 < n_active else m
            dots[m], dots[other] = row_pair(rows, before, i, coef, which[m], which[other], change[m], change[other])
        if n == n_rows:
            break
        rows_prefetch(rows, y, order, n)
        if n % exact == 0:
            for m in range(n_active):
                squares[m], _ = norms(coef, which[m])
        for m in range(n_active):
            scores[m] = factor[m] * dots[m] + b[m]
            penalties[m] += squares[m] * (factor[m] * factor[m])
        target = np.float64(y[i])
        weight = np.float64(sample_weight[i]) if sample_weight.shape[0] > 0 else 1.0
        if softmax:
            label = np.int64(target)
            value, total = _softmax(settings.needs.softmax, scores, label, slopes)
            losses[0] += value
            products[0] *= total
            weight *= positive_weight[label]
        else:
            own, given = np.int64(target) - settings.first_class, (scores, positive, negative, slopes, losses, products)
            _independent(settings.needs.independent, settings, n_active, which, own, *given)
        if n % _SHARED == 0 or products[0] > _LARGE:
            for m in range(n_active):
                losses[m] += log(products[m])
                products[m] = 1.0
        shared, square = learning_rate(settings, t, 0.0), np.float64(row_square(rows, i))
        for m in range(n_active):
            eta = kept[m] if keeps_rate else shared
            slope = -eta * weight * slopes[m]
            shrink = 1.0 - eta * ridge
            factor[m] *= shrink if shrink > 0.0 else 0.0
            if factor[m] < tiny:
                scaled_back(settings.needs.mean, coef, average, which[m], factor[m], scale, lag)
                squares[m] *= factor[m] * factor[m]
                dots[m] *= factor[m]
                factor[m] = 1.0
            change[m] = slope / factor[m]
            squares[m] += change[m] * (2.0 * dots[m] + change[m] * square)
            b[m] += slope * decay
        if averaging and settings.average <= t:
            count, known = t - settings.average + 1.0, (n_active, which, change, factor, b, scale, lag)
            _into_means(settings.needs.mean, rows, i, average, average_intercept, count, *known)
        before = i
        t += 1.0

    for m in range(n_active):
        k, column = which[m], 0 if softmax else which[m]
        scaled_back(settings.needs.mean, coef, average, k, factor[m], scale, lag)
        intercept[k] = b[m]
        losses[m] += log(products[m])
        totals[0, column] += losses[m]
        totals[1, column] += losses[m] + 0.5 * ridge * penalties[m]
    state.clock[0] = t
