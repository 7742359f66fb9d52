"""What CPU and GPU kernels have in common, taken over: losses, targets and learning rates are written once.

A compiled function of the CPU is not one of the GPU, and knows its parts as global names. So the plain function is
taken from it, and given parts that are the GPU's own.
"""

from __future__ import annotations

import math
from types import FunctionType
from typing import Any

from numba import cuda

from daskdml.numerics._hessian import curvature
from daskdml.numerics._losses import value_and_slope
from daskdml.numerics._sgd import learning_rate
from daskdml.numerics._shuffle import batch_row
from daskdml.numerics._targets import clipped, independent_gradient, problem_target, problem_weight, softmax_gradient


def on_device(function: Any, **parts: Any) -> Any:
    """A function of :mod:`daskdml.numerics` as one of the GPU, which calls ``parts`` by these names."""
    plain = function.py_func
    return cuda.jit(device=True)(FunctionType(plain.__code__, plain.__globals__ | parts, plain.__name__))


@cuda.jit(device=True)
def _exp(x):
    # The polynomial of the CPU saves a call; here the exponential is put in place as it is.
    return math.exp(x)


_value_and_slope = on_device(value_and_slope, exp_of_negative=_exp)
target_of = on_device(problem_target)
row_gradient = on_device(
    independent_gradient,
    value_and_slope=_value_and_slope,
    problem_target=target_of,
    clipped=on_device(clipped),
)
row_curvature = on_device(curvature)
softmax_row = on_device(softmax_gradient, exp_of_negative=_exp)
class_weight = on_device(problem_weight)
rate_at = on_device(learning_rate)
place_of = on_device(batch_row)
