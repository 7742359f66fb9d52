"""Real data: replicas that do not wait for each other learn what averaging learns in as many epochs."""

from statistics import median

import dask.array as da
import pytest
from sklearn.datasets import load_svmlight_file
from sklearn.metrics import log_loss

from daskdml import ASP, SSP, Averaging
from daskdml.linear_model import SGDClassifier

pytestmark = pytest.mark.data

BLOCKS, REPLICAS, EPOCHS = 16, 4, 15


@pytest.fixture(scope="module")
def a9a(shared_data):
    X, y = load_svmlight_file(str(shared_data / "a9a.gz"), n_features=123)
    return X.toarray(), (y > 0).astype(int)


def loss(strategy, X, y):
    rows = -(-len(y) // BLOCKS)
    lazy = da.from_array(X, chunks=(rows, X.shape[1])), da.from_array(y, chunks=rows)
    clf = SGDClassifier(
        loss="log_loss", learning_rate="adagrad", max_iter=EPOCHS, tol=None, random_state=0, strategy=strategy
    ).fit(*lazy)
    return log_loss(y, clf.predict_proba(X))


@pytest.fixture(scope="module")
def wanted(a9a, cluster):
    from distributed import Client

    with Client(cluster):
        return loss(Averaging(REPLICAS), *a9a)


@pytest.mark.parametrize(
    ("strategy", "allowed"),
    # Without a bound the last clocks of a replica may come late: the benchmark of this name has the figures.
    [(SSP(3, REPLICAS), 1.005), (ASP(REPLICAS), 1.01)],
    ids=repr,
)
def test_a9a_is_learnt_as_averaging_does(client, a9a, wanted, strategy, allowed):
    # What the threads' turns make of the last clocks differs from fit to fit: of ninety, two were at 1.003 and more.
    assert median(loss(strategy, *a9a) for _ in range(3)) <= allowed * wanted
