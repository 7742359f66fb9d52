"""One replica in memory gives scikit-learn's coefficients, to 1e-6, row order kept."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn import linear_model as plain
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import scale

from daskdml.linear_model import SGDClassifier, SGDRegressor

pytestmark = pytest.mark.filterwarnings(f"ignore::{ConvergenceWarning.__module__}.{ConvergenceWarning.__name__}")

CLASSIFIER_LOSSES = [
    "hinge", "log_loss", "modified_huber", "squared_hinge", "perceptron",
    "squared_error", "huber", "epsilon_insensitive", "squared_epsilon_insensitive",
]  # fmt: skip
REGRESSOR_LOSSES = CLASSIFIER_LOSSES[-4:]
PENALTIES = ["l2", "l1", "elasticnet", None]
RATES = ["optimal", "constant", "invscaling", "adaptive"]


def classification(kind):
    X, y = load_iris(return_X_y=True)
    X = scale(X)
    if kind == "binary":
        y = np.array(["rest", "middle"])[(y == 1).astype(int)]
    # Interleaved: rows sorted by class would be one class at a time without shuffling.
    order = np.arange(150).reshape(3, 50).T.ravel()
    X, y = X[order], y[order]
    return (sp.csr_array(X) if kind == "sparse" else X), y


def agree(ours, theirs, X, y, **fit):
    a, b = ours.fit(X, y, **fit), theirs.fit(X, y, **fit)
    assert a.n_iter_ == b.n_iter_
    assert a.t_ == b.t_
    assert a.coef_.shape == b.coef_.shape and a.intercept_.shape == b.intercept_.shape
    size = max(1.0, np.abs(b.coef_).max())
    np.testing.assert_allclose(a.coef_, b.coef_, atol=1e-6 * size)
    np.testing.assert_allclose(a.intercept_, b.intercept_, atol=1e-6 * max(1.0, np.abs(b.intercept_).max()))
    return a, b


@pytest.mark.parametrize("kind", ["binary", "multiclass", "sparse"])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("loss", CLASSIFIER_LOSSES)
def test_classifier(loss, penalty, rate, kind):
    X, y = classification(kind)
    for average in (False, True, 40):
        params = {"loss": loss, "penalty": penalty, "learning_rate": rate, "average": average, "shuffle": False}
        # A rate that starts at 1 amplifies rounding beyond any tolerance within some epochs, in losses without a
        # bounded slope: there the first epoch is compared.
        first = 1 if rate == "optimal" else 15
        params |= {"alpha": 0.1 if rate == "optimal" else 1e-3, "max_iter": first}
        agree(SGDClassifier(**params), plain.SGDClassifier(**params), X, y)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("loss", REGRESSOR_LOSSES)
def test_regressor(loss, penalty, rate, form):
    X, y = load_diabetes(return_X_y=True)
    X, y = form(scale(X)), scale(y)
    for average in (False, True, 40):
        params = {"loss": loss, "penalty": penalty, "learning_rate": rate, "average": average, "shuffle": False}
        params |= {"alpha": 1.0 if rate == "optimal" else 1e-2, "max_iter": 1 if rate == "optimal" else 15}
        agree(SGDRegressor(**params), plain.SGDRegressor(**params), X, y)


@pytest.mark.parametrize("rate", ["pa1", "pa2"])
def test_passive_aggressive(rate):
    params = {"learning_rate": rate, "shuffle": False, "eta0": 0.5, "penalty": None}
    for kind in ("binary", "multiclass", "sparse"):
        agree(SGDClassifier(**params), plain.SGDClassifier(**params), *classification(kind))
    params["loss"] = "epsilon_insensitive"
    X, y = load_diabetes(return_X_y=True)
    agree(SGDRegressor(**params), plain.SGDRegressor(**params), scale(X), scale(y))


@pytest.mark.parametrize("early_stopping", [False, True])
def test_weights_and_stopping_to_convergence(early_stopping):
    X, y = load_breast_cancer(return_X_y=True)
    weight = np.random.default_rng(0).random(len(y))
    params = {"shuffle": False, "class_weight": "balanced", "random_state": 3, "alpha": 0.01}
    params |= {"early_stopping": early_stopping, "max_iter": 1000}
    a, b = agree(SGDClassifier(**params), plain.SGDClassifier(**params), scale(X), y, sample_weight=weight)
    assert 5 < a.n_iter_ < 1000
    assert (a.predict(scale(X)) == b.predict(scale(X))).all()


def test_one_shuffled_epoch_is_scikit_learns_distribution():
    """Shuffling draws another permutation than scikit-learn, and lands as near the optimum."""
    X, y = load_breast_cancer(return_X_y=True)
    X = scale(X)
    ours, theirs = (
        [cls(loss="log_loss", random_state=s, alpha=0.01).fit(X, y).score(X, y) for s in range(8)]
        for cls in (SGDClassifier, plain.SGDClassifier)
    )
    assert abs(np.mean(ours) - np.mean(theirs)) < 0.01


def test_partial_fit_and_warm_start():
    X, y = classification("multiclass")
    # Without averages: scikit-learn's classifiers forget their plain intercept between averaged calls.
    params = {"loss": "log_loss", "shuffle": False, "alpha": 0.1}
    a, b = SGDClassifier(**params), plain.SGDClassifier(**params)
    for at in (0, 50, 100):
        for clf in (a, b):
            clf.partial_fit(X[at : at + 50], y[at : at + 50], classes=[0, 1, 2])
        np.testing.assert_allclose(a.coef_, b.coef_, atol=1e-8)
        assert a.t_ == b.t_
    for clf in (a, b):
        clf.set_params(warm_start=True, max_iter=2, tol=None).fit(X, y)
    np.testing.assert_allclose(a.coef_, b.coef_, atol=1e-8)


def test_averages_go_on_between_calls():
    X, y = load_diabetes(return_X_y=True)
    X, y = scale(X), scale(y)
    a, b = (cls(shuffle=False, alpha=0.1, average=150) for cls in (SGDRegressor, plain.SGDRegressor))
    for at in range(0, 400, 100):
        for reg in (a, b):
            reg.partial_fit(X[at : at + 100], y[at : at + 100])
        np.testing.assert_allclose(a.coef_, b.coef_, atol=1e-8)
        np.testing.assert_allclose(a.intercept_, b.intercept_, atol=1e-8)


def test_the_constructor_has_scikit_learns_parameters_and_defaults():
    for ours, theirs in ((SGDClassifier, plain.SGDClassifier), (SGDRegressor, plain.SGDRegressor)):
        mine = ours().get_params(deep=False)
        assert mine.items() >= theirs().get_params().items()
        new = {"coordinate_eta0", "strategy", "memory_budget", "callbacks", "checkpoint", "checkpoint_every"}
        new |= {"device", "batch_size", "device_memory"}
        assert set(mine) - set(theirs().get_params()) == new


@pytest.mark.parametrize("loss", ["log_loss", "modified_huber"])
@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_probabilities(loss, kind):
    X, y = classification(kind)
    params = {"loss": loss, "shuffle": False, "alpha": 0.1, "max_iter": 1, "tol": None}
    a, b = SGDClassifier(**params).fit(X, y), plain.SGDClassifier(**params).fit(X, y)
    np.testing.assert_allclose(a.predict_proba(X), b.predict_proba(X), atol=1e-9)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(a.predict_log_proba(X), b.predict_log_proba(X), atol=1e-9)
    assert not hasattr(SGDClassifier(loss="hinge"), "predict_proba")


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
@pytest.mark.parametrize("rate", ["optimal", "adagrad", "normalized"])
@pytest.mark.parametrize("loss", ["log_loss", "multinomial", "hinge"])
def test_to_sklearn_predicts_the_same(loss, rate, kind):
    X, y = classification(kind)
    clf = SGDClassifier(loss=loss, learning_rate=rate, random_state=0, max_iter=20).fit(X, y)
    other = clf.to_sklearn()
    assert type(other).__module__.startswith("sklearn.")
    assert (other.predict(X) == clf.predict(X)).all()
    if loss != "hinge":
        np.testing.assert_allclose(other.predict_proba(X), clf.predict_proba(X), atol=1e-12)
    if hasattr(other, "partial_fit"):
        other.partial_fit(X, y)


@pytest.mark.parametrize("average", [False, True, 40, 10**6])
@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_scikit_learn_goes_on_where_to_sklearn_left(kind, average):
    X, y = classification("multiclass" if kind == "regression" else kind)
    ours = SGDRegressor if kind == "regression" else SGDClassifier
    rate = {"learning_rate": "constant", "eta0": 0.01}
    clf = ours(average=average, shuffle=False, max_iter=3, tol=None, **rate).fit(X, y)
    other = clf.to_sklearn()
    # One call: its classifier forgets the intercept under the mean after each.
    clf.partial_fit(X, y)
    other.partial_fit(X, y)
    np.testing.assert_allclose(other.coef_, clf.coef_, atol=1e-9)
    np.testing.assert_allclose(other.intercept_, clf.intercept_, atol=1e-9)


@pytest.mark.parametrize("penalty", ["l2", "l1"])
@pytest.mark.parametrize("rate", ["adagrad", "normalized", "adaptive"])
def test_softmax_reaches_the_optimum(rate, penalty):
    """Logistic regression of scikit-learn, by a deterministic solver, has the least objective there is."""
    X, y = classification("multiclass")
    alpha = 0.01
    clf = SGDClassifier(loss="multinomial", learning_rate=rate, penalty=penalty, alpha=alpha, eta0=0.1, random_state=0,
                        max_iter=3000, tol=1e-9, n_iter_no_change=50).fit(X, y)  # fmt: skip
    best = plain.LogisticRegression(
        C=1 / (alpha * len(y)), l1_ratio=float(penalty == "l1"), solver="saga", tol=1e-8, max_iter=20_000
    ).fit(X, y)

    def objective(m):
        p = m.predict_proba(X)[np.arange(len(y)), y]
        norm = np.abs(m.coef_).sum() if penalty == "l1" else 0.5 * (m.coef_**2).sum()
        return -np.log(p).mean() + alpha * norm

    assert objective(clf) < objective(best) * 1.01 + 1e-6


def test_raw_columns_train_without_tuning():
    """Columns whose scales differ by 10^8: a plain rate diverges or crawls, a normalized one does not notice."""
    X, y = load_breast_cancer(return_X_y=True)
    X = scale(X) * np.logspace(-4, 4, 30)
    clf = SGDClassifier(loss="log_loss", learning_rate="normalized", random_state=0).fit(X, y)
    assert clf.score(X, y) > 0.97
    reg = SGDRegressor(learning_rate="normalized", random_state=0).fit(X, y)
    assert reg.score(X, y) > 0.7


def test_divergence_is_an_error_with_a_remedy():
    X, y = load_diabetes(return_X_y=True)
    with pytest.raises(ValueError, match=r"under-/overflow occurred at epoch #\d+. Scaling input data"):
        SGDRegressor(learning_rate="constant", eta0=10.0).fit(X * 1e150, y)


def test_parameters_are_honoured_or_refused():
    X, y = classification("binary")
    with pytest.raises(ValueError, match="average=True needs a scalar learning rate"):
        SGDClassifier(learning_rate="adagrad", average=True).fit(X, y)
    with pytest.raises(ValueError, match="strategy must be one of 'averaging', 'bsp'"):
        SGDClassifier(strategy="gossip").fit(X, y)
    with pytest.raises(ValueError, match="rule for single rows|rules for single rows"):
        SGDClassifier(strategy="bsp", learning_rate="pa1").fit(X, y)
    with pytest.raises(TypeError, match="callbacks"):
        SGDClassifier(callbacks=[print]).fit(X, y)


def test_float32_is_kept():
    X, y = classification("multiclass")
    clf = SGDClassifier(random_state=0).fit(X.astype(np.float32), y)
    assert clf.coef_.dtype == clf.intercept_.dtype == np.float32
    assert clf.decision_function(X.astype(np.float32)).dtype == np.float32


def test_n_jobs_changes_nothing():
    X, y = classification("multiclass")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, two = (SGDClassifier(random_state=0, n_jobs=n).fit(X, y) for n in (None, 2))
    assert (one.coef_ == two.coef_).all()
