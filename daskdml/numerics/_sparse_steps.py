"""Steps on a CSR row with rules by coordinate, gathered into vectors: a division takes as long for eight as for one.

Those of AdaGrad are the ones of :mod:`daskdml.numerics._adaptive`, that of the cumulative l1 penalty the one of
:mod:`daskdml.numerics._sgd`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from daskdml.numerics._sparse import SparseRow, Values, zeros

LANES = 8


class _Lanes:
    """Arithmetic on numbers side by side."""

    def __init__(self, builder: Any, number: Any, lanes: int):
        self.builder, self.number, self.kind = builder, number, ir.VectorType(number, lanes)
        self.places = [ir.IntType(32)(n) for n in range(lanes)]

    def of(self, values: list[Any]) -> Any:
        """The vector of these numbers, or of so many times the same one."""
        vector = ir.Constant(ir.VectorType(values[0].type, len(self.places)), ir.Undefined)
        for place, value in zip(self.places, values, strict=True):
            vector = self.builder.insert_element(vector, value, place)
        return vector

    def all(self, value: Any) -> Any:
        return self.of([value] * len(self.places))

    def each(self, vector: Any) -> list[Any]:
        return [self.builder.extract_element(vector, place) for place in self.places]

    def zero(self) -> Any:
        return ir.Constant(self.kind, [0.0] * len(self.places))

    def call(self, name: str, *values: Any) -> Any:
        bits = {"float": "f32", "double": "f64"}[str(self.number)]
        kind = ir.FunctionType(self.kind, [self.kind] * len(values))
        full = f"llvm.{name}.v{len(self.places)}{bits}"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, full), values)

    def shrunk(self, w: Any, moved: Any, root: Any, l1: Any, l2: Any, kept: Any) -> Any:
        """The weights after a step and the penalty, but for those ``kept``; a NaN stays one.

        ``moved`` and the penalties come times the root of the sum of squares: so there is one division in all.
        """
        builder = self.builder
        size = builder.fsub(self.call("fabs", moved), l1)
        size = builder.select(builder.fcmp_ordered("<", size, self.zero()), self.zero(), size)
        size = builder.fdiv(size, builder.fadd(root, l2))
        return builder.select(kept, w, self.call("copysign", size, moved))


def _rates(lanes: _Lanes, eta: Any, inverse: Values | None, columns: list[Any]) -> Any:
    rates = lanes.all(eta)
    if inverse is None:
        return rates
    return lanes.builder.fmul(rates, lanes.of([inverse.load(column) for column in columns]))


@intrinsic
def sparse_adaptive_step(typingctx, rows, i, w, squares, inverse, k, gradient, eta, ridge, lasso):
    """One step of problem ``k`` on the columns of row ``i``; ``inverse`` is None where features have no scales."""

    def codegen(context, builder, signature, args):
        kinds = signature.args
        row = SparseRow(context, builder, kinds[0], args[0], args[1], kinds[1])
        weights, sums = (Values(context, builder, kinds[n], args[n]) for n in (2, 3))
        scales = None if inverse is types.none else Values(context, builder, kinds[4], args[4])
        problem = context.cast(builder, args[5], kinds[5], types.intp)
        slope, first, l2, l1 = (context.cast(builder, args[n], kinds[n], w.dtype) for n in (6, 7, 8, 9))
        number = context.get_data_type(w.dtype)

        def visit(places):
            lanes = _Lanes(builder, number, len(places))
            entries = [row.entry(at, w.dtype) for at in places]
            columns = [column for column, _ in entries]
            g = builder.fmul(lanes.all(slope), lanes.of([value for _, value in entries]))
            before = lanes.of([weights.load(problem, column) for column in columns])
            total = lanes.of([sums.load(problem, column) for column in columns])
            total = builder.fadd(total, builder.fmul(g, g))
            root = lanes.call("sqrt", total)
            rates = _rates(lanes, first, scales, columns)
            moved = builder.fsub(builder.fmul(before, root), builder.fmul(rates, g))
            lasso_part, ridge_part = (builder.fmul(rates, lanes.all(part)) for part in (l1, l2))
            # A coordinate without any gradient so far has a rate of 0.
            kept = builder.fcmp_ordered("==", total, lanes.zero())
            after = lanes.shrunk(before, moved, root, lasso_part, ridge_part, kept)
            for column, new, grown in zip(columns, lanes.each(after), lanes.each(total), strict=True):
                weights.store(new, problem, column)
                sums.store(grown, problem, column)

        row.visit(LANES, visit)
        return context.get_dummy_value()

    return types.void(rows, i, w, squares, inverse, k, gradient, eta, ridge, lasso), codegen


@intrinsic
def sparse_caught_up_dot(typingctx, rows, i, w, squares, inverse, last, k, n, eta, ridge, lasso):
    """``w[k] . x_i``, once the columns of row ``i`` had the penalty of the rows since they were ``last`` named."""

    def codegen(context, builder, signature, args):
        kinds = signature.args
        row = SparseRow(context, builder, kinds[0], args[0], args[1], kinds[1])
        weights, sums, named = (Values(context, builder, kinds[n], args[n]) for n in (2, 3, 5))
        scales = None if inverse is types.none else Values(context, builder, kinds[4], args[4])
        problem = context.cast(builder, args[6], kinds[6], types.intp)
        now = context.cast(builder, args[7], kinds[7], last.dtype)
        first, l2, l1 = (context.cast(builder, args[n], kinds[n], w.dtype) for n in (8, 9, 10))
        number = context.get_data_type(w.dtype)
        dots = {lanes: zeros(builder, ir.VectorType(number, lanes), 1)[0] for lanes in (8, 4, 2, 1)}

        def visit(places):
            lanes = _Lanes(builder, number, len(places))
            entries = [row.entry(at, w.dtype) for at in places]
            columns = [column for column, _ in entries]
            before = lanes.of([weights.load(problem, column) for column in columns])
            missed = builder.sub(lanes.all(now), lanes.of([named.load(column) for column in columns]))
            rates = builder.fmul(_rates(lanes, first, scales, columns), builder.sitofp(missed, lanes.kind))
            total = lanes.of([sums.load(problem, column) for column in columns])
            root = lanes.call("sqrt", total)
            lasso_part, ridge_part = (builder.fmul(rates, lanes.all(part)) for part in (l1, l2))
            kept = builder.or_(
                builder.fcmp_ordered("==", total, lanes.zero()), builder.fcmp_ordered("==", rates, lanes.zero())
            )
            after = lanes.shrunk(before, builder.fmul(before, root), root, lasso_part, ridge_part, kept)
            for column, new in zip(columns, lanes.each(after), strict=True):
                weights.store(new, problem, column)
            dot = dots[len(places)]
            product = builder.fmul(after, lanes.of([value for _, value in entries]), flags=("contract",))
            builder.store(builder.fadd(builder.load(dot), product, flags=("contract",)), dot)

        row.visit(LANES, visit)
        found = [part for lanes, dot in dots.items() for part in _Lanes(builder, number, lanes).each(builder.load(dot))]
        while len(found) > 1:
            pairs = zip(found[::2], [*found[1::2], number(0.0)], strict=False)
            found = [builder.fadd(a, b) for a, b in pairs]
        return found[0]

    return w.dtype(rows, i, w, squares, inverse, last, k, n, eta, ridge, lasso), codegen


@intrinsic
def sparse_fill(typingctx, rows, i, values, number):
    """``values[j] = number`` for the columns j of row ``i``."""

    def codegen(context, builder, signature, args):
        row = SparseRow(context, builder, signature.args[0], args[0], args[1], signature.args[1])
        filled = Values(context, builder, signature.args[2], args[2])
        value = context.cast(builder, args[3], signature.args[3], values.dtype)

        def visit(places):
            for at in places:
                filled.store(value, row.indices.load(at, to=types.intp))

        row.visit(LANES, visit)
        return context.get_dummy_value()

    return types.void(rows, i, values, number), codegen


@intrinsic
def sparse_lasso_step(typingctx, rows, i, w, k, c, factor, total, applied, sums):
    """``w[k] += c x_i``, then pull these weights, which stand for ``factor`` times as much, towards 0.

    By what they have not had yet of the l1 penalty ``total``: what they had is in ``applied[k]``. Takes the sums of
    squares and of absolute values of ``w[k]``, and returns what they are after.
    """

    def codegen(context, builder, signature, args):
        kinds = signature.args
        row = SparseRow(context, builder, kinds[0], args[0], args[1], kinds[1])
        weights, had = (Values(context, builder, kinds[n], args[n]) for n in (2, 7))
        problem = context.cast(builder, args[3], kinds[3], types.intp)
        step = context.cast(builder, args[4], kinds[4], w.dtype)
        double = ir.DoubleType()
        scale, penalty = args[5], args[6]
        per_weight = builder.fdiv(double(1.0), scale)
        parts = {lanes: zeros(builder, ir.VectorType(double, lanes), 2) for lanes in (8, 4, 2, 1)}

        def visit(places):
            lanes, wide = (_Lanes(builder, n, len(places)) for n in (context.get_data_type(w.dtype), double))

            def widened(vector):
                return vector if lanes.kind == wide.kind else builder.fpext(vector, wide.kind)

            def narrowed(vector):
                return vector if lanes.kind == wide.kind else builder.fptrunc(vector, lanes.kind)

            entries = [row.entry(at, w.dtype) for at in places]
            columns = [column for column, _ in entries]
            before = lanes.of([weights.load(problem, column) for column in columns])
            moved = builder.fmul(lanes.all(step), lanes.of([value for _, value in entries]))
            moved = builder.fadd(before, moved)
            received = widened(lanes.of([had.load(problem, column) for column in columns]))
            # What is still to pay, from above where the weight is positive, from below where it is negative.
            old, free, due = widened(before), widened(moved), wide.all(penalty)
            positive = builder.fcmp_ordered(">", free, wide.zero())
            debt = builder.select(positive, builder.fadd(due, received), builder.fsub(due, received))
            size = builder.fsub(wide.call("fabs", free), builder.fmul(debt, wide.all(per_weight)))
            size = builder.select(builder.fcmp_ordered("<", size, wide.zero()), wide.zero(), size)
            signed = builder.select(positive, size, builder.fneg(size))
            none = builder.fcmp_ordered("==", free, wide.zero())
            after = narrowed(builder.select(none, wide.zero(), signed))
            new = widened(after)
            received = builder.fadd(received, builder.fmul(wide.all(scale), builder.fsub(new, free)))
            for column, value, paid in zip(columns, lanes.each(after), lanes.each(narrowed(received)), strict=True):
                weights.store(value, problem, column)
                had.store(paid, problem, column)
            changes = (
                builder.fmul(builder.fadd(new, old), builder.fsub(new, old)),
                builder.fsub(wide.call("fabs", new), wide.call("fabs", old)),
            )
            for part, change in zip(parts[len(places)], changes, strict=True):
                builder.store(builder.fadd(builder.load(part), change), part)

        row.visit(LANES, visit)
        after = []
        for n in range(2):
            value = builder.extract_value(args[8], n)
            for lanes, found in parts.items():
                for part in _Lanes(builder, double, lanes).each(builder.load(found[n])):
                    value = builder.fadd(value, part)
            after.append(value)
        return context.make_tuple(builder, signature.return_type, after)

    pair = types.UniTuple(types.float64, 2)
    return pair(rows, i, w, k, c, types.float64, types.float64, applied, pair), codegen
