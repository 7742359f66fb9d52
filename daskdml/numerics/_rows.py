"""Rows of a block as the kernels see them: the same five operations on dense and on CSR rows.

The kernels are written once against these operations; which implementation they get follows from the type of
``rows`` when numba compiles them. Sums are reassociated for SIMD, nothing else of fast-math is on: a NaN stays one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import overload

from daskdml.numerics._prefetch import dense_prefetch, sparse_prefetch, sparse_weights_prefetch
from daskdml.numerics._sparse import (
    sparse_add,
    sparse_dot,
    sparse_entry,
    sparse_length,
    sparse_step,
)
from daskdml.numerics._vectors import vector_add, vector_dot, vector_pair, vector_step

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


class _Lent:
    """The memory of an array that refuses to be written to, for whom it does not matter."""

    def __init__(self, array: np.ndarray):
        self._array = array
        self.__array_interface__ = array.__array_interface__ | {"data": (array.ctypes.data, False)}


def unlocked(array: np.ndarray) -> np.ndarray:
    """The array without its mark that it must not be written to, as those have that came over the network.

    Kernels write to no rows, and are compiled for each kind of array: a second time for those with the mark.
    """
    return array if array.flags.writeable else np.asarray(_Lent(array))


def as_rows(X: Any) -> DenseRows | CsrRows:
    """``X`` of a block as rows for the kernels, without a copy."""
    if isinstance(X, np.ndarray):
        return DenseRows(unlocked(X))
    return CsrRows(unlocked(X.data), unlocked(X.indices), unlocked(X.indptr))


@njit(nogil=True, no_cpython_wrapper=True, **SIMD)
def norms(w, k):
    """The sums of squares and of absolute values of ``w[k]``, in float64.

    In vectors: one number after another, those of 2^20 weights take as long as a thousand rows, for each block.
    """
    squares, absolutes = 0.0, 0.0
    for j in range(w.shape[1]):
        value = np.float64(w[k, j])
        squares += value * value
        absolutes += abs(value)
    return squares, absolutes


def row_dot(rows, i, w, k):
    """``w[k] . x_i``."""


def row_square(rows, i):
    """``x_i . x_i``."""


def row_add(rows, i, w, k, c, squares):
    """``w[k] += c x_i``; returns the sum of squares of ``w[k]`` after, which was ``squares`` before."""


def looks_ahead(rows, w):
    """Whether `row_step` leaves the update by the row before for later."""


def row_step(rows, earlier, before, i, w, k, waiting, change, squares):
    """What row i needs of the weights: the sum of squares of ``w[k]``, a score and a product.

    With ``w[k] += change x_before`` done before, the score is ``w[k] . x_i``, and the product is 0.

    Where `looks_ahead` says so that update waits for the next step, and the score does not wait for the ``change``,
    which is known last: of the weights after the update that waited, ``w[k] += waiting x_earlier``, there are
    ``w[k] . x_i`` and ``x_before . x_i``. The first plus ``change`` times the second is the score.
    """


def row_pair(rows, before, i, w, a, b, change_a, change_b):
    """``w[a] += change_a x_before``, the same for b; then the scores ``w[a] . x_i`` and ``w[b] . x_i``.

    ``b`` may be ``a``, with the same change: it is made once.
    """


def row_length(rows, i):
    """How many entries row i holds."""


def row_entry(rows, i, j):
    """Entry j of row i: its column and its value."""


def rows_prefetch(rows, y, order, n):
    """Start loading rows that come some way after place n of the order, and their targets: all over memory, as rows."""


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

    return lambda rows, i, w, k: sparse_dot(rows, i, w, k)


@overload(row_square, jit_options=SIMD)
def _row_square(rows, i):
    if is_dense(rows) and in_vectors(rows, rows.types[0]):
        return lambda rows, i: vector_dot(rows.X, i, rows.X, i)
    if is_dense(rows):

        def dense(rows, i):
            total = 0.0
            for j in range(rows.X.shape[1]):
                total += rows.X[i, j] * rows.X[i, j]
            return total

        return dense

    def csr(rows, i):
        total = 0.0
        for j in range(sparse_length(rows, i)):
            _, value = sparse_entry(rows, i, j)
            total += value * value
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

    return lambda rows, i, w, k, c, squares: sparse_add(rows, i, w, k, c, squares)


@overload(looks_ahead, jit_options=PLAIN)
def _looks_ahead(rows, w):
    ahead = in_vectors(rows, w)
    return lambda rows, w: ahead


@overload(row_step, jit_options=PLAIN)
def _row_step(rows, earlier, before, i, w, k, waiting, change, squares):
    # One call each: numba counts references, atomically, for whatever is more than that.
    if in_vectors(rows, w):
        return lambda rows, earlier, before, i, w, k, waiting, change, squares: vector_step(
            rows, earlier, before, i, w, k, waiting, change, squares
        )
    if not is_dense(rows):
        return lambda rows, earlier, before, i, w, k, waiting, change, squares: sparse_step(
            rows, before, i, w, k, change, squares
        )

    def dense(rows, earlier, before, i, w, k, waiting, change, squares):
        if change != 0.0:
            squares = row_add(rows, before, w, k, change, squares)
        return np.float64(squares), row_dot(rows, i, w, k), w.dtype.type(0)

    return dense


@overload(row_pair, jit_options=PLAIN)
def _row_pair(rows, before, i, w, a, b, change_a, change_b):
    if in_vectors(rows, w):
        return lambda rows, before, i, w, a, b, change_a, change_b: vector_pair(
            rows.X, before, i, w, a, b, change_a, change_b
        )

    def one_after_the_other(rows, before, i, w, a, b, change_a, change_b):
        if change_a != 0.0:
            row_add(rows, before, w, a, change_a, 0.0)
        if change_b != 0.0 and b != a:
            row_add(rows, before, w, b, change_b, 0.0)
        first = row_dot(rows, i, w, a)
        return first, first if b == a else row_dot(rows, i, w, b)

    return one_after_the_other


@overload(row_length, jit_options=PLAIN)
def _row_length(rows, i):
    if is_dense(rows):
        return lambda rows, i: rows.X.shape[1]
    return lambda rows, i: sparse_length(rows, i)


@overload(row_entry, jit_options=PLAIN)
def _row_entry(rows, i, j):
    if is_dense(rows):
        return lambda rows, i, j: (j, rows.X[i, j])
    return lambda rows, i, j: sparse_entry(rows, i, j)


@overload(rows_prefetch, jit_options=PLAIN)
def _rows_prefetch(rows, y, order, n):
    if is_dense(rows):
        return lambda rows, y, order, n: dense_prefetch(rows, y, order, n)
    return lambda rows, y, order, n: sparse_prefetch(rows, y, order, n)


@overload(weights_prefetch, jit_options=PLAIN)
def _weights_prefetch(rows, w, i):
    if is_dense(rows):
        return lambda rows, w, i: None

    def csr(rows, w, i):
        for k in range(w.shape[0]):
            sparse_weights_prefetch(rows, w, k, i)

    return csr
