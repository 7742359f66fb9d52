"""Plain SGD, one row at a time: the kernel behind every scalar learning rate.

The update, its penalties and its averages are those of scikit-learn's SGD, so that one replica without shuffling
gives its coefficients. Weights are kept as ``factor * coef`` during a call, which makes the l2 shrinkage of a step one
multiplication (Bottou 2012, "Stochastic gradient descent tricks", section 5.1); l1 is the cumulative penalty of
Tsuruoka, Tsujii and Ananiadou 2009, equation 13; averages follow Xu 2011, section 3.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from numba import njit, types
from numba.extending import overload

from daskdml.numerics._calls import Kernel
from daskdml.numerics._compiled import part
from daskdml.numerics._rows import PLAIN, SIMD, is_dense, norms, row_add, row_dot, row_square, rows_prefetch
from daskdml.numerics._settings import (
    INVSCALING,
    L2,
    NO_PENALTY,
    OPTIMAL,
    PA1,
    PA2,
    SOFTMAX,
)
from daskdml.numerics._sparse_steps import sparse_lasso_step
from daskdml.numerics._targets import independent_gradient, problem_weight, softmax_gradient

# The weights of a row can be asked for only once the row itself is there, which names them.
WEIGHTS_AHEAD = 2
# Fewer than this stay in the caches by themselves; asking for them costs more than it brings.
MANY_WEIGHTS = 2**20
# What a mean may lag behind, in units of its scale; it is about 1 where weights do not shrink.
LAG = 8.0
# The factor is written back into the weights earlier with a mean, which is kept relative to what is large beside it.
SMALL_WITH_MEAN = 1e-3


@part
def learning_rate(settings, t, eta):
    """The rate at row count ``t``; ``eta`` is the rate a constant or adaptive schedule keeps."""
    if settings.schedule == OPTIMAL:
        # The first rate is typw = alpha^(-1/4): every loss has slope at most 1 at score -typw, target 1.
        return 1.0 / (sqrt(sqrt(settings.alpha)) + settings.alpha * (t - 1.0))
    if settings.schedule == INVSCALING:
        return settings.eta0 / t**settings.power_t
    return eta


@part
def _passive_aggressive(needed, settings, rows, i, value, gradient):
    """The signed step of PA-I or PA-II (Crammer et al. 2006, figure 1) for a loss of slope 1; 0 for an empty row."""
    if needed is None or gradient == 0.0:
        return 0.0
    square = row_square(rows, i)
    if settings.schedule == PA1:
        return 0.0 if square == 0.0 else -gradient * min(settings.eta0, value / square)
    return -gradient * value / (square + 0.5 / settings.eta0)


def _lasso_step(needed, rows, i, w, k, c, factor, total, applied, sums):
    """``w[k] += c x_i``, then pull the weights row ``i`` touches towards 0 by the l1 penalty they have not had yet.

    ``sums`` are those of their squares and of their absolute values; returns what they are after.
    """


@overload(_lasso_step, jit_options=PLAIN)
def _lasso_step_impl(needed, rows, i, w, k, c, factor, total, applied, sums):
    if needed is types.none:
        return lambda needed, rows, i, w, k, c, factor, total, applied, sums: sums
    if not is_dense(rows):
        return lambda needed, rows, i, w, k, c, factor, total, applied, sums: sparse_lasso_step(
            rows, i, w, k, c, factor, total, applied, sums
        )

    return lambda needed, rows, i, w, k, c, factor, total, applied, sums: _dense_lasso_step(
        rows, i, w, k, c, factor, total, applied
    )


@njit(no_cpython_wrapper=True, **SIMD)
def _dense_lasso_step(rows, i, w, k, c, factor, total, applied):
    # Without a branch, for vectors; what is subtracted is known to float64 only. A NaN stays one.
    step, per_weight = w.dtype.type(c), 1.0 / factor
    squares, absolutes = 0.0, 0.0
    for j in range(w.shape[1]):
        free = np.float64(w[k, j] + step * rows.X[i, j])
        had = np.float64(applied[k, j])
        size = abs(free) - (total + (had if free > 0.0 else -had)) * per_weight
        size = 0.0 if size < 0.0 else size
        after = w.dtype.type(size if free > 0.0 else -size)
        w[k, j] = after
        applied[k, j] = had + factor * (np.float64(after) - free)
        squares += np.float64(after) * np.float64(after)
        absolutes += abs(np.float64(after))
    return squares, absolutes


@part
def _into_mean(needed, rows, i, k, step, factor, intercept, count, average, average_intercept, scale, lag):
    """Take the weights of problem ``k`` into their mean, row ``i`` having just changed them."""
    if needed is not None:
        if lag[k] * step != 0.0:
            row_add(rows, i, average, k, -(lag[k] * step / factor[k]), 0.0)
        if count > 1.0:
            scale[k] /= 1.0 - 1.0 / count
        lag[k] += scale[k] * factor[k] / count
        average_intercept[k] += (intercept[k] - average_intercept[k]) / count


def mean_step(needed, rows, i, average, k, c):
    """``average[k] += c x_i``, for kernels that keep a mean."""


@overload(mean_step, jit_options=PLAIN)
def _mean_step(needed, rows, i, average, k, c):
    # One call: numba counts references, atomically, for whatever is more than that.
    if needed is types.none:
        return lambda needed, rows, i, average, k, c: 0.0
    return lambda needed, rows, i, average, k, c: row_add(rows, i, average, k, c, 0.0)


@part
def scaled_back(needed, coef, average, k, factor, scale, lag):
    """Write the factor of problem k back into its weights.

    The mean is kept relative to the stored weights: ``lag`` grows as they shrink, and is paid before it is so large
    that the mean would be a small difference of large numbers. Without a mean, its arrays have no entry to look at.
    """
    if needed is not None and scale.shape[0] > 0:
        if lag[k] > LAG * scale[k] * factor:
            for j in range(coef.shape[1]):
                average[k, j] += lag[k] * coef[k, j]
            lag[k] = 0.0
        elif lag[k] != 0.0:
            lag[k] /= factor
    for j in range(coef.shape[1]):
        coef[k, j] *= factor


@part
def _fold(needed, coef, average_coef, k, factor, lag, scale, squares, absolutes):
    """Write the factor of problem ``k`` back into its weights and their sums."""
    scaled_back(needed, coef, average_coef, k, factor[k], scale, lag)
    squares[k] *= factor[k] * factor[k]
    absolutes[k] *= factor[k]
    factor[k] = 1.0


@Kernel
def train_rows(rows, y, sample_weight, order, state, settings, positive_weight, negative_weight, active, totals):
    """Visit ``rows`` in ``order``, updating ``state`` in place for the ``active`` of its K problems.

    ``totals`` (2, K) receives the sums of the loss, and of the loss with its penalty, each row's taken before
    it is learnt from; with a softmax only column 0 is used. ``sample_weight`` of length 0 means ones.
    """
    n_problems = state.coef.shape[0]
    softmax = settings.mode == SOFTMAX
    passive = settings.schedule == PA1 or settings.schedule == PA2
    shrinking = settings.penalty >= L2
    truncating = settings.penalty != NO_PENALTY and settings.penalty != L2
    averaging = settings.average > 0
    tiny = SMALL_WITH_MEAN if averaging else 1e-6 if state.coef.itemsize == 4 else 1e-9
    # Locals, not fields of a tuple: numba would count a reference, atomically, at every use in the loop.
    coef, intercept, eta_kept = state.coef, state.intercept, state.eta
    average_coef, average_intercept = state.average_coef, state.average_intercept
    l1_applied, l1_total = state.l1_applied, state.l1_total
    t = state.clock[0]

    # Copies of an array like them: np.zeros is a dozen functions that a first fit would wait for.
    factor, squares, absolutes = intercept.copy(), intercept.copy(), intercept.copy()
    scores, gradients, nothing = intercept.copy(), intercept.copy(), intercept.copy()
    mean_scale = state.average_scale
    for k in range(n_problems):
        factor[k], nothing[k] = 1.0, 0.0
        squares[k], absolutes[k] = norms(coef, k)

    lag = state.average_lag if averaging else nothing

    for n in range(order.shape[0]):
        i = order[n]
        rows_prefetch(rows, y, order, n)
        target = np.float64(y[i])
        weight = np.float64(sample_weight[i]) if sample_weight.shape[0] > 0 else 1.0
        for k in range(n_problems):
            if active[k]:
                scores[k] = factor[k] * np.float64(row_dot(rows, i, coef, k)) + intercept[k]
        if softmax:
            value = softmax_gradient(settings.needs.softmax, scores, target, gradients)
            totals[0, 0] += value
            totals[1, 0] += value

        for k in range(n_problems):
            if not active[k]:
                continue
            column = 0 if softmax else k
            if not softmax:
                value, gradients[k] = independent_gradient(settings, target, scores[k], k)
                totals[0, k] += value
                totals[1, k] += value
            if settings.penalty != NO_PENALTY and not passive:
                totals[1, column] += (settings.alpha * factor[k]) * (
                    (1.0 - settings.l1_ratio) * 0.5 * squares[k] * factor[k] + settings.l1_ratio * absolutes[k]
                )
            eta = learning_rate(settings, t, eta_kept[k])
            if passive:
                step = _passive_aggressive(settings.needs.passive, settings, rows, i, value, gradients[k])
            else:
                step = -eta * gradients[k]
            step *= (
                problem_weight(settings.mode, target, k, settings.first_class, positive_weight, negative_weight)
                * weight
            )
            if shrinking:
                # A step beyond the minimum of the penalty stops at it: weights become 0, not negative.
                shrink = 1.0 - (1.0 - settings.l1_ratio) * eta * settings.alpha
                shrink = shrink if shrink > 0.0 else 0.0
                factor[k] *= shrink
                if factor[k] < tiny:
                    _fold(settings.needs.mean, coef, average_coef, k, factor, lag, mean_scale, squares, absolutes)
            if truncating:
                l1_total[k] += settings.l1_ratio * eta * settings.alpha
                given = step / factor[k], factor[k], l1_total[k], l1_applied, (squares[k], absolutes[k])
                squares[k], absolutes[k] = _lasso_step(settings.needs.lasso, rows, i, coef, k, *given)
            elif step != 0.0:
                squares[k] = row_add(rows, i, coef, k, step / factor[k], squares[k])
            if settings.fit_intercept:
                intercept[k] += step * settings.intercept_decay
            if averaging and settings.average <= t:
                count, means = t - settings.average + 1.0, (average_coef, average_intercept, mean_scale, lag)
                _into_mean(settings.needs.mean, rows, i, k, step, factor, intercept, count, *means)
        t += 1.0

    for k in range(n_problems):
        _fold(settings.needs.mean, coef, average_coef, k, factor, lag, mean_scale, squares, absolutes)
    state.clock[0] = t
