"""Rows, and the weights of sparse ones, asked for before their turn: in a shuffled order no hardware foresees them."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from daskdml.numerics._sparse import DOTS, SparseRow, Values, one_by_one
from daskdml.numerics._vectors import Row

CACHE_LINE = 64
# The first and the second level of cache, as LLVM numbers them.
_FIRST, _SECOND = 3, 2
# Dense rows so far ahead are asked for into the second level, which can wait for more lines at once than the first;
# and later into the first, because all lines of a row that is still in the second take as long as half of its
# arithmetic. Shuffled rows of 400 bytes, 58 ns each with the first of the two, take 36 with both, which is what the
# memory needs for their lines.
_FAR, _NEAR = 24, 8
# What lies further on in a dense row than so many bytes, the hardware asks for.
_LONG = 2048
# Sparse rows the same way, and before them where in the arrays they begin: that is read to ask for them, and may be far
# from there itself. Shuffled rows of 39 entries take 112 ns, and 208 asked for once, 10 ahead.
_POINTERS, _SPARSE_FAR, _SPARSE_NEAR = 24, 16, 5


def ask_for(builder: Any, pointer: Any, level: int = _SECOND) -> None:
    """Start loading a cache line."""
    byte, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    builder.call(function, [builder.bitcast(pointer, byte), i32(0), i32(level), i32(1)])


def of_dense(typingctx, rows, y, order, n):
    """Start loading the dense rows that come some way after place n of the order, and their targets."""

    def codegen(context, builder, signature, args):
        X = builder.extract_value(args[0], 0)
        targets, places = Values(context, builder, y, args[1]), Values(context, builder, order, args[2])
        at = context.cast(builder, args[3], signature.args[3], types.intp)
        last = cgutils.unpack_tuple(builder, places.made.shape, 1)[0]

        def ask(ahead, level):
            place = builder.add(at, at.type(ahead))
            i = places.load(place, to=types.intp)
            before = places.load(builder.sub(place, at.type(1)), to=types.intp)
            # A row next to the one before it, the hardware foresees.
            apart = builder.icmp_signed("!=", i, builder.add(before, at.type(1)))
            with builder.if_then(apart):
                ask_for(builder, targets.address(i), level)
                row = Row(context, builder, rows.types[0], X, i, types.intp)
                length = builder.mul(row.length, at.type(row.itemsize))
                length = builder.select(builder.icmp_signed("<", length, at.type(_LONG)), length, at.type(_LONG))
                first = builder.bitcast(row.start, ir.IntType(8).as_pointer())
                step = at.type(CACHE_LINE)
                with cgutils.for_range_slice(builder, at.type(0), length, step, at.type) as (offset, _):
                    one_by_one(builder)
                    ask_for(builder, builder.gep(first, [offset]), level)

        with builder.if_then(builder.icmp_signed("<", builder.add(at, at.type(_FAR)), last)):
            ask(_FAR, _SECOND)
            ask(_NEAR, _FIRST)
        return context.get_dummy_value()

    return types.void(rows, y, order, n), codegen


def of_sparse(typingctx, rows, y, order, n):
    """Start loading the sparse rows that come some way after place n of the order, and their targets."""

    def codegen(context, builder, signature, args):
        targets, places = Values(context, builder, y, args[1]), Values(context, builder, order, args[2])
        at = context.cast(builder, args[3], signature.args[3], types.intp)
        last = cgutils.unpack_tuple(builder, places.made.shape, 1)[0]

        def ask(ahead, level):
            i = places.load(builder.add(at, at.type(ahead)), to=types.intp)
            if level == _SECOND:
                ask_for(builder, targets.address(i), level)
            row = SparseRow(context, builder, rows, args[0], i, types.intp)
            for values in (row.data, row.indices):
                size = context.get_abi_sizeof(context.get_value_type(values.kind.dtype))
                step = at.type(max(1, CACHE_LINE // size))
                with cgutils.for_range_slice(builder, row.start, row.stop, step, step.type) as (entry, _):
                    one_by_one(builder)
                    ask_for(builder, values.address(entry), level)

        first = builder.add(at, at.type(_POINTERS))
        with builder.if_then(builder.icmp_signed("<", first, last)):
            pointers = Values(context, builder, rows.types[2], builder.extract_value(args[0], 2))
            ask_for(builder, pointers.address(places.load(first, to=types.intp)))
            ask(_SPARSE_FAR, _SECOND)
            ask(_SPARSE_NEAR, _FIRST)
        return context.get_dummy_value()

    return types.void(rows, y, order, n), codegen


def of_weights(typingctx, rows, w, i):
    """Start loading the weights ``w[:, j]`` that row i names."""

    def codegen(context, builder, signature, args):
        row = SparseRow(context, builder, signature.args[0], args[0], args[2], signature.args[2])
        weights = Values(context, builder, signature.args[1], args[1])
        n_problems = cgutils.unpack_tuple(builder, weights.made.shape, 2)[0]
        with cgutils.for_range(builder, n_problems) as loop:

            def visit(places):
                for at in places:
                    ask_for(builder, weights.address(loop.index, row.indices.load(at, to=types.intp)))

            row.visit(DOTS, visit)
        return context.get_dummy_value()

    return types.void(rows, w, i), codegen
