"""Rows of a block as the kernels see them: the same few operations on dense and on CSR rows.

The kernels are written once against these operations; which implementation they get follows from the type of
``rows`` when numba compiles them. Dense rows are worked on in vectors, as what the weights are made of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from daskdml.numerics import _prefetch, _sparse, _vectors

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


def is_dense(rows) -> bool:
    """Whether a numba type is that of dense rows."""
    return rows.instance_class is DenseRows


def _of_matrix(define: Callable[..., Any], rows: Any, *others: Any) -> Any:
    """What is defined for a matrix, for dense rows, which consist of one."""
    signature, codegen = define(None, rows.types[0], *others)

    def of_rows(context, builder, given, args):
        return codegen(context, builder, signature, (builder.extract_value(args[0], 0), *args[1:]))

    return signature.return_type(rows, *others), of_rows


def _of(dense: Callable[..., Any], sparse: Callable[..., Any], typingctx: Any, rows: Any, *others: Any) -> Any:
    return _of_matrix(dense, rows, *others) if is_dense(rows) else sparse(typingctx, rows, *others)


def _nothing(returns: Any, *kinds: Any) -> Any:
    """What does nothing."""
    return returns(*kinds), lambda context, builder, signature, args: context.get_dummy_value()


@intrinsic
def row_dot(typingctx, rows, i, w, k):
    """``w[k] . x_i``, in the dtype of ``w``."""
    return _of(_vectors.dot_of, _sparse.dot_of, typingctx, rows, i, w, k)


@intrinsic
def row_square(typingctx, rows, i):
    """``x_i . x_i``."""
    return _of(_vectors.square_of, _sparse.square_of, typingctx, rows, i)


@intrinsic
def row_add(typingctx, rows, i, w, k, c, squares):
    """``w[k] += c x_i``; returns the sum of squares of ``w[k]`` after, which was ``squares`` before."""
    return _of(_vectors.add_of, _sparse.add_of, typingctx, rows, i, w, k, c, squares)


@intrinsic
def looks_ahead(typingctx, rows, w):
    """Whether `row_step` leaves the update by the row before for later."""
    ahead = is_dense(rows)
    return types.boolean(rows, w), lambda context, builder, signature, args: context.get_constant(types.boolean, ahead)


@intrinsic
def row_step(typingctx, rows, earlier, before, i, w, k, waiting, change, squares):
    """What row i needs of the weights: the sum of squares of ``w[k]``, a score and a product.

    With ``w[k] += change x_before`` done before, the score is ``w[k] . x_i``, and the product is 0.

    Where `looks_ahead` says so that update waits for the next step, and the score does not wait for the ``change``,
    which is known last: of the weights after the update that waited, ``w[k] += waiting x_earlier``, there are
    ``w[k] . x_i`` and ``x_before . x_i``. The first plus ``change`` times the second is the score.
    """
    given = (earlier, before, i, w, k, waiting, change, squares)
    return _of(_vectors.step_of, _sparse.step_of, typingctx, rows, *given)


@intrinsic
def row_pair(typingctx, rows, before, i, w, a, b, change_a, change_b):
    """``w[a] += change_a x_before``, the same for b; then the scores ``w[a] . x_i`` and ``w[b] . x_i``.

    ``b`` may be ``a``, with the same change: it is made once.
    """
    given = (before, i, w, a, b, change_a, change_b)
    return _of(_vectors.pair_of, _sparse.pair_of, typingctx, rows, *given)


@intrinsic
def row_length(typingctx, rows, i):
    """How many entries row i holds."""
    return _of(_vectors.length_of, _sparse.length_of, typingctx, rows, i)


@intrinsic
def row_entry(typingctx, rows, i, j):
    """Entry j of row i: its column and its value."""
    return _of(_vectors.entry_of, _sparse.entry_of, typingctx, rows, i, j)


@intrinsic
def rows_prefetch(typingctx, rows, y, order, n):
    """Start loading rows that come some way after place n of the order, and their targets: all over memory, as rows."""
    return (_prefetch.of_dense if is_dense(rows) else _prefetch.of_sparse)(typingctx, rows, y, order, n)


@intrinsic
def weights_prefetch(typingctx, rows, w, i):
    """Start loading the weights ``w[:, j]`` that a sparse row i names: scattered over memory, as rows are not."""
    return _nothing(types.void, rows, w, i) if is_dense(rows) else _prefetch.of_weights(typingctx, rows, w, i)
