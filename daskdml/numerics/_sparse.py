"""What the kernels do with a CSR row, written for the compiler below numba.

Numba counts a reference, atomically, to every array that a function names in a loop's way, and tests every position for
being negative, because such ones count from the end. For a row of 39 entries that took as long as all of its
arithmetic. Here the arrays of the rows are pointers, and positions are what they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

_CONTRACT = ("contract",)
# Entries whose arithmetic runs side by side.
DOTS, _STEPS = 4, 2


class Values:
    """An array as the code generator sees it: entries by position, of which none is negative."""

    def __init__(self, context: Any, builder: Any, kind: Any, array: Any):
        self.context, self.builder, self.kind = context, builder, kind
        self.made = context.make_array(kind)(context, builder, array)

    def address(self, *places: Any) -> Any:
        made, n = self.made, self.kind.ndim
        shape, strides = (cgutils.unpack_tuple(self.builder, values, n) for values in (made.shape, made.strides))
        return cgutils.get_item_pointer2(
            self.context, self.builder, made.data, shape, strides, self.kind.layout, places, wraparound=False
        )

    def load(self, *places: Any, to: Any = None) -> Any:
        value = self.context.unpack_value(self.builder, self.kind.dtype, self.address(*places))
        return value if to is None else self.context.cast(self.builder, value, self.kind.dtype, to)

    def store(self, value: Any, *places: Any) -> None:
        self.builder.store(value, self.address(*places))


class SparseRow:
    """Row ``index`` of the three arrays of a CSR matrix."""

    def __init__(self, context: Any, builder: Any, kind: Any, rows: Any, index: Any, index_kind: Any):
        self.builder = builder
        self.data, self.indices, self.indptr = (
            Values(context, builder, part, builder.extract_value(rows, n)) for n, part in enumerate(kind.types)
        )
        at = context.cast(builder, index, index_kind, types.intp)
        self.start = self.indptr.load(at, to=types.intp)
        self.stop = self.indptr.load(builder.add(at, at.type(1)), to=types.intp)

    def entry(self, at: Any, dtype: Any) -> tuple[Any, Any]:
        """Column and value at a position of the arrays."""
        return self.indices.load(at, to=types.intp), self.data.load(at, to=dtype)

    def visit(self, together: int, visit: Callable[[list[Any]], None]) -> None:
        """Generate the code for all positions of the row: so many at a time while there are, then half as many."""
        builder, number = self.builder, self.start.type
        length = builder.sub(self.stop, self.start)
        whole = builder.add(self.start, builder.and_(length, number(-together)))
        with cgutils.for_range_slice(builder, self.start, whole, number(together), number) as (at, _):
            one_by_one(builder)
            visit([builder.add(at, number(n)) for n in range(together)])
        place = cgutils.alloca_once_value(builder, whole)
        while together > 1:
            together //= 2
            there = builder.icmp_unsigned("!=", builder.and_(length, number(together)), number(0))
            with builder.if_then(there):
                at = builder.load(place)
                visit([builder.add(at, number(n)) for n in range(together)])
                builder.store(builder.add(at, number(together)), place)


def one_by_one(builder: Any) -> None:
    """Nothing at all, but the loop it stands in is left as it is written.

    The compiler would make vectors of it, gathered entry by entry, slower than they are used.
    """
    builder.asm(ir.FunctionType(ir.VoidType(), []), "", "", [], side_effect=True)


def zeros(builder: Any, number: Any, n: int) -> list[Any]:
    return [cgutils.alloca_once_value(builder, ir.Constant(number, None)) for _ in range(n)]


def _grow(builder: Any, total: Any, a: Any, b: Any) -> None:
    product = builder.fmul(a, b, flags=_CONTRACT)
    builder.store(builder.fadd(builder.load(total), product, flags=_CONTRACT), total)


def _sum(builder: Any, totals: list[Any]) -> Any:
    values = [builder.load(total) for total in totals]
    while len(values) > 1:
        values = [builder.fadd(a, b) for a, b in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def _dot(context: Any, builder: Any, row: SparseRow, weights: Values, problem: Any) -> Any:
    dtype = weights.kind.dtype
    totals = zeros(builder, context.get_data_type(dtype), DOTS)

    def visit(places):
        for total, at in zip(totals, places, strict=False):
            column, value = row.entry(at, dtype)
            _grow(builder, total, value, weights.load(problem, column))

    row.visit(DOTS, visit)
    return _sum(builder, totals)


def _add(
    context: Any, builder: Any, row: SparseRow, weights: Values, problem: Any, c: Any, kind: Any, squares: Any
) -> Any:
    """The sum of squares of the weights after they are changed by ``c`` times the row."""
    dtype = weights.kind.dtype
    step = context.cast(builder, c, kind, dtype)
    totals = zeros(builder, context.get_data_type(dtype), _STEPS)

    def visit(places):
        entries = [row.entry(at, dtype) for at in places]
        # Columns are unique in a row: those loaded together do not meet.
        before = [weights.load(problem, column) for column, _ in entries]
        after = []
        for (column, value), old in zip(entries, before, strict=True):
            moved = builder.fmul(step, value, flags=_CONTRACT)
            after.append(builder.fadd(old, moved, flags=_CONTRACT))
            weights.store(after[-1], problem, column)
        # after^2 - before^2 = c x (before + after)
        for total, (_, value), old, new in zip(totals, entries, before, after, strict=False):
            _grow(builder, total, value, builder.fadd(old, new))

    row.visit(_STEPS, visit)
    grown = context.cast(builder, _sum(builder, totals), dtype, types.float64)
    return builder.fadd(squares, builder.fmul(context.cast(builder, c, kind, types.float64), grown))


def dot_of(typingctx, rows, i, w, k):
    """``w[k] . x_i``, in the dtype of ``w``."""

    def codegen(context, builder, signature, args):
        row = SparseRow(context, builder, signature.args[0], args[0], args[1], signature.args[1])
        weights = Values(context, builder, signature.args[2], args[2])
        problem = context.cast(builder, args[3], signature.args[3], types.intp)
        return _dot(context, builder, row, weights, problem)

    return w.dtype(rows, i, w, k), codegen


def square_of(typingctx, rows, i):
    """``x_i . x_i``, in its dtype, or float64 if that is none of fractions."""
    dtype = rows.types[0].dtype if isinstance(rows.types[0].dtype, types.Float) else types.float64

    def codegen(context, builder, signature, args):
        row = SparseRow(context, builder, signature.args[0], args[0], args[1], signature.args[1])
        totals = zeros(builder, context.get_data_type(dtype), DOTS)

        def visit(places):
            for total, at in zip(totals, places, strict=False):
                _, value = row.entry(at, dtype)
                _grow(builder, total, value, value)

        row.visit(DOTS, visit)
        return _sum(builder, totals)

    return dtype(rows, i), codegen


def add_of(typingctx, rows, i, w, k, c, squares):
    """``w[k] += c x_i``; the sum of squares of ``w[k]`` after, which was ``squares`` before, in float64."""

    def codegen(context, builder, signature, args):
        row = SparseRow(context, builder, signature.args[0], args[0], args[1], signature.args[1])
        weights = Values(context, builder, signature.args[2], args[2])
        problem = context.cast(builder, args[3], signature.args[3], types.intp)
        before = context.cast(builder, args[5], squares, types.float64)
        return _add(context, builder, row, weights, problem, args[4], c, before)

    return types.float64(rows, i, w, k, c, squares), codegen


def step_of(typingctx, rows, earlier, before, i, w, k, waiting, change, squares):
    """``w[k] += change x_before``; then the sum of its squares, which was ``squares``, ``w[k] . x_i``, and 0."""

    def codegen(context, builder, signature, args):
        kinds = signature.args
        weights = Values(context, builder, kinds[4], args[4])
        problem = context.cast(builder, args[5], kinds[5], types.intp)
        total = cgutils.alloca_once_value(builder, context.cast(builder, args[8], squares, types.float64))
        with builder.if_then(builder.fcmp_unordered("!=", args[7], args[7].type(0.0))):
            row = SparseRow(context, builder, kinds[0], args[0], args[2], kinds[2])
            builder.store(_add(context, builder, row, weights, problem, args[7], change, builder.load(total)), total)
        row = SparseRow(context, builder, kinds[0], args[0], args[3], kinds[3])
        score = _dot(context, builder, row, weights, problem)
        found = (builder.load(total), score, score.type(0.0))
        return context.make_tuple(builder, signature.return_type, found)

    given = (rows, earlier, before, i, w, k, waiting, change, squares)
    return types.Tuple((types.float64, w.dtype, w.dtype))(*given), codegen


def pair_of(typingctx, rows, before, i, w, a, b, change_a, change_b):
    """``w[a] += change_a x_before``, the same for b; then ``w[a] . x_i`` and ``w[b] . x_i``.

    ``b`` may be ``a``, with the same change: it is made once.
    """

    def codegen(context, builder, signature, args):
        kinds = signature.args
        weights = Values(context, builder, kinds[3], args[3])
        problems = [context.cast(builder, args[n], kinds[n], types.intp) for n in (4, 5)]
        two = builder.icmp_signed("!=", *problems)
        last, row = (SparseRow(context, builder, kinds[0], args[0], args[n], kinds[n]) for n in (1, 2))
        for n, also in ((6, None), (7, two)):
            moves = builder.fcmp_unordered("!=", args[n], args[n].type(0.0))
            with builder.if_then(moves if also is None else builder.and_(moves, also)):
                given = (args[n], kinds[n], ir.DoubleType()(0.0))
                _add(context, builder, last, weights, problems[n - 6], *given)
        first = _dot(context, builder, row, weights, problems[0])
        second = cgutils.alloca_once_value(builder, first)
        with builder.if_then(two):
            builder.store(_dot(context, builder, row, weights, problems[1]), second)
        return context.make_tuple(builder, signature.return_type, (first, builder.load(second)))

    return types.UniTuple(w.dtype, 2)(rows, before, i, w, a, b, change_a, change_b), codegen


def length_of(typingctx, rows, i):
    """How many entries row i holds."""

    def codegen(context, builder, signature, args):
        row = SparseRow(context, builder, signature.args[0], args[0], args[1], signature.args[1])
        return builder.sub(row.stop, row.start)

    return types.intp(rows, i), codegen


def entry_of(typingctx, rows, i, j):
    """Entry j of row i: its column and its value."""
    dtype = rows.types[0].dtype

    def codegen(context, builder, signature, args):
        row = SparseRow(context, builder, signature.args[0], args[0], args[1], signature.args[1])
        at = builder.add(row.start, context.cast(builder, args[2], signature.args[2], types.intp))
        column, value = row.entry(at, dtype)
        column = context.cast(builder, column, types.intp, types.uintp)
        return context.make_tuple(builder, signature.return_type, (column, value))

    return types.Tuple((types.uintp, dtype))(rows, i, j), codegen
