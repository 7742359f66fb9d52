"""The order in which the rows of a block are visited."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from llvmlite import ir
from numba import types, uint32
from numba.extending import intrinsic

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


# Of NumPy's SeedSequence: where its three chains of constants begin, and how they go on.
_WORDS, _RESULT = (0x43B0D7E5, 0x931E8875), (0x8B51F9DD, 0x58F38DED)
_MIX_LEFT, _MIX_RIGHT = 0xCA01F9DD, 0x4973F715


@intrinsic
def hashed_words(typingctx, words):
    """What `seed_of_words` returns. In this form a first fit waits a third of a second less for it to be compiled."""

    def codegen(context, builder, signature, args):
        i32 = ir.IntType(32)
        array = context.make_array(signature.args[0])(context, builder, args[0])
        pool = [builder.load(builder.gep(array.data, [ir.IntType(64)(n)])) for n in range(4)]

        def folded(value):
            return builder.xor(value, builder.lshr(value, i32(16)))

        def chain(constant, factor):
            while True:
                yield constant, constant * factor % 2**32
                constant = constant * factor % 2**32

        constants = chain(*_WORDS)

        def hashed(value):
            before, after = next(constants)
            return folded(builder.mul(builder.xor(value, i32(before)), i32(after)))

        pool = [hashed(word) for word in pool]
        for source in range(4):
            for target in range(4):
                if source != target:
                    left = builder.mul(i32(_MIX_LEFT), pool[target])
                    pool[target] = folded(builder.sub(left, builder.mul(i32(_MIX_RIGHT), hashed(pool[source]))))
        before, after = next(chain(*_RESULT))
        return folded(builder.mul(builder.xor(pool[0], i32(before)), i32(after)))

    return types.uint32(words), codegen


@kernel
def seed_of_words(words):
    """``np.random.SeedSequence(words).generate_state(1)[0]`` of four words of 32 bits, twenty times faster.

    A sequence of fewer words is that of the words and zeros. (M. E. O'Neill, "Developing a seed_seq alternative".)
    """
    return hashed_words(words)


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

    Without a ``seed`` it is the order in which they stand. What visits rows in batches takes them in this order: a GPU
    then makes it for itself, in less time than it would take to be sent. NumPy makes an array of it where one is asked
    for.

    Examples
    --------
    >>> order = BatchOrder(10, seed=1)
    >>> sorted(np.asarray(order).tolist()) == list(range(10))
    True
    >>> np.array_equal(order[2:5], np.asarray(order)[2:5])
    True
    """

    n_rows: int
    seed: int | None
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
        if self.seed is None:
            return np.arange(self.start, self.stop, dtype=np.int32 if dtype is None else dtype)
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
        if self.seed is None:
            # With these a round is a shift and an exclusive or, which the next round undoes.
            return np.array([0, 1] * ROUNDS)
        keys = np.random.SeedSequence(self.seed).generate_state(2 * ROUNDS).astype(np.int64) >> 1
        keys[1::2] |= 1
        return keys
