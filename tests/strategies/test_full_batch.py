"""Full-batch descent: scikit-learn's deterministic solvers on the same objective, and what is asked of a strategy."""

import dask.array as da
import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.linear_model import ElasticNet, LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.multiclass import OneVsRestClassifier

from daskdml import Averaging, FullBatch
from daskdml.cluster import close_embedded
from daskdml.linear_model import SGDClassifier, SGDRegressor
from daskdml.linear_model._device import AUTO_BATCH
from daskdml.monitor import Callback, StopTraining
from daskdml.numerics import _whole, card
from tests.strategies.test_checkpoint import assert_goes_on
from tests.strategies.test_failures import kill

N, D, ALPHA = 1500, 6, 1e-3
RNG = np.random.default_rng(0)
# On scales from a hundredth to a hundred, and off centre.
X = (RNG.standard_normal((N, D)) + 0.5) * np.geomspace(0.01, 100, D) * (RNG.random((N, D)) < 0.7)
SCORES = (X / np.geomspace(0.01, 100, D)) @ RNG.standard_normal(D) + 0.3
Y = (SCORES + RNG.logistic(size=N) > 0).astype(int)
THREE = np.digitize(SCORES + RNG.logistic(size=N), [-1, 1])
TARGET = SCORES + 0.1 * RNG.standard_normal(N)
WEIGHT = RNG.uniform(0.2, 3.0, N)
SOLVERS = ["newton", "lbfgs"]


def full(solver="auto", loss="log_loss", make=SGDClassifier, **params):
    params = {"alpha": ALPHA, "tol": None, "max_iter": 3000} | params
    return make(loss, strategy=FullBatch(solver=solver, gtol=1e-8), **params)


def theirs(y, weight=None, rows=X, **params):
    C = 1 / (ALPHA * N)
    plain = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-12, max_iter=500, **params)
    return plain.fit(rows, y, sample_weight=weight)


def lazy(*arrays, rows=190):
    return tuple(da.from_array(a, chunks=(rows, *a.shape[1:])) for a in arrays)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", [np.asarray, csr_matrix])
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("intercept", [True, False])
def test_two_classes_as_scikit_learn_has_them(solver, kind, weight, intercept):
    clf = full(solver, fit_intercept=intercept).fit(kind(X), Y, sample_weight=weight)
    plain = theirs(Y, weight, fit_intercept=intercept)
    np.testing.assert_allclose(clf.coef_, plain.coef_, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(clf.predict_proba(X), plain.predict_proba(X), atol=1e-5)
    assert clf.provenance_["reason"] == "converged" and clf.n_iter_ < 1500


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_softmax_as_scikit_learn_has_it(solver):
    clf = full(solver, "multinomial", class_weight="balanced").fit(X, THREE)
    np.testing.assert_allclose(clf.predict_proba(X), theirs(THREE, class_weight="balanced").predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_versus_all_is_a_descent_for_each_class(solver):
    clf = full(solver).fit(X, THREE)
    plain = OneVsRestClassifier(theirs(Y)).fit(X, THREE)
    found = np.vstack([one.coef_ for one in plain.estimators_])
    np.testing.assert_allclose(clf.coef_, found, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("solver", SOLVERS)
def test_ridge(solver):
    reg = full(solver, "squared_error", SGDRegressor).fit(X, TARGET)
    plain = Ridge(alpha=ALPHA * N).fit(X, TARGET)
    np.testing.assert_allclose(reg.predict(X), plain.predict(X), atol=1e-5)


@pytest.mark.parametrize("ratio", [1.0, 0.4])
def test_elastic_net_with_the_same_zeros(ratio):
    Z = X / np.geomspace(0.01, 100, D)
    reg = full("auto", "squared_error", SGDRegressor, alpha=0.1, penalty="elasticnet", l1_ratio=ratio).fit(Z, TARGET)
    plain = ElasticNet(alpha=0.1, l1_ratio=ratio, tol=1e-12, max_iter=100_000).fit(Z, TARGET)
    np.testing.assert_allclose(reg.coef_, plain.coef_, atol=1e-5)
    assert ((reg.coef_ == 0) == (plain.coef_ == 0)).all()


@pytest.mark.parametrize("loss", ["squared_hinge", "modified_huber", "huber", "squared_epsilon_insensitive"])
def test_newton_and_lbfgs_end_at_the_same_point(loss):
    regression = loss in ("huber", "squared_epsilon_insensitive")
    make, y = (SGDRegressor, TARGET) if regression else (SGDClassifier, Y)
    one, other = (full(solver, loss, make).fit(X, y) for solver in SOLVERS)
    scores = [m.predict(X) if regression else m.decision_function(X) for m in (one, other)]
    np.testing.assert_allclose(*scores, atol=1e-4)
    # L-BFGS begins with the same second derivatives, which a Huber loss has again and again.
    assert one.n_iter_ <= other.n_iter_ + 2


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("replicas", [1, 3])
def test_blocks_and_replicas_change_the_rounding_only(client, solver, replicas):
    # As many passes, so that the end of one is not that of another which stopped a digit earlier.
    given = {"tol": None, "max_iter": 8, "alpha": ALPHA}
    strategy = FullBatch(replicas, solver=solver, gtol=0.0)
    clf = SGDClassifier("log_loss", strategy=strategy, **given).fit(*lazy(X, Y))
    whole = SGDClassifier("log_loss", strategy=FullBatch(solver=solver, gtol=0.0), **given).fit(X, Y)
    np.testing.assert_allclose(clf.decision_function(X), whole.decision_function(X), rtol=1e-6, atol=1e-6)
    again = SGDClassifier("log_loss", strategy=strategy, random_state=5, **given).fit(*lazy(X, Y))
    assert (clf.coef_ == again.coef_).all()


# Of 1,500 rows about 280, and in the first pass as many.
SOME = 40


@pytest.mark.parametrize("kind", [np.asarray, csr_matrix])
@pytest.mark.parametrize("y", [Y, THREE], ids=["two classes", "one versus all"])
def test_second_derivatives_of_some_rows_lead_to_the_same_point(kind, y):
    def fit(rows):
        strategy = FullBatch(solver="newton", gtol=1e-8, hessian_rows=rows)
        return SGDClassifier("log_loss", alpha=ALPHA, tol=None, max_iter=100, strategy=strategy).fit(kind(X), y)

    some, whole = fit(SOME), fit(10**6)
    assert (some.coef_ != whole.coef_).any()
    np.testing.assert_allclose(some.decision_function(X), whole.decision_function(X), rtol=1e-4, atol=1e-4)
    assert some.provenance_["reason"] == "converged" and some.n_iter_ <= whole.n_iter_ + 8
    one, other = (m.history_["loss"].iloc[3] - m.history_["loss"].iloc[-1] for m in (some, whole))
    assert one < other + 0.01


def test_a_softmax_by_second_derivatives_of_some_rows():
    strategy = FullBatch(solver="newton", gtol=1e-8, hessian_rows=SOME)
    clf = SGDClassifier("multinomial", alpha=ALPHA, tol=None, max_iter=100, strategy=strategy).fit(X, THREE)
    np.testing.assert_allclose(clf.predict_proba(X), theirs(THREE).predict_proba(X), atol=1e-5)


def test_products_of_columns_save_passes(monkeypatch):
    rng = np.random.default_rng(4)
    mixed = rng.standard_normal((N, 40)) @ (rng.standard_normal((40, 40)) * np.geomspace(1, 0.01, 40))
    y = (mixed[:, :3] @ rng.standard_normal((3, 3)) + rng.gumbel(size=(N, 3))).argmax(axis=1)
    passes = {}
    for columns in (0, 1024):
        monkeypatch.setattr(_whole, "GRAM_COLUMNS", columns)
        clf = full("lbfgs", "multinomial").fit(mixed, y)
        np.testing.assert_allclose(clf.predict_proba(mixed), theirs(y, rows=mixed).predict_proba(mixed), atol=1e-5)
        passes[columns] = clf.n_iter_
    assert passes[1024] < 0.6 * passes[0]


def test_rare_categories_need_no_more_passes():
    rng = np.random.default_rng(3)
    # A thousand rows for each category but the last ones, of which a row in two thousand is.
    codes = np.minimum(rng.geometric(0.4, 30_000), 12) - 1
    rows = np.eye(12)[codes] / np.sqrt(np.bincount(codes, minlength=12) / len(codes))
    y = (rng.random(30_000) < 0.05 + 0.9 * (codes % 2)).astype(int)

    def passes(rows_for_each):
        strategy = FullBatch(gtol=1e-6, hessian_rows=rows_for_each)
        return SGDClassifier("log_loss", alpha=1e-5, tol=None, max_iter=60, strategy=strategy).fit(rows, y).n_iter_

    assert passes(100) <= passes(10**6) + 2


def test_replicas_change_the_rounding_only_where_some_rows_are_taken(client):
    def fit(replicas):
        strategy = FullBatch(replicas, solver="newton", gtol=0.0, hessian_rows=SOME)
        return SGDClassifier("log_loss", alpha=ALPHA, tol=None, max_iter=5, strategy=strategy).fit(*lazy(X, Y))

    one, three = fit(1), fit(3)
    assert one.history_["loss"].iloc[-1] < 0.99 * one.history_["loss"].iloc[1]
    np.testing.assert_allclose(three.decision_function(X), one.decision_function(X), rtol=1e-6, atol=1e-6)


def test_chunks_that_the_cluster_holds_and_unknown_lengths(client):
    held = [a.persist() for a in lazy(X, Y)]
    masked = [a[a.map_blocks(lambda b: np.ones(len(b), dtype=bool), dtype=bool, drop_axis=[*range(1, a.ndim)])]
              for a in lazy(X, Y)]  # fmt: skip
    one, other = (full().fit(*data) for data in (held, masked))
    np.testing.assert_allclose(one.coef_, other.coef_, rtol=1e-9)


def test_the_history_is_that_of_the_best_point_and_ends_with_the_fit():
    clf = full("lbfgs", penalty=None, max_iter=40).fit(X, Y)
    losses = clf.history_["loss"].to_numpy()
    assert (np.diff(losses) <= 0).all() and losses[0] == pytest.approx(np.log(2))
    assert losses[-1] == pytest.approx(log_loss(Y, clf.predict_proba(X)), rel=1e-9)


def test_passes_of_averaging_come_first_and_a_start_may_be_given():
    given = {"alpha": ALPHA, "tol": None, "random_state": 0}
    Z = X / np.geomspace(0.01, 100, D)
    sgd = SGDClassifier("log_loss", max_iter=2, strategy=Averaging(), **given).fit(Z, Y)
    warm = SGDClassifier("log_loss", max_iter=3, strategy=FullBatch(warm_up=2), **given).fit(Z, Y)
    # The first pass of the descent evaluates where SGD has come to.
    assert (warm.coef_ == sgd.coef_).all()
    start = SGDClassifier("log_loss", max_iter=1, strategy=FullBatch(), **given).fit(
        Z, Y, coef_init=sgd.coef_, intercept_init=sgd.intercept_
    )
    assert (start.coef_ == sgd.coef_).all()
    assert start.history_["loss"].iloc[-1] == pytest.approx(warm.history_["loss"].iloc[-1])
    on = SGDClassifier("log_loss", max_iter=4, strategy=FullBatch(warm_up=2), **given).fit(Z, Y)
    assert on.history_["loss"].iloc[-1] < warm.history_["loss"].iloc[-1]


def test_the_estimators_tolerance_ends_it_too():
    strategy = FullBatch(solver="lbfgs", gtol=0.0)
    clf = SGDClassifier("log_loss", penalty=None, strategy=strategy, tol=1e-3, max_iter=3000).fit(X, Y)
    assert clf.provenance_["reason"] == "converged"
    gains = -np.diff(clf.history_["loss"])
    assert (gains[-5:] < 1e-3).all()


def test_early_stopping_has_a_score_of_rows_held_out(client):
    given = {"early_stopping": True, "random_state": 0, "tol": 1e-3, "max_iter": 30}
    for data in ((X, Y), lazy(X, Y)):
        clf = SGDClassifier("log_loss", strategy="full_batch", **given).fit(*data)
        assert clf.history_["validation_score"].iloc[-1] > 0.6
        assert clf.history_["rows"].iloc[0] == pytest.approx(0.9 * N, rel=0.01)


def test_a_listener_stops_it_at_a_point_that_was_evaluated():
    class Stop(Callback):
        def on_round_end(self, event):
            if event.round == 4:
                raise StopTraining

    clf = full("lbfgs", callbacks=[Stop()]).fit(X, Y)
    assert clf.n_iter_ == 4
    assert clf.history_["loss"].iloc[-1] == pytest.approx(log_loss(Y, clf.predict_proba(X)), rel=1e-9)


def test_float32_stays_and_comes_as_near_as_it_can():
    Z = (X / np.geomspace(0.01, 100, D)).astype(np.float32)
    clf = full().fit(Z, Y)
    assert clf.coef_.dtype == np.float32
    np.testing.assert_allclose(clf.predict_proba(Z), theirs(Y, rows=Z.astype(float)).predict_proba(Z), atol=1e-4)
    assert clf.n_iter_ < 20


def test_another_strategy_goes_on_from_it():
    clf = full().fit(X, Y)
    clf.set_params(strategy="averaging", learning_rate="constant", eta0=1e-9).partial_fit(X, Y)
    np.testing.assert_allclose(clf.coef_, full().fit(X, Y).coef_, rtol=1e-3)


def test_a_model_of_its_own_is_as_small_as_any():
    # What a descent remembers is not kept with the model.
    import pickle

    wide = csr_matrix((np.ones(N), (np.arange(N), np.arange(N) % 500)), shape=(N, 20_000))
    clf = full("lbfgs", max_iter=5).fit(wide, Y)
    assert len(pickle.dumps(clf)) < 5 * clf.coef_.nbytes


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"loss": "hinge"}, "a loss with kinks"),
        ({"average": True}, "set average=False"),
        ({"penalty": "l1", "strategy": FullBatch(solver="newton")}, "takes no l1 penalty"),
        ({"strategy": FullBatch(solver="cg")}, "solver must be 'auto', 'newton' or 'lbfgs'"),
        ({"strategy": FullBatch(warm_up=-1)}, "warm_up must be an integer of at least 0"),
        ({"strategy": FullBatch(history=0)}, "history must be an integer of at least 1"),
        ({"strategy": FullBatch(hessian_rows=0)}, "hessian_rows must be an integer of at least 1"),
        ({"strategy": FullBatch(gtol=-1.0)}, "gtol must be at least 0"),
        ({"batch_size": 64}, "batch_size=64 has no meaning"),
        ({"device": "cuda", "learning_rate": "normalized"}, "learning_rate='normalized' has no kernel for a GPU"),
        ({"device_memory": "1GB"}, "is memory of a GPU"),
        ({"learning_rate": "pa1", "loss": "hinge", "eta0": 1.0}, "rules for single rows|a loss with kinks"),
    ],
    ids=lambda p: str(p)[:40],
)
def test_what_it_cannot_do_is_said_before_anything_is_read(params, message):
    with pytest.raises(ValueError, match=message):
        SGDClassifier(**({"loss": "log_loss", "strategy": "full_batch"} | params)).fit(X, Y)


def test_a_hessian_that_is_too_large_is_refused():
    wide = csr_matrix((np.ones(N), (np.arange(N), np.arange(N))), shape=(N, 20_000))
    with pytest.raises(ValueError, match=r"would take 3\.2 GB on each worker: use solver='lbfgs'"):
        full("newton").fit(wide, Y)


def test_one_pass_over_other_rows_is_refused():
    with pytest.raises(ValueError, match="strategy='averaging'"):
        SGDClassifier("log_loss", strategy="full_batch").partial_fit(X, Y, classes=[0, 1])


@pytest.mark.skipif(card() is not None, reason="this process has a GPU")
@pytest.mark.parametrize("solver", SOLVERS)
def test_without_a_gpu_auto_is_the_cpu_and_cuda_an_error(solver):
    clf = full(solver, device="auto").fit(X, Y)
    assert (clf.coef_ == full(solver).fit(X, Y).coef_).all()
    assert not clf.history_["gpu_replicas"].any()
    with pytest.raises(RuntimeError, match="device='cuda' needs a GPU"):
        full(solver, device="cuda").fit(X, Y)


@pytest.mark.skipif(card() is not None, reason="this process has a GPU")
def test_a_warm_up_goes_in_batches_where_it_is_told_to():
    def warmed(**params):
        warm = {"strategy": FullBatch(warm_up=1), "max_iter": 1, "random_state": 0} | params
        return SGDClassifier("log_loss", **warm).fit(X, Y).coef_

    averaged = SGDClassifier("log_loss", batch_size=32, max_iter=1, random_state=0).fit(X, Y).coef_
    assert (warmed(batch_size=32) == averaged).all()
    # "auto" takes the batches of a GPU, whatever is found.
    assert (warmed(device="auto") == warmed(batch_size=AUTO_BATCH)).all()
    assert (warmed() == warmed(batch_size=1)).all()


def test_rows_that_cannot_be_learnt_from_are_named(client):
    bad = X.copy()
    bad[700, 2] = np.nan
    with pytest.raises(ValueError, match="block 3"):
        full().fit(*lazy(bad, Y))


def test_numbers_beyond_their_dtype_are_told_of():
    with pytest.raises(ValueError, match="overflow occurred at the point where the descent begins"):
        full("lbfgs").fit((X * 1e35).astype(np.float32), Y, coef_init=np.full((1, D), 1e30))


def test_without_a_client_dask_data_train_on_the_embedded_cluster():
    try:
        np.testing.assert_allclose(full().fit(*lazy(X, Y)).coef_, full().fit(X, Y).coef_, rtol=1e-6)
    finally:
        close_embedded()


def test_rows_of_weight_zero_are_as_if_they_were_not_there():
    weight = np.where(np.arange(N) % 3 == 0, 0.0, 1.0)
    kept = weight > 0
    # The objective is a mean over all rows, so the penalty weighs more without them.
    clf = full(alpha=ALPHA * kept.mean()).fit(X, Y, sample_weight=weight)
    plain = full(alpha=ALPHA).fit(X[kept], Y[kept])
    np.testing.assert_allclose(clf.decision_function(X), plain.decision_function(X), atol=1e-4)


def test_a_worker_killed_meanwhile_changes_no_bit(process_client):
    client = process_client(2)

    class Kill(Callback):
        def on_round_end(self, event):
            if event.round == 3:
                kill(client, sorted(client.nthreads())[0])

    given = {"alpha": ALPHA, "tol": None, "max_iter": 8, "strategy": FullBatch(3, solver="lbfgs", gtol=0.0)}
    whole = SGDClassifier("log_loss", **given).fit(*lazy(X, Y))
    clf = SGDClassifier("log_loss", callbacks=[Kill()], **given).fit(*lazy(X, Y))
    assert (clf.coef_ == whole.coef_).all() and clf.n_iter_ == 8


@pytest.mark.parametrize("at", [2, 3, 7, 12])
@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize(
    "params", [{"solver": "newton", "hessian_rows": SOME}, {"solver": "lbfgs", "history": 5}], ids=repr
)
def test_a_fit_that_was_broken_off_goes_on_to_the_same_bits(client, tmp_path, at, blocks, params):
    data = lazy(X, Y) if blocks else (X, Y)
    assert_goes_on(tmp_path, data, at, max_iter=12, strategy=FullBatch(warm_up=2, gtol=0.0, **params))
