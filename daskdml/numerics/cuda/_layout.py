"""What the GPU kernels are given: numbers, arrays on the device, and how a card is divided among threads."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from daskdml.numerics._settings import NO_PENALTY, Settings, State

# Of the 48 kB of shared memory that every card gives a block, what a tile of rows may take.
TILE_BYTES = 40 * 1024
# Rows of a tile: sums over so many are kept in X's own precision, longer ones in float64.
TILE_ROWS = 32
# Bytes of rows that a thread takes into its registers at once. Twice as many, where a visit is long, are more loads in
# flight; where batches are short, so many are loaded ahead of the next one, and are there while the grid waits.
REGISTER_BYTES = 128
# What whole numbers may add up to; half of an int64's range is left for rounding.
WHOLE = 2.0**62
# Rows that make a batch long, for each multiprocessor.
LONG_BATCH = 256


class Threads(NamedTuple):
    """How many threads a block has, and how many neighbours read memory together."""

    block: int = 256
    warp: int = 32


class Numbers(NamedTuple):
    """Settings of a model as a kernel is told them, with the names that :class:`daskdml.numerics.Settings` has."""

    loss: int
    mode: int
    epsilon: float
    penalized: bool
    alpha: float
    l1_ratio: float
    schedule: int
    eta0: float
    power_t: float
    fit_intercept: bool
    intercept_decay: float
    average: int
    first_class: int
    clock: float  # rows seen before this call, plus 1
    largest: float  # |value| of the sparse rows
    tile_rows: int
    lanes: int  # threads that share a row
    pitch: int  # of a tile's rows in shared memory; 0 where they do not fit, or where they go to registers
    width: int  # columns that a block sums up side by side; a power of 2


class Data(NamedTuple):
    """Targets, weights and the order of visit, on the device."""

    y: Any
    sample_weight: Any  # of length 0 for ones
    order: Any
    positive_weight: Any
    negative_weight: Any
    active: Any


class Weights(NamedTuple):
    """The arrays of a state that a step changes, on the device; :data:`CHANGED` of the state's own."""

    coef: Any
    intercept: Any
    eta: Any
    average_coef: Any
    average_intercept: Any
    squares: Any
    intercept_squares: Any


class Scratch(NamedTuple):
    """Working memory of a call."""

    scores: Any  # (rows of a batch, K)
    slopes: Any  # (rows of a batch, K): derivatives by the score, weighted
    losses: Any  # (rows of all tiles at work, K): summed over the launch; zero between launches
    penalties: Any  # (all threads, K): summed over the launch; zero between launches
    totals: Any  # (3, K, blocks): sums of losses, of penalties, and of losses by the rows' weights, over the call
    partials: Any  # (blocks, K, d + 1), or (blocks, K, 1) of sparse rows: sums of the batch; last, the intercept's
    sums: Any  # (K, d + 1) float64: what the call adds up to, where no step is made
    fixed: Any  # (K, d) int64: sums of sparse rows in units of a batch's own; zero between batches
    peaks: Any  # (blocks,): the largest |slope| of the batch
    values: Any  # (rows of all tiles at work, K): losses by the rows' weights, as losses


# What a state and Weights have in common; eta is read only.
CHANGED = ("coef", "intercept", "average_coef", "average_intercept", "squares", "intercept_squares")


class Shape(NamedTuple):
    """What kernels are compiled for; ``columns`` and ``rows_at_once`` are of rows in registers, or 0.

    ``ahead`` says that the first rows of a batch are loaded before the step of the one before it.
    """

    double: bool
    sparse: bool
    columns: int = 0
    rows_at_once: int = 0
    ahead: bool = False


def in_registers(n_features: int, n_problems: int, itemsize: int, threads: Threads, ahead: bool) -> tuple[int, int]:
    """Columns of a row that a thread has, and rows that a warp takes at once, a power of 2; zeros where too long.

    Examples
    --------
    >>> in_registers(100, 1, 4, Threads(), ahead=True), in_registers(100, 1, 4, Threads(), ahead=False)
    ((4, 8), (4, 16))
    >>> in_registers(784, 1, 4, Threads(), ahead=True)
    (25, 2)
    >>> in_registers(784, 10, 4, Threads(), ahead=True), in_registers(3000, 1, 4, Threads(), ahead=True)
    ((0, 0), (0, 0))
    """
    columns = max(1, -(-n_features // threads.warp))
    fits = REGISTER_BYTES // itemsize // columns
    fits = min(threads.warp, fits if ahead and fits >= 4 else 2 * REGISTER_BYTES // itemsize // columns)
    return (columns, 1 << (fits.bit_length() - 1)) if fits and n_problems == 1 else (0, 0)


def columns_of_a_block(n_columns: int, blocks: int, threads: Threads) -> int:
    """How many columns a block sums up side by side, so that all blocks have some.

    Examples
    --------
    >>> columns_of_a_block(101, 264, Threads()), columns_of_a_block(7850, 264, Threads())
    (1, 32)
    """
    wanted = -(-n_columns // max(1, blocks))
    return min(threads.warp, 1 << (wanted - 1).bit_length())


def tiling(n_features: int, itemsize: int, threads: Threads, sparse: bool) -> tuple[int, int, int]:
    """Rows of a tile, threads that share a row, and the pitch of a tile's rows; pitch 0 where no row fits.

    Examples
    --------
    >>> tiling(100, 4, Threads(), sparse=False)
    (32, 8, 104)
    >>> tiling(784, 4, Threads(), sparse=False)
    (12, 21, 789)
    >>> tiling(2**20, 4, Threads(), sparse=True)
    (32, 8, 0)
    """
    rows = min(TILE_ROWS, max(1, threads.block // 8))
    if sparse:
        return rows, threads.block // rows, 0
    fits = TILE_BYTES // ((n_features + threads.warp) * itemsize)
    rows = min(rows, fits) or rows
    lanes = threads.block // rows
    if not fits:
        return rows, lanes, 0
    # Neighbouring threads read `lanes` columns of one row, then the same of the next: in different banks if the
    # next row begins as many further on.
    pitch = n_features + (lanes - n_features) % threads.warp
    return rows, lanes, pitch


def numbers_of(
    settings: Settings, clock: float, largest: float, tiles: tuple[int, int, int], width: int = 1
) -> Numbers:
    """The settings of a model as numbers for a kernel."""
    return Numbers(
        int(settings.loss),
        int(settings.mode),
        float(settings.epsilon),
        bool(settings.penalty != NO_PENALTY),
        float(settings.alpha),
        float(settings.l1_ratio),
        int(settings.schedule),
        float(settings.eta0),
        float(settings.power_t),
        bool(settings.fit_intercept),
        float(settings.intercept_decay),
        int(settings.average),
        int(settings.first_class),
        float(clock),
        float(largest),
        *tiles,
        width,
    )


def weights_of(state: State) -> dict[str, np.ndarray]:
    """The arrays of a state that go to the device."""
    return {name: np.ascontiguousarray(getattr(state, name)) for name in Weights._fields}
