"""The order in which the rows of a block are visited."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import uint32

from daskdml.numerics._compiled import kernel, part

# Rounds of a batch order's permutation, two numbers to each.
ROUNDS = 4


@kernel
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


@part
def _hashed(value, constant):
    value = uint32(value ^ constant)
    value = uint32(value * uint32(constant * uint32(0x931E8875)))
    return uint32(value ^ uint32(value >> uint32(16)))


@kernel
def seed_of_words(words):
    """``np.random.SeedSequence(words).generate_state(1)[0]`` of four words of 32 bits, twenty times faster.

    A sequence of fewer words is that of the words and zeros. (M. E. O'Neill, "Developing a seed_seq alternative".)
    """
    # A copy, as np.empty takes a first fit longer to compile than all of this.
    pool, constant = words.copy(), uint32(0x43B0D7E5)
    for i in range(4):
        pool[i] = _hashed(words[i], constant)
        constant = uint32(constant * uint32(0x931E8875))
    for source in range(4):
        for target in range(4):
            if source != target:
                value = uint32(
                    uint32(uint32(0xCA01F9DD) * pool[target])
                    - uint32(uint32(0x4973F715) * _hashed(pool[source], constant))
                )
                constant = uint32(constant * uint32(0x931E8875))
                pool[target] = uint32(value ^ uint32(value >> uint32(16)))
    value = uint32(uint32(pool[0] ^ uint32(0x8B51F9DD)) * uint32(uint32(0x8B51F9DD) * uint32(0x58F38DED)))
    return uint32(value ^ uint32(value >> uint32(16)))


def row_order(n_rows: int, seed: int | None) -> np.ndarray:
    """Row numbers 0..n_rows-1, permuted by ``seed``; in their own order where it is None."""
    order = np.arange(n_rows, dtype=np.int32)
    if seed is not None:
        shuffle_in_place(order, np.uint32(seed))
    return order


@part
def batch_row(p, n_rows, bits, keys):
    """Which of ``n_rows`` rows stands at place ``p``: a permutation that needs no other place to be known.

    A few additions, multiplications by odd numbers and shifts permute the numbers of ``bits`` bits; where that ends
    beyond the rows, it goes on until it does not. (Mitchell et al. 2022, "Bandwidth-optimal random shuffling for GPUs",
    for the way; no more of it is wanted here than that batches are mixed.) In 64 bits, with numbers of 31.
    """
    mask = (1 << bits) - 1
    shift = (bits + 1) >> 1
    x = p
    while True:
        for r in range(ROUNDS):
            x = ((x + keys[2 * r]) * keys[2 * r + 1]) & mask
            x = x ^ (x >> shift)
        if x < n_rows:
            return x


@kernel
def fill_batch_order(order, start, n_rows, bits, keys):
    for p in range(order.shape[0]):
        order[p] = batch_row(start + p, n_rows, bits, keys)


@dataclass(frozen=True)
class BatchOrder:
    """Rows ``start`` to ``stop`` of a permutation of ``n_rows``, whose entries can be found side by side.

    What visits rows in batches takes them in this order: a GPU then makes it for itself, in less time than it would
    take to be sent. NumPy makes an array of it where one is asked for.

    Examples
    --------
    >>> order = BatchOrder(10, seed=1)
    >>> sorted(np.asarray(order).tolist()) == list(range(10))
    True
    >>> np.array_equal(order[2:5], np.asarray(order)[2:5])
    True
    """

    n_rows: int
    seed: int
    start: int = 0
    stop: int = -1

    def __post_init__(self) -> None:
        if self.stop < 0:
            object.__setattr__(self, "stop", self.n_rows)

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, part: slice) -> BatchOrder:
        start, stop, _ = part.indices(len(self))
        return BatchOrder(self.n_rows, self.seed, self.start + start, self.start + max(start, stop))

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        order = np.empty(len(self), dtype=np.int32)
        fill_batch_order(order, self.start, self.n_rows, self.bits, self.keys)
        return order if dtype is None else order.astype(dtype)

    @property
    def bits(self) -> int:
        """Of the numbers that are permuted."""
        return max(1, (self.n_rows - 1).bit_length())

    @cached_property
    def keys(self) -> np.ndarray:
        """What tells permutations apart, of shape (2 ROUNDS,): numbers below 2^31, every second one odd."""
        keys = np.random.SeedSequence(self.seed).generate_state(2 * ROUNDS).astype(np.int64) >> 1
        keys[1::2] |= 1
        return keys
