"""Second derivatives of some rows: near those of all, whatever rows come together, and by nothing but a row's place."""

import itertools

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from daskdml.data import Block
from daskdml.models import LinearModel, problems_of
from daskdml.numerics import (
    BINARY,
    LOSSES,
    ONE_VERSUS_ALL,
    REGRESSION,
    SOFTMAX,
    Sample,
    Settings,
    _hessian,
    _whole,
    sample_for,
    shares_for,
)

N, D, CLASSES, RARE = 20_000, 12, 3, 7
RNG = np.random.default_rng(0)
# Of rows of very different sizes, one column with so few values that even rows would most often miss them.
X = RNG.standard_normal((N, D)) * RNG.lognormal(size=(N, 1))
X[:, 3] = 0.0
X[RNG.choice(N, RARE, replace=False), 3] = 60.0
MODES = {
    "log_loss": (LOSSES["log_loss"], BINARY),
    "squared_hinge": (LOSSES["squared_hinge"], BINARY),
    "one versus all": (LOSSES["log_loss"], ONE_VERSUS_ALL),
    "softmax": (LOSSES["multinomial"], SOFTMAX),
    "huber": (LOSSES["huber"], REGRESSION),
}


def made(name, kind=np.asarray, dtype=float, intercept=True):
    loss, mode = MODES[name]
    outputs = problems_of(mode, CLASSES) if mode in (ONE_VERSUS_ALL, SOFTMAX) else 1
    settings = Settings(loss.number, mode, alpha=1e-4, fit_intercept=intercept, epsilon=0.3)
    sides = np.ones(CLASSES if mode == SOFTMAX else outputs)
    model = LinearModel(settings, outputs, D, np.dtype(dtype), sides, sides)
    y = RNG.standard_normal(N) if mode == REGRESSION else RNG.integers(CLASSES if mode > BINARY else 2, size=N)
    block = Block(0, kind(X.astype(dtype)), y.astype(dtype), RNG.uniform(0.5, 2.0, N).astype(dtype))
    point = 0.2 * np.random.default_rng(2).standard_normal(model.flat(model.init()).shape)
    return model, block, model.unflat(point, model.init())


def summed(model, block, state, sample, *orders):
    total = model.zero_sums(state, True, False)
    for order in orders:
        model.add_sums(state, block, order, np.ones(model.n_problems, dtype=bool), total, sample)
    return total


ALL = np.arange(N)


@pytest.fixture(autouse=True, params=[0, 2**62], ids=["compiled", "by arrays"])
def compiled(request, monkeypatch):
    """Both ways in which dense rows of one problem are added up."""
    monkeypatch.setattr(_whole, "COMPILED", request.param)


def sample_of(model, sums, rows, number=1):
    """That of a pass after one with these sums."""
    return sample_for(rows, model.shares(sums, np.full(model.n_problems, rows)), number)


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("kind", [np.asarray, csr_matrix])
@pytest.mark.parametrize("intercept", [True, False])
def test_they_are_near_those_of_all_rows(name, kind, intercept):
    model, block, state = made(name, kind, intercept=intercept)
    whole = summed(model, block, state, None, ALL)
    known = sample_of(model, whole, 200)
    assert np.isfinite(known.shares).all()
    for sample in (known, sample_for(200, None, 0)):
        found = summed(model, block, state, sample, ALL)
        for near, true in zip(found.hessian, whole.hessian, strict=True):
            # As a Newton step sees them: the change of any direction's curvature, in parts of it.
            scale = np.linalg.inv(np.linalg.cholesky(true + 1e-9 * N * np.eye(len(true))))
            assert 0 < np.abs(np.linalg.eigvalsh(scale @ (near - true) @ scale.T)).max() < 0.3
        # All else is of all rows.
        for field in ("coef", "intercept", "rows", "totals", "value"):
            np.testing.assert_array_equal(getattr(found, field), getattr(whole, field))


def test_other_passes_and_blocks_have_other_rows_and_they_average_out():
    model, block, state = made("log_loss")
    sums = summed(model, block, state, None, ALL)
    whole, shares = sums.hessian[0], sample_of(model, sums, 80).shares
    passes = [summed(model, block, state, sample_for(80, shares, k), ALL).hessian[0] for k in range(40)]
    blocks = [summed(model, block, state, Sample(80, shares, 0.0).of_block(k), ALL).hessian[0] for k in range(40)]
    for each in (passes, blocks):
        away = [np.linalg.norm(h - whole) for h in each]
        assert min(away) > 0 and np.linalg.norm(np.mean(each, axis=0) - whole) < 0.35 * np.median(away)


@pytest.mark.parametrize("name", ["log_loss", "softmax"])
@pytest.mark.parametrize("shares", ["known", "unknown"])
def test_which_rows_they_are_does_not_depend_on_who_adds_them_up(name, shares):
    model, block, state = made(name)
    known = sample_of(model, summed(model, block, state, None, ALL), 80, 3)
    sample = known if shares == "known" else sample_for(80, None, 3)
    whole = summed(model, block, state, sample, ALL).hessian
    mixed = np.random.default_rng(1).permutation(ALL)
    parts = summed(model, block, state, sample, ALL[:7000], mixed[mixed >= 7000]).hessian
    np.testing.assert_allclose(parts, whole, rtol=1e-9, atol=1e-6)


def test_rows_that_alone_know_of_a_parameter_are_kept():
    model, block, state = made("log_loss")
    whole = summed(model, block, state, None, ALL)
    for number in range(20):
        found = summed(model, block, state, sample_of(model, whole, 50, number), ALL).hessian[0]
        assert found[3, 3] == pytest.approx(whole.hessian[0][3, 3], rel=1e-6)


@pytest.mark.parametrize("name", ["log_loss", "softmax"])
def test_as_many_rows_are_kept_as_are_wanted(monkeypatch, name):
    kept = []

    def counted(owner, method, rows):
        plain = getattr(owner, method)
        monkeypatch.setattr(owner, method, lambda *given: (kept.append(rows(*given, plain)), plain(*given))[1])

    if name == "softmax":
        counted(_hessian, "_kept", lambda chances, seats, plain: len(plain(chances, seats)[0]))
    else:
        counted(_hessian.Products, "add", lambda products, rows, factors, plain: len(rows))
    model, block, state = made(name, dtype=np.float32)
    whole = summed(model, block, state, None, ALL)
    kept.clear()
    summed(model, block, state, sample_of(model, whole, 120), ALL)
    # Those that are sure to be kept count for less than their share.
    wanted = 120 * (D + 1)
    assert 0.7 * wanted < sum(kept) <= 1.05 * wanted
    kept.clear()
    summed(model, block, state, sample_for(120, None, 1), ALL)
    assert 0.5 * N / 8 < sum(kept) < 2 * N / 8


@pytest.mark.parametrize("name", ["log_loss", "squared_hinge", "huber"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("intercept", [True, False])
def test_compiled_code_adds_up_what_arrays_do(name, dtype, intercept, monkeypatch):
    model, block, state = made(name, dtype=dtype, intercept=intercept)
    unweighted = Block(0, block.X, block.y, None)
    # Also rows that are not one after the other, and none.
    held_out = np.delete(ALL, np.arange(5, N, 7))
    known = sample_of(model, summed(model, block, state, None, ALL), 100)
    found = []
    for size in (0, 2**62):
        monkeypatch.setattr(_whole, "COMPILED", size)
        for rows, sample in itertools.product((block, unweighted), (None, known, sample_for(100, None, 2))):
            found.append(summed(model, rows, state, sample, held_out, ALL[:0]))
    near = 3e-5 if dtype == np.float32 else 1e-9
    for one, other in zip(found[:6], found[6:], strict=True):
        for field, a, b in zip(one._fields, one, other, strict=True):
            size = np.abs(b).max(initial=0.0)
            np.testing.assert_allclose(a, b, rtol=near, atol=near * size, err_msg=field)


@pytest.mark.parametrize("rows", [N / 2 / (D + 1), N, 1e12])
def test_few_rows_are_all_kept(rows):
    model, block, state = made("log_loss")
    whole = summed(model, block, state, None, ALL)
    known = sample_of(model, whole, rows)
    assert np.isinf(known.shares).all()
    for sample in (known, sample_for(rows, None, 1)):
        np.testing.assert_array_equal(summed(model, block, state, sample, ALL).hessian, whole.hessian)


def test_of_one_problem_all_rows_and_of_another_some():
    model, block, state = made("one versus all")
    whole = summed(model, block, state, None, ALL)
    shares = model.shares(whole, np.array([1e9, 50.0, 1e9]))
    found = summed(model, block, state, sample_for(50, shares, 1), ALL).hessian
    assert [(a == b).all() for a, b in zip(found, whole.hessian, strict=True)] == [True, False, True]


def test_diagonals_that_say_nothing_keep_all_rows():
    settings = made("log_loss")[0].settings._replace(fit_intercept=False)
    strange = np.array([[1.0, np.nan], [np.inf, 1.0], [1.0, 4.0]])
    shares = shares_for(strange, settings, 2, 1e9, 10)
    assert np.isinf(shares[:2]).all() and shares[2].tolist() == [10.0, 2.5]


@pytest.mark.parametrize("name", ["log_loss", "softmax"])
def test_rows_without_curvature_are_no_trouble(name):
    model, block, state = made(name)
    nothing = Block(0, np.zeros((N, D)), block.y, np.zeros(N))
    first = summed(model, nothing, state, sample_for(10, None, 1), ALL)
    found = summed(model, nothing, state, sample_of(model, first, 10), ALL)
    assert (first.hessian == 0).all() and (found.hessian == 0).all()
