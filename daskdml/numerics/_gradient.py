"""The gradient of a batch, and one step along it: what bulk synchronous training is made of.

A batch of one row makes the step of :mod:`daskdml.numerics._sgd`. The clock counts rows, so at the same place in
the data a schedule gives the same rate whatever the batch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from daskdml.numerics._compiled import kernel, part
from daskdml.numerics._rows import row_add, row_dot, row_entry, row_length, rows_prefetch, weights_prefetch
from daskdml.numerics._settings import (
    ADAGRAD,
    CONSTANT,
    INVSCALING,
    NO_PENALTY,
    NORMALIZED,
    OPTIMAL,
    SOFTMAX,
    Settings,
    State,
)
from daskdml.numerics._sgd import WEIGHTS_AHEAD
from daskdml.numerics._targets import independent_gradient, problem_weight, softmax_gradient

# Fewer weights than this, with their sums in float64, stay in the caches by themselves.
MANY_SUMS = 2**19


class Gradient(NamedTuple):
    """Sums over the rows of a batch; the sum of two batches' sums is that of their union."""

    coef: np.ndarray  # (K, d) float64
    intercept: np.ndarray  # (K,)
    rows: np.ndarray  # (1,)
    totals: np.ndarray  # (2, K): loss; loss with penalty
    largest: np.ndarray  # (d,): largest |x|, for the normalized rate only
    column_squares: np.ndarray  # (d,): sum of x^2, for the normalized rate and for a first step of all rows only
    value: np.ndarray  # (K,): loss with the rows' weights, of which all the above is the gradient
    hessian: np.ndarray  # (P, p, p): second derivatives of each problem, for Newton's steps only
    gram: np.ndarray  # (d + 1, d + 1): products of columns, about, for a first step of all rows only


def zero_gradient(state: State, settings: Settings) -> Gradient:
    """The gradient of no rows."""
    n_problems, n_features = state.coef.shape
    d = n_features if settings.schedule == NORMALIZED else 0
    return Gradient(
        np.zeros((n_problems, n_features)),
        np.zeros(n_problems),
        np.zeros(1),
        np.zeros((2, n_problems)),
        np.zeros(d),
        np.zeros(d),
        np.zeros(n_problems),
        np.zeros((0, 0, 0)),
        np.zeros((0, 0)),
    )


def add_gradients(a: Gradient, b: Gradient) -> Gradient:
    """The gradient of the union of two batches."""
    return Gradient(
        a.coef + b.coef,
        a.intercept + b.intercept,
        a.rows + b.rows,
        a.totals + b.totals,
        np.maximum(a.largest, b.largest),
        a.column_squares + b.column_squares,
        a.value + b.value,
        a.hessian + b.hessian,
        a.gram + b.gram,
    )


@part
def _note_scales(rows, i, largest, column_squares):
    for j in range(row_length(rows, i)):
        column, value = row_entry(rows, i, j)
        largest[column] = max(largest[column], abs(value))
        column_squares[column] += value * value


@kernel
def gradient_rows(rows, y, sample_weight, order, state, settings, positive_weight, negative_weight, active, out):
    """Add the rows in ``order`` to the sums ``out``; ``state`` is only read. Arguments as in ``train_rows``."""
    coef, intercept = state.coef, state.intercept
    sums, intercept_sums, totals, weighted = out.coef, out.intercept, out.totals, out.value
    n_problems = coef.shape[0]
    softmax = settings.mode == SOFTMAX
    scores = np.zeros(n_problems)
    gradients = np.zeros(n_problems)
    n_rows, scattered = order.shape[0], coef.shape[1] >= MANY_SUMS
    for n in range(n_rows):
        i = order[n]
        rows_prefetch(rows, y, order, n)
        if scattered and n + WEIGHTS_AHEAD < n_rows:
            weights_prefetch(rows, coef, order[n + WEIGHTS_AHEAD])
            weights_prefetch(rows, sums, order[n + WEIGHTS_AHEAD])
        target = np.float64(y[i])
        weight = np.float64(sample_weight[i]) if sample_weight.shape[0] > 0 else 1.0
        if out.largest.shape[0] > 0:
            _note_scales(rows, i, out.largest, out.column_squares)
        for k in range(n_problems):
            scores[k] = np.float64(row_dot(rows, i, coef, k)) + intercept[k]
        value = softmax_gradient(settings.needs.softmax, scores, target, gradients) if softmax else 0.0
        for k in range(n_problems):
            if not active[k]:
                continue
            share = weight * problem_weight(
                settings.mode, target, k, settings.first_class, positive_weight, negative_weight
            )
            if not softmax:
                value, gradients[k] = independent_gradient(settings, target, scores[k], k)
            if k == 0 or not softmax:
                # A softmax keeps its sums in the first column.
                totals[0, k] += value
                weighted[k] += value * share
            gradient = gradients[k] * share
            if gradient != 0.0:
                row_add(rows, i, sums, k, gradient, 0.0)
                intercept_sums[k] += gradient
    out.rows[0] += n_rows


def penalties(coef: np.ndarray, settings: Settings) -> np.ndarray:
    """``alpha`` times the penalty of each problem, shape (K,)."""
    if settings.penalty == NO_PENALTY:
        return np.zeros(coef.shape[0])
    w = coef.astype(np.float64)
    ridge = 0.5 * (w * w).sum(axis=1)
    lasso = np.abs(w).sum(axis=1)
    return settings.alpha * ((1.0 - settings.l1_ratio) * ridge + settings.l1_ratio * lasso)


def scalar_rate(settings: Settings, t: float | np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The rate of each problem at row count ``t``: the schedules of ``train_rows``, for a batch.

    Row counts of shape (n, 1) give rates of shape (n, K).
    """
    rate: float | np.ndarray = kept
    if settings.schedule == OPTIMAL:
        rate = 1.0 / (settings.alpha**0.25 + settings.alpha * (t - 1.0))
    elif settings.schedule == INVSCALING:
        rate = settings.eta0 / t**settings.power_t
    elif settings.schedule in (ADAGRAD, NORMALIZED, CONSTANT):
        rate = settings.eta0
    return np.broadcast_to(rate, np.broadcast_shapes(np.shape(t), kept.shape))


def _coordinate_rates(state: State, settings: Settings, gradient: Gradient, mean: np.ndarray) -> np.ndarray:
    """AdaGrad's rates after this batch, shape (K, d), scales and sums of ``state`` brought up to it."""
    rows = gradient.rows[0]
    eta, unit = settings.eta0, np.ones(1)
    if settings.schedule == NORMALIZED:
        grown = np.maximum(state.scale, gradient.largest).astype(state.scale.dtype)
        seen = grown > 0
        unit = np.where(seen, grown, 1.0)
        state.coef[...] *= np.where(seen, state.scale / unit, 1.0)
        state.scale[...] = grown
        state.clock[1] += (gradient.column_squares / unit**2).sum() + rows
        eta *= np.sqrt((state.clock[0] + rows - 1.0) / state.clock[1])
    state.squares[...] += mean * mean
    return _rate(eta / unit, state.squares)


def _rate(eta: float | np.ndarray, squares: np.ndarray) -> np.ndarray:
    """``eta`` over the root of ``squares``; 0 where nothing was summed."""
    return np.divide(eta, np.sqrt(squares), out=np.zeros(squares.shape), where=squares > 0)


def apply_gradient(state: State, settings: Settings, gradient: Gradient, active: np.ndarray) -> None:
    """One step of ``state``, in place, along the mean of a batch's gradient; nothing for an empty batch."""
    rows = gradient.rows[0]
    if rows == 0:
        return
    ridge = 0.0 if settings.penalty == NO_PENALTY else settings.alpha * (1.0 - settings.l1_ratio)
    lasso = 0.0 if settings.penalty == NO_PENALTY else settings.alpha * settings.l1_ratio
    mean = gradient.coef / rows
    mean_intercept = gradient.intercept / rows
    gradient.totals[1] += gradient.totals[0]
    if settings.mode == SOFTMAX:
        gradient.totals[1, 0] += rows * penalties(state.coef, settings).sum()
    else:
        gradient.totals[1] += rows * penalties(state.coef, settings)
    on = active[:, None]
    if settings.schedule in (ADAGRAD, NORMALIZED):
        rates = _coordinate_rates(state, settings, gradient, mean)
        state.intercept_squares[...] += mean_intercept * mean_intercept
        eta = settings.eta0 * (
            np.sqrt((state.clock[0] + rows - 1.0) / state.clock[1]) if settings.schedule == NORMALIZED else 1.0
        )
        intercept_rate = _rate(eta, state.intercept_squares)
        w = state.coef - rates * mean
        w /= 1.0 + rates * ridge
    else:
        intercept_rate = scalar_rate(settings, state.clock[0], state.eta)
        rates = intercept_rate[:, None]
        w = state.coef * np.maximum(0.0, 1.0 - rates * ridge) - rates * mean
    if lasso:
        w = np.sign(w) * np.maximum(np.abs(w) - rates * lasso, 0.0)
    state.coef[...] = np.where(on, w, state.coef)
    if settings.fit_intercept:
        step = settings.intercept_decay * intercept_rate * mean_intercept
        state.intercept[...] -= np.where(active, step, 0.0)
    state.clock[0] += rows
    _average(state, settings, rows)


def _average(state: State, settings: Settings, rows: float) -> None:
    """Take the parameters into their running mean, with the weight of the batch's rows."""
    counted = state.clock[0] - settings.average
    if settings.average > 0 and counted > 0:
        part = min(1.0, rows / counted)
        state.average_coef[...] += (state.coef - state.average_coef) * part
        state.average_intercept[...] += (state.intercept - state.average_intercept) * part
