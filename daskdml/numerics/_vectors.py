"""Dot product and update of a dense row, written in vectors.

What a row of SGD costs is mostly latency: the score must be there before the step, and the weights before the next
score. The loops that LLVM makes of a plain sum add up in three stages one after another (vectors, shorter vectors,
single numbers) because the length of a row is no multiple of theirs: 25 ns for 100 features. Here the stages run
side by side and meet in one tree of additions: half of that. How many lanes a vector has is the same everywhere, and
the compiler splits it as the processor needs; so sums are the same on all of them but for fused multiplications.
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
_CONTRACT = ("contract",)


class _Row:
    """Row ``i`` of an array of two dimensions as the code generator sees it."""

    def __init__(self, context: Any, builder: Any, kind: Any, array: Any, index: Any, index_kind: Any):
        self.builder = builder
        made = context.make_array(kind)(context, builder, array)
        self.number = context.get_data_type(kind.dtype)
        self.itemsize = context.get_abi_sizeof(self.number)
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
        return self.builder.load(self.address(place, lanes), align=self.itemsize)

    def store(self, value: Any, place: Any, lanes: int) -> None:
        self.builder.store(value, self.address(place, lanes), align=self.itemsize)


class _Sum:
    """Sums in several registers, so that none waits for another: chains of whole vectors, one of each half."""

    def __init__(self, builder: Any, number: Any, lanes: int):
        self.builder, self.number, self.lanes = builder, number, lanes
        self.widths = [lanes] * _CHAINS + [lanes >> s for s in range(1, lanes.bit_length())]
        self.parts = []
        for width in self.widths:
            kind = ir.VectorType(number, width)
            part = cgutils.alloca_once(builder, kind)
            builder.store(ir.Constant(kind, [0.0] * width), part)
            self.parts.append(part)

    def add_product(self, chain: int, a: Any, b: Any) -> None:
        part, builder = self.parts[chain], self.builder
        product = builder.fmul(a, b, flags=_CONTRACT)
        builder.store(builder.fadd(builder.load(part), product, flags=_CONTRACT), part)

    def total(self) -> Any:
        values = [self.builder.load(part) for part in self.parts]
        add = self.builder.fadd
        value = add(add(values[0], values[1]), add(values[2], values[3]))
        i32 = ir.IntType(32)
        for half, width in zip(values[_CHAINS:], self.widths[_CHAINS:], strict=True):
            low, high = (
                self.builder.shuffle_vector(
                    value, value, ir.Constant(ir.VectorType(i32, width), list(range(first, first + width)))
                )
                for first in (0, width)
            )
            value = add(add(low, high), half)
        return self.builder.extract_element(value, i32(0))


def _visit(builder: Any, length: Any, lanes: int) -> Iterator[tuple[int, Any, int]]:
    """Generate code for all places of a row: yields chain, place and lanes of each vector, to be used at once."""
    intp = length.type
    at = cgutils.alloca_once_value(builder, intp(0))
    whole = builder.and_(length, intp(-_CHAINS * lanes))
    with cgutils.for_range_slice(builder, intp(0), whole, intp(_CHAINS * lanes), intp) as (place, _):
        for chain in range(_CHAINS):
            yield chain, builder.add(place, intp(chain * lanes)), lanes
    builder.store(whole, at)
    chain = 0
    pieces = [(2 * lanes, lanes), (lanes, lanes)] + [(lanes >> s, lanes >> s) for s in range(1, lanes.bit_length())]
    for piece, width in pieces:
        with _where_set(builder, length, piece):
            place = builder.load(at)
            for part in range(piece // width):
                yield chain + part, builder.add(place, intp(part * width)), width
            builder.store(builder.add(place, intp(piece)), at)
        chain += piece // width
        if chain == 3:
            chain = _CHAINS


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


@intrinsic
def vector_dot(typingctx, X, i, w, k):
    """``w[k] . X[i]`` of arrays of one dtype, contiguous along rows."""

    def codegen(context, builder, signature, args):
        x_kind, i_kind, w_kind, k_kind = signature.args
        x = _Row(context, builder, x_kind, args[0], args[1], i_kind)
        weights = _Row(context, builder, w_kind, args[2], args[3], k_kind)
        total = _Sum(builder, x.number, VECTOR_BYTES // x.itemsize)
        for chain, place, lanes in _visit(builder, weights.length, total.lanes):
            total.add_product(chain, x.load(place, lanes), weights.load(place, lanes))
        return total.total()

    return w.dtype(X, i, w, k), codegen


@intrinsic
def vector_add(typingctx, X, i, w, k, c):
    """``w[k] += c X[i]`` of arrays of one dtype, contiguous along rows; the sum of squares of ``w[k]`` after."""

    def codegen(context, builder, signature, args):
        x_kind, i_kind, w_kind, k_kind, c_kind = signature.args
        x = _Row(context, builder, x_kind, args[0], args[1], i_kind)
        weights = _Row(context, builder, w_kind, args[2], args[3], k_kind)
        step = context.cast(builder, args[4], c_kind, w_kind.dtype)
        squares = _Sum(builder, x.number, VECTOR_BYTES // x.itemsize)
        for chain, place, lanes in _visit(builder, weights.length, squares.lanes):
            moved = builder.fmul(_splat(builder, step, lanes), x.load(place, lanes), flags=_CONTRACT)
            value = builder.fadd(weights.load(place, lanes), moved, flags=_CONTRACT)
            weights.store(value, place, lanes)
            squares.add_product(chain, value, value)
        return squares.total()

    return w.dtype(X, i, w, k, c), codegen


def ask_for(builder: Any, pointer: Any) -> None:
    """Start loading a cache line, into the second level of cache.

    That one can wait for more lines at once than the first: shuffled rows of 400 bytes come in 57 ns so, in 68 else.
    """
    byte, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    builder.call(function, [builder.bitcast(pointer, byte), i32(0), i32(2), i32(1)])
