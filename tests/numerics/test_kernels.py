"""The kernels against what they should compute, written out in NumPy."""

import numpy as np
import pytest
import scipy.sparse as sp

from daskdml.models import LinearModel
from daskdml.numerics import (
    BINARY,
    LOSSES,
    ONE_VERSUS_ALL,
    PENALTIES,
    REGRESSION,
    SCHEDULES,
    SOFTMAX,
    Settings,
    add_gradients,
    as_rows,
    row_order,
    settle,
    train_rows,
    train_rows_many,
    train_rows_plain,
)


class Rows:
    def __init__(self, X, y, sample_weight=None):
        self.X, self.y, self.sample_weight = X, y, sample_weight


def problem(mode=BINARY, n=60, d=7, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)).astype(dtype)
    X[rng.random((n, d)) < 0.4] = 0
    classes = {BINARY: 2, REGRESSION: 0}.get(mode, 3)
    y = rng.standard_normal(n) if mode == REGRESSION else rng.integers(0, classes, n)
    return Rows(X, y.astype(dtype), rng.random(n).astype(dtype) + 0.5)


def model(mode=BINARY, d=7, dtype=np.float64, threads=1, **settings):
    loss = settings.pop("loss", {REGRESSION: "squared_error", SOFTMAX: "multinomial"}.get(mode, "log_loss"))
    K = {BINARY: 1, REGRESSION: 1}.get(mode, 3)
    ratio = {"l1": 1.0, "l2": 0.0, "none": 0.0}.get(settings.get("penalty", "l2"), settings.get("l1_ratio", 0.15))
    settings["penalty"] = PENALTIES[settings.get("penalty", "l2")]
    settings["schedule"] = SCHEDULES[settings.get("schedule", "constant")]
    settings = {"alpha": 0.01, "eta0": 0.1} | settings | {"l1_ratio": ratio}
    weight = np.linspace(0.5, 1.5, max(K, 1))
    settings = Settings(loss=LOSSES[loss].number, mode=mode, **settings)
    return LinearModel(settings, K, d, np.dtype(dtype), weight, weight[::-1].copy(), threads)


def trained(m, rows, order=None, active=None):
    state = m.init()
    order = np.arange(len(rows.y), dtype=np.int32) if order is None else order
    active = np.ones(m.n_problems, dtype=bool) if active is None else active
    return state, m.train(state, rows, order, active)


MODES = [REGRESSION, BINARY, ONE_VERSUS_ALL, SOFTMAX]
RATES = ["constant", "optimal", "invscaling", "adagrad", "normalized"]


@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix])
def test_rows_that_must_not_be_written_to_need_no_kernel_of_their_own(make):
    """Arrays that came over the network are marked so; each kernel would be compiled once more for them."""
    rows = problem()
    rows.X = make(rows.X)
    state, _ = trained(model(), rows)
    kernels = (train_rows, train_rows_plain, train_rows_many)
    compiled = [len(kernel.signatures) for kernel in kernels]
    parts = [
        rows.y,
        rows.sample_weight,
        *([rows.X] if make is np.asarray else [rows.X.data, rows.X.indices, rows.X.indptr]),
    ]
    for part in parts:
        part.flags.writeable = False
    again, _ = trained(model(), rows)
    assert [len(kernel.signatures) for kernel in kernels] == compiled
    np.testing.assert_array_equal(again.coef, state.coef)
    assert not any(part.flags.writeable for part in parts)


@pytest.mark.parametrize("schedule", RATES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("penalty", ["l2", "l1", "elasticnet", "none"])
def test_sparse_rows_train_as_dense_ones(mode, schedule, penalty):
    rows = problem(mode)
    m = model(mode, schedule=schedule, penalty=penalty)
    dense, dense_totals = trained(m, rows)
    csr, csr_totals = trained(m, Rows(sp.csr_array(rows.X), rows.y, rows.sample_weight))
    # A column a sparse row does not name has its missed penalty at once: first order in the rate times alpha.
    near = 1e-12 if schedule not in ("adagrad", "normalized") or penalty == "none" else 0.02
    if penalty in ("l1", "elasticnet") and schedule not in ("adagrad", "normalized"):
        # Truncation looks at the columns a row names only (Tsuruoka et al. 2009): sparser in time, not in the end.
        near = 0.1
    np.testing.assert_allclose(csr.coef, dense.coef, atol=near * max(1.0, np.abs(dense.coef).max()))
    assert csr_totals.rows == dense_totals.rows == len(rows.y)
    np.testing.assert_allclose(csr_totals.loss, dense_totals.loss, rtol=max(near, 1e-9))


@pytest.mark.parametrize("schedule", RATES)
@pytest.mark.parametrize("mode", MODES)
def test_float32_is_kept_and_close_to_float64(mode, schedule):
    wide, narrow = problem(mode), problem(mode, dtype=np.float32)
    a, _ = trained(model(mode, schedule=schedule), wide)
    b, _ = trained(model(mode, schedule=schedule, dtype=np.float32), narrow)
    assert b.coef.dtype == np.float32
    np.testing.assert_allclose(a.coef, b.coef, atol=2e-4 * max(1.0, np.abs(a.coef).max()))


def test_a_softmax_step_is_its_gradient():
    rows = problem(SOFTMAX, n=1)
    m = model(SOFTMAX, penalty="none")
    state, totals = trained(m, rows)
    x, k = rows.X[0], int(rows.y[0])
    gradient = np.full(3, 1 / 3)
    gradient[k] -= 1
    weight = m.positive_weight[k] * rows.sample_weight[0]
    np.testing.assert_allclose(state.coef, -0.1 * weight * np.outer(gradient, x), atol=1e-15)
    np.testing.assert_allclose(totals.loss, [np.log(3)])


def test_adagrad_is_its_paper():
    """Duchi et al. 2011: G += g^2, w -= eta g / sqrt(G), then the proximal operator of the penalty."""
    rows = problem(BINARY, n=40)
    m = model(schedule="adagrad", penalty="elasticnet", l1_ratio=0.3, alpha=0.02)
    state, _ = trained(m, rows)
    w, b, G, Gb = np.zeros(7), 0.0, np.zeros(7), 0.0
    for x, y, s in zip(rows.X, rows.y, rows.sample_weight, strict=True):
        slope = (1 / (1 + np.exp(-(x @ w + b))) - y) * s * (m.positive_weight if y > 0 else m.negative_weight)[0]
        G += (slope * x) ** 2
        rate = np.divide(0.1, np.sqrt(G), out=np.zeros(7), where=G > 0)
        w = w - rate * slope * x
        w = np.sign(w) * np.maximum(np.abs(w) - rate * 0.02 * 0.3, 0) / (1 + rate * 0.02 * 0.7)
        Gb += slope**2
        b -= 0.1 * slope / np.sqrt(Gb)
    np.testing.assert_allclose(state.coef[0], w, atol=1e-12)
    np.testing.assert_allclose(state.intercept, b)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_normalized_does_not_see_the_scale_of_a_feature(mode, form):
    """Ross et al. 2013, theorem: multiply a column, and every prediction stays. Powers of two lose no bit."""
    rows = problem(mode)
    scale = 2.0 ** np.array([10, -10, 0, 3, -5, 20, 1])
    m = model(mode, schedule="normalized", penalty="none")
    plain, a = trained(m, Rows(form(rows.X), rows.y))
    scaled, b = trained(m, Rows(form(rows.X * scale), rows.y))
    np.testing.assert_allclose(scaled.coef * scale, plain.coef, rtol=1e-9)
    np.testing.assert_allclose(a.loss, b.loss, rtol=1e-9)


@pytest.mark.parametrize("schedule", RATES)
def test_a_stopped_problem_stays_as_it_is(schedule):
    rows = problem(ONE_VERSUS_ALL)
    m = model(ONE_VERSUS_ALL, schedule=schedule)
    state, _ = trained(m, rows)
    before = state.coef.copy(), state.intercept.copy()
    m.train(state, rows, np.arange(60, dtype=np.int32), np.array([True, False, True]))
    assert (state.coef[1] == before[0][1]).all() and state.intercept[1] == before[1][1]
    assert (state.coef[0] != before[0][0]).any()


@pytest.mark.parametrize("schedule", [r for r in RATES if r != "normalized"])
def test_threads_change_nothing(schedule):
    rows = problem(ONE_VERSUS_ALL)
    one, a = trained(model(ONE_VERSUS_ALL, schedule=schedule), rows)
    three, b = trained(model(ONE_VERSUS_ALL, schedule=schedule, threads=3), rows)
    assert all((x == y).all() for x, y in zip(one, three, strict=True))
    assert (a.loss == b.loss).all()


# Not "normalized": a row's own scales are known before its gradient, a batch's only after.
@pytest.mark.parametrize("schedule", [r for r in RATES if r != "normalized"])
@pytest.mark.parametrize("penalty", ["l2", "none"])
@pytest.mark.parametrize("mode", MODES)
def test_a_batch_of_one_row_is_a_row(mode, schedule, penalty):
    rows = problem(mode, n=25)
    m = model(mode, schedule=schedule, penalty=penalty)
    by_row, totals = trained(m, rows)
    state, active, loss = m.init(), np.ones(m.n_problems, dtype=bool), 0
    for i in range(25):
        gradient = m.zero_gradient(state)
        m.add_gradient(state, rows, np.array([i], dtype=np.int32), active, gradient)
        loss = loss + m.step(state, gradient, active).loss
    np.testing.assert_allclose(state.coef, by_row.coef, atol=1e-12)
    np.testing.assert_allclose(state.intercept, by_row.intercept, atol=1e-12)
    np.testing.assert_allclose(loss, totals.loss)


def test_gradients_of_parts_add_up():
    rows = problem(SOFTMAX)
    m = model(SOFTMAX, schedule="normalized")
    state, active = trained(m, rows)[0], np.ones(1, dtype=bool)

    def gradient(chosen):
        out = m.zero_gradient(state)
        m.add_gradient(state, rows, np.asarray(chosen, dtype=np.int32), active, out)
        return out

    both = add_gradients(gradient(range(20)), gradient(range(20, 60)))
    for part, whole in zip(both, gradient(range(60)), strict=True):
        np.testing.assert_allclose(part, whole)


def test_the_permutation_is_scikit_learns():
    """Seen of scikit-learn 1.9's SequentialDataset through the coefficients of one shuffled epoch."""
    from sklearn.linear_model import SGDRegressor as Plain

    rows = problem(REGRESSION, n=30)
    plain = Plain(max_iter=1, tol=None, alpha=0.01, learning_rate="constant", eta0=0.1, random_state=3)
    plain.fit(rows.X, rows.y)
    seed = np.random.RandomState(3).randint(0, np.iinfo(np.int32).max)
    state, _ = trained(model(REGRESSION), Rows(rows.X, rows.y), row_order(30, seed))
    np.testing.assert_allclose(state.coef[0], plain.coef_, atol=1e-12)


@pytest.mark.parametrize("kernel", [train_rows, train_rows_plain])
@pytest.mark.parametrize("alpha", [0.0, 0.01, 3.0, 9.9])
def test_a_running_mean_is_that_of_the_weights_however_fast_they_shrink(kernel, alpha):
    """With alpha=9.9 each step leaves a hundredth of them, and the mean is relative to what is left."""
    rows, on = problem(), np.ones(1, dtype=bool)
    data = as_rows(rows.X), rows.y, rows.sample_weight
    m, alone = model(average=30, alpha=alpha), model(alpha=alpha)
    state, one, seen = m.init(), alone.init(), []
    for number in range(3):
        order = row_order(60, number)
        kernel(*data, order, state, m.settings, *[m.positive_weight[:1]] * 2, on, np.zeros((2, 1)))
        for row in order[:, None]:
            train_rows(*data, row, one, alone.settings, *[m.positive_weight[:1]] * 2, on, np.zeros((2, 1)))
            seen.append((one.coef[0].copy(), one.intercept[0]))
    mean = settle(state)
    np.testing.assert_allclose(mean.average_coef[0], np.mean([w for w, _ in seen[29:]], axis=0), rtol=1e-8)
    np.testing.assert_allclose(mean.average_intercept[0], np.mean([b for _, b in seen[29:]]), rtol=1e-8)


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_an_order_is_a_permutation(seed):
    assert sorted(row_order(101, seed)) == list(range(101))
    assert row_order(0, seed).size == 0


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("loss", [n for n, loss in LOSSES.items() if n != "multinomial"])
@pytest.mark.parametrize("schedule", ["constant", "optimal", "invscaling", "adaptive"])
@pytest.mark.parametrize("extra", [{"alpha": 0.01}, {"penalty": "none"}, {"average": 5}, {"average": 30, "alpha": 3.0}])
def test_the_kernel_of_the_common_case_is_the_general_one(form, loss, schedule, extra):
    rows = problem(REGRESSION if LOSSES[loss].regression else BINARY)
    rows = Rows(form(rows.X), rows.y, rows.sample_weight)
    mode = REGRESSION if LOSSES[loss].regression else BINARY
    m = model(mode, loss=loss, schedule=schedule, **extra)
    order, on = row_order(60, 1), np.ones(1, dtype=bool)
    results = []
    for kernel in (train_rows, train_rows_plain):
        state, totals = m.init(), np.zeros((2, 1))
        arguments = m.settings, m.positive_weight[:1], m.negative_weight[:1], on, totals
        for _ in range(2):
            kernel(as_rows(rows.X), rows.y, rows.sample_weight, order, state, *arguments)
        mean = settle(state)
        results.append((state.coef, state.intercept, state.clock, totals, mean.average_coef, mean.average_intercept))
    for plain, general in zip(*results, strict=True):
        np.testing.assert_allclose(plain, general, rtol=1e-6, atol=1e-9)


SEVERAL = [(SOFTMAX, "multinomial"), *((ONE_VERSUS_ALL, n) for n, a in LOSSES.items() if not a.regression)]


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
@pytest.mark.parametrize(("mode", "loss"), [case for case in SEVERAL if case != (ONE_VERSUS_ALL, "multinomial")])
@pytest.mark.parametrize("schedule", ["constant", "optimal", "invscaling", "adaptive"])
@pytest.mark.parametrize("extra", [{"alpha": 0.01}, {"penalty": "none"}, {"average": 5}, {"average": 30, "alpha": 3.0}])
def test_the_kernel_of_several_problems_is_the_general_one(form, mode, loss, schedule, extra):
    # More rows than share a logarithm, or a sum of squares; small ones, of which no loss makes a divergent fit.
    rows = problem(mode, n=700)
    rows = Rows(form(0.2 * rows.X), rows.y, rows.sample_weight)
    m = model(mode, loss=loss, schedule=schedule, **extra)
    order = row_order(700, 1)
    for on in (
        ([True] * 3,) if mode == SOFTMAX else ([True] * 3, [True, False, True], [False, True, False], [False] * 3)
    ):
        results = []
        for kernel in (train_rows, train_rows_many):
            state, totals = m.init(), np.zeros((2, 3))
            state.eta[:] = [0.1, 0.2, 0.05]
            arguments = m.settings, m.positive_weight, m.negative_weight, np.array(on), totals
            for _ in range(2):
                kernel(as_rows(rows.X), rows.y, rows.sample_weight, order, state, *arguments)
            mean = settle(state)
            results.append(
                (state.coef, state.intercept, state.clock, totals, mean.average_coef, mean.average_intercept)
            )
        for many, general in zip(*results, strict=True):
            np.testing.assert_allclose(many, general, rtol=1e-6, atol=1e-9)
        assert (results[1][0][~np.array(on)] == 0).all()


def test_the_penalty_is_that_of_the_weights_after_they_were_huge():
    """Sums of squares that are only carried from row to row would keep what rounding took from large ones."""
    rows = problem(ONE_VERSUS_ALL, n=2000, dtype=np.float32)
    m = model(ONE_VERSUS_ALL, dtype=np.float32, loss="squared_hinge", alpha=1e-5, schedule="constant", eta0=0.05)
    given = m.settings, m.positive_weight, m.negative_weight, np.ones(3, dtype=bool)
    penalties = []
    for kernel in (train_rows, train_rows_many):
        found = []
        for n in (1000, 2000):
            state, totals = m.init(), np.zeros((2, 3))
            state.coef[:] = 1e4
            kernel(as_rows(rows.X), rows.y, rows.sample_weight, row_order(n, None), state, *given, totals)
            found.append(totals[1] - totals[0])
        penalties.append(found[1] - found[0])
    np.testing.assert_allclose(penalties[1], penalties[0], rtol=1e-2)


@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_a_row_too_large_to_be_multiplied_by_its_neighbour_is_learnt_from_all_the_same(weight):
    """Its product with the next row is no number in 32 bits, which the score of that row must not become."""
    rows = problem(dtype=np.float32)
    rows.X[10:14, 2] = 1e25
    rows.sample_weight = np.ones(60, np.float32)
    rows.sample_weight[10:14] = weight
    m = model(dtype=np.float32, eta0=1e-3, alpha=0.1)
    results = []
    for kernel in (train_rows, train_rows_plain):
        state, totals = m.init(), np.zeros((2, 1))
        given = m.settings, m.positive_weight[:1], m.negative_weight[:1], np.ones(1, dtype=bool), totals
        kernel(as_rows(rows.X), rows.y, rows.sample_weight, row_order(60, None), state, *given)
        results.append((state.coef, state.intercept))
    for plain, general in zip(*results, strict=True):
        np.testing.assert_allclose(plain, general, rtol=1e-4, atol=1e-6)
    assert np.isfinite(results[0][0]).all()


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("schedule", [*RATES, "pa1"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("extra", [{}, {"average": 5}, {"penalty": "l1"}])
def test_a_kernel_made_for_its_settings_gives_the_bits_of_the_one_for_all(mode, schedule, sparse, extra):
    if schedule in ("adagrad", "normalized") and "average" in extra:
        pytest.skip("a running mean needs a scalar rate")
    if schedule == "pa1" and mode == SOFTMAX:
        pytest.skip("passive-aggressive rules are for independent problems")
    losses = {"loss": "epsilon_insensitive" if mode == REGRESSION else "hinge"} if schedule == "pa1" else {}
    rows = problem(mode)
    rows.X = sp.csr_array(rows.X) if sparse else rows.X
    narrow = model(mode, schedule=schedule, **losses, **extra)
    general = model(mode, schedule=schedule, **losses, **extra)
    object.__setattr__(general, "settings", narrow.settings._replace(needs=Settings(0, 0).needs))
    few, few_totals = trained(narrow, rows)
    all_, all_totals = trained(general, rows)
    for name in few._fields:
        np.testing.assert_array_equal(getattr(few, name), getattr(all_, name), err_msg=name)
    np.testing.assert_array_equal(few_totals.objective, all_totals.objective)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("penalty", ["elasticnet"])
@pytest.mark.parametrize("schedule", ["constant", "adagrad"])
def test_a_weight_that_is_no_number_stays_none(schedule, penalty, sparse):
    """No penalty pulls it to 0: a fit that diverged must be seen to have."""
    rows = problem(BINARY)
    rows.X = sp.csr_array(rows.X) if sparse else rows.X
    m = model(BINARY, schedule=schedule, penalty=penalty)
    state = m.init()
    m.train(state, rows, np.arange(30, dtype=np.int32), np.ones(1, dtype=bool))
    state.coef[0, 1] = np.nan
    m.train(state, rows, np.arange(30, dtype=np.int32), np.ones(1, dtype=bool))
    assert np.isnan(state.coef[0, 1])
