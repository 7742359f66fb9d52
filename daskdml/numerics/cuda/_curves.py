"""Second derivatives of a block's rows, and sizes of its columns, on a card: what a full-batch step asks of it.

The same sums as :mod:`daskdml.numerics._whole` makes on the CPU, of the same rows: which are kept follows from their
curvature and place, and both sides find these alike to rounding.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from daskdml.numerics._gradient import Gradient
from daskdml.numerics._hessian import Sample, begun_sample, gram_part
from daskdml.numerics._on_device import DeviceBlock
from daskdml.numerics._settings import SOFTMAX, Settings, State
from daskdml.numerics._shuffle import ROUNDS, BatchOrder
from daskdml.numerics.cuda._launch import Launch
from daskdml.numerics.cuda._layout import WHOLE, Data, Numbers, numbers_of
from daskdml.numerics.cuda._products import EACH_OUTPUT, KEPT, MEAN, ONES, How, Plan, Point, products, square_of

Pairs = tuple[tuple[int, int], ...]


class Wanted(NamedTuple):
    """Products of columns: all of them, or of each with itself; by which two outputs' curvature.

    Outputs that are ``coupled``, those of a softmax, have one together.
    """

    whole: bool
    outputs: Pairs
    coupled: bool = False


class _Table(NamedTuple):
    """What is wanted as kernels are told it, and where they put it."""

    plan: Plan
    parts: Any  # (S, Q, T, n)
    flat: Any  # (S, Q T n): the same
    sums: Any  # (Q T n,)
    shape: tuple[int, int, int]


class Curves:
    """Working memory and kernels for blocks of one kind; that of the last call serves the next.

    Parameters
    ----------
    card : Card
    block : DeviceBlock
        One of the kind.
    state : State
    fit_intercept : bool
    rows : int
        Whose curvatures are in memory at once.
    blocks : int
        Of the grid.
    """

    def __init__(self, card: Any, block: DeviceBlock, state: State, fit_intercept: bool, rows: int, blocks: int):
        self._card, self._rows, self._blocks = card, rows, blocks
        self.n_outputs, self.n_features = state.coef.shape
        self._bias = bool(fit_intercept)
        self._kernels = products(state.coef.dtype == np.float64, block.sparse, card.threads)
        self._point = Point(
            cuda.device_array(state.coef.shape, state.coef.dtype),
            cuda.device_array(self.n_outputs, np.float64),
            cuda.device_array((self.n_outputs, self.n_features + 1), state.coef.dtype),
        )
        self._sides = tuple(cuda.device_array(self.n_outputs, dtype) for dtype in (np.float64, np.float64, np.uint8))
        self._keys = cuda.device_array(2 * ROUNDS, np.int64)
        self._curves = cuda.device_array((rows, self.n_outputs + 1), np.float64)
        self._tables: dict[Wanted, _Table] = {}
        self._launches: dict[Any, Launch] = {}

    def add(
        self,
        block: DeviceBlock,
        order: np.ndarray | BatchOrder,
        state: State,
        settings: Settings,
        sides: tuple[np.ndarray, np.ndarray],
        active: np.ndarray,
        out: Gradient,
        sample: Sample | None,
    ) -> None:
        """Add what ``out`` has of rows beside value and gradient; of ``sample`` as in ``sum_matrix``."""
        curved, softmax = len(out.hessian) > 0, settings.mode == SOFTMAX
        numbers = numbers_of(settings, 1.0, 0.0, (1, 1, 0))
        self._bring((*self._point[:2], *self._sides), (state.coef, state.intercept, *sides, active))

        def look(few: np.ndarray) -> np.ndarray:
            of_each = Wanted(False, _alone(self.n_outputs))
            (found,) = self._found(block, few, numbers, How(EACH_OUTPUT, False, 0.0, 1.0), (of_each,))
            diagonals = self._columns(found)
            return diagonals.reshape(1, -1) if softmax else diagonals

        if curved:
            if sample is not None and not sample.shares.size:
                sample = begun_sample(sample, settings, block.n_rows, self.n_features, look)
            pairs = _together(self.n_outputs) if softmax else _alone(self.n_outputs)
            how = How(KEPT, self._share(sample), 0.0 if sample is None else float(sample.turn), 1.0)
            (found,) = self._found(block, order, numbers, how, (Wanted(True, pairs, softmax),))
            self._add_hessians(found, pairs, softmax, out.hessian)
        elif len(out.gram):
            how = How(MEAN, False, 0.0, gram_part(block.n_rows, len(out.gram)))
            given = Wanted(False, ((0, 0),)), Wanted(True, ((1, 1),))
            sizes, found = self._found(block, order, numbers, how, given)
            out.column_squares[...] += self._columns(sizes)[0, : self.n_features]
            out.gram[...] += self._square(found[0])
        elif block.sparse:
            out.column_squares[...] += self._sparse_squares(block, order)
        else:
            (found,) = self._found(block, order, numbers, How(ONES, False, 0.0, 1.0), (Wanted(False, ((0, 0),)),))
            out.column_squares[...] += self._columns(found)[0, : self.n_features]

    def _bring(self, there: tuple, here: tuple) -> None:
        for target, array in zip(there, here, strict=True):
            target.copy_to_device(np.ascontiguousarray(array, dtype=target.dtype), stream=self._card.stream)

    def _share(self, sample: Sample | None) -> bool:
        """Bring the chances of rows; whether any depends on the row."""
        if sample is None:
            return False
        some = np.isfinite(sample.shares).all(axis=1)
        shares = np.zeros((self.n_outputs, self.n_features + 1))
        known = np.where(some[:, None], sample.shares, 0.0).reshape(self.n_outputs, -1)
        shares[:, : known.shape[1]] = known
        shares[~np.repeat(some, self.n_outputs // len(some)), -1] = np.inf
        self._bring((self._point.shares,), (shares,))
        return bool(some.any())

    def _ordered(self, order: np.ndarray | BatchOrder) -> Any:
        """Row numbers on the card."""
        if isinstance(order, BatchOrder):
            self._bring((self._keys,), (order.keys,))
        return self._card.order(order, self._keys)

    def _found(
        self,
        block: DeviceBlock,
        order: np.ndarray | BatchOrder,
        numbers: Numbers,
        how: How,
        wanted: tuple[Wanted, ...],
    ) -> list[np.ndarray]:
        """Sums of products over rows, (Q, T, n) of each of ``wanted``."""
        card, kernels = self._card, self._kernels
        data = Data(block.y, block.sample_weight, self._ordered(order), *self._sides)
        rows, ordered = (block.rows, block.serial), (data.order, card.orders)
        bent = (data, (block.serial, card.orders)), (self._point, 0), (self._curves, 0), (numbers, None), (how, None)
        tables = [self._table(one) for one in wanted]
        for start in range(0, len(order), self._rows):
            span = ((start, None), (min(start + self._rows, len(order)), None))
            self._launch(kernels.bends, None, rows, *bent, *span)
            for one, table in zip(wanted, tables, strict=True):
                kernel = kernels.products if one.whole else kernels.diagonals
                self._launch(kernel, one, rows, ordered, (self._curves, 0), (table.plan, 0), (table.parts, 0), *span)
                self._launch(kernels.added, one, (table.flat, 0), (table.sums, 0), (start == 0, None))
        found = [table.sums.copy_to_host(stream=card.stream) for table in tables]
        card.stream.synchronize()
        return [sums.reshape(table.shape) for sums, table in zip(found, tables, strict=True)]

    def _launch(self, kernel: Any, of: Any, *given: tuple[Any, Any]) -> None:
        """Run a kernel with arguments and what tells them apart, after those before it."""
        launch = self._launches.get((kernel, of))
        if launch is None:
            shape = self._blocks, self._card.threads.block, self._card.stream, 0
            launch = self._launches[kernel, of] = Launch(kernel, shape)
        launch(*zip(*given, strict=True))

    def _table(self, wanted: Wanted) -> _Table:
        table = self._tables.get(wanted)
        if table is None:
            _, width = square_of(self._card.threads)
            n = -(-(self.n_features + self._bias) // width)
            squares = _together(n) if wanted.whole else _alone(n)
            shape = len(wanted.outputs), len(squares), width * width if wanted.whole else width
            # As many slices of rows as give every block of the grid a square.
            slices = max(1, self._blocks // (shape[0] * shape[1]))
            outputs, places = (cuda.to_device(np.array(a, dtype=np.int32)) for a in (wanted.outputs, squares))
            plan = Plan(outputs, places, self.n_features, self._bias, wanted.coupled, slices)
            flat, sums = (cuda.device_array(n) for n in ((slices, math.prod(shape)), math.prod(shape)))
            table = self._tables[wanted] = _Table(plan, flat.reshape((slices, *shape)), flat, sums, shape)
        return table

    def _columns(self, found: np.ndarray) -> np.ndarray:
        """Of each output, the sums of columns' products with themselves."""
        return found.reshape(len(found), -1)[:, : self.n_features + self._bias]

    def _square(self, found: np.ndarray) -> np.ndarray:
        """The matrix of products that squares of columns, (T, n), are the lower half of."""
        _, width = square_of(self._card.threads)
        own = self.n_features + self._bias
        n = -(-own // width)
        whole = np.empty((n, width, n, width))
        for (a, b), square in zip(_together(n), found.reshape(-1, width, width), strict=True):
            whole[b, :, a] = square.T
            whole[a, :, b] = square
        return whole.reshape(n * width, n * width)[:own, :own]

    def _add_hessians(self, found: np.ndarray, pairs: Pairs, coupled: bool, out: np.ndarray) -> None:
        own = self.n_features + self._bias
        for (k, other), squares in zip(pairs, found, strict=True):
            made = self._square(squares)
            if not coupled:
                out[k] += made
                continue
            blocks = out.reshape(self.n_outputs, own, self.n_outputs, own)
            blocks[k, :, other] += made
            if other < k:
                blocks[other, :, k] += made

    def _sparse_squares(self, block: DeviceBlock, order: np.ndarray | BatchOrder) -> np.ndarray:
        """The sums of squares of sparse columns, which may be many: as whole numbers, added in any order."""
        bound = block.largest**2 * len(order)
        if not 0.0 < bound < np.inf:
            return np.full(self.n_features, bound)
        card, stream = self._card, self._card.stream
        fixed = cuda.device_array(self.n_features, np.int64)
        fixed.copy_to_device(np.zeros(self.n_features, np.int64), stream=stream)
        rows, ordered = (block.rows, block.serial), (self._ordered(order), card.orders)
        given = (fixed, None), (WHOLE / bound, None), (0, None), (len(order), None)
        self._launch(self._kernels.squares, None, rows, ordered, *given)
        found = fixed.copy_to_host(stream=stream)
        stream.synchronize()
        return found * (bound / WHOLE)


def _alone(n: int) -> Pairs:
    return tuple((k, k) for k in range(n))


def _together(n: int) -> Pairs:
    return tuple((k, other) for k in range(n) for other in range(k + 1))
