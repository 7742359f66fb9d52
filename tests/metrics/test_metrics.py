import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as reference
from sklearn.linear_model import LinearRegression, LogisticRegression

from daskdml import metrics
from daskdml.linear_model import SGDClassifier

rng = np.random.default_rng(0)
N = 300
LABELS = rng.integers(0, 3, N)
BINARY = rng.integers(0, 2, N)
PREDICTED = np.where(rng.random(N) < 0.7, LABELS, rng.integers(0, 3, N))
PROBA = rng.dirichlet(np.ones(3), N)
SCORE = np.round(BINARY + rng.normal(size=N), 1)  # with ties
WEIGHT = rng.random(N)
REAL, GUESS = rng.normal(1e6, 2, N), rng.normal(1e6, 2, N)

CASES = {
    "accuracy_score": (LABELS, PREDICTED),
    "log_loss": (LABELS, PROBA),
    "roc_auc_score": (BINARY, SCORE),
    "mean_squared_error": (REAL, GUESS),
    "root_mean_squared_error": (REAL, GUESS),
    "mean_absolute_error": (REAL, GUESS),
    "r2_score": (REAL, GUESS),
}


def unknown(x):
    """A dask array that does not know its lengths."""
    if x.ndim == 1:
        return dd.from_pandas(pd.Series(x), npartitions=4, sort=False).to_dask_array()
    return dd.from_pandas(pd.DataFrame(x), npartitions=4, sort=False).to_dask_array()


CONTAINERS = {
    "numpy": lambda x, i: x,
    "pandas": lambda x, i: pd.Series(x) if x.ndim == 1 else x,
    "dask array": lambda x, i: da.from_array(x, chunks=(70,) + x.shape[1:]),
    "unaligned": lambda x, i: da.from_array(x, chunks=((60, 240) if i else (100, 100, 100),) + x.shape[1:]),
    "dask Series": lambda x, i: dd.from_pandas(pd.Series(x), npartitions=3, sort=False) if x.ndim == 1 else unknown(x),
    "unknown": lambda x, i: unknown(x),
    "mixed": lambda x, i: x if i else da.from_array(x, chunks=(70,) + x.shape[1:]),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_sklearn(name, container, weighted):
    weight = {"sample_weight": WEIGHT} if weighted else {}
    expected = getattr(reference, name)(*CASES[name], **weight)
    make = CONTAINERS[container]
    weight = {"sample_weight": make(WEIGHT, 2)} if weighted else {}
    got = getattr(metrics, name)(*[make(x, i) for i, x in enumerate(CASES[name])], **weight)
    assert type(got) is float
    assert got == pytest.approx(expected, rel=1e-9)


def test_multiclass_auc_and_labels_equal_sklearn():
    y, p = da.from_array(LABELS, chunks=70), da.from_array(PROBA, chunks=(70, 3))
    assert metrics.roc_auc_score(y, p, multi_class="ovr") == reference.roc_auc_score(LABELS, PROBA, multi_class="ovr")
    few = LABELS < 2
    expected = reference.log_loss(LABELS[few], PROBA[few], labels=[0, 1, 2])
    assert metrics.log_loss(LABELS[few], PROBA[few], labels=[0, 1, 2]) == pytest.approx(expected)
    assert metrics.accuracy_score(LABELS, PREDICTED, normalize=False) == (LABELS == PREDICTED).sum()


def test_text_labels_and_sure_mistakes():
    y = np.array(["no", "yes"], dtype=object)[BINARY]
    p = np.clip(SCORE, 0, 1)
    assert metrics.log_loss(da.from_array(y, chunks=99), da.from_array(p, chunks=99)) == pytest.approx(
        reference.log_loss(y, p), rel=1e-9
    )


TEXT = pd.Series(np.array(["no", "yes", "maybe"])[LABELS])
OF_TEXT = {
    "Series": TEXT,
    "category": TEXT.astype("category"),
    "objects": TEXT.to_numpy(object),
    "dask Series": dd.from_pandas(TEXT, npartitions=3),
    "dask objects": da.from_array(TEXT.to_numpy(object), chunks=70),
}


@pytest.mark.parametrize("y", OF_TEXT.values(), ids=OF_TEXT)
@pytest.mark.parametrize("x", ["numpy", "dask array", "dask DataFrame"])
def test_score_of_text_labels_here_and_there(x, y):
    X = np.eye(3)[PREDICTED]
    clf = SGDClassifier(max_iter=5, tol=None, random_state=0).fit(X, y)
    lazy = {"dask array": da.from_array(X, chunks=(80, 3)), "dask DataFrame": dd.from_pandas(pd.DataFrame(X), 4)}
    expected = reference.accuracy_score(TEXT.astype(object), clf.predict(X))
    assert clf.score(lazy.get(x, X), y) == pytest.approx(expected)
    assert metrics.accuracy_score(y, clf.predict(lazy.get(x, X))) == pytest.approx(expected)


@pytest.mark.parametrize("name", CASES)
def test_unequal_lengths_are_refused(name):
    a, b = CASES[name]
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        getattr(metrics, name)(a[:-1], b)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        getattr(metrics, name)(da.from_array(a[:-1], chunks=50), da.from_array(b, chunks=50))


def test_senseless_input_is_refused():
    with pytest.raises(ValueError, match="two classes, but y_true has only"):
        metrics.roc_auc_score([1, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match="only one label"):
        metrics.log_loss([1, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match="no probabilities"):
        metrics.log_loss([0, 1], [0.1, 1.2])
    with pytest.raises(ValueError, match="at least one row"):
        metrics.r2_score([], [])
    assert metrics.r2_score([1.0, 1.0], [1.0, 1.0]) == 1.0
    assert metrics.r2_score([1.0, 1.0], [1.0, 2.0]) == 0.0


@pytest.mark.parametrize("lazy", [False, True])
def test_evaluate_classifier(lazy):
    X = rng.normal(size=(N, 4))
    y = np.array(["a", "b"], dtype=object)[(X[:, 0] + rng.normal(size=N) > 0).astype(int)]
    model = LogisticRegression().fit(X, y)
    data = (da.from_array(X, chunks=(70, 4)), da.from_array(y, chunks=70)) if lazy else (X, y)
    got = metrics.evaluate(model, *data, priors=[0.25, 0.75])
    proba = model.predict_proba(X)
    assert got.rows == N
    assert got.model["accuracy"] == pytest.approx(model.score(X, y))
    assert got.model["log_loss"] == pytest.approx(reference.log_loss(y, proba))
    assert got.model["roc_auc"] == pytest.approx(reference.roc_auc_score(y == "b", proba[:, 1]), abs=1e-6)
    assert got.baseline["accuracy"] == pytest.approx((y == "b").mean())
    assert got.baseline["log_loss"] == pytest.approx(reference.log_loss(y, np.tile([0.25, 0.75], (N, 1))))


def test_evaluate_regressor_with_an_empty_block():
    X = rng.normal(size=(N, 2))
    y = X @ [1.0, 2.0] + rng.normal(size=N)
    model = LinearRegression().fit(X, y)
    got = metrics.evaluate(
        model, da.from_array(X, chunks=((0, 200, 100), 2)), da.from_array(y, chunks=((0, 200, 100),))
    )
    assert got.model["r2"] == pytest.approx(model.score(X, y))
    assert got.baseline["rmse"] == pytest.approx(y.std()) and got.baseline["r2"] == pytest.approx(0)


def test_a_label_the_model_has_not_seen_counts_as_wrong():
    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    got = metrics.evaluate(model, np.array([[0.0], [1.0], [5.0]]), np.array([0, 1, 7]))
    assert got.model["accuracy"] == pytest.approx(2 / 3)
