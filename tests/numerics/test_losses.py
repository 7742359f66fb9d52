"""Every loss meets the same contract: its derivative is that of its value, and both are scikit-learn's."""

import numpy as np
import pytest

from daskdml.numerics import LOSSES, loss_and_gradient

SCALAR = [loss for loss in LOSSES.values() if loss.name != "multinomial"]


@pytest.mark.parametrize("loss", SCALAR, ids=lambda loss: loss.name)
def test_gradient_is_the_derivative_of_the_value(loss):
    targets = [-2.3, 0.4, 1.7] if loss.regression else ([0.0, 1.0] if loss.name == "log_loss" else [-1.0, 1.0])
    step = 1e-6
    for y in targets:
        # Off the kinks, where a derivative is not defined.
        for p in np.linspace(-3.03, 3.07, 41):
            up, down = (loss_and_gradient(loss.number, y, p + s, 0.13)[0] for s in (step, -step))
            gradient = loss_and_gradient(loss.number, y, p, 0.13)[1]
            assert gradient == pytest.approx((up - down) / (2 * step), abs=1e-5)


@pytest.mark.parametrize("loss", SCALAR, ids=lambda loss: loss.name)
def test_values_are_convex_and_not_negative(loss):
    scores = np.linspace(-6, 6, 101)
    for y in (0.0, 1.0) if loss.name == "log_loss" else (-1.0, 1.0):
        values = np.array([loss_and_gradient(loss.number, y, p, 0.1)[0] for p in scores])
        assert (values >= 0).all()
        assert (values[2:] - 2 * values[1:-1] + values[:-2] >= -1e-9).all()


@pytest.mark.parametrize("p", [800.0, -800.0, 1e300, -1e300])
def test_log_loss_does_not_overflow(p):
    """dask-glm's log1p(exp(-x)) gives infinity there, and zeros for coefficients."""
    for y in (0.0, 1.0):
        value, gradient = loss_and_gradient(LOSSES["log_loss"].number, y, p, 0.0)
        wrong = (p > 0) != (y > 0)
        assert value == pytest.approx(abs(p) if wrong else 0.0)
        assert gradient == pytest.approx((1.0 if p > 0 else 0.0) - y)
