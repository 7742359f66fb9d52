"""Dense rows of one problem, a warp at a time: rows come from device memory once, into registers.

A warp takes several rows side by side, each thread every 32nd column of each. That is as many loads in flight as the
registers hold, which is what reads memory at its rate. Products of a row are added up across the warp so that
thread after thread has the score of a row of its own; each finds the slope of its row, and all threads together add
slope times row to the gradient of their columns, which they keep until the batch is over.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import config, cuda, float32, float64, uint64

from daskdml.numerics.cuda._layout import Shape, Threads
from daskdml.numerics.cuda._parts import class_weight, row_gradient

_SIMULATED = bool(config.ENABLE_CUDASIM)
_ALL = 0xFFFFFFFF
# The simulator puts its own in the place of ``cuda`` in the module of a kernel, and in that of a function while one of
# the threads is in it: the others, who are there still, then lose it. So the functions here ask for it each time.
device: Any = cuda
if _SIMULATED:
    from numba.cuda.simulator.kernel import _get_kernel_context

    class _Simulated:
        def __getattr__(self, name: str) -> Any:
            return getattr(_get_kernel_context(), name)

    device = _Simulated()


def exchanges(threads: Threads) -> tuple[Any, Any]:
    """Functions ``of_lane(value, lane)`` and ``of_neighbour(value, mask)``: what other threads of the warp give.

    The simulator has no shuffles; there all threads of a block come to each exchange together, and go through memory.
    """
    THREADS, WARP = threads.block, threads.warp
    if not _SIMULATED:

        @cuda.jit(device=True, inline="always")
        def of_lane(value, lane):
            return cuda.shfl_sync(_ALL, value, lane)

        @cuda.jit(device=True, inline="always")
        def of_neighbour(value, mask):
            return cuda.shfl_xor_sync(_ALL, value, mask)

        return of_lane, of_neighbour

    @cuda.jit(device=True)
    def simulated(value, lane):
        shelf = device.shared.array(THREADS, float64)
        tid = device.threadIdx.x
        shelf[tid] = value
        device.syncthreads()
        found = shelf[tid - tid % WARP + lane]
        device.syncthreads()
        return type(value)(found)

    @cuda.jit(device=True)
    def simulated_neighbour(value, mask):
        return simulated(value, (device.threadIdx.x % WARP) ^ mask)

    return simulated, simulated_neighbour


def sum_over_warp(threads: Threads, of_neighbour: Any) -> Any:
    """A function that gives all threads of a warp the sum of their values, added up in the same order in each."""
    WARP = threads.warp

    @cuda.jit(device=True)
    def warp_sum(value):
        mask = WARP // 2
        while mask > 0:
            value += of_neighbour(value, mask)
            mask //= 2
        return value

    return warp_sum


@cache
def warp_phases(shape: Shape, threads: Threads, valued: bool = False) -> tuple[Any, Any]:
    """``load`` and ``visit``, for rows whose entries stand in one array.

    ``load`` takes a warp's rows into its registers. ``visit`` does with them, and with those that follow in the batch,
    what ``slopes_of`` of :mod:`daskdml.numerics.cuda._kernels` is for. They are two, so that with ``shape.ahead`` the
    first rows of the next batch are on their way while all blocks wait for each other. Without it ``visit`` loads all.
    Where losses are ``valued`` it also adds them up by the rows' weights.
    """
    real = float64 if shape.double else float32
    THREADS, WARP, C, R = threads.block, threads.warp, shape.columns, shape.rows_at_once
    WARPS, AHEAD = THREADS // WARP, shape.ahead
    # Neighbouring threads that come to have the same row's score.
    SHARE = WARP // R
    # Columns of each thread whose sums over the warps are found at once, and the shared memory that takes.
    TOGETHER = min(C, 4)
    SUMS = WARPS * WARP * TOGETHER
    # What a warp has to say of its rows beside their gradient.
    NOTED = 3 if valued else 2
    NOTES = NOTED * WARPS
    of_lane, of_neighbour = exchanges(threads)
    warp_sum = sum_over_warp(threads, of_neighbour)

    @cuda.jit(device=True)
    def load(rows, data, weights, values, first, stop):
        """Rows ``first`` on of the order; returns target and weight of this thread's own."""
        lane = device.threadIdx.x % WARP
        n_features = weights.coef.shape[1]
        # Threads without a last column read the row's last entry, times zero: no branch stands before a load.
        end = uint64(min((C - 1) * WARP + lane, n_features - 1))
        i_own = data.order[max(0, min(first + lane // SHARE, stop - 1))]
        for r in range(R):
            # Without a sign: numba looks for negative indices otherwise, before each load.
            begin = uint64(of_lane(i_own, r * SHARE)) * uint64(n_features)
            for c in range(C - 1):
                values[r * C + c] = rows.X[begin + uint64(lane) + uint64(c * WARP)]
            values[r * C + C - 1] = rows.X[begin + end]
        weight = float64(data.sample_weight[i_own]) if data.sample_weight.shape[0] > 0 else 1.0
        return float64(data.y[i_own]), weight

    @cuda.jit(device=True)
    def visit(rows, data, weights, scratch, numbers, values, y, weight, start, stop):
        sums = device.shared.array(SUMS, float64)
        of_rows = device.shared.array(NOTES, float64)
        w = device.local.array(C, real)
        gradient = device.local.array(C, float64)
        short = device.local.array(C, real)
        dots = device.local.array(R, real)
        tid, block = device.threadIdx.x, device.blockIdx.x
        lane, warp = tid % WARP, tid // WARP
        n_features = weights.coef.shape[1]
        for c in range(C):
            j = c * WARP + lane
            w[c] = weights.coef[0, j] if j < n_features else real(0.0)
            gradient[c] = 0.0
        intercept = weights.intercept[0]
        active = data.active[0] != 0
        loss, total, worth = 0.0, 0.0, 0.0
        # All warps of a block go round equally often, those without rows with the last one, times zero.
        first = start + block * WARPS * R
        while first < stop:
            mine = first + warp * R
            if not AHEAD:
                y, weight = load(rows, data, weights, values, mine, stop)
            for r in range(R):
                dot = real(0.0)
                for c in range(C):
                    dot += values[r * C + c] * w[c]
                dots[r] = dot
            # Halves of the rows go to halves of the threads, until each thread has one row's sum, or a part of it.
            half = R // 2
            while half > 0:
                upper = (lane & (half * SHARE)) != 0
                for r in range(half):
                    given = dots[r] if upper else dots[r + half]
                    kept = dots[r + half] if upper else dots[r]
                    dots[r] = kept + of_neighbour(given, half * SHARE)
                half //= 2
            score = dots[0]
            mask = SHARE // 2
            while mask > 0:
                score += of_neighbour(score, mask)
                mask //= 2
            value, slope = row_gradient(numbers, y, float64(score) + intercept, 0)
            share = weight * class_weight(
                numbers.mode, y, 0, numbers.first_class, data.positive_weight, data.negative_weight
            )
            slope *= share
            if mine + lane // SHARE >= stop or not active:
                value, slope = 0.0, 0.0
            if lane % SHARE == 0:
                loss += value
                total += slope
                if valued:
                    worth += value * share
            for c in range(C):
                short[c] = real(0.0)
            for r in range(R):
                step = of_lane(real(slope), r * SHARE)
                for c in range(C):
                    short[c] += step * values[r * C + c]
            for c in range(C):
                gradient[c] += short[c]
            first += device.gridDim.x * WARPS * R
            if AHEAD and first < stop:
                y, weight = load(rows, data, weights, values, first + warp * R, stop)
        total, loss = warp_sum(total), warp_sum(loss)
        if valued:
            worth = warp_sum(worth)
        if lane == 0:
            of_rows[NOTED * warp] = total
            of_rows[NOTED * warp + 1] = loss
            if valued:
                of_rows[NOTED * warp + 2] = worth
        for some in range(0, C, TOGETHER):
            for c in range(TOGETHER):
                if some + c < C:
                    sums[(warp * TOGETHER + c) * WARP + lane] = gradient[some + c]
            device.syncthreads()
            for at in range(tid, TOGETHER * WARP, THREADS):
                j = some * WARP + at
                if j < n_features:
                    found = 0.0
                    for other in range(WARPS):
                        found += sums[other * TOGETHER * WARP + at]
                    scratch.partials[block, 0, j] = found
            if some == 0 and tid < NOTED:
                found = 0.0
                for other in range(WARPS):
                    found += of_rows[NOTED * other + tid]
                if tid == 0:
                    scratch.partials[block, 0, scratch.partials.shape[2] - 1] = found
                elif tid == 1:
                    scratch.losses[block * numbers.tile_rows, 0] += found
                elif valued:
                    scratch.values[block * numbers.tile_rows, 0] += found
            device.syncthreads()

    return load, visit
