"""Dot product and update of a dense row, written in vectors.

What a row of SGD costs is mostly latency: the score must be there before the step, and the weights before the next
score. The loops that LLVM makes of a plain sum add up in three stages one after another (vectors, shorter vectors,
single numbers) because the length of a row is no multiple of theirs: 25 ns for 100 features. Here the stages run
side by side and meet in one tree of additions: half of that. How many lanes a vector has is the same everywhere, and
the compiler splits it as the processor needs; so sums are the same on all of them but for fused multiplications.

What stands here without a name for compiled code is put together in :mod:`daskdml.numerics._rows`: functions that say
of numba's types what they return, and how that is computed. As functions of Python's that call such, each would be
compiled by itself first, for the thirtieth part of a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

VECTOR_BYTES = 64
_CHAINS = 4
# A step reads four vectors where a dot product reads two, and most of them lie across two cache lines, since rows
# begin anywhere: half as wide, half as many do. With three sums at once, registers are short. And a loop of few turns
# looks to the hardware like the beginning of more, which it then fetches instead of what was asked for: eight vectors
# a turn bring a shuffled row of 100 features in 47 ns, two in 54.
STEP_BYTES, _STEP_CHAINS, _STEP_TOGETHER = 32, 2, 8
# Two problems at once wait for their stores, however wide and however many together: this is the least code.
PAIR_BYTES, _PAIR_CHAINS, _PAIR_TOGETHER = 64, 2, 2
_CONTRACT = ("contract",)


class Row:
    """Row ``i`` of an array of two dimensions as the code generator sees it.

    Its numbers are those of the array, or as they are read become those of ``dtype``.
    """

    def __init__(
        self, context: Any, builder: Any, kind: Any, array: Any, index: Any, index_kind: Any, dtype: Any = None
    ):
        if kind.layout != "C":
            raise TypeError(f"rows must be C-contiguous, and {kind} is not: make them so with np.ascontiguousarray")
        self.builder = builder
        made = context.make_array(kind)(context, builder, array)
        self.number = context.get_data_type(kind.dtype)
        self.itemsize = context.get_abi_sizeof(self.number)
        self._turn = None if dtype in (None, kind.dtype) else _turned(builder, kind.dtype, dtype)
        self._becomes = None if dtype is None else context.get_data_type(dtype)
        stride = cgutils.unpack_tuple(builder, made.strides, kind.ndim)[0]
        self.length = cgutils.unpack_tuple(builder, made.shape, kind.ndim)[1]
        at = builder.mul(context.cast(builder, index, index_kind, types.intp), stride)
        byte = ir.IntType(8).as_pointer()
        start = builder.gep(builder.bitcast(made.data, byte), [at])
        self.start = builder.bitcast(start, self.number.as_pointer())

    def address(self, place: Any, lanes: int) -> Any:
        at = self.builder.gep(self.start, [place])
        return self.builder.bitcast(at, ir.VectorType(self.number, lanes).as_pointer())

    def load(self, place: Any, lanes: int) -> Any:
        value = self.builder.load(self.address(place, lanes), align=self.itemsize)
        return value if self._turn is None else self._turn(value, ir.VectorType(self._becomes, lanes))

    def entry(self, place: Any) -> Any:
        return self.builder.load(self.builder.gep(self.start, [place]))

    def store(self, value: Any, place: Any, lanes: int) -> None:
        self.builder.store(value, self.address(place, lanes), align=self.itemsize)


def _turned(builder: Any, kind: Any, dtype: Any) -> Any:
    """What makes vectors of one kind of number those of another."""
    if not isinstance(dtype, types.Float) or not isinstance(kind, types.Float | types.Integer):
        raise TypeError(f"rows of {kind} cannot be worked on as {dtype}")
    if isinstance(kind, types.Integer):
        return builder.sitofp if kind.signed else builder.uitofp
    return builder.fpext if kind.bitwidth < dtype.bitwidth else builder.fptrunc


class _Sum:
    """Sums in several registers, so that none waits for another: chains of whole vectors, one of each half."""

    def __init__(self, builder: Any, number: Any, lanes: int, chains: int = _CHAINS):
        self.builder, self.number, self.lanes, self.chains = builder, number, lanes, chains
        self.widths = [lanes] * chains + [lanes >> s for s in range(1, lanes.bit_length())]
        self.parts = []
        for width in self.widths:
            kind = ir.VectorType(number, width)
            part = cgutils.alloca_once(builder, kind)
            builder.store(ir.Constant(kind, [0.0] * width), part)
            self.parts.append(part)

    def add_product(self, at: int, width: int, a: Any, b: Any) -> None:
        """Add the products of the vectors that `_visit` counts as ``at``, of so many lanes."""
        shorter = self.chains + (self.lanes // width).bit_length() - 2
        part, builder = self.parts[at % self.chains if width == self.lanes else shorter], self.builder
        product = builder.fmul(a, b, flags=_CONTRACT)
        builder.store(builder.fadd(builder.load(part), product, flags=_CONTRACT), part)

    def total(self) -> Any:
        values = [self.builder.load(part) for part in self.parts]
        add = self.builder.fadd
        whole = values[: self.chains]
        while len(whole) > 1:
            whole = [add(a, b) for a, b in zip(whole[::2], whole[1::2], strict=True)]
        (value,) = whole
        i32 = ir.IntType(32)
        for half, width in zip(values[self.chains :], self.widths[self.chains :], strict=True):
            low, high = (
                self.builder.shuffle_vector(
                    value, value, ir.Constant(ir.VectorType(i32, width), list(range(first, first + width)))
                )
                for first in (0, width)
            )
            value = add(add(low, high), half)
        return self.builder.extract_element(value, i32(0))


def _visit(builder: Any, length: Any, lanes: int, together: int) -> Iterator[tuple[int, Any, int]]:
    """Generate code for all places of a row, so many vectors in a turn of its loop.

    Yields the number, place and lanes of each vector, to be used at once; those with fewer lanes come last.
    """
    intp = length.type
    at = cgutils.alloca_once_value(builder, intp(0))
    whole = builder.and_(length, intp(-together * lanes))
    with cgutils.for_range_slice(builder, intp(0), whole, intp(together * lanes), intp) as (place, _):
        for n in range(together):
            yield n, builder.add(place, intp(n * lanes)), lanes
    builder.store(whole, at)
    n = 0
    # Then half as many, and half of that, and at last shorter vectors.
    for piece in (together * lanes >> s for s in range(1, (together * lanes).bit_length())):
        width = min(piece, lanes)
        with _where_set(builder, length, piece):
            place = builder.load(at)
            for part in range(piece // width):
                yield n + part, builder.add(place, intp(part * width)), width
            builder.store(builder.add(place, intp(piece)), at)
        n += piece // width


@contextmanager
def _where_set(builder: Any, length: Any, bit: int) -> Iterator[None]:
    there = builder.icmp_unsigned("!=", builder.and_(length, length.type(bit)), length.type(0))
    with builder.if_then(there):
        yield


def _splat(builder: Any, value: Any, lanes: int) -> Any:
    kind = ir.VectorType(value.type, lanes)
    i32 = ir.IntType(32)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, i32(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(i32, lanes), [0] * lanes))


def _dot(builder: Any, x: Row, weights: Row) -> Any:
    total = _Sum(builder, weights.number, VECTOR_BYTES // weights.itemsize)
    for n, place, lanes in _visit(builder, weights.length, total.lanes, _CHAINS):
        total.add_product(n, lanes, x.load(place, lanes), weights.load(place, lanes))
    return total.total()


def dot_of(typingctx, X, i, w, k):
    """``w[k] . X[i]``, in the dtype of ``w``."""

    def codegen(context, builder, signature, args):
        x_kind, i_kind, w_kind, k_kind = signature.args
        x = Row(context, builder, x_kind, args[0], args[1], i_kind, w.dtype)
        weights = Row(context, builder, w_kind, args[2], args[3], k_kind)
        return _dot(builder, x, weights)

    return w.dtype(X, i, w, k), codegen


vector_dot = intrinsic(dot_of)


def square_of(typingctx, X, i):
    """``X[i] . X[i]``, in their dtype, or float64 if it is none of fractions."""
    dtype = X.dtype if isinstance(X.dtype, types.Float) else types.float64

    def codegen(context, builder, signature, args):
        x = Row(context, builder, X, args[0], args[1], signature.args[1], dtype)
        number = context.get_data_type(dtype)
        total = _Sum(builder, number, VECTOR_BYTES // context.get_abi_sizeof(number))
        for n, place, lanes in _visit(builder, x.length, total.lanes, _CHAINS):
            features = x.load(place, lanes)
            total.add_product(n, lanes, features, features)
        return total.total()

    return dtype(X, i), codegen


@intrinsic
def vector_weighted_square(typingctx, X, i, w, k):
    """``w[k] . X[i]**2`` of arrays of one dtype, contiguous along rows; ``w`` may have columns more."""

    def codegen(context, builder, signature, args):
        x_kind, i_kind, w_kind, k_kind = signature.args
        x = Row(context, builder, x_kind, args[0], args[1], i_kind)
        weights = Row(context, builder, w_kind, args[2], args[3], k_kind)
        total = _Sum(builder, x.number, VECTOR_BYTES // x.itemsize)
        for n, place, lanes in _visit(builder, x.length, total.lanes, _CHAINS):
            features = x.load(place, lanes)
            square = builder.fmul(features, features)
            total.add_product(n, lanes, square, weights.load(place, lanes))
        return total.total()

    return w.dtype(X, i, w, k), codegen


def add_of(typingctx, X, i, w, k, c, squares):
    """``w[k] += c X[i]``; the sum of squares of ``w[k]`` after, in its dtype. What it was before is not asked for."""

    def codegen(context, builder, signature, args):
        x_kind, i_kind, w_kind, k_kind, c_kind, _ = signature.args
        x = Row(context, builder, x_kind, args[0], args[1], i_kind, w.dtype)
        weights = Row(context, builder, w_kind, args[2], args[3], k_kind)
        step = context.cast(builder, args[4], c_kind, w_kind.dtype)
        sums = _Sum(builder, weights.number, VECTOR_BYTES // weights.itemsize)
        for n, place, lanes in _visit(builder, weights.length, sums.lanes, _CHAINS):
            moved = builder.fmul(_splat(builder, step, lanes), x.load(place, lanes), flags=_CONTRACT)
            value = builder.fadd(weights.load(place, lanes), moved, flags=_CONTRACT)
            weights.store(value, place, lanes)
            sums.add_product(n, lanes, value, value)
        return sums.total()

    return w.dtype(X, i, w, k, c, squares), codegen


vector_add = intrinsic(add_of)


def step_of(typingctx, X, earlier, before, i, w, k, waiting, change, squares):
    """``w[k] += waiting x_earlier``; then the sum of squares of ``w[k]``, ``w[k] . x_i`` and ``x_before . x_i``.

    Without a ``change`` by the row before, nobody asks for the last of
    the three; where nothing waits the weights and their ``squares`` stay what they are, even if the row holds a NaN.
    """

    def codegen(context, builder, signature, args):
        kinds = signature.args
        last, this, following = (
            Row(context, builder, X, args[0], row, kind, w.dtype)
            for row, kind in zip(args[1:4], kinds[1:4], strict=True)
        )
        weights = Row(context, builder, kinds[4], args[4], args[5], kinds[5])
        square = cgutils.alloca_once_value(builder, context.cast(builder, args[8], squares, types.float64))
        score, product = (cgutils.alloca_once_value(builder, ir.Constant(weights.number, 0.0)) for _ in range(2))
        settled = builder.fcmp_ordered("==", args[6], args[6].type(0.0))
        idle = builder.and_(settled, builder.fcmp_ordered("==", args[7], args[7].type(0.0)))
        with builder.if_else(idle) as (then, otherwise):
            with then:
                builder.store(_dot(builder, following, weights), score)
            with otherwise:
                step = context.cast(builder, args[6], kinds[6], w.dtype)
                sums = _step(builder, last, this, following, weights, step, settled)
                builder.store(context.cast(builder, sums[0], w.dtype, types.float64), square)
                builder.store(sums[1], score)
                builder.store(sums[2], product)
        found = [builder.load(value) for value in (square, score, product)]
        return context.make_tuple(builder, signature.return_type, found)

    given = (X, earlier, before, i, w, k, waiting, change, squares)
    return types.Tuple((types.float64, w.dtype, w.dtype))(*given), codegen


def _step(builder: Any, last: Row, this: Row, following: Row, weights: Row, step: Any, settled: Any) -> list[Any]:
    if alike := last.start.type == weights.start.type:
        # Weights plus nothing times themselves are the weights, without a branch to be foreseen.
        last.start = builder.select(settled, weights.start, last.start)
    lanes = STEP_BYTES // weights.itemsize
    squares, score, product = (_Sum(builder, weights.number, lanes, _STEP_CHAINS) for _ in range(3))
    for n, place, width in _visit(builder, weights.length, lanes, _STEP_TOGETHER):
        moved = builder.fmul(_splat(builder, step, width), last.load(place, width), flags=_CONTRACT)
        old = weights.load(place, width)
        value = builder.fadd(old, moved, flags=_CONTRACT)
        if not alike:
            value = builder.select(settled, old, value)
        weights.store(value, place, width)
        features = following.load(place, width)
        squares.add_product(n, width, value, value)
        score.add_product(n, width, value, features)
        product.add_product(n, width, this.load(place, width), features)
    return [squares.total(), score.total(), product.total()]


def pair_of(typingctx, X, before, i, w, a, b, change_a, change_b):
    """``w[a] += change_a x_before``, the same for b; then ``w[a] . x_i`` and ``w[b] . x_i``.

    ``b`` may be ``a``: then both changes must be the same, and are made
    once. A row stays as it is where its change is 0, even if the other row holds a NaN.
    """

    def codegen(context, builder, signature, args):
        kinds = signature.args
        this, following = (
            Row(context, builder, X, args[0], row, kind, w.dtype)
            for row, kind in zip(args[1:3], kinds[1:3], strict=True)
        )
        both = [
            Row(context, builder, kinds[3], args[3], row, kind) for row, kind in zip(args[4:6], kinds[4:6], strict=True)
        ]
        steps = [context.cast(builder, step, kind, w.dtype) for step, kind in zip(args[6:], kinds[6:], strict=True)]
        moves = [builder.fcmp_unordered("!=", step, step.type(0.0)) for step in steps]
        lanes = PAIR_BYTES // both[0].itemsize
        sums = [_Sum(builder, both[0].number, lanes, _PAIR_CHAINS) for _ in both]
        for n, place, width in _visit(builder, following.length, lanes, _PAIR_TOGETHER):
            learnt, features = this.load(place, width), following.load(place, width)
            # All weights are read before one is written: the two rows may be the same.
            found = [row.load(place, width) for row in both]
            for row, step, moved, old, total in zip(both, steps, moves, found, sums, strict=True):
                change = builder.fmul(_splat(builder, step, width), learnt, flags=_CONTRACT)
                new = builder.select(_splat(builder, moved, width), builder.fadd(old, change, flags=_CONTRACT), old)
                row.store(new, place, width)
                total.add_product(n, width, new, features)
        return context.make_tuple(builder, signature.return_type, [total.total() for total in sums])

    return types.UniTuple(w.dtype, 2)(X, before, i, w, a, b, change_a, change_b), codegen


def length_of(typingctx, X, i):
    """How many entries row i holds: all of them."""

    def codegen(context, builder, signature, args):
        return Row(context, builder, X, args[0], args[1], signature.args[1]).length

    return types.intp(X, i), codegen


def entry_of(typingctx, X, i, j):
    """Entry j of row i: its column, and its value."""

    def codegen(context, builder, signature, args):
        row = Row(context, builder, X, args[0], args[1], signature.args[1])
        place = context.cast(builder, args[2], signature.args[2], types.uintp)
        return context.make_tuple(builder, signature.return_type, (place, row.entry(place)))

    return types.Tuple((types.uintp, X.dtype))(X, i, j), codegen
