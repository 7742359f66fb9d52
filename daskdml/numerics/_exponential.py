"""The exponential of numbers up to 0, as losses need it: to full precision, without a call.

A row of logistic regression waits for its exponential twice as long in the C library as here, where the compiler
works on it among the rest. (Cody and Waite 1980: reduce by a multiple of log 2 held in two parts, then a polynomial.)
"""

from __future__ import annotations

import numpy as np
from numba import int64

from daskdml.numerics._compiled import fused_part

_LOG2_E = 1.4426950408889634
# Their sum is log 2 to 33 digits; times a whole number below 2048 the first is exact.
_LOG2_HIGH, _LOG2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
# Below, the result would be denormal.
_LOWEST, _SMALLEST = -708.0, 2.2250738585072014e-308
# A number of this size has no digits after the point: adding it rounds to the nearest whole number.
_SHIFT = 1.5 * 2.0**52


@fused_part
def exp_of_negative(x):
    """``exp(x)`` for x <= 0, within 4e-16 of it; the smallest normal number for what is smaller, NaN for NaN."""
    shifted = x * _LOG2_E + _SHIFT
    whole = shifted - _SHIFT
    r = (x - whole * _LOG2_HIGH) - whole * _LOG2_LOW
    # The Taylor polynomial of degree 13 for |r| < 0.35, in pairs that do not wait for each other.
    r2 = r * r
    r4 = r2 * r2
    low = (1.0 + r) + r2 * (1 / 2 + r * (1 / 6))
    middle = (1 / 24 + r * (1 / 120)) + r2 * (1 / 720 + r * (1 / 5040))
    high = (1 / 40320 + r * (1 / 362880)) + r2 * (1 / 3628800 + r * (1 / 39916800))
    top = 1 / 479001600 + r * (1 / 6227020800)
    # The last bits of what was shifted are the whole number.
    power = np.int64((np.float64(shifted).view(np.int64) + int64(1023)) << int64(52)).view(np.float64)
    value = ((low + r4 * middle) + (r4 * r4) * (high + r4 * top)) * power
    return _SMALLEST if x < _LOWEST else value
