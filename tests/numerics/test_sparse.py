"""What the kernels do with a CSR row, of every length, against the same in NumPy."""

import numpy as np
import pytest
import scipy.sparse as sp
from numba import njit

from daskdml.numerics import CsrRows
from daskdml.numerics._rows import row_add, row_dot, row_entry, row_length, row_square, rows_prefetch, weights_prefetch
from daskdml.numerics._sparse_steps import (
    sparse_adaptive_step,
    sparse_caught_up_dot,
    sparse_fill,
    sparse_lasso_step,
)

LENGTHS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 23, 39]
COLUMNS = 60
# Long enough that rows are asked for ahead.
ORDER = (np.arange(60) % len(LENGTHS)).astype(np.int32)


def rows(dtype="f8", index="i4"):
    rng = np.random.default_rng(0)
    columns = [np.sort(rng.choice(COLUMNS, n, replace=False)) for n in LENGTHS]
    data = rng.standard_normal(sum(LENGTHS)).astype(dtype)
    indptr = np.concatenate([[0], np.cumsum(LENGTHS)]).astype(index)
    return CsrRows(data, np.concatenate(columns).astype(index), indptr)


def dense(given):
    return sp.csr_array((given.data, given.indices, given.indptr), (len(LENGTHS), COLUMNS)).toarray().astype("f8")


def weights(dtype="f8"):
    return np.random.default_rng(1).standard_normal((2, COLUMNS)).astype(dtype)


@njit
def products(rows, i, w, k, c):
    rows_prefetch(rows, rows.data, ORDER, i)
    weights_prefetch(rows, w, i)
    squares = (w[k].astype(np.float64) ** 2).sum()
    dot, square = row_dot(rows, i, w, k), row_square(rows, i)
    total = 0.0
    for j in range(row_length(rows, i)):
        column, value = row_entry(rows, i, j)
        total += column * value
    return dot, square, row_add(rows, i, w, k, c, squares), total


@pytest.mark.parametrize("dtype, kind, index", [("f4", "f4", "i4"), ("f8", "f8", "i4"), ("f8", "f4", "i8")])
def test_a_row_of_any_length_is_multiplied_and_added(dtype, kind, index):
    given = rows(dtype, index)
    X, close = dense(given), {"rtol": 2e-5, "atol": 2e-5} if "f4" in (dtype, kind) else {"rtol": 1e-12}
    for i, x in enumerate(X):
        w = weights(kind)
        before = w.astype("f8")
        dot, square, squares, total = products(given, i, w, 1, 0.3)
        np.testing.assert_allclose([dot, square, total], [before[1] @ x, x @ x, np.arange(COLUMNS) @ x], **close)
        np.testing.assert_allclose(w, before + np.outer([0, 1], 0.3 * x), **close)
        np.testing.assert_allclose(squares, (w[1].astype("f8") ** 2).sum(), **close)


def test_a_number_that_is_none_stays_in_the_sums():
    given = rows()
    given.data[-1] = np.nan
    w = weights()
    assert np.isnan(products(given, len(LENGTHS) - 1, w, 0, 0.1)[:3]).all() and np.isnan(w[0]).sum() == 1


@njit
def lasso(rows, i, w, k, c, factor, total, applied, sums):
    return sparse_lasso_step(rows, i, w, k, c, factor, total, applied, sums)


@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("c", [0.0, 0.4])
def test_the_cumulative_penalty_pulls_towards_0_and_not_beyond(kind, c):
    """Tsuruoka et al. 2009, figure 2, for weights that stand for ``factor`` times as much."""
    given, factor, total = rows(), 0.5, 0.2
    for i, x in enumerate(dense(given)):
        w, applied = weights(kind), np.full((2, COLUMNS), -0.05, kind)
        applied[1, ::3] = 0.1
        old, had = w.astype("f8"), applied.astype("f8")
        sums = (float((old[1] ** 2).sum()), float(np.abs(old[1]).sum()))
        squares, absolutes = lasso(given, i, w, 1, c, factor, total, applied, sums)
        named = x != 0
        z = np.where(named, factor * (old[1] + c * x), 0)
        pulled = np.where(z > 0, np.maximum(0, z - (total + had[1])), np.minimum(0, z + (total - had[1])))
        expected = np.where(named, pulled / factor, old[1])
        close = {"rtol": 1e-5, "atol": 1e-6} if kind == "f4" else {"rtol": 1e-12, "atol": 1e-14}
        np.testing.assert_allclose(w[1], expected, **close)
        np.testing.assert_allclose(applied[1], had[1] + np.where(named, pulled - z, 0), **close)
        np.testing.assert_allclose([squares, absolutes], [(expected**2).sum(), np.abs(expected).sum()], **close)
        np.testing.assert_array_equal(w[0], old[0].astype(kind))


@njit
def adaptive(rows, i, w, squares, inverse, last, k, n, gradient, eta, ridge, lasso):
    dot = sparse_caught_up_dot(rows, i, w, squares, inverse, last, k, n, eta, ridge, lasso)
    sparse_fill(rows, i, last, n + 1)
    caught_up = w.copy()
    sparse_adaptive_step(rows, i, w, squares, inverse, k, gradient, eta, ridge, lasso)
    return dot, caught_up


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("ridge, lasso", [(0.0, 0.0), (0.3, 0.0), (0.1, 0.2)])
def test_adagrad_catches_up_and_steps(scaled, ridge, lasso):
    """Duchi et al. 2011, equation 4 and figure 1: the proximal step of the penalty at the rate of each coordinate."""
    given, n, eta, gradient = rows(), 7, 0.5, -0.8
    inverse = np.linspace(0.5, 2, COLUMNS) if scaled else None
    rates = eta * (inverse if scaled else np.ones(COLUMNS))

    def proximal(w, step):
        return np.sign(w) * np.maximum(np.abs(w) - step * lasso, 0) / (1 + step * ridge)

    for i, x in enumerate(dense(given)):
        w, squares = weights(), np.abs(weights()) * (np.arange(COLUMNS) % 4 > 0)
        last = (np.arange(COLUMNS) % (n + 1)).astype("i4")
        old, sums, missed, named = w.copy(), squares.copy(), n - last, x != 0
        dot, caught_up = adaptive(given, i, w, squares, inverse, last, 0, n, gradient, eta, ridge, lasso)
        with np.errstate(divide="ignore"):
            rate = np.where(sums[0] > 0, rates / np.sqrt(sums[0]), 0)
        expected = np.where(named, proximal(old[0], missed * rate), old[0])
        np.testing.assert_allclose(caught_up[0], expected, rtol=1e-12)
        np.testing.assert_allclose(dot, expected @ x, rtol=1e-12, atol=1e-14)
        assert (last[named] == n + 1).all() and (last[~named] == n - missed[~named]).all()
        g = gradient * x
        grown = sums[0] + g**2
        with np.errstate(divide="ignore"):
            rate = np.where(grown > 0, rates / np.sqrt(grown), 0)
        expected = np.where(named, proximal(expected - rate * g, rate), expected)
        np.testing.assert_allclose(w[0], expected, rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(squares[0], grown, rtol=1e-12)
        np.testing.assert_array_equal(w[1], old[1])
