"""Dot products and updates in vectors are those of NumPy, whatever the length of a row."""

import numpy as np
import pytest
from numba import njit

from daskdml.numerics._exponential import exp_of_negative
from daskdml.numerics._rows import CsrRows, DenseRows, row_add, row_dot, row_pair, row_step


@njit(error_model="numpy")
def dot(rows, i, w, k):
    return row_dot(rows, i, w, k)


@njit(error_model="numpy")
def add(rows, i, w, k, c, squares):
    return row_add(rows, i, w, k, c, squares)


@njit(error_model="numpy")
def exponentials(x):
    for i in range(len(x)):
        x[i] = exp_of_negative(x[i])
    return x


# Every remainder by the vectors of 16 and 8 numbers and by four chains of them, and the empty row.
LENGTHS = [*range(20), 31, 33, 47, 63, 64, 65, 100, 127, 128, 129, 1000]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sparse", [False, True])
def test_dot_and_update_are_those_of_numpy(dtype, sparse):
    rng = np.random.default_rng(0)
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    for n in LENGTHS:
        X, w = rng.standard_normal((3, n)).astype(dtype), rng.standard_normal((2, n + 5)).astype(dtype)
        if sparse:
            columns = np.concatenate([rng.permutation(n + 5)[:n] for _ in X]).astype(np.int32)
            rows = CsrRows(X.ravel(), columns, np.arange(4, dtype=np.int32) * n)
            full = np.zeros((3, n + 5), dtype)
            full[np.repeat(np.arange(3), n), columns] = X.ravel()
        else:
            w = w[:, :n].copy()
            rows, full = DenseRows(X), X
        assert dot(rows, 1, w, 1) == pytest.approx(full[1] @ w[1], rel=tolerance, abs=10 * tolerance)
        moved = w.copy()
        squares = add(rows, 2, moved, 1, -0.7, float(w[1] @ w[1]))
        np.testing.assert_allclose(moved[1], w[1] - dtype(0.7) * full[2], atol=10 * tolerance)
        np.testing.assert_array_equal(moved[0], w[0])
        assert squares == pytest.approx(moved[1] @ moved[1], rel=10 * tolerance, abs=tolerance)


def test_rows_of_one_dtype_and_weights_of_another_work_too():
    X, w = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((1, 3))
    assert dot(DenseRows(X), 1, w, 0) == 12.0


def test_what_is_not_a_number_stays_so():
    X, w = np.ones((1, 40), np.float32), np.ones((1, 40), np.float32)
    X[0, 37] = np.nan
    assert np.isnan(dot(DenseRows(X), 0, w, 0))


def test_the_exponential_is_that_of_the_c_library():
    x = -np.concatenate([np.linspace(0.0, 2.0, 10_001), np.geomspace(1e-300, 700.0, 10_001)])
    np.testing.assert_allclose(exponentials(x.copy()), np.exp(x), rtol=5e-16)
    low = exponentials(np.array([-709.0, -1e5, -np.inf, np.nan]))
    assert (low[:3] < 1e-300).all() and np.isnan(low[3])


@njit(error_model="numpy")
def step(rows, earlier, before, i, w, k, waiting, change, squares):
    return row_step(rows, earlier, before, i, w, k, waiting, change, squares)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("waiting", [0.0, -0.7])
@pytest.mark.parametrize("change", [0.0, 0.3])
def test_a_step_gives_the_score_of_a_row_after_the_changes_by_those_before(dtype, waiting, change):
    rng = np.random.default_rng(0)
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    for n in LENGTHS:
        X, w = rng.standard_normal((3, n)).astype(dtype), rng.standard_normal((2, n)).astype(dtype)
        moved = w.copy()
        squares, score, product = step(DenseRows(X), 2, 0, 1, moved, 1, waiting, change, float(w[1] @ w[1]))
        np.testing.assert_allclose(moved[1], w[1] + dtype(waiting) * X[2], atol=10 * tolerance)
        np.testing.assert_array_equal(moved[0], w[0])
        assert squares == pytest.approx(moved[1] @ moved[1], rel=10 * tolerance, abs=tolerance)
        after = moved[1] + dtype(change) * X[0]
        assert score + change * product == pytest.approx(X[1] @ after, rel=tolerance, abs=30 * tolerance)


def test_a_row_that_changes_nothing_leaves_the_weights_as_they_are():
    X, w = np.ones((2, 40), np.float32), np.ones((1, 40), np.float32)
    X[0] = np.nan
    squares, score, product = step(DenseRows(X), 0, 1, 1, w, 0, 0.0, 1.0, 40.0)
    np.testing.assert_array_equal(w, 1)
    assert (squares, score, product) == (40.0, 40.0, 40.0)


@njit(error_model="numpy")
def pair(rows, before, i, w, a, b, change_a, change_b):
    return row_pair(rows, before, i, w, a, b, change_a, change_b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("a", "b", "changes"), [(0, 2, (-0.7, 0.3)), (2, 0, (0.0, 0.3)), (1, 1, (0.3, 0.3))])
def test_two_scores_are_those_after_both_changes(dtype, sparse, a, b, changes):
    rng = np.random.default_rng(0)
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    for n in LENGTHS:
        X, w = rng.standard_normal((3, n)).astype(dtype), rng.standard_normal((3, n)).astype(dtype)
        rows = (
            CsrRows(X.ravel(), np.tile(np.arange(n, dtype=np.int32), 3), np.arange(4) * n) if sparse else DenseRows(X)
        )
        expected = w.copy()
        for k, change in {a: changes[0], b: changes[1]}.items():
            expected[k] += dtype(change) * X[2]
        scores = pair(rows, 2, 1, w, a, b, *changes)
        np.testing.assert_allclose(w, expected, atol=10 * tolerance)
        np.testing.assert_allclose(
            scores, [X[1] @ expected[a], X[1] @ expected[b]], rtol=tolerance, atol=30 * tolerance
        )


@pytest.mark.parametrize("change", [0.0, 1.0])
def test_a_problem_that_learns_nothing_of_a_row_keeps_its_weights(change):
    X, w = np.ones((2, 40), np.float32), np.ones((2, 40), np.float32)
    X[0] = np.nan
    scores = pair(DenseRows(X), 0, 1, w, 0, 1, 0.0, change)
    np.testing.assert_array_equal(w[0], 1)
    assert scores[0] == 40.0 and np.isnan(scores[1]) == np.isnan(w[1]).all() == (change != 0.0)
