"""scikit-learn's checks of any estimator: no more may fail than for its own SGD estimators."""

import pytest
from sklearn import linear_model as theirs
from sklearn.utils import estimator_checks
from sklearn.utils._test_common.instance_generator import PER_ESTIMATOR_XFAIL_CHECKS

from daskdml.linear_model import SGDClassifier, SGDRegressor

PAIRS = [(SGDClassifier(), theirs.SGDClassifier), (SGDRegressor(), theirs.SGDRegressor)]


def allowed(estimator):
    """What scikit-learn declares to fail for its own."""
    return PER_ESTIMATOR_XFAIL_CHECKS.get(next(own for ours, own in PAIRS if type(ours) is type(estimator)), {})


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@estimator_checks.parametrize_with_checks([ours for ours, _ in PAIRS], expected_failed_checks=allowed)
def test_check_estimator(estimator, check):
    check(estimator)
