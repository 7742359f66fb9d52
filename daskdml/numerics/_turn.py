"""Columns turned into rows.

Tables are stored column by column, and training takes row after row. Written one value at a time, each touches a line
of cache of its own. So squares of as many columns and rows as a register has lanes are turned within registers.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from daskdml.numerics._compiled import kernel

# Of a register. Where the processor has shorter ones the compiler makes two of one.
_BYTES = 32
# Rows that are turned of all columns, before the next ones: the lines of the columns are read on while they are close.
_ROWS = 256


def _typed(builder: Any, address: Any, at: Any, number: Any, lanes: int) -> Any:
    """A pointer to so many numbers from entry ``at`` on."""
    entry = builder.gep(builder.inttoptr(address, number.as_pointer()), [at])
    return entry if lanes == 1 else builder.bitcast(entry, ir.VectorType(number, lanes).as_pointer())


def _swapped(builder: Any, rows: list[Any], step: int) -> None:
    """Exchange the halves of each pair of squares of ``step`` rows and lanes that lie across from each other."""
    n = len(rows)
    number = ir.VectorType(ir.IntType(32), n)
    low = ir.Constant(number, [k if not k & step else n + k - step for k in range(n)])
    high = ir.Constant(number, [k + step if not k & step else n + k for k in range(n)])
    for k in range(n):
        if not k & step:
            a, b = rows[k], rows[k + step]
            rows[k] = builder.shuffle_vector(a, b, low)
            rows[k + step] = builder.shuffle_vector(a, b, high)


def _lanes(dtype: Any) -> int:
    return _BYTES * 8 // int(dtype.bitwidth)


@intrinsic
def _turn_square(typingctx, addresses, column, row, out, first):
    """As many columns from ``column`` on as there are lanes, of as many rows; ``first``: where column 0 goes."""
    dtype, n = out.dtype, _lanes(out.dtype)

    def codegen(context, builder, signature, args):
        number, itemsize = context.get_data_type(dtype), dtype.bitwidth // 8
        columns = context.make_array(signature.args[0])(context, builder, args[0])
        made = context.make_array(signature.args[3])(context, builder, args[3])
        width = cgutils.unpack_tuple(builder, made.shape, 2)[1]
        one = args[1].type
        values = []
        for k in range(n):
            address = builder.load(builder.gep(columns.data, [builder.add(args[1], one(k))]))
            values.append(builder.load(_typed(builder, address, args[2], number, n), align=itemsize))
        step = n // 2
        while step:
            _swapped(builder, values, step)
            step //= 2
        start = builder.ptrtoint(made.data, one)
        for k in range(n):
            at = builder.add(builder.mul(builder.add(args[2], one(k)), width), builder.add(args[4], args[1]))
            builder.store(values[k], _typed(builder, start, at, number, n), align=itemsize)
        return context.get_dummy_value()

    return types.void(addresses, types.intp, types.intp, out, types.intp), codegen


@intrinsic
def _entry(typingctx, address, at, out):
    """Entry ``at`` of the numbers that lie from ``address`` on; of ``out`` only the dtype counts."""

    def codegen(context, builder, signature, args):
        return builder.load(_typed(builder, args[0], args[1], context.get_data_type(out.dtype), 1))

    return out.dtype(types.intp, types.intp, out), codegen


@intrinsic
def _lanes_of(typingctx, out):
    n = _lanes(out.dtype)
    return types.intp(out), lambda context, builder, signature, args: context.get_constant(types.intp, n)


@kernel
def turn(addresses, out, first):
    """Write columns side by side into the rows of ``out``.

    Parameters
    ----------
    addresses : ndarray of int64, shape (n_columns,)
        Where in memory each column begins: n_rows numbers of the dtype of ``out``, one after the other. Whoever calls
        keeps them there.
    out : ndarray of shape (n_rows, at least first + n_columns), C-contiguous, float32 or float64
    first : int
        The column of ``out`` that the first one becomes.

    Examples
    --------
    >>> import numpy as np
    >>> from daskdml.numerics import turn
    >>> columns = [np.array([1.0, 2.0]), np.array([3.0, 4.0])]
    >>> turn(np.array([c.ctypes.data for c in columns]), out := np.zeros((2, 3)), 1)
    >>> out.tolist()
    [[0.0, 1.0, 3.0], [0.0, 2.0, 4.0]]
    """
    n_rows, n_columns = len(out), len(addresses)
    lanes = _lanes_of(out)
    squares = n_columns // lanes * lanes
    for start in range(0, n_rows, _ROWS):
        stop = min(start + _ROWS, n_rows)
        whole = start + (stop - start) // lanes * lanes
        for column in range(0, squares, lanes):
            for row in range(start, whole, lanes):
                _turn_square(addresses, column, row, out, first)
        for column in range(n_columns):
            address = addresses[column]
            for row in range(whole if column < squares else start, stop):
                out[row, first + column] = _entry(address, row, out)
