"""From a row's target and its K scores to K derivatives: regression, one-versus-all, softmax."""

from __future__ import annotations

from math import log

from daskdml.numerics._compiled import inner_part, part
from daskdml.numerics._exponential import exp_of_negative
from daskdml.numerics._losses import LOG_LOSS, value_and_slope
from daskdml.numerics._settings import BINARY, ONE_VERSUS_ALL, REGRESSION

# scikit-learn clips the derivative there, against overflow in the first steps of a divergent fit.
MAX_GRADIENT = 1e12


@part
def problem_target(mode, loss, y, k):
    """What problem ``k`` wants to predict for a row whose block target is ``y``."""
    if mode == REGRESSION:
        return y
    hit = y > 0.0 if mode == BINARY else int(y) == k
    if hit:
        return 1.0
    return 0.0 if loss == LOG_LOSS else -1.0


@part
def problem_weight(mode, y, k, first_class, positive_weight, negative_weight):
    """The class weight of the row in problem ``k``."""
    if mode == REGRESSION:
        return 1.0
    if mode == BINARY:
        return positive_weight[0] if y > 0.0 else negative_weight[0]
    if mode == ONE_VERSUS_ALL:
        return positive_weight[k] if int(y) == k + first_class else negative_weight[k]
    return positive_weight[int(y)]


@inner_part
def clipped(slope):
    """A slope within what a step can take; NaN stays NaN."""
    # Comparisons, not min and max, each of which is a function that a first fit would wait for.
    slope = -MAX_GRADIENT if slope < -MAX_GRADIENT else slope
    return MAX_GRADIENT if slope > MAX_GRADIENT else slope


@part
def independent_gradient(settings, y, score, k):
    """Value and clipped derivative of problem ``k``'s loss."""
    target = problem_target(settings.mode, settings.loss, y, k + settings.first_class)
    value, gradient = value_and_slope(settings.loss, target, score, settings.epsilon)
    return value, clipped(gradient)


@part
def softmax_gradient(needed, scores, y, gradients):
    """Fill ``gradients`` with softmax(scores) - onehot(y); return the log-loss of the row."""
    if needed is None:
        return 0.0
    top = scores[0]
    for k in range(1, scores.shape[0]):
        top = scores[k] if scores[k] > top else top
    total = 0.0
    for k in range(scores.shape[0]):
        gradients[k] = exp_of_negative(scores[k] - top)
        total += gradients[k]
    label = int(y)
    for k in range(scores.shape[0]):
        gradients[k] /= total
    gradients[label] -= 1.0
    return log(total) + top - scores[label]
