"""Sums over dense rows of one problem, each row being read once.

Score, loss, slope and gradient of a row, and whether it is among those that second derivatives are made of, are had
while it is in the nearest cache. By whole arrays the same takes five readings, of which the operating system's threads
get little more by two: this runs at the rate of memory, and without Python's lock.
"""

from __future__ import annotations

from math import log, sqrt

import numpy as np

from daskdml.numerics._compiled import kernel
from daskdml.numerics._hessian import curvature
from daskdml.numerics._losses import LOG_LOSS, shared_log_loss, value_and_slope
from daskdml.numerics._settings import BINARY
from daskdml.numerics._targets import MAX_GRADIENT
from daskdml.numerics._vectors import vector_add, vector_dot, vector_weighted_square

# Gradients of so many rows are added up in their own dtype, before those sums are in float64.
_TOGETHER = 128
# The logarithm of a product of so many factors between 1 and 2 is taken at once.
_LARGE = 1e250


@kernel
def sum_one_pass(
    X, y, sample_weight, seats, shares, coef, intercept, settings, positive, negative, sums, kept, factors, out
):
    """Add dense rows to the sums ``out`` of one problem; returns how many rows its second derivatives are made of.

    Parameters
    ----------
    X : ndarray, shape (n, d), C-contiguous
    y, sample_weight : ndarray, shape (n,)
        Weights may be (0,), for ones.
    seats : ndarray, shape (n,) or (0,)
        From 0 to 1: a row is kept whose chance is larger. Without any, all are.
    shares : ndarray, shape (1, d + 1)
        As in :class:`daskdml.numerics.Sample`, the intercept's last; 0 for none.
    coef, intercept : ndarray, shape (1, d) and (1,)
        In the rows' dtype.
    sums : ndarray, shape (1, d)
        Zeros in the rows' dtype, and again so afterwards.
    kept, factors : ndarray, shape (n,) or (0,)
        Which rows are kept, and the root of what each counts for; (0,) where second derivatives are not wanted.
    """
    n_rows, d = y.shape[0], coef.shape[1]
    binary, logistic, weighted = settings.mode == BINARY, settings.loss == LOG_LOSS, sample_weight.shape[0] > 0
    miss = 0.0 if logistic else -1.0
    curved, chosen = factors.shape[0] > 0, seats.shape[0] > 0
    b, once = np.float64(intercept[0]), np.float64(shares[0, d])
    gradient, total, value, count = out.coef, 0.0, 0.0, 0
    intercept_sum, product_of_factors, product_of_missed = 0.0, 1.0, 1.0
    for i in range(n_rows):
        target, weight = np.float64(y[i]), 1.0
        hit = not binary or target > 0.0
        if binary:
            target, weight = np.float64(1.0 if hit else miss), positive[0] if hit else negative[0]
        p = np.float64(vector_dot(X, i, coef, 0)) + b
        if weighted:
            weight *= sample_weight[i]
        if logistic and not weighted:
            loss, one_plus, slope = shared_log_loss(target, p)
            # A logarithm for many rows of one class, which all weigh the same.
            if hit:
                product_of_factors *= one_plus
                if product_of_factors > _LARGE:
                    total += log(product_of_factors)
                    value += log(product_of_factors) * positive[0]
                    product_of_factors = 1.0
            else:
                product_of_missed *= one_plus
                if product_of_missed > _LARGE:
                    total += log(product_of_missed)
                    value += log(product_of_missed) * negative[0]
                    product_of_missed = 1.0
        else:
            loss, slope = value_and_slope(settings.loss, target, p, settings.epsilon)
            slope = min(max(slope, -MAX_GRADIENT), MAX_GRADIENT)
        total += loss
        value += loss * weight
        vector_add(X, i, sums, 0, slope * weight, 0.0)
        intercept_sum += slope * weight
        if curved:
            bend = weight * curvature(settings.loss, target, p, slope, settings.epsilon)
            if chosen:
                chance = bend * (np.float64(vector_weighted_square(X, i, shares, 0)) + once)
                if seats[i] < chance:
                    kept[count] = i
                    factors[count] = sqrt(bend / min(chance, 1.0))
                    count += 1
            else:
                factors[i] = sqrt(bend)
        if i % _TOGETHER == _TOGETHER - 1 or i == n_rows - 1:
            for j in range(d):
                gradient[0, j] += sums[0, j]
                sums[0, j] = 0.0
    last, missed = log(product_of_factors), log(product_of_missed)
    out.totals[0, 0] += total + last + missed
    out.value[0] += value + last * positive[0] + missed * negative[0]
    out.intercept[0] += intercept_sum
    out.rows[0] += n_rows
    return count if chosen else n_rows
