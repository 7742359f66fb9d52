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

from daskdml.numerics._compiled import inner_part
from daskdml.numerics._vectors import one_by_one, vector_add, vector_dot

# What the operations on rows are compiled with: those that add up, and the others. None is called from C.
PLAIN = {"error_model": "numpy", "no_cfunc_wrapper": True, "forceinline": True}
SIMD = {"fastmath": {"reassoc", "contract"}, "error_model": "numpy", "no_cfunc_wrapper": True, "forceinline": True}


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
    """Ask for the cache line ``offset`` bytes into ``array[row]``: in a shuffled order no hardware foresees it.

    Into the second level of cache, which can wait for more lines at once than the first: rows of 400 bytes come in
    57 ns that way, in 68 otherwise.
    """

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
        builder.call(fn, [start, i32(0), i32(2), i32(1)])
        return context.get_dummy_value()

    return types.void(array, row, offset), codegen


def row_dot(rows, i, w, k):
    """``w[k] . x_i``."""


def row_square(rows, i):
    """``x_i . x_i``."""


def row_add(rows, i, w, k, c, squares):
    """``w[k] += c x_i``; returns the sum of squares of ``w[k]`` after, which was ``squares`` before."""


def row_length(rows, i):
    """How many entries row i holds."""


def row_entry(rows, i, j):
    """Entry j of row i: its column and its value."""


def row_prefetch(rows, y, i):
    """Start loading row i and its target: in a shuffled order that one value costs as much as a row."""


def foreseen(rows, before, i):
    """Whether the hardware sees row i coming after the row ``before``: a dense one next to it, but not a sparse one."""


def weights_prefetch(rows, w, i):
    """Start loading the weights ``w[:, j]`` that a sparse row i names: scattered over memory, as rows are not."""


def is_dense(rows) -> bool:
    """Whether a numba type is that of dense rows."""
    return rows.instance_class is DenseRows


def in_vectors(rows, w) -> bool:
    """Whether rows of these numba types are worked on in vectors: dense, and of the dtype of the weights."""
    if not is_dense(rows):
        return False
    X = rows.types[0]
    return X.dtype == w.dtype and isinstance(w.dtype, types.Float) and X.layout == w.layout == "C"


@inner_part
def _sparse_dot(rows, i, w, k):
    data, indices, stop = rows.data, rows.indices, rows.indptr[i + 1]
    # Four sums, so that no addition waits for the one before. Not left to the compiler, whose vectors would be
    # gathered entry by entry, slower than they are used. Indices are unsigned because numba lets a negative one count
    # from the end: a test for every entry.
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    j = rows.indptr[i]
    while j + 4 <= stop:
        one_by_one()
        a += data[j] * w[k, np.uintp(indices[j])]
        b += data[j + 1] * w[k, np.uintp(indices[j + 1])]
        c += data[j + 2] * w[k, np.uintp(indices[j + 2])]
        d += data[j + 3] * w[k, np.uintp(indices[j + 3])]
        j += 4
    while j < stop:
        a += data[j] * w[k, np.uintp(indices[j])]
        j += 1
    return (a + b) + (c + d)


@inner_part
def _sparse_add(rows, i, w, k, c, squares):
    data, indices, stop = rows.data, rows.indices, rows.indptr[i + 1]
    kind = w.dtype.type
    even, odd = 0.0, 0.0
    j = rows.indptr[i]
    # Columns are unique in a row: two at a time do not meet.
    while j + 2 <= stop:
        one_by_one()
        p, q = np.uintp(indices[j]), np.uintp(indices[j + 1])
        first, second = w[k, p], w[k, q]
        step, other = kind(data[j] * c), kind(data[j + 1] * c)
        w[k, p], w[k, q] = first + step, second + other
        # (w + step)^2 - w^2
        even += step * np.float64(first + first + step)
        odd += other * np.float64(second + second + other)
        j += 2
    if j < stop:
        p = np.uintp(indices[j])
        first, step = w[k, p], kind(data[j] * c)
        w[k, p] = first + step
        even += step * np.float64(first + first + step)
    return squares + (even + odd)


@overload(row_dot, jit_options=SIMD)
def _row_dot(rows, i, w, k):
    if in_vectors(rows, w):
        return lambda rows, i, w, k: vector_dot(rows.X, i, w, k)
    if is_dense(rows):

        def dense(rows, i, w, k):
            total = w.dtype.type(0)
            for j in range(w.shape[1]):
                total += rows.X[i, j] * w[k, j]
            return total

        return dense

    return lambda rows, i, w, k: _sparse_dot(rows, i, w, k)


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
def _row_add(rows, i, w, k, c, squares):
    if in_vectors(rows, w):
        return lambda rows, i, w, k, c, squares: vector_add(rows.X, i, w, k, c)
    if is_dense(rows):

        def dense(rows, i, w, k, c, squares):
            step = w.dtype.type(c)
            total = w.dtype.type(0)
            for j in range(w.shape[1]):
                value = w[k, j] + step * rows.X[i, j]
                w[k, j] = value
                total += value * value
            return total

        return dense

    return lambda rows, i, w, k, c, squares: _sparse_add(rows, i, w, k, c, squares)


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


@overload(foreseen, jit_options=PLAIN)
def _foreseen(rows, before, i):
    if is_dense(rows):
        return lambda rows, before, i: i == before + 1
    # Three arrays to read, and between them the weights, all over memory.
    return lambda rows, before, i: False


@overload(weights_prefetch, jit_options=PLAIN)
def _weights_prefetch(rows, w, i):
    if is_dense(rows):
        return lambda rows, w, i: None

    def csr(rows, w, i):
        for k in range(w.shape[0]):
            for j in range(rows.indptr[i], rows.indptr[i + 1]):
                _prefetch(w, k, np.uintp(rows.indices[j]) * np.uintp(w.itemsize))

    return csr
