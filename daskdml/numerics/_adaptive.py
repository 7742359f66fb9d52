"""SGD with a learning rate for each coordinate: AdaGrad, and its form that does not see the scale of a feature.

``adagrad``: Duchi, Hazan and Singer 2011, section 3.1, figure 1 with diagonal matrices, the penalty taken by its
proximal operator (their equation 4; composite mirror descent). ``normalized``: Ross, Mineiro and Langford 2013,
"Normalized online learning", algorithm 2 (NAG): multiply a column by a constant and its weight is divided by it, every
prediction staying the same.

A coordinate that a sparse row does not name has no gradient, so its rate stands still and the penalty of the
rows it missed is made up for in one proximal step when it is next named, or at the end of the call.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from numba import njit, types
from numba.extending import overload

from daskdml.numerics._calls import Kernel
from daskdml.numerics._compiled import part
from daskdml.numerics._rows import (
    PLAIN,
    SIMD,
    is_dense,
    norms,
    row_dot,
    row_entry,
    row_length,
    rows_prefetch,
    weights_prefetch,
)
from daskdml.numerics._settings import NO_PENALTY, NORMALIZED, SOFTMAX
from daskdml.numerics._sgd import WEIGHTS_AHEAD
from daskdml.numerics._sparse_steps import sparse_adaptive_step, sparse_caught_up_dot, sparse_fill
from daskdml.numerics._targets import independent_gradient, problem_weight, softmax_gradient


@part
def coordinate_rate(eta, squares):
    """AdaGrad's rate; 0 for a coordinate without any gradient so far, which its penalty then leaves alone."""
    return eta / sqrt(squares) if squares > 0.0 else 0.0


@part
def _penalty(coef, k, settings):
    """``alpha`` times the penalty of problem ``k``."""
    if settings.penalty == NO_PENALTY:
        return 0.0
    ridge, lasso = norms(coef, k)
    return settings.alpha * ((1.0 - settings.l1_ratio) * 0.5 * ridge + settings.l1_ratio * lasso)


@part
def _grow_scale(column, size, scale, inverse, coef, active):
    """Let a feature's scale grow to ``size``, its weights shrinking in turn."""
    for k in range(coef.shape[0]):
        if active[k]:
            coef[k, column] *= scale[column] / size
    scale[column] = size
    inverse[column] = 1.0 / size


def _last_named(rows, coef, lazily):
    """Room for the row after that in which each column was last named; dense rows name all of them."""


def _note_row(needed, rows, i, scale, inverse, coef, active):
    """Bring the scales up to row ``i``; return its sum of (x / scale)^2."""


def _score(needed, rows, i, coef, squares, inverse, last, k, n, eta, ridge, lasso):
    """``coef[k] . x_i``, once the columns of row ``i`` had the penalty of the rows since they were last named."""


def _named(rows, i, last, n):
    """Note that row ``n`` of the order names the columns of row ``i``."""


def _step_row(needed, rows, i, coef, squares, inverse, k, gradient, eta, ridge, lasso):
    """One AdaGrad step of problem ``k`` on the columns of row ``i``."""


@overload(_last_named, jit_options=PLAIN)
def _last_named_impl(rows, coef, lazily):
    if is_dense(rows):
        return lambda rows, coef, lazily: None

    def csr(rows, coef, lazily):
        last = coef[0, : coef.shape[1] if lazily else 0].astype(np.int32)
        for j in range(last.shape[0]):
            last[j] = 0
        return last

    return csr


@overload(_note_row, jit_options=SIMD)
def _note_row_impl(needed, rows, i, scale, inverse, coef, active):
    if needed is types.none:
        return lambda needed, rows, i, scale, inverse, coef, active: 0.0
    if is_dense(rows):

        def dense(needed, rows, i, scale, inverse, coef, active):
            grown = 0
            for j in range(scale.shape[0]):
                grown += abs(rows.X[i, j]) > scale[j]
            if grown > 0:
                for j in range(scale.shape[0]):
                    if abs(rows.X[i, j]) > scale[j]:
                        _grow_scale(j, abs(rows.X[i, j]), scale, inverse, coef, active)
            total = 0.0
            for j in range(scale.shape[0]):
                part = rows.X[i, j] * inverse[j]
                total += part * part
            return total

        return dense

    def csr(needed, rows, i, scale, inverse, coef, active):
        total = 0.0
        for j in range(row_length(rows, i)):
            column, value = row_entry(rows, i, j)
            size = abs(value)
            if size > scale[column]:
                _grow_scale(column, size, scale, inverse, coef, active)
            total += (size * inverse[column]) ** 2
        return total

    return csr


@overload(_score, jit_options=PLAIN)
def _score_impl(needed, rows, i, coef, squares, inverse, last, k, n, eta, ridge, lasso):
    if is_dense(rows):
        return lambda needed, rows, i, coef, squares, inverse, last, k, n, eta, ridge, lasso: row_dot(rows, i, coef, k)
    if needed is types.none:

        def same_rates(needed, rows, i, coef, squares, inverse, last, k, n, eta, ridge, lasso):
            if last.shape[0] == 0:
                return row_dot(rows, i, coef, k)
            return sparse_caught_up_dot(rows, i, coef, squares, None, last, k, n, eta, ridge, lasso)

        return same_rates

    def csr(needed, rows, i, coef, squares, inverse, last, k, n, eta, ridge, lasso):
        if last.shape[0] == 0:
            return row_dot(rows, i, coef, k)
        return sparse_caught_up_dot(rows, i, coef, squares, inverse, last, k, n, eta, ridge, lasso)

    return csr


@overload(_named, jit_options=PLAIN)
def _named_impl(rows, i, last, n):
    if is_dense(rows):
        return lambda rows, i, last, n: None

    def csr(rows, i, last, n):
        if last.shape[0] > 0:
            sparse_fill(rows, i, last, n + 1)

    return csr


@njit(no_cpython_wrapper=True, **SIMD)
def _dense_step(rows, i, coef, squares, inverse, k, gradient, eta, ridge, lasso):
    # All in the dtype of the weights: mixed widths would halve what a SIMD register holds.
    kind = coef.dtype.type
    slope, first, zero = kind(gradient), kind(eta), kind(0)
    l2, l1 = kind(ridge), kind(lasso)
    for j in range(coef.shape[1]):
        g = slope * rows.X[i, j]
        total = squares[k, j] + g * g
        squares[k, j] = total
        # The step and the penalty's proximal operator, sign(w) max(|w| - r lasso, 0) / (1 + r ridge) at a rate r,
        # both at once and times the root: a single division, which takes longest. A NaN stays one.
        root, eta_j = np.sqrt(total), first * inverse[j]
        w = coef[k, j]
        moved = w * root - eta_j * g
        size = abs(moved) - eta_j * l1
        size = (zero if size < zero else size) / (root + eta_j * l2)
        coef[k, j] = w if total == zero else size if moved > zero else -size


# Not reassociated for sparse rows, so that scales of 1 and no scales give the same bits.
@overload(_step_row, jit_options=PLAIN)
def _step_row_impl(needed, rows, i, coef, squares, inverse, k, gradient, eta, ridge, lasso):
    if is_dense(rows):
        return lambda needed, rows, i, coef, squares, inverse, k, gradient, eta, ridge, lasso: _dense_step(
            rows, i, coef, squares, inverse, k, gradient, eta, ridge, lasso
        )
    if needed is types.none:
        return lambda needed, rows, i, coef, squares, inverse, k, gradient, eta, ridge, lasso: sparse_adaptive_step(
            rows, i, coef, squares, None, k, gradient, eta, ridge, lasso
        )
    return lambda needed, rows, i, coef, squares, inverse, k, gradient, eta, ridge, lasso: sparse_adaptive_step(
        rows, i, coef, squares, inverse, k, gradient, eta, ridge, lasso
    )


def _settle_missed(rows, coef, squares, inverse, last, n_rows, eta, ridge, lasso, active):
    """Give every column the penalty of the rows since it was last named."""


@overload(_settle_missed, jit_options=PLAIN)
def _settle_missed_impl(rows, coef, squares, inverse, last, n_rows, eta, ridge, lasso, active):
    if is_dense(rows):
        return lambda rows, coef, squares, inverse, last, n_rows, eta, ridge, lasso, active: None

    def csr(rows, coef, squares, inverse, last, n_rows, eta, ridge, lasso, active):
        for k in range(coef.shape[0]):
            if active[k]:
                _settle(coef, squares, inverse, last, k, n_rows, eta, ridge, lasso)

    return csr


@njit(nogil=True, no_cpython_wrapper=True, **SIMD)
def _settle(coef, squares, inverse, last, k, n_rows, eta, ridge, lasso):
    # As in _dense_step: in the dtype of the weights, without a branch, and with one division.
    kind = coef.dtype.type
    first, l2, l1, zero = kind(eta), kind(ridge), kind(lasso), kind(0)
    for j in range(last.shape[0]):
        missed = kind(n_rows - last[j])
        root, eta_j, w = np.sqrt(squares[k, j]), first * inverse[j] * missed, coef[k, j]
        moved = w * root
        size = abs(moved) - eta_j * l1
        size = (zero if size < zero else size) / (root + eta_j * l2)
        coef[k, j] = w if missed == zero or root == zero else size if moved > zero else -size


@Kernel
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
    # Copies of arrays like them: np.zeros is a dozen functions that a first fit would wait for.
    scores, gradients, before = intercept.copy(), intercept.copy(), intercept.copy()
    last = _last_named(rows, coef, ridge > 0.0 or lasso > 0.0)
    inverse = coef[0].copy()
    for j in range(n_features):
        inverse[j] = 1.0
    for j in range(scale.shape[0]):
        inverse[j] = 1.0 / scale[j] if scale[j] > 0.0 else 0.0
    eta = settings.eta0
    for k in range(n_problems):
        before[k] = _penalty(coef, k, settings)

    n_rows = order.shape[0]
    for n in range(n_rows):
        i = order[n]
        rows_prefetch(rows, y, order, n)
        if n + WEIGHTS_AHEAD < n_rows:
            weights_prefetch(rows, coef, order[n + WEIGHTS_AHEAD])
            weights_prefetch(rows, squares, order[n + WEIGHTS_AHEAD])
        target = np.float64(y[i])
        weight = np.float64(sample_weight[i]) if sample_weight.shape[0] > 0 else 1.0
        if normalized:
            clock[1] += _note_row(settings.needs.scales, rows, i, scale, inverse, coef, active) + 1.0
            # The mean of sum (x / scale)^2 a row: how many features, in effect, share one step.
            eta = settings.eta0 * sqrt(clock[0] / clock[1])
        for k in range(n_problems):
            if active[k]:
                score = _score(settings.needs.scales, rows, i, coef, squares, inverse, last, k, n, eta, ridge, lasso)
                scores[k] = np.float64(score) + intercept[k]
        _named(rows, i, last, n)
        if softmax:
            value = softmax_gradient(settings.needs.softmax, scores, target, gradients)
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
            _step_row(settings.needs.scales, rows, i, coef, squares, inverse, k, gradient, eta, ridge, lasso)
            if settings.fit_intercept:
                intercept_squares[k] += gradient * gradient
                intercept[k] -= settings.intercept_decay * gradient * coordinate_rate(eta, intercept_squares[k])
        clock[0] += 1.0

    _settle_missed(rows, coef, squares, inverse, last, n_rows, eta, ridge, lasso, active)
    for k in range(n_problems):
        # The norm moves while rows go by: its mean over the call stands for each row's.
        totals[1, 0 if softmax else k] += n_rows * 0.5 * (before[k] + _penalty(coef, k, settings))
