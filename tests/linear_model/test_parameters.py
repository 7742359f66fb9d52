"""Parameters of the strategy as those of the estimator, and what is no parameter."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import SGDClassifier as PlainClassifier
from sklearn.model_selection import GridSearchCV

from daskdml import ASP, BSP, SSP, Averaging, FullBatch
from daskdml.linear_model import SGDClassifier, SGDRegressor

X, Y = np.random.default_rng(0).standard_normal((60, 3)), np.arange(60) % 2


@pytest.mark.parametrize("estimator", [SGDClassifier, SGDRegressor])
def test_a_strategy_given_by_name_has_parameters(estimator):
    model = estimator(max_iter=2, tol=None).set_params(strategy__n_replicas=1, strategy__rounds_per_epoch=2)
    assert isinstance(model.strategy, Averaging) and model.strategy.rounds_per_epoch == 2
    assert model.get_params()["strategy__rounds_per_epoch"] == 2
    assert clone(model).get_params(deep=True)["strategy__rounds_per_epoch"] == 2
    assert len(model.fit(X, Y).history_) == 4
    model.set_params(strategy="bsp", strategy__rounds_per_epoch=3)
    assert isinstance(model.strategy, BSP) and len(model.fit(X, Y).history_) == 6
    # Without such a parameter a name stays a name, as scikit-learn's clone demands.
    assert estimator().set_params(strategy="ssp").strategy == "ssp"
    with pytest.raises(ValueError, match="Invalid parameter 'nonsense'"):
        estimator().set_params(strategy__nonsense=1)


def test_a_grid_of_replicas():
    search = GridSearchCV(
        SGDClassifier(max_iter=2, tol=None, random_state=0), {"strategy__rounds_per_epoch": [1, 3]}, cv=2, refit=False
    ).fit(X, Y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("strategy", [Averaging, BSP, FullBatch, SSP, ASP])
@pytest.mark.parametrize("n", [2.5, 0, "two", True])
def test_replicas_that_are_no_number_of_them(strategy, n):
    message = f"^{strategy.__name__}: n_replicas must be an integer of at least 1, got {n!r}"
    with pytest.raises(ValueError, match=message):
        SGDClassifier(strategy=strategy(n_replicas=n)).fit(X, Y)


def test_a_constant_rate_is_what_it_says_in_each_call():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 3))
    y = (X[:, 0] > 0).astype(int)
    ours, theirs = (
        make("log_loss", learning_rate="constant", eta0=0.1, shuffle=False, random_state=0).partial_fit(X, y, [0, 1])
        for make in (SGDClassifier, PlainClassifier)
    )
    for clf in (ours, theirs):
        clf.set_params(eta0=0.001).partial_fit(X, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-9)
