"""The exponential of numbers up to 0, as losses need it: to full precision, without a call.

A row of logistic regression waits for its exponential twice as long in the C library as here, where the compiler
works on it among the rest. (Cody and Waite 1980: reduce by a multiple of log 2 held in two parts, then a polynomial.)
"""

from __future__ import annotations

from math import factorial
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_LOG2_E = 1.4426950408889634
# Their sum is log 2 to 33 digits; times a whole number below 2048 the first is exact.
_LOG2_HIGH, _LOG2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
# Below, the result would be denormal.
_LOWEST, _SMALLEST = -708.0, 2.2250738585072014e-308
# A number of this size has no digits after the point: adding it rounds to the nearest whole number.
_SHIFT = 1.5 * 2.0**52
# Products are added without being rounded before, where the processor can.
_CONTRACT = ("contract",)
_DOUBLE, _WORD = ir.DoubleType(), ir.IntType(64)


@intrinsic
def exp_of_negative(typingctx, x):
    """``exp(x)`` for x <= 0, within 4e-16 of it; the smallest normal number for what is smaller, NaN for NaN."""

    # Written for LLVM: the same in Python takes numba an eighth of a second, in every kernel that has a loss.
    def codegen(context, builder, signature, args):
        def times(a: Any, b: Any) -> Any:
            return builder.fmul(a, b, flags=_CONTRACT)

        def plus(a: Any, b: Any) -> Any:
            return builder.fadd(a, b, flags=_CONTRACT)

        def minus(a: Any, b: Any) -> Any:
            return builder.fsub(a, b, flags=_CONTRACT)

        def pair(n: int) -> Any:
            """Terms n and n + 1 of the Taylor series, divided by r^n."""
            return plus(_DOUBLE(1 / factorial(n)), times(r, _DOUBLE(1 / factorial(n + 1))))

        (x,) = args
        shifted = plus(times(x, _DOUBLE(_LOG2_E)), _DOUBLE(_SHIFT))
        whole = minus(shifted, _DOUBLE(_SHIFT))
        r = minus(minus(x, times(whole, _DOUBLE(_LOG2_HIGH))), times(whole, _DOUBLE(_LOG2_LOW)))
        # The Taylor polynomial of degree 13 for |r| < 0.35, in pairs that do not wait for each other.
        r2 = times(r, r)
        r4 = times(r2, r2)
        low = plus(plus(_DOUBLE(1.0), r), times(r2, pair(2)))
        middle = plus(pair(4), times(r2, pair(6)))
        high = plus(pair(8), times(r2, pair(10)))
        high = plus(high, times(r4, pair(12)))
        polynomial = plus(plus(low, times(r4, middle)), times(times(r4, r4), high))
        # The last bits of what was shifted are the whole number.
        exponent = builder.add(builder.bitcast(shifted, _WORD), _WORD(1023))
        power = builder.bitcast(builder.shl(exponent, _WORD(52)), _DOUBLE)
        tiny = builder.fcmp_ordered("<", x, _DOUBLE(_LOWEST))
        return builder.select(tiny, _DOUBLE(_SMALLEST), times(polynomial, power))

    return types.float64(types.float64), codegen
