"""Minibatch SGD on the CPU: a step along the mean gradient of so many rows, then of the next.

The same batches, and the same steps, as the kernels of :mod:`daskdml.numerics.cuda` take on a GPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daskdml.numerics._gradient import apply_gradient, gradient_rows, zero_gradient
from daskdml.numerics._settings import Needs, Settings, State


def gradient_settings(settings: Settings) -> Settings:
    """For :func:`gradient_rows`: of what a kernel can be made without, a gradient has the softmax only."""
    return settings._replace(needs=Needs(settings.needs.softmax, True, None, None, None, None))


def train_batches(
    batch: int,
    rows: Any,
    y: np.ndarray,
    sample_weight: np.ndarray,
    order: np.ndarray,
    state: State,
    settings: Settings,
    positive_weight: np.ndarray,
    negative_weight: np.ndarray,
    active: np.ndarray,
    totals: np.ndarray,
) -> None:
    """The contract of :func:`daskdml.numerics.train_rows`, with a step for every ``batch`` rows."""
    narrow = gradient_settings(settings)
    gradient = zero_gradient(state, settings)
    for first in range(0, len(order), batch):
        for array in gradient:
            array.fill(0.0)
        some = order[first : first + batch]
        gradient_rows(rows, y, sample_weight, some, state, narrow, positive_weight, negative_weight, active, gradient)
        apply_gradient(state, settings, gradient, active)
        totals += gradient.totals
