"""Metrics of data larger than memory: exact, in one pass, and floats."""

from daskdml.metrics._classification import accuracy_score, log_loss, roc_auc_score
from daskdml.metrics._evaluate import Evaluation, evaluate
from daskdml.metrics._regression import mean_absolute_error, mean_squared_error, r2_score, root_mean_squared_error

__all__ = [
    "Evaluation",
    "accuracy_score",
    "evaluate",
    "log_loss",
    "mean_absolute_error",
    "mean_squared_error",
    "r2_score",
    "roc_auc_score",
    "root_mean_squared_error",
]
