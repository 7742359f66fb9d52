"""Losses of one row: value and derivative by the score, as a compiled function of a loss number.

A score ``p`` is ``w.x + b``. Margin losses take ``y`` in {-1, +1}, ``log_loss`` takes {0, 1}, regression
losses a real number. ``epsilon`` is read by the three losses that have such a parameter. The softmax
loss couples all the scores of a row, so it is not here but in the kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

from daskdml.numerics._compiled import inner_part, kernel
from daskdml.numerics._exponential import exp_of_negative

HINGE, SQUARED_HINGE, PERCEPTRON, LOG_LOSS, MODIFIED_HUBER = 0, 1, 2, 3, 4
SQUARED_ERROR, HUBER, EPSILON_INSENSITIVE, SQUARED_EPSILON_INSENSITIVE = 5, 6, 7, 8
MULTINOMIAL = 9


@dataclass(frozen=True)
class Loss:
    """A loss as users name it: its kernel number and what it is for."""

    name: str
    number: int
    regression: bool = False
    uses_epsilon: bool = False


LOSSES = {
    loss.name: loss
    for loss in (
        Loss("hinge", HINGE),
        Loss("squared_hinge", SQUARED_HINGE),
        Loss("perceptron", PERCEPTRON),
        Loss("log_loss", LOG_LOSS),
        Loss("modified_huber", MODIFIED_HUBER),
        Loss("squared_error", SQUARED_ERROR, regression=True),
        Loss("huber", HUBER, regression=True, uses_epsilon=True),
        Loss("epsilon_insensitive", EPSILON_INSENSITIVE, regression=True, uses_epsilon=True),
        Loss("squared_epsilon_insensitive", SQUARED_EPSILON_INSENSITIVE, regression=True, uses_epsilon=True),
        Loss("multinomial", MULTINOMIAL),
    )
}


# One branch a row is little beside a dot product, and so one compiled kernel serves every loss. Value and
# derivative come together because they share their exponential.
@inner_part
def value_and_slope(kind, y, p, epsilon):
    """The loss of a row with target ``y`` and score ``p``, and its derivative by ``p``.

    At a kink the derivative is that of the side scikit-learn takes.
    """
    # Comparisons, not max, which is a function of its own that a first fit would wait for.
    z = p * y
    if kind == LOG_LOSS:
        # log(1 + exp(p)) - y p, without overflow in exp for large |p|. log1p would cost as much as the rest of
        # a row's scalar work together, and differs in a value only by 1e-16.
        e = exp_of_negative(-abs(p))
        return (0.0 if p < 0.0 else p) - z + log(1.0 + e), (1.0 if p > 0.0 else e) / (1.0 + e) - y
    if kind == HINGE:
        return 1.0 - z if z < 1.0 else 0.0, -y if z <= 1.0 else 0.0
    if kind == PERCEPTRON:
        return -z if z < 0.0 else 0.0, -y if z <= 0.0 else 0.0
    if kind == SQUARED_HINGE:
        gap = 1.0 - z if z < 1.0 else 0.0
        return gap * gap, -2.0 * y * gap
    if kind == MODIFIED_HUBER:
        gap = 1.0 - z if z < 1.0 else 0.0
        return (gap * gap, -2.0 * y * gap) if z >= -1.0 else (-4.0 * z, -4.0 * y)
    error = p - y
    size = abs(error)
    sign = 1.0 if error > 0.0 else -1.0
    if kind == SQUARED_ERROR:
        return 0.5 * error * error, error
    if kind == HUBER:
        if size <= epsilon:
            return 0.5 * error * error, error
        return epsilon * (size - 0.5 * epsilon), epsilon * sign
    excess = size - epsilon if size > epsilon else 0.0
    if kind == EPSILON_INSENSITIVE:
        return excess, sign if excess > 0.0 else 0.0
    return excess * excess, 2.0 * excess * sign


@inner_part
def shared_log_loss(y, p):
    """``log_loss`` in two parts, value + log(factor), and its derivative: many rows can share one logarithm."""
    e = exp_of_negative(-abs(p))
    return (0.0 if p < 0.0 else p) - p * y, 1.0 + e, (1.0 if p > 0.0 else e) / (1.0 + e) - y


@kernel
def loss_and_gradient(kind, y, p, epsilon):
    """:func:`value_and_slope` for Python to call."""
    return value_and_slope(kind, y, p, epsilon)
