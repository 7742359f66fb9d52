"""Linear models trained by partitioned SGD, with scikit-learn's interface."""

from daskdml.linear_model._classifier import SGDClassifier
from daskdml.linear_model._regressor import SGDRegressor

__all__ = ["SGDClassifier", "SGDRegressor"]
