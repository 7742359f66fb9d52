"""The order in which the rows of a block are visited."""

from __future__ import annotations

import numpy as np
from numba import njit, uint32


@njit(cache=True, nogil=True)
def shuffle_in_place(order, seed):
    """Fisher-Yates with a 32-bit xorshift: the permutation scikit-learn's SGD makes of the same seed."""
    state = uint32(seed)
    if state == uint32(0):
        state = uint32(1)
    n = order.shape[0]
    for i in range(n - 1):
        state = uint32(state ^ uint32(state << uint32(13)))
        state = uint32(state ^ uint32(state >> uint32(17)))
        state = uint32(state ^ uint32(state << uint32(5)))
        j = i + (state % uint32(2147483648)) % uint32(n - i)
        order[i], order[j] = order[j], order[i]


def row_order(n_rows: int, seed: int | None) -> np.ndarray:
    """Row numbers 0..n_rows-1, permuted by ``seed``; in their own order where it is None."""
    order = np.arange(n_rows, dtype=np.int32)
    if seed is not None:
        shuffle_in_place(order, np.uint32(seed))
    return order
