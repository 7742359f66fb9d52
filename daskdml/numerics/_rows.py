"""Rows of a block as the kernels see them: the same five operations on dense and on CSR rows.

The kernels are written once against these operations; which implementation they get follows from the type of
``rows`` when numba compiles them. Sums are reassociated for SIMD, nothing else of fast-math is on: a NaN stays one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

# What the operations on rows are compiled with: those that add up, and the others. None is called from C.
PLAIN = {"error_model": "numpy", "no_cfunc_wrapper": True}
SIMD = {"fastmath": {"reassoc", "contract"}, "error_model": "numpy", "no_cfunc_wrapper": True}


class DenseRows(NamedTuple):
    """A C-contiguous matrix."""

    X: np.ndarray


class CsrRows(NamedTuple):
    """The three arrays of a CSR matrix; column numbers are 32 bits wide and unique in a row."""

    data: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray


def as_rows(X: Any) -> DenseRows | CsrRows:
    """``X`` of a block as rows for the kernels, without a copy."""
    if isinstance(X, np.ndarray):
        return DenseRows(X)
    return CsrRows(X.data, X.indices, X.indptr)


CACHE_LINE = 64


@intrinsic
def _prefetch(typingctx, array, row, offset):
    """Ask for the cache line ``offset`` bytes into ``array[row]``: in a shuffled order no hardware foresees it."""

    def codegen(context, builder, signature, args):
        aryty = signature.args[0]
        ary = context.make_array(aryty)(context, builder, args[0])
        (stride,) = cgutils.unpack_tuple(builder, ary.strides, aryty.ndim)[:1]
        byte = ir.IntType(8).as_pointer()
        base = builder.bitcast(ary.data, byte)
        row_index = context.cast(builder, args[1], signature.args[1], types.intp)
        shift = context.cast(builder, args[2], signature.args[2], types.intp)
        start = builder.gep(base, [builder.add(builder.mul(row_index, stride), shift)])
        i32 = ir.IntType(32)
        fn = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32]),
            "llvm.prefetch.p0i8",
        )
        builder.call(fn, [start, i32(0), i32(3), i32(1)])
        return context.get_dummy_value()

    return types.void(array, row, offset), codegen


def row_dot(rows, i, w, k):
    """``w[k] . x_i``."""


def row_square(rows, i):
    """``x_i . x_i``."""


def row_add(rows, i, w, k, c):
    """``w[k] += c x_i``; returns the sum of squares of the entries it touched, after."""


def row_length(rows, i):
    """How many entries row i holds."""


def row_entry(rows, i, j):
    """Entry j of row i: its column and its value."""


def row_prefetch(rows, y, i):
    """Start loading row i and its target: in a shuffled order that one value costs as much as a row."""


def weights_prefetch(rows, w, i):
    """Start loading the weights ``w[:, j]`` that a sparse row i names: scattered over memory, as rows are not."""


def is_dense(rows) -> bool:
    """Whether a numba type is that of dense rows."""
    return rows.instance_class is DenseRows


@overload(row_dot, jit_options=SIMD)
def _row_dot(rows, i, w, k):
    if is_dense(rows):

        def dense(rows, i, w, k):
            total = w.dtype.type(0)
            for j in range(w.shape[1]):
                total += rows.X[i, j] * w[k, j]
            return total

        return dense

    def csr(rows, i, w, k):
        total = 0.0
        for j in range(rows.indptr[i], rows.indptr[i + 1]):
            total += rows.data[j] * w[k, np.uintp(rows.indices[j])]
        return total

    return csr


@overload(row_square, jit_options=SIMD)
def _row_square(rows, i):
    if is_dense(rows):

        def dense(rows, i):
            total = 0.0
            for j in range(rows.X.shape[1]):
                total += rows.X[i, j] * rows.X[i, j]
            return total

        return dense

    def csr(rows, i):
        total = 0.0
        for j in range(rows.indptr[i], rows.indptr[i + 1]):
            total += rows.data[j] * rows.data[j]
        return total

    return csr


@overload(row_add, jit_options=SIMD)
def _row_add(rows, i, w, k, c):
    if is_dense(rows):

        def dense(rows, i, w, k, c):
            step = w.dtype.type(c)
            squares = w.dtype.type(0)
            for j in range(w.shape[1]):
                value = w[k, j] + step * rows.X[i, j]
                w[k, j] = value
                squares += value * value
            return squares

        return dense

    def csr(rows, i, w, k, c):
        squares = 0.0
        for j in range(rows.indptr[i], rows.indptr[i + 1]):
            # Unsigned, because numba lets a negative index count from the end: a test for every entry.
            column = np.uintp(rows.indices[j])
            value = w[k, column] + rows.data[j] * c
            w[k, column] = value
            squares += value * value
        return squares

    return csr


@overload(row_length, jit_options=PLAIN)
def _row_length(rows, i):
    if is_dense(rows):
        return lambda rows, i: rows.X.shape[1]
    return lambda rows, i: rows.indptr[i + 1] - rows.indptr[i]


@overload(row_entry, jit_options=PLAIN)
def _row_entry(rows, i, j):
    if is_dense(rows):
        return lambda rows, i, j: (j, rows.X[i, j])

    def csr(rows, i, j):
        at = rows.indptr[i] + j
        return np.uintp(rows.indices[at]), rows.data[at]

    return csr


@overload(row_prefetch, jit_options=PLAIN)
def _row_prefetch(rows, y, i):
    if is_dense(rows):

        def dense(rows, y, i):
            _prefetch(y, i, 0)
            for offset in range(0, rows.X.shape[1] * rows.X.itemsize, CACHE_LINE):
                _prefetch(rows.X, i, offset)

        return dense

    def csr(rows, y, i):
        _prefetch(y, i, 0)
        start = rows.indptr[i]
        entries = rows.indptr[i + 1] - start
        for offset in range(0, entries * rows.data.itemsize, CACHE_LINE):
            _prefetch(rows.data, start, offset)
        for offset in range(0, entries * rows.indices.itemsize, CACHE_LINE):
            _prefetch(rows.indices, start, offset)

    return csr


@overload(weights_prefetch, jit_options=PLAIN)
def _weights_prefetch(rows, w, i):
    if is_dense(rows):
        return lambda rows, w, i: None

    def csr(rows, w, i):
        for k in range(w.shape[0]):
            for j in range(rows.indptr[i], rows.indptr[i + 1]):
                _prefetch(w, k, np.uintp(rows.indices[j]) * np.uintp(w.itemsize))

    return csr
