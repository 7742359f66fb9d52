"""Value, gradient and curvature of all rows: against differences of the value, for every loss and kind of problem."""

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from daskdml.data import Block
from daskdml.models import LinearModel, problems_of
from daskdml.numerics import (
    BINARY,
    KINKED,
    LOSSES,
    ONE_VERSUS_ALL,
    PENALTIES,
    REGRESSION,
    SOFTMAX,
    Plan,
    Settings,
    _whole,
    begun,
    moved,
    trial,
)

N, D, CLASSES = 70, 4, 3
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, D)) * (RNG.random((N, D)) < 0.8)
WEIGHT = RNG.uniform(0.5, 2.0, N)

SMOOTH = [loss for loss in LOSSES.values() if loss.number not in KINKED and loss.name != "multinomial"]
MODES = [
    *((loss, REGRESSION) for loss in SMOOTH if loss.regression),
    *((loss, mode) for loss in SMOOTH if not loss.regression for mode in (BINARY, ONE_VERSUS_ALL)),
    (LOSSES["multinomial"], SOFTMAX),
]
MODE_NAMES = [f"{loss.name}-{mode}" for loss, mode in MODES]


@pytest.fixture(autouse=True, params=[0, 2**62], ids=["compiled", "by arrays"])
def compiled(request, monkeypatch):
    """Both ways in which dense rows of one problem are added up."""
    monkeypatch.setattr(_whole, "COMPILED", request.param)


def model_of(loss, mode, penalty="l2", ratio=0.0, intercept=True):
    settings = Settings(
        loss.number, mode, penalty=PENALTIES[penalty], alpha=0.1, l1_ratio=ratio, fit_intercept=intercept, epsilon=0.3
    )
    outputs = problems_of(mode, CLASSES) if mode in (ONE_VERSUS_ALL, SOFTMAX) else 1
    weights = np.linspace(0.5, 1.5, CLASSES if mode == SOFTMAX else outputs)
    return LinearModel(settings, outputs, D, np.dtype(float), weights, weights[::-1].copy())


def block_of(mode, rows=X):
    y = RNG.standard_normal(N) if mode == REGRESSION else RNG.integers(CLASSES if mode > BINARY else 2, size=N)
    return Block(0, rows, y.astype(float), WEIGHT)


def at(model, values, block, curved=False, scaled=False):
    state = model.unflat(values, model.init())
    sums = model.zero_sums(state, curved, scaled)
    half, on = N // 2, np.ones(model.n_problems, dtype=bool)
    # In two parts, one of them not in order, as replicas have them.
    model.add_sums(state, block, np.arange(half), on, sums)
    other = model.zero_sums(state, curved, scaled)
    model.add_sums(state, block, np.random.default_rng(1).permutation(np.arange(half, N)), on, other)
    return model.surface(state, model.sum_gradients(sums, other))


def point_of(model):
    return 0.5 * np.random.default_rng(2).standard_normal(model.flat(model.init()).shape)


@pytest.mark.parametrize(("loss", "mode"), MODES, ids=MODE_NAMES)
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("kind", [np.asarray, csr_matrix])
def test_slopes_are_differences_of_values(loss, mode, intercept, kind):
    model, block = model_of(loss, mode, intercept=intercept), block_of(mode, kind(X))
    here = point_of(model)
    slopes = at(model, here, block).slopes
    for k, j in itertools.product(*map(range, here.shape)):
        step = np.zeros_like(here)
        step[k, j] = 1e-6
        up, down = at(model, here + step, block).values, at(model, here - step, block).values
        assert (up[k] - down[k]) / 2e-6 == pytest.approx(slopes[k, j], rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(("loss", "mode"), MODES, ids=MODE_NAMES)
@pytest.mark.parametrize("kind", [np.asarray, csr_matrix])
def test_hessians_are_differences_of_slopes_or_above_them(loss, mode, kind):
    model, block = model_of(loss, mode), block_of(mode, kind(X))
    here = point_of(model)
    hessians = at(model, here, block, curved=True).hessians
    found = np.zeros_like(hessians)
    for k, j in itertools.product(*map(range, here.shape)):
        step = np.zeros_like(here)
        step[k, j] = 1e-6
        up, down = at(model, here + step, block).slopes, at(model, here - step, block).slopes
        found[k, :, j] = (up[k] - down[k]) / 2e-6
    if loss.name in ("huber", "modified_huber", "log_loss"):
        # Where the loss is a line, something of a parabola above it: no direction is taken for flatter than it is.
        assert np.linalg.eigvalsh(hessians - found).min() >= -1e-4
    else:
        np.testing.assert_allclose(hessians, found, atol=1e-5)
    np.testing.assert_allclose(hessians, hessians.transpose(0, 2, 1), atol=1e-12)


@pytest.mark.parametrize(("loss", "mode"), MODES, ids=MODE_NAMES)
@pytest.mark.parametrize("kind", [np.asarray, csr_matrix])
def test_of_few_columns_their_products_are_the_second_derivatives_in_the_mean(loss, mode, kind):
    model, block = model_of(loss, mode), block_of(mode, kind(X))
    here = point_of(model)
    true = at(model, here, block, curved=True).hessians
    own = D + 1
    # Of a softmax those of an output with itself.
    parts = [h[k : k + own, k : k + own] for h in true for k in range(0, len(h), own)]
    found = at(model, here, block, scaled=True)
    assert not len(found.diagonal)
    np.testing.assert_allclose(found.bound @ np.mean(parts, axis=0), np.eye(own), atol=1e-4)


def test_with_an_l1_penalty_or_many_columns_there_are_no_products(monkeypatch):
    lasso = model_of(LOSSES["log_loss"], BINARY, penalty="elasticnet", ratio=0.5)
    assert not len(lasso.zero_sums(lasso.init(), False, True).gram)
    model = model_of(LOSSES["log_loss"], BINARY)
    assert model.zero_sums(model.init(), False, True).gram.shape == (D + 1, D + 1)
    monkeypatch.setattr(_whole, "GRAM_COLUMNS", D)
    assert not len(model.zero_sums(model.init(), False, True).gram)


def test_products_beyond_their_dtype_are_none():
    assert _whole._bound(np.eye(3), np.ones(2), 0.1).shape == (3, 3)
    for bad in (np.inf, np.nan):
        gram = np.eye(3)
        gram[0, 1] = gram[1, 0] = bad
        assert not len(_whole._bound(gram, np.ones(2), 0.1))


@pytest.mark.parametrize("n_rows", [50, 40_000])
def test_columns_that_few_rows_know_of_are_not_taken_for_flat(n_rows):
    model = model_of(LOSSES["log_loss"], BINARY)
    rows = np.random.default_rng(5).standard_normal((n_rows, D))
    rows[:, 1], rows[:, 2] = 0.0, 0.0
    # Not of the part that products are made of.
    rows[1, 2] = 30.0
    block = Block(0, rows, np.zeros(n_rows), np.ones(n_rows))
    sums = model.zero_sums(model.init(), False, True)
    model.add_sums(model.init(), block, np.arange(n_rows), np.ones(1, dtype=bool), sums)
    bound = model.surface(model.init(), sums).bound
    assert np.isfinite(bound).all() and (np.linalg.eigvalsh(bound) > 0).all()
    weight = float(model.negative_weight[0])
    assert 1 / bound[2, 2] == pytest.approx(0.25 * weight * 900 / n_rows + 0.1, rel=0.1)
    assert 1 / bound[1, 1] == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize(("loss", "mode"), MODES, ids=MODE_NAMES)
def test_sizes_of_second_derivatives_are_no_smaller_than_they(loss, mode, monkeypatch):
    monkeypatch.setattr(_whole, "GRAM_COLUMNS", 0)
    model, block = model_of(loss, mode), block_of(mode)
    block = Block(0, block.X, block.y, None)
    model = LinearModel(model.settings, model.n_outputs, D, model.dtype, np.ones(CLASSES), np.ones(CLASSES))
    sizes = at(model, point_of(model), block, scaled=True).diagonal
    true = at(model, point_of(model), block, curved=True).hessians
    assert (sizes >= np.diagonal(true, axis1=1, axis2=2) - 1e-12).all()


def test_float32_rows_are_as_near_as_float32_is():
    loss = LOSSES["log_loss"]
    model, block = model_of(loss, BINARY), block_of(BINARY)
    small = LinearModel(model.settings, 1, D, np.dtype(np.float32), model.positive_weight, model.negative_weight)
    rows = Block(0, X.astype(np.float32), block.y.astype(np.float32), WEIGHT.astype(np.float32))
    one, other = at(model, point_of(model), block, curved=True), at(small, point_of(model), rows, curved=True)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6)


def descended(function, start, plan, lasso=0.0, scale=None, most=3000):
    """The end of a descent, and how many times the function was asked."""
    lasso = np.full(len(start), lasso)
    descent = begun(np.array(start), *function(np.array(start)), scale, lasso, plan)
    values = [float(descent.value[0])]
    while not descent.is_over and len(values) < most:
        point = trial(descent, lasso)
        descent = moved(descent, point, *function(point), lasso, plan)
        values.append(float(descent.value[0]))
    assert (np.diff(values) <= 1e-12 * np.abs(values[:-1])).all()
    return descent, len(values)


def quadratic(condition, p=30):
    turn = np.linalg.qr(np.random.default_rng(3).standard_normal((p, p)))[0]
    A = (turn * np.geomspace(1, condition, p)) @ turn.T
    b = np.random.default_rng(4).standard_normal(p)
    return A, b, lambda x: (0.5 * x @ A @ x - b @ x, A @ x - b, A)


def rosenbrock(x):
    from scipy.optimize import rosen, rosen_der, rosen_hess

    return rosen(x), rosen_der(x), rosen_hess(x)


def test_newton_is_at_once_at_the_bottom_of_a_quadratic():
    A, b, function = quadratic(1e6)
    found, asked = descended(function, np.zeros(30), Plan(newton=True, gtol=1e-9))
    np.testing.assert_allclose(found.point, np.linalg.solve(A, b), rtol=1e-7)
    assert asked <= 3


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4])
def test_lbfgs_finds_the_bottom_of_a_quadratic(condition):
    A, b, function = quadratic(condition)
    found, asked = descended(function, np.zeros(30), Plan(gtol=1e-7))
    np.testing.assert_allclose(found.point, np.linalg.solve(A, b), atol=1e-6)
    options = {"gtol": 1e-7, "ftol": 0.0, "maxiter": 5000}
    theirs = minimize(lambda x: function(x)[:2], np.zeros(30), jac=True, method="L-BFGS-B", options=options)
    assert asked <= 1.5 * theirs.nfev


def test_columns_on_other_scales_change_nothing_where_their_sizes_are_known():
    A, b, function = quadratic(10.0)
    units = np.geomspace(1e-3, 1e3, 30)

    def scaled(x):
        value, slope, _ = function(units * x)
        return value, units * slope, None

    plain, asked = descended(function, np.zeros(30), Plan(gtol=0.0), scale=np.diagonal(A).copy())
    found, again = descended(scaled, np.zeros(30), Plan(gtol=0.0), scale=units**2 * np.diagonal(A))
    np.testing.assert_allclose(units * found.point, plain.point, rtol=1e-5, atol=1e-7)
    assert again <= asked + 5


@pytest.mark.parametrize("plan", [Plan(newton=True, gtol=1e-8), Plan(gtol=1e-8)], ids=["newton", "lbfgs"])
def test_a_curved_valley_is_walked_down(plan):
    found, asked = descended(rosenbrock, [-1.2, 1.0], plan)
    np.testing.assert_allclose(found.point, 1.0, atol=1e-6)
    theirs = minimize(lambda x: rosenbrock(x)[:2], [-1.2, 1.0], jac=True, method="L-BFGS-B", tol=1e-12)
    assert asked <= 2 * theirs.nfev


def test_a_singular_hessian_descends_too():
    A = np.diag([1.0, 0.0])
    found, _ = descended(
        lambda x: (0.5 * x @ A @ x - x[0], A @ x - np.array([1.0, 0.0]), A), [0.0, 5.0], Plan(newton=True)
    )
    np.testing.assert_allclose(found.point, [1.0, 5.0], atol=1e-6)


def test_a_step_to_where_nothing_is_a_number_is_taken_back():
    def walled(x):
        if x[0] > 1.5:
            return np.nan, np.array([np.nan]), None
        return float((x[0] - 1) ** 2), 2 * (x - 1), None

    found, _ = descended(walled, [-3.0], Plan(gtol=1e-9), scale=np.array([0.1]))
    assert found.point[0] == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("strength", [0.05, 0.5, 3.0])
def test_an_l1_penalty_ends_where_its_conditions_hold(strength):
    A, b, function = quadratic(100.0)
    found, _ = descended(function, np.zeros(30), Plan(gtol=1e-7), lasso=strength)
    slope, x = A @ found.point - b, found.point
    assert (np.abs(slope[x == 0]) <= strength + 1e-6).all()
    np.testing.assert_allclose(slope[x != 0], -strength * np.sign(x[x != 0]), atol=1e-6)
    assert (x == 0).mean() >= strength / 4
