"""Kernels of second derivatives: what each row adds to them, and the products of columns that they are sums of.

A row's curvature is found by a warp, from the row itself: that is a second reading of it, after the one for its
gradient. Rows that are not among those chosen have the factor 0 from then on, and nothing more of them is read.

Products are made in squares of columns. A block of the grid has a square and a slice of the rows; it looks for rows
with a factor, takes some of them at a time into shared memory, and keeps its sums in registers: those of a few rows in
their own precision, all others in float64. Sums of the slices are then added in their order, so the same card gives
the same bits.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

from numba import config, cuda, float32, float64, int32, int64

from daskdml.numerics._hessian import ROWS
from daskdml.numerics._settings import SOFTMAX
from daskdml.numerics.cuda._layout import Threads
from daskdml.numerics.cuda._parts import class_weight, row_curvature, row_gradient, softmax_row, target_of
from daskdml.numerics.cuda._warps import exchanges, sum_over_warp

# What is made of a row's curvatures: factors of the rows that are kept; the mean over outputs, and the factors of some
# rows for products of columns; the curvatures themselves; nothing but ones.
KEPT, MEAN, EACH_OUTPUT, ONES = range(4)
# Columns of a square, in each direction, that a thread has.
COLUMNS = 4
# Bytes of shared memory for the rows of a square, and how many are multiplied before sums are in float64.
_SQUARE_BYTES, _MOST_AT_ONCE = 2**14, 32
# Two blocks of 256 threads on each multiprocessor.
_REGISTERS = 128


class Point(NamedTuple):
    """Where second derivatives are wanted, and of which rows; on the device."""

    coef: Any  # (K, d)
    intercept: Any  # (K,)
    shares: Any  # (K, d + 1): as in Sample, by output; last the intercept's, infinite where all rows are kept


class How(NamedTuple):
    """What is made of the curvatures of rows."""

    what: int
    sampled: bool  # whether rows are kept by chance
    turn: float
    part: float  # of the rows, for products of columns; each counts for 1 / part


class Plan(NamedTuple):
    """Which products are made; arrays on the device."""

    outputs: Any  # (Q, 2): of which two outputs' curvature; of a softmax those of both together
    squares: Any  # (T, 2): places of columns, in squares
    n_features: int
    bias: bool  # whether a row has a 1 at its end
    coupled: bool
    slices: int


class Products(NamedTuple):
    """Compiled for one kind of rows, one dtype and one number of threads.

    ``bends`` finds what rows add. ``products`` and ``diagonals`` make the products of different columns, and those of
    each with itself, by slices of the rows; ``added`` adds up the slices. ``squares`` adds up squares of sparse values
    as whole numbers.
    """

    bends: Any
    products: Any
    diagonals: Any
    added: Any
    squares: Any


def square_of(threads: Threads) -> tuple[int, int]:
    """Threads along a side of a square, and columns.

    Examples
    --------
    >>> square_of(Threads())
    (16, 64)
    """
    side = 1 << (math.isqrt(threads.block).bit_length() - 1)
    return side, COLUMNS * side


@cache
def products(double: bool, sparse: bool, threads: Threads) -> Products:
    """The kernels for rows of float64 or float32, sparse or dense."""
    real = float64 if double else float32
    THREADS, WARP = threads.block, threads.warp
    WARPS = THREADS // WARP
    SIDE, WIDTH = square_of(threads)
    DEPTH = min(_MOST_AT_ONCE, max(1, _SQUARE_BYTES // ((8 if double else 4) * WIDTH)))
    # Entries of that shared memory, and sums of each thread.
    SHELF, EACH = DEPTH * WIDTH, COLUMNS * COLUMNS
    # Products of the rows' own precision that are added up before their sum goes to a longer one.
    SHORT = 32
    compiled: dict[str, Any] = {} if config.ENABLE_CUDASIM else {"max_registers": _REGISTERS}
    warp_sum = sum_over_warp(threads, exchanges(threads)[1])

    def walk_of(squared):
        @cuda.jit(device=True)
        def walk(rows, i, w, k, n_features, lane):
            """A thread's share of ``w[k] . x_i``, or of the same with squares of x."""
            total = 0.0
            if sparse:
                for e in range(rows.indptr[i] + lane, rows.indptr[i + 1], WARP):
                    x = float64(rows.data[e])
                    total += (x * x if squared else x) * float64(w[k, rows.indices[e]])
            else:
                j = lane
                while j < n_features:
                    short = real(0.0)
                    stop = min(n_features, j + SHORT * WARP)
                    while j < stop:
                        x = rows.X[i, j]
                        short += (x * x if squared else x) * w[k, j]
                        j += WARP
                    total += short
            return total

        return walk

    dot_part, square_part = walk_of(False), walk_of(True)

    @cuda.jit(device=True)
    def bend_row(data, numbers, curves, place, i, n_outputs):
        """From a row's scores to its curvatures; of a softmax to chances, and the row's weight after them."""
        y = float64(data.y[i])
        weight = float64(data.sample_weight[i]) if data.sample_weight.shape[0] > 0 else 1.0
        if numbers.mode == SOFTMAX:
            chances = curves[place, :n_outputs]
            softmax_row(True, chances, y, chances)
            curves[place, int(y)] += 1.0
            curves[place, n_outputs] = weight * data.positive_weight[int(y)]
            return
        for k in range(n_outputs):
            if not data.active[k]:
                curves[place, k] = 0.0
                continue
            score = curves[place, k]
            _, slope = row_gradient(numbers, y, score, k)
            wanted = target_of(numbers.mode, numbers.loss, y, k + numbers.first_class)
            share = weight * class_weight(
                numbers.mode, y, k, numbers.first_class, data.positive_weight, data.negative_weight
            )
            curves[place, k] = share * row_curvature(numbers.loss, wanted, score, slope, numbers.epsilon)

    @cuda.jit(device=True)
    def bend_of(curves, numbers, place, k, n_outputs):
        """The curvature along one score."""
        if numbers.mode == SOFTMAX:
            chance = curves[place, k]
            return curves[place, n_outputs] * chance * (1.0 - chance)
        return curves[place, k]

    @cuda.jit(device=True)
    def seat_of(i, turn):
        turned = float64(i) * ROWS + turn
        return turned - math.floor(turned)

    @cuda.jit
    def bends(rows, data, point, curves, numbers, how, start, stop):
        lane, warp = cuda.threadIdx.x % WARP, cuda.threadIdx.x // WARP
        n_outputs, n_features = point.coef.shape
        first = start + cuda.blockIdx.x * WARPS
        while first < stop:
            # All warps of a block go round equally often; the first thread of each writes for it.
            p = min(first + warp, stop - 1)
            mine = first + warp < stop and lane == 0
            i, place = data.order[p], p - start
            if how.what == ONES:
                if mine:
                    curves[place, 0] = 1.0
                first += cuda.gridDim.x * WARPS
                continue
            for k in range(n_outputs):
                score = warp_sum(dot_part(rows, i, point.coef, k, n_features, lane)) + point.intercept[k]
                if mine:
                    curves[place, k] = score
            if mine:
                bend_row(data, numbers, curves, place, i, n_outputs)
                if how.what == MEAN:
                    mean = 0.0
                    for k in range(n_outputs):
                        mean += bend_of(curves, numbers, place, k, n_outputs) / n_outputs
                    curves[place, 0] = mean
                    curves[place, 1] = mean / how.part if seat_of(i, 0.0) < how.part else 0.0
                elif how.what == EACH_OUTPUT:
                    for k in range(n_outputs):
                        curves[place, k] = bend_of(curves, numbers, place, k, n_outputs)
            if how.sampled:
                seat, together = seat_of(i, how.turn), 0.0
                for k in range(n_outputs):
                    square = warp_sum(square_part(rows, i, point.shares, k, n_features, lane))
                    if mine:
                        share = float64(point.shares[k, n_features])
                        bend = bend_of(curves, numbers, place, k, n_outputs)
                        chance = bend * (square + share)
                        together += chance
                        if numbers.mode != SOFTMAX and not math.isinf(share):
                            curves[place, k] = bend / min(chance, 1.0) if seat < chance else 0.0
                if mine and numbers.mode == SOFTMAX and not math.isinf(point.shares[0, n_features]):
                    weight = curves[place, n_outputs]
                    curves[place, n_outputs] = weight / min(together, 1.0) if seat < together else 0.0
            first += cuda.gridDim.x * WARPS

    @cuda.jit(device=True)
    def factor_of(curves, coupled, place, k, other):
        """What a row's products count for in the second derivatives by two outputs."""
        if not coupled:
            return curves[place, k]
        chance = curves[place, k]
        return curves[place, curves.shape[1] - 1] * chance * ((1.0 if k == other else 0.0) - curves[place, other])

    @cuda.jit(device=True)
    def load(rows, order, shelf, queue, factors, at, count, column, plan, scaled):
        """Take columns of rows that wait in a queue into shared memory, times their factors if ``scaled``."""
        lane, warp = cuda.threadIdx.x % WARP, cuda.threadIdx.x // WARP
        for r in range(warp, count, WARPS):
            i = order[queue[at + r]]
            factor = real(factors[at + r]) if scaled else real(1.0)
            if sparse:
                for e in range(rows.indptr[i] + lane, rows.indptr[i + 1], WARP):
                    j = rows.indices[e] - column
                    if j >= 0 and j < WIDTH:
                        shelf[r * WIDTH + j] = factor * rows.data[e]
                if lane == 0 and plan.bias and plan.n_features >= column and plan.n_features < column + WIDTH:
                    shelf[r * WIDTH + plan.n_features - column] = factor
            else:
                for c in range(lane, WIDTH, WARP):
                    j = column + c
                    x = real(0.0)
                    if j < plan.n_features:
                        x = rows.X[i, j]
                    elif j == plan.n_features and plan.bias:
                        x = real(1.0)
                    shelf[r * WIDTH + c] = factor * x

    def products_of(whole):
        """A kernel for the products of a square's columns, or of each with itself only."""

        @cuda.jit(**compiled)
        def slices(rows, order, curves, plan, parts, start, stop):
            left = cuda.shared.array(SHELF, real)
            right = cuda.shared.array(SHELF, real)
            queue = cuda.shared.array(THREADS, int32)
            factors = cuda.shared.array(THREADS, float64)
            flags = cuda.shared.array(THREADS, int32)
            counts = cuda.shared.array(WARPS, int32)
            short = cuda.local.array(EACH, real)
            sums = cuda.local.array(EACH, float64)
            tid = cuda.threadIdx.x
            row, column, warp = tid // SIDE, tid % SIDE, tid // WARP
            n_outputs, n_squares = plan.outputs.shape[0], plan.squares.shape[0]
            each = -(-(stop - start) // plan.slices)
            job = cuda.blockIdx.x
            while job < plan.slices * n_outputs * n_squares:
                t, q, s = job % n_squares, job // n_squares % n_outputs, job // n_squares // n_outputs
                k, other = plan.outputs[q, 0], plan.outputs[q, 1]
                for m in range(EACH):
                    sums[m] = 0.0
                first, last = start + s * each, min(stop, start + (s + 1) * each)
                while first < last:
                    # The rows with a factor, among as many as there are threads, in their order.
                    p = first + tid
                    factor = factor_of(curves, plan.coupled, p - start, k, other) if p < last else 0.0
                    flags[tid] = 1 if factor != 0.0 else 0
                    cuda.syncthreads()
                    place = 0
                    for before in range(warp * WARP, tid):
                        place += flags[before]
                    if tid % WARP == WARP - 1:
                        counts[warp] = place + flags[tid]
                    cuda.syncthreads()
                    count = 0
                    for some in range(WARPS):
                        if some < warp:
                            place += counts[some]
                        count += counts[some]
                    if factor != 0.0:
                        queue[place] = p
                        factors[place] = factor
                    cuda.syncthreads()
                    for at in range(0, count, DEPTH):
                        n = min(DEPTH, count - at)
                        if sparse:
                            for m in range(tid, n * WIDTH, THREADS):
                                left[m] = real(0.0)
                                right[m] = real(0.0)
                            cuda.syncthreads()
                        load(rows, order, left, queue, factors, at, n, plan.squares[t, 0] * WIDTH, plan, True)
                        load(rows, order, right, queue, factors, at, n, plan.squares[t, 1] * WIDTH, plan, False)
                        cuda.syncthreads()
                        if whole and tid < SIDE * SIDE:
                            for m in range(EACH):
                                short[m] = real(0.0)
                            for r in range(n):
                                for u in range(COLUMNS):
                                    value = left[r * WIDTH + row + u * SIDE]
                                    for v in range(COLUMNS):
                                        short[u * COLUMNS + v] += value * right[r * WIDTH + column + v * SIDE]
                            for m in range(EACH):
                                sums[m] += short[m]
                        elif not whole and tid < WIDTH:
                            found = real(0.0)
                            for r in range(n):
                                found += left[r * WIDTH + tid] * right[r * WIDTH + tid]
                            sums[0] += found
                        cuda.syncthreads()
                    first += THREADS
                if whole and tid < SIDE * SIDE:
                    for u in range(COLUMNS):
                        for v in range(COLUMNS):
                            at = (row + u * SIDE) * WIDTH + column + v * SIDE
                            parts[s, q, t, at] = sums[u * COLUMNS + v]
                elif not whole and tid < WIDTH:
                    parts[s, q, t, tid] = sums[0]
                job += cuda.gridDim.x

        return slices

    @cuda.jit
    def added(parts, sums, fresh):
        """Add up the slices, (S, n), to ``sums``, (n,), or to nothing."""
        m = cuda.grid(1)
        while m < sums.shape[0]:
            total = 0.0
            for s in range(parts.shape[0]):
                total += parts[s, m]
            sums[m] = total if fresh else sums[m] + total
            m += cuda.gridsize(1)

    @cuda.jit
    def squares(rows, order, fixed, scale, start, stop):
        if sparse:
            lane = cuda.threadIdx.x % WARP
            p = start + cuda.blockIdx.x * WARPS + cuda.threadIdx.x // WARP
            while p < stop:
                i = order[p]
                for e in range(rows.indptr[i] + lane, rows.indptr[i + 1], WARP):
                    x = float64(rows.data[e])
                    cuda.atomic.add(fixed, rows.indices[e], int64(x * x * scale))
                p += cuda.gridDim.x * WARPS

    return Products(bends, products_of(True), products_of(False), added, squares)
