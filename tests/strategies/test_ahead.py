"""Small data in memory: epochs run in one call give what epochs run one by one give, to the last bit."""

import math
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning

from daskdml import BSP, Averaging
from daskdml.linear_model import SGDClassifier, SGDRegressor
from daskdml.models import LinearModel
from daskdml.monitor import Callback
from daskdml.numerics import _epochs

X, Y = load_iris(return_X_y=True)


class Listens(Callback):
    """Wants to hear of each epoch before the next."""


class Epochs(Callback):
    def __init__(self):
        self.seen = []

    def on_epoch_end(self, event):
        self.seen.append(event.epoch)


@pytest.fixture(params=[0, math.inf], ids=["compiled", "one by one"], autouse=True)
def loop(request, monkeypatch):
    """Whether the loop over epochs is compiled, or Python runs them."""
    monkeypatch.setattr(_epochs, "_run", _epochs._Run())
    monkeypatch.setattr(_epochs, "_WORTH", request.param)
    monkeypatch.setattr(_epochs, "at_hand", lambda *given: False)


@pytest.fixture
def calls(monkeypatch):
    """The epochs that each compiled call has run."""
    found = []
    original = LinearModel.train_epochs

    def train_epochs(self, *args):
        totals, rates = original(self, *args)
        found.append(len(totals))
        return totals, rates

    monkeypatch.setattr(LinearModel, "train_epochs", train_epochs)
    return found


def fitted(cls, X, y, params, callbacks, **fit):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return cls(random_state=3, callbacks=callbacks, **params).fit(X, y, **fit)


CASES = {
    "binary": (SGDClassifier, {"loss": "log_loss"}, Y == 1),
    "hinge, three classes": (SGDClassifier, {}, Y),
    "softmax": (SGDClassifier, {"loss": "multinomial"}, Y),
    "in order": (SGDClassifier, {"shuffle": False}, Y),
    "l1": (SGDClassifier, {"penalty": "l1"}, Y),
    "running mean": (SGDClassifier, {"average": 40}, Y),
    "passive-aggressive": (SGDClassifier, {"learning_rate": "pa1", "eta0": 1.0}, Y),
    "adagrad": (SGDClassifier, {"learning_rate": "adagrad"}, Y),
    "normalized, elastic net": (SGDClassifier, {"learning_rate": "normalized", "penalty": "elasticnet"}, Y),
    "adaptive rate": (SGDClassifier, {"learning_rate": "adaptive", "eta0": 0.05, "tol": 0.01}, Y),
    "never stalls": (SGDClassifier, {"tol": None, "max_iter": 7}, Y),
    "one epoch": (SGDClassifier, {"max_iter": 1}, Y),
    "balanced": (SGDClassifier, {"class_weight": "balanced"}, Y > 1),
    "regression": (SGDRegressor, {"eta0": 0.001}, X[:, 0]),
    "regression, adaptive": (SGDRegressor, {"eta0": 0.01, "learning_rate": "adaptive"}, X[:, 0]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("make", [np.asarray, lambda X: X.astype(np.float32), sp.csr_array], ids=["f8", "f4", "csr"])
def test_the_same_bits_as_epoch_by_epoch(case, make, calls):
    cls, params, y = CASES[case]
    weight = np.random.default_rng(0).random(len(y))
    one_by_one = fitted(cls, make(X), y, params, [Listens()], sample_weight=weight)
    assert not calls
    together = fitted(cls, make(X), y, params, None, sample_weight=weight)
    assert sum(calls) == together.n_iter_ == one_by_one.n_iter_
    np.testing.assert_array_equal(together.coef_, one_by_one.coef_)
    np.testing.assert_array_equal(together.intercept_, one_by_one.intercept_)
    a, b = together.history_, one_by_one.history_
    assert a.columns.tolist() == b.columns.tolist()
    assert a.dtypes.tolist() == b.dtypes.tolist()
    for column in ("round", "epoch", "rows", "bytes", "blocks_from_memory", "staleness_histogram"):
        assert a[column].tolist() == b[column].tolist()
    for column in ("loss", "objective", "learning_rate", "validation_score"):
        np.testing.assert_allclose(a[column], b[column], rtol=1e-12)


def test_fits_go_on_alike():
    one_by_one, together = (
        SGDClassifier(warm_start=True, average=True, random_state=0, callbacks=c) for c in ([Listens()], None)
    )
    for clf in (one_by_one, together):
        clf.fit(X, Y).fit(X, Y).partial_fit(X[:50], Y[:50])
    np.testing.assert_array_equal(together.coef_, one_by_one.coef_)
    assert together.t_ == one_by_one.t_


def test_a_problem_that_stopped_early_keeps_its_loss(calls):
    clf = fitted(SGDClassifier, X, Y, {"loss": "log_loss"}, None)
    assert len(calls) == 3, "each of three problems stops by itself"
    assert clf.history_["loss"].notna().all()


def test_divergence_names_its_epoch():
    messages = []
    for callbacks in (None, [Listens()]):
        with pytest.raises(ValueError, match=r"overflow occurred at epoch #\d+") as error:
            fitted(SGDRegressor, X * 1e200, Y * 1.0, {"learning_rate": "constant", "eta0": 1e200}, callbacks)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize(
    "params",
    [
        {"callbacks": [Epochs()]},
        {"early_stopping": True},
        {"strategy": BSP(rounds_per_epoch=2)},
        {"strategy": Averaging(outer_momentum=0.5)},
    ],
    ids=["callback", "early stopping", "BSP", "outer momentum"],
)
def test_who_must_be_asked_is_asked(params, calls):
    SGDClassifier(random_state=0, **params).fit(X, Y)
    assert not calls


def test_large_data_run_epoch_by_epoch(calls):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((100_000, 200), dtype=np.float32), rng.integers(0, 2, 100_000)
    fitted(SGDClassifier, X, y, {"max_iter": 2, "tol": None}, None)
    assert not calls, "an interrupt would not be heard for long"


def test_the_loop_is_compiled_once_that_is_worth_it(monkeypatch):
    compiled = []
    monkeypatch.setattr(_epochs, "_WORTH", 30)
    monkeypatch.setattr(_epochs, "_train_epochs", lambda *args: compiled.append(1) or len(args[-1]))
    for _ in range(4):
        fitted(SGDClassifier, X, Y == 1, {"max_iter": 10, "tol": None}, None)
    # After thirty epochs, from then on.
    assert _epochs._run.epochs == 30 and len(compiled) >= 1
