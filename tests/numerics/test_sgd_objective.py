"""The penalty that is reported is that of the weights, for sparse rows as for dense ones."""

import numpy as np
import pytest
import scipy.sparse as sp

from daskdml.linear_model import SGDClassifier


@pytest.mark.parametrize("penalty, ratio", [("l2", 0.0), ("l1", 1.0), ("elasticnet", 0.3)])
@pytest.mark.parametrize("kind", [np.asarray, sp.csr_array])
def test_objective_is_loss_plus_penalty(penalty, ratio, kind):
    X = sp.random(3000, 40, 0.2, random_state=0, format="csr").toarray()
    y = (X[:, 0] + X[:, 1] > 0.2).astype(int)
    alpha = 0.003
    # So small a rate that the weights hardly move in the last epoch: the penalty of each of its rows is the final one.
    clf = SGDClassifier(
        loss="log_loss",
        penalty=penalty,
        l1_ratio=ratio,
        alpha=alpha,
        learning_rate="invscaling",
        power_t=1.0,
        eta0=30.0,
        max_iter=40,
        tol=None,
        random_state=0,
    ).fit(kind(X), y)
    last = clf.history_.iloc[-1]
    w = clf.coef_
    expected = alpha * ((1 - ratio) * 0.5 * (w**2).sum() + ratio * np.abs(w).sum())
    assert last.objective - last.loss == pytest.approx(expected, rel=0.03)
    assert expected > 1e-4
