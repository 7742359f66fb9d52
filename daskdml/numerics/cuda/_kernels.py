"""Minibatch kernels: margins, derivatives and gradient of a batch, and the step along it.

A batch has phases, between which all blocks of the grid wait for each other. Dense rows: each block takes tiles of
rows into shared memory (rows of one problem, if not too long, into registers: see ``_warps``), so they come from device
memory once, and adds up its own gradient; then each column is summed over blocks, and stepped. Sparse rows: scores and
slopes; then products are added column by column as whole numbers of a unit that is chosen for the batch, because whole
numbers add up to the same sum in any order; then the step. No sum depends on the order in which threads come: the same
card gives the same bits.

The phases are device functions. One launch runs them all for all batches of a block of data (``train``), the grid
synchronised in between; the others run a phase each.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

from numba import config, cuda, float32, float64, int64

from daskdml.numerics._settings import ADAGRAD, SOFTMAX
from daskdml.numerics.cuda._layout import WHOLE, Shape, Threads
from daskdml.numerics.cuda._parts import class_weight, place_of, rate_at, row_gradient, softmax_row
from daskdml.numerics.cuda._warps import exchanges, warp_phases

# Left alone, the compiler keeps sizes and strides of all arrays in registers, 255 a thread: one block then fills a
# multiprocessor, too few to wait for memory with. With 64 four do, and what is spilt stays in the first level of cache;
# with rows in registers two must be enough.
_REGISTERS, _REGISTERS_WITH_ROWS = 64, 128


class Kernels(NamedTuple):
    """Compiled for one kind of rows, one dtype and one number of threads.

    ``train`` runs all batches of a visit and steps after each. ``slopes``, ``gather``, ``step`` run a phase of a
    batch each, ``total`` adds up its gradient instead of a step, ``decide`` gives the scores of rows, ``permute``
    makes a :class:`daskdml.numerics.BatchOrder`. ``valued`` is ``slopes``, and adds up losses by the rows' weights too.
    """

    permute: Any
    train: Any
    slopes: Any
    valued: Any
    gather: Any
    step: Any
    total: Any
    decide: Any


def _row_slopes_of(valued):
    """From the scores of row ``i``, at place ``p`` of its batch, to its weighted slopes; its losses are noted.

    Where they are ``valued``, they are noted by the row's weight too.
    """

    @cuda.jit(device=True)
    def row_slopes(numbers, data, scratch, p, slot, i):
        n_problems = scratch.scores.shape[1]
        y = float64(data.y[i])
        weight = float64(data.sample_weight[i]) if data.sample_weight.shape[0] > 0 else 1.0
        softmax = numbers.mode == SOFTMAX
        if softmax:
            loss = softmax_row(True, scratch.scores[p], y, scratch.slopes[p])
            scratch.losses[slot, 0] += loss
            if valued:
                scratch.values[slot, 0] += loss * weight * data.positive_weight[int(y)]
        for k in range(n_problems):
            if not data.active[k]:
                scratch.slopes[p, k] = 0.0
                continue
            share = weight * class_weight(
                numbers.mode, y, k, numbers.first_class, data.positive_weight, data.negative_weight
            )
            if not softmax:
                value, slope = row_gradient(numbers, y, scratch.scores[p, k], k)
                scratch.losses[slot, k] += value
                scratch.slopes[p, k] = slope
                if valued:
                    scratch.values[slot, k] += value * share
            scratch.slopes[p, k] *= share

    return row_slopes


@cuda.jit(device=True)
def _stepped(numbers, weights, k, j, mean, clock, rows, active):
    """One step of weight ``j`` of problem ``k`` along the mean gradient of a batch; returns its penalty before."""
    w = float64(weights.coef[k, j])
    penalty = 0.0
    ridge = 0.0
    lasso = 0.0
    if numbers.penalized:
        penalty = numbers.alpha * ((1.0 - numbers.l1_ratio) * 0.5 * w * w + numbers.l1_ratio * abs(w))
        ridge = numbers.alpha * (1.0 - numbers.l1_ratio)
        lasso = numbers.alpha * numbers.l1_ratio
    if numbers.schedule == ADAGRAD:
        weights.squares[k, j] += mean * mean
        square = float64(weights.squares[k, j])
        rate = numbers.eta0 / math.sqrt(square) if square > 0.0 else 0.0
        stepped = (w - rate * mean) / (1.0 + rate * ridge)
    else:
        rate = rate_at(numbers, clock, weights.eta[k])
        stepped = w * max(0.0, 1.0 - rate * ridge) - rate * mean
    if lasso > 0.0:
        size = max(abs(stepped) - rate * lasso, 0.0)
        stepped = size if stepped > 0.0 else -size
    if active:
        weights.coef[k, j] = stepped
    counted = clock + rows - numbers.average
    if numbers.average > 0 and counted > 0.0:
        part = min(1.0, rows / counted)
        weights.average_coef[k, j] += (weights.coef[k, j] - weights.average_coef[k, j]) * part
    return penalty


@cuda.jit(device=True)
def _stepped_intercept(numbers, weights, k, mean, clock, rows, active):
    if numbers.schedule == ADAGRAD:
        weights.intercept_squares[k] += mean * mean
        square = weights.intercept_squares[k]
        rate = numbers.eta0 / math.sqrt(square) if square > 0.0 else 0.0
    else:
        rate = rate_at(numbers, clock, weights.eta[k])
    if numbers.fit_intercept and active:
        weights.intercept[k] -= numbers.intercept_decay * rate * mean
    counted = clock + rows - numbers.average
    if numbers.average > 0 and counted > 0.0:
        part = min(1.0, rows / counted)
        weights.average_intercept[k] += (weights.intercept[k] - weights.average_intercept[k]) * part


@cache
def kernels(shape: Shape, threads: Threads) -> Kernels:
    """The kernels for rows of float64 or float32, sparse or dense."""
    double, sparse, columns, rows_at_once, ahead = shape
    real = float64 if double else float32
    THREADS, WARP = threads.block, threads.warp
    # The simulator has no registers to speak of.
    registers = _REGISTERS_WITH_ROWS if columns else _REGISTERS
    compiled: dict[str, Any] = {} if config.ENABLE_CUDASIM else {"max_registers": registers}
    # Products of the rows' own precision that are added up before their sum goes to a longer one.
    SHORT = 32

    @cuda.jit(device=True)
    def dense_part(rows, tile, numbers, i, r, w, k, lane):
        """A thread's share of ``w[k] . x_i``."""
        n_features = w.shape[1]
        total = 0.0
        j = lane
        while j < n_features:
            short = real(0.0)
            stop = min(n_features, j + SHORT * numbers.lanes)
            if numbers.pitch > 0:
                while j < stop:
                    short += tile[r * numbers.pitch + j] * w[k, j]
                    j += numbers.lanes
            else:
                while j < stop:
                    short += rows.X[i, j] * w[k, j]
                    j += numbers.lanes
            total += short
        return total

    @cuda.jit(device=True)
    def sparse_part(rows, tile, numbers, i, r, w, k, lane):
        total = 0.0
        for e in range(rows.indptr[i] + lane, rows.indptr[i + 1], numbers.lanes):
            total += float64(rows.data[e]) * float64(w[k, rows.indices[e]])
        return total

    dot_part = sparse_part if sparse else dense_part

    @cuda.jit(device=True)
    def load(rows, tile, data, numbers, first, count):
        """Take a tile of rows into shared memory; a warp reads a row, its threads side by side."""
        tid = cuda.threadIdx.x
        for r in range(tid // WARP, count, THREADS // WARP):
            i = data.order[first + r]
            for j in range(tid % WARP, rows.X.shape[1], WARP):
                tile[r * numbers.pitch + j] = rows.X[i, j]

    @cuda.jit(device=True)
    def add_tile(rows, tile, data, scratch, numbers, first, place, count):
        """Add the gradient of a tile's rows to this block's own; a thread has the same columns in every tile."""
        tid, block = cuda.threadIdx.x, cuda.blockIdx.x
        n_features = rows.X.shape[1]
        for k in range(scratch.slopes.shape[1]):
            for j in range(tid, n_features, THREADS):
                short = real(0.0)
                if numbers.pitch > 0:
                    for r in range(count):
                        short += real(scratch.slopes[place + r, k]) * tile[r * numbers.pitch + j]
                else:
                    for r in range(count):
                        short += real(scratch.slopes[place + r, k]) * rows.X[data.order[first + r], j]
                scratch.partials[block, k, j] += short

    _, of_neighbour = exchanges(threads)

    @cuda.jit(device=True)
    def largest_of_threads(part, value):
        """The largest value of a block's threads, to all of them. Shared memory is the caller's: a function that has
        its own cannot be a part of two others.
        """
        tid, mask = cuda.threadIdx.x, WARP // 2
        while mask > 0:
            value = max(value, of_neighbour(value, mask))
            mask //= 2
        part[tid] = value
        cuda.syncthreads()
        for other in range(0, THREADS, WARP):
            value = max(value, part[other])
        cuda.syncthreads()
        return value

    @cuda.jit(device=True)
    def sum_of_threads(part, value, width):
        """Sums over threads that are ``width`` apart, a power of 2; to the first ``width`` threads."""
        tid, mask = cuda.threadIdx.x, WARP // 2
        while mask > 0:
            other = of_neighbour(value, mask)
            if mask >= width:
                value += other
            mask //= 2
        part[tid] = value
        cuda.syncthreads()
        value = 0.0
        for other in range(tid % width, THREADS, WARP):
            value += part[other]
        cuda.syncthreads()
        return value

    def tile_slopes_by(row_slopes):
        """A phase that makes scores and slopes of rows in tiles, row by row as ``row_slopes`` does."""

        @cuda.jit(device=True)
        def tile_slopes(rows, data, weights, scratch, numbers, start, stop):
            """Scores and slopes of this block's rows of a batch; of dense rows their gradient too."""
            tile = cuda.shared.array(0, real)
            part = cuda.shared.array(THREADS, float64)
            tid, block = cuda.threadIdx.x, cuda.blockIdx.x
            n_problems, last = scratch.slopes.shape[1], scratch.partials.shape[2] - 1
            row, lane = tid // numbers.lanes, tid % numbers.lanes
            for k in range(n_problems):
                for j in range(tid, last + 1, THREADS):
                    scratch.partials[block, k, j] = 0.0
            cuda.syncthreads()
            peak = 0.0
            first = start + block * numbers.tile_rows
            while first < stop:
                count = min(numbers.tile_rows, stop - first)
                place = first - start
                mine = row < count
                i = data.order[first + row] if mine else data.order[first]
                if not sparse and numbers.pitch > 0:
                    load(rows, tile, data, numbers, first, count)
                cuda.syncthreads()
                for k in range(n_problems):
                    part[tid] = dot_part(rows, tile, numbers, i, row, weights.coef, k, lane) if mine else 0.0
                    cuda.syncthreads()
                    if mine and lane == 0:
                        score = 0.0
                        for other in range(numbers.lanes):
                            score += part[tid + other]
                        scratch.scores[place + row, k] = score + weights.intercept[k]
                    cuda.syncthreads()
                if mine and lane == 0:
                    row_slopes(numbers, data, scratch, place + row, block * numbers.tile_rows + row, i)
                cuda.syncthreads()
                for k in range(tid, n_problems, THREADS):
                    total = 0.0
                    for r in range(count):
                        slope = scratch.slopes[place + r, k]
                        total += slope
                        # What is not a number is as bad as what is too large.
                        size = abs(slope)
                        peak = max(peak, size if size == size else math.inf)
                    scratch.partials[block, k, last] += total
                if not sparse:
                    add_tile(rows, tile, data, scratch, numbers, first, place, count)
                cuda.syncthreads()
                first += cuda.gridDim.x * numbers.tile_rows
            peak = largest_of_threads(part, peak)
            if tid == 0:
                scratch.peaks[block] = peak

        return tile_slopes

    load_warp: Any = None
    visit_warp: Any = None
    visit_valued: Any = None
    if columns:
        load_warp, visit_warp = warp_phases(shape, threads)
        _, visit_valued = warp_phases(shape, threads, valued=True)
    # Entries of rows that a thread has in registers.
    ENTRIES = max(1, columns * rows_at_once)
    BLOCK_ROWS = THREADS // WARP * rows_at_once

    @cuda.jit(device=True)
    def warp_first(block, start):
        """Where the rows of this warp begin in a batch."""
        return start + block * BLOCK_ROWS + cuda.threadIdx.x // WARP * rows_at_once

    def warp_slopes_by(visit):
        @cuda.jit(device=True)
        def warp_slopes(rows, data, weights, scratch, numbers, start, stop):
            values = cuda.local.array(ENTRIES, real)
            y, weight = 0.0, 0.0
            if ahead:
                y, weight = load_warp(rows, data, weights, values, warp_first(cuda.blockIdx.x, start), stop)
            visit(rows, data, weights, scratch, numbers, values, y, weight, start, stop)

        return warp_slopes

    tile_slopes = tile_slopes_by(_row_slopes_of(False))
    slopes_of = warp_slopes_by(visit_warp) if columns else tile_slopes
    valued_of = warp_slopes_by(visit_valued) if columns else tile_slopes_by(_row_slopes_of(True))

    @cuda.jit(device=True)
    def largest_peak(scratch, part):
        peak = 0.0
        for other in range(cuda.threadIdx.x, cuda.gridDim.x, THREADS):
            peak = max(peak, scratch.peaks[other])
        return largest_of_threads(part, peak)

    @cuda.jit(device=True)
    def gather_of(rows, data, scratch, numbers, start, stop):
        """Add up the products of slopes and sparse values, as whole numbers: in any order they give the same sum."""
        part = cuda.shared.array(THREADS, float64)
        peak = largest_peak(scratch, part)
        bound = peak * numbers.largest * (stop - start)
        if not bound > 0.0 or math.isinf(bound):
            return
        scale = WHOLE / bound
        tid = cuda.threadIdx.x
        row, lane = tid // numbers.lanes, tid % numbers.lanes
        if row >= numbers.tile_rows:
            return
        p = start + cuda.blockIdx.x * numbers.tile_rows + row
        while p < stop:
            i = data.order[p]
            for k in range(scratch.slopes.shape[1]):
                slope = scratch.slopes[p - start, k] * scale
                if slope != 0.0:
                    for e in range(rows.indptr[i] + lane, rows.indptr[i + 1], numbers.lanes):
                        cuda.atomic.add(scratch.fixed, (k, rows.indices[e]), int64(slope * rows.data[e]))
            p += cuda.gridDim.x * numbers.tile_rows

    @cuda.jit(device=True)
    def unit_of(scratch, part, numbers, rows):
        """What a whole number of :func:`gather_of` stands for; not a number where a slope was none."""
        bound = largest_peak(scratch, part) * numbers.largest * rows
        return math.nan if math.isinf(bound) or bound != bound else bound / WHOLE

    @cuda.jit(device=True)
    def stepped(data, weights, scratch, numbers, k, j, total, n_rows, clock, fresh):
        """A step of one weight, or of an intercept, along the sum of a batch's gradient."""
        if j == weights.coef.shape[1]:
            _stepped_intercept(numbers, weights, k, total / n_rows, clock, n_rows, data.active[k])
            return
        penalty = _stepped(numbers, weights, k, j, total / n_rows, clock, n_rows, data.active[k])
        scratch.penalties[cuda.blockIdx.x * THREADS + cuda.threadIdx.x, k] += n_rows * penalty

    @cuda.jit(device=True)
    def summed(data, weights, scratch, numbers, k, j, total, n_rows, clock, fresh):
        """No step: the sum is kept."""
        scratch.sums[k, j] = total if fresh else scratch.sums[k, j] + total

    def over_columns(act):
        """A phase that gives each column's sum over the batch to ``act``, in one thread of the grid."""

        @cuda.jit(device=True)
        def columns_of_blocks(data, weights, scratch, numbers, part, n_rows, clock, fresh):
            # Each block has added up its rows by itself: of dense rows all columns, of sparse ones the intercept's.
            tid, width = cuda.threadIdx.x, numbers.width
            n_features = weights.coef.shape[1]
            each = scratch.partials.shape[2]
            first = cuda.blockIdx.x * width
            while first < each * weights.coef.shape[0]:
                column = first + tid % width
                k, j = column // each, column % each
                total = 0.0
                if k < weights.coef.shape[0]:
                    for other in range(tid // width, cuda.gridDim.x, THREADS // width):
                        total += scratch.partials[other, k, j]
                total = sum_of_threads(part, total, width)
                if tid < width and k < weights.coef.shape[0]:
                    place = n_features if sparse else j
                    act(data, weights, scratch, numbers, k, place, total, n_rows, clock, fresh)
                first += cuda.gridDim.x * width

        @cuda.jit(device=True)
        def phase(data, weights, scratch, numbers, start, stop, fresh):
            part = cuda.shared.array(THREADS, float64)
            n_rows, clock = float64(stop - start), numbers.clock + start
            columns_of_blocks(data, weights, scratch, numbers, part, n_rows, clock, fresh)
            if sparse:
                n_features = weights.coef.shape[1]
                unit = unit_of(scratch, part, numbers, n_rows)
                at = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
                while at < n_features * weights.coef.shape[0]:
                    k, j = at // n_features, at % n_features
                    total = scratch.fixed[k, j] * unit
                    scratch.fixed[k, j] = 0
                    act(data, weights, scratch, numbers, k, j, total, n_rows, clock, fresh)
                    at += cuda.gridDim.x * THREADS

        return phase

    step_of, sum_of = over_columns(stepped), over_columns(summed)

    def tally_of(valued):
        """Add up what this block's threads have noted of losses and penalties, or of losses by the rows' weights."""

        @cuda.jit(device=True)
        def noted(scratch, numbers, fresh):
            part = cuda.shared.array(THREADS, float64)
            tid, block = cuda.threadIdx.x, cuda.blockIdx.x
            cuda.syncthreads()
            for k in range(scratch.totals.shape[1]):
                loss, worth = 0.0, 0.0
                for row in range(tid, numbers.tile_rows, THREADS):
                    loss += scratch.losses[block * numbers.tile_rows + row, k]
                    scratch.losses[block * numbers.tile_rows + row, k] = 0.0
                    if valued:
                        worth += scratch.values[block * numbers.tile_rows + row, k]
                        scratch.values[block * numbers.tile_rows + row, k] = 0.0
                penalty = scratch.penalties[block * THREADS + tid, k]
                scratch.penalties[block * THREADS + tid, k] = 0.0
                loss, penalty = sum_of_threads(part, loss, 1), sum_of_threads(part, penalty, 1)
                if valued:
                    worth = sum_of_threads(part, worth, 1)
                if tid == 0:
                    scratch.totals[0, k, block] = loss if fresh else scratch.totals[0, k, block] + loss
                    scratch.totals[1, k, block] = penalty if fresh else scratch.totals[1, k, block] + penalty
                    if valued:
                        scratch.totals[2, k, block] = worth if fresh else scratch.totals[2, k, block] + worth

        return noted

    tally, tally_values = tally_of(False), tally_of(True)

    @cuda.jit
    def permute(order, start, stop, n_rows, bits, keys):
        p = start + cuda.grid(1)
        while p < stop:
            order[p - start] = place_of(p, n_rows, bits, keys)
            p += cuda.gridsize(1)

    @cuda.jit(**compiled)
    def train_tiles(rows, data, weights, scratch, numbers, batch, n_rows):
        grid = cuda.cg.this_grid()
        start = 0
        while start < n_rows:
            stop = min(n_rows, start + batch)
            tile_slopes(rows, data, weights, scratch, numbers, start, stop)
            grid.sync()
            if sparse:
                gather_of(rows, data, scratch, numbers, start, stop)
                grid.sync()
            step_of(data, weights, scratch, numbers, start, stop, False)
            grid.sync()
            start = stop
        tally(scratch, numbers, True)

    @cuda.jit(**compiled)
    def train_warps(rows, data, weights, scratch, numbers, batch, n_rows):
        grid = cuda.cg.this_grid()
        values = cuda.local.array(ENTRIES, real)
        start, stop = 0, min(n_rows, batch)
        y, weight = 0.0, 0.0
        if ahead:
            y, weight = load_warp(rows, data, weights, values, warp_first(cuda.blockIdx.x, 0), stop)
        while start < n_rows:
            visit_warp(rows, data, weights, scratch, numbers, values, y, weight, start, stop)
            after = min(n_rows, stop + batch)
            if ahead and stop < n_rows:
                y, weight = load_warp(rows, data, weights, values, warp_first(cuda.blockIdx.x, stop), after)
            grid.sync()
            step_of(data, weights, scratch, numbers, start, stop, False)
            grid.sync()
            start, stop = stop, after
        tally(scratch, numbers, True)

    train = train_warps if columns else train_tiles

    @cuda.jit(**compiled)
    def slopes(rows, data, weights, scratch, numbers, start, stop):
        slopes_of(rows, data, weights, scratch, numbers, start, stop)
        tally(scratch, numbers, start == 0)

    @cuda.jit(**compiled)
    def valued(rows, data, weights, scratch, numbers, start, stop):
        valued_of(rows, data, weights, scratch, numbers, start, stop)
        tally_values(scratch, numbers, start == 0)

    @cuda.jit
    def gather(rows, data, scratch, numbers, start, stop):
        if sparse:
            gather_of(rows, data, scratch, numbers, start, stop)

    @cuda.jit
    def step(data, weights, scratch, numbers, start, stop):
        step_of(data, weights, scratch, numbers, start, stop, False)
        tally(scratch, numbers, False)

    @cuda.jit
    def total(data, weights, scratch, numbers, start, stop):
        sum_of(data, weights, scratch, numbers, start, stop, start == 0)

    @cuda.jit
    def decide(rows, order, coef, intercept, scores):
        """Scores of rows: a warp to each, for validation only."""
        part = cuda.shared.array(THREADS, float64)
        tid, warps = cuda.threadIdx.x, THREADS // WARP
        lane, n_rows = tid % WARP, order.shape[0]
        first = cuda.blockIdx.x * warps
        while first < n_rows:
            p = first + tid // WARP
            for k in range(coef.shape[0]):
                found = 0.0
                if p < n_rows:
                    i = order[p]
                    if sparse:
                        for e in range(rows.indptr[i] + lane, rows.indptr[i + 1], WARP):
                            found += float64(rows.data[e]) * float64(coef[k, rows.indices[e]])
                    else:
                        for j in range(lane, coef.shape[1], WARP):
                            found += float64(rows.X[i, j]) * float64(coef[k, j])
                part[tid] = found
                cuda.syncthreads()
                if p < n_rows and lane == 0:
                    found = intercept[k]
                    for other in range(WARP):
                        found += part[tid + other]
                    scores[p, k] = found
                cuda.syncthreads()
            first += cuda.gridDim.x * warps

    return Kernels(permute, train, slopes, valued, gather, step, total, decide)
