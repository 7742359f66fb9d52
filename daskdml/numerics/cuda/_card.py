"""One GPU, as a model uses it: rows are brought to it, trained on there, and parameters come back.

Parameters travel with each call: they are small beside the rows, and a task that may be run twice must not find them
changed. What stays on the card are rows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import config, cuda

from daskdml.numerics._on_device import DeviceBlock
from daskdml.numerics._rows import CsrRows, DenseRows
from daskdml.numerics._settings import SOFTMAX, Settings, State
from daskdml.numerics.cuda._kernels import Kernels, kernels
from daskdml.numerics.cuda._layout import CHANGED, Data, Scratch, Threads, Weights, numbers_of, tiling, weights_of
from daskdml.numerics.cuda._move import Mover

# Rows whose gradient is added up in one launch, where no step is made in between.
GRADIENT_ROWS = 2**18
# Blocks for each multiprocessor, of kernels that need not all be at work at once.
BLOCKS_EACH = 8
_SIMULATED = bool(config.ENABLE_CUDASIM)


class Card:
    """The GPU of this process.

    Several threads may use it. Kernels run one after another, because each takes the whole card; a block is brought
    while a kernel runs on another one.

    Parameters
    ----------
    threads : Threads, optional
        Of a block, for tests: the simulator runs each as a thread of Python.
    """

    def __init__(self, threads: Threads | None = None):
        self.threads = threads or Threads()
        self._running = threading.Lock()
        self._moving = threading.Lock()
        self._stream = cuda.stream()
        self._mover = Mover(_CudaBus())
        self._scratch: tuple[Any, Scratch] | None = None

    # -- rows -------------------------------------------------------------------------------------------

    def put(self, block: Any) -> DeviceBlock:
        """A block of the host on the card; X may lie there already."""
        X = block.X
        weight = np.empty(0, dtype=block.y.dtype) if block.sample_weight is None else block.sample_weight
        with self._moving:
            if hasattr(X, "__cuda_array_interface__"):
                rows: DenseRows | CsrRows = DenseRows(cuda.as_cuda_array(X))
                largest = 0.0
            elif isinstance(X, np.ndarray):
                rows, largest = DenseRows(self._mover.move(X)), 0.0
            else:
                rows = CsrRows(*(self._mover.move(array) for array in (X.data, X.indices, X.indptr)))
                largest = float(np.abs(X.data).max(initial=0.0))
            y, weights = self._mover.move(block.y), self._mover.move(weight)
        return DeviceBlock(block.index, rows, y, weights, tuple(X.shape), largest, self)

    # -- training ---------------------------------------------------------------------------------------

    def train(
        self,
        block: DeviceBlock,
        order: np.ndarray,
        state: State,
        settings: Settings,
        sides: tuple[np.ndarray, np.ndarray],
        active: np.ndarray,
        batch: int,
    ) -> np.ndarray:
        """Visit rows in batches, changing ``state`` in place; returns totals as ``train_rows`` does, (2, K)."""
        with self._running:
            call = _Call(self, block, order, state, settings, sides, active, batch)
            kernel, together = self._together(call.kernels.train, call.arguments, call.shared_bytes)
            blocks = call.blocks(together)
            scratch = self._scratch_for(call, blocks)
            call.launch(kernel, blocks, *call.arguments[:3], scratch, call.numbers, call.batch)
            self._stream.synchronize()
            call.adopt(state)
            state.clock[0] += len(order)
            return call.totals(scratch)

    def gradient(
        self,
        block: DeviceBlock,
        order: np.ndarray,
        state: State,
        settings: Settings,
        sides: tuple[np.ndarray, np.ndarray],
        active: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The sums of the rows' gradients, (K, d + 1) with the intercept's last, and of their losses, (K,)."""
        sums, losses = np.zeros((len(state.coef), block.shape[1] + 1)), np.zeros(len(state.coef))
        with self._running:
            for first in range(0, len(order), GRADIENT_ROWS):
                some = order[first : first + GRADIENT_ROWS]
                call = _Call(self, block, some, state, settings, sides, active, len(some))
                blocks = call.blocks(BLOCKS_EACH * multiprocessors())
                scratch = self._scratch_for(call, blocks)
                rows, data, weights = call.arguments[:3]
                call.launch(call.kernels.slopes, blocks, rows, data, weights, scratch, call.numbers, 0, len(some))
                if block.sparse:
                    call.launch(call.kernels.gather, blocks, rows, data, scratch, call.numbers, 0, len(some))
                call.launch(call.kernels.total, blocks, scratch, call.numbers, block.shape[1], len(some))
                self._stream.synchronize()
                sums += scratch.sums.copy_to_host()
                losses += scratch.losses.copy_to_host().sum(axis=0)
        return sums, losses

    def scores(self, block: DeviceBlock, order: np.ndarray, coef: np.ndarray, intercept: np.ndarray) -> np.ndarray:
        """Scores of rows, (n_rows, K), on the host."""
        found = cuda.device_array((len(order), len(coef)), np.float64)
        if len(order):
            with self._running:
                kernel = kernels(_is_double(block), block.sparse, self.threads).decide
                blocks = max(1, min(len(order), BLOCKS_EACH * multiprocessors()))
                chosen = cuda.to_device(np.ascontiguousarray(order))
                given = (chosen, cuda.to_device(np.ascontiguousarray(coef)), cuda.to_device(intercept), found)
                kernel[blocks, self.threads.block, self._stream](block.rows, *given)
                self._stream.synchronize()
        return found.copy_to_host()

    def targets(self, block: DeviceBlock, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Targets and weights of rows, on the host."""
        y, weight = block.y.copy_to_host()[order], block.sample_weight.copy_to_host()
        return y, weight[order].astype(float) if len(weight) else np.ones(len(order))

    def memory(self) -> tuple[int, int]:
        """Free and all bytes of the card, in the simulator those of a small one."""
        if _SIMULATED:
            return 2**28, 2**28
        try:
            free, total = cuda.current_context().get_memory_info()
        except RuntimeError:
            # That a manager of memory does not say it, as RMM's does not, is a RuntimeError.
            return _pool_memory()
        return int(free), int(total)

    @property
    def name(self) -> str:
        """What the card is called, and which of its kind it is."""
        if _SIMULATED:
            return "simulator"
        device = cuda.get_current_device()
        name = device.name.decode() if isinstance(device.name, bytes) else str(device.name)
        return f"{name} {device.uuid}"

    # -- launching --------------------------------------------------------------------------------------

    def _together(self, kernel: Any, arguments: tuple, shared_bytes: int) -> tuple[Any, int]:
        """The kernel for these types, and how many blocks of it can be at work at once.

        They wait for each other between the phases of a batch, so all must be there.
        """
        if _SIMULATED:
            return kernel, 1
        found = kernel.specialize(*arguments)
        (overload,) = found.overloads.values()
        return found, int(overload.max_cooperative_grid_blocks(self.threads.block, shared_bytes))

    def _scratch_for(self, call: _Call, blocks: int) -> Scratch:
        key = (call.shape, blocks)
        if self._scratch is None or self._scratch[0] != key:
            # Let go of before its successor is made: the card need not hold both.
            self._scratch = None
            self._scratch = key, call.scratch(blocks)
        scratch = self._scratch[1]
        for array in (scratch.losses, scratch.penalties, scratch.sums):
            array.copy_to_device(np.zeros(array.shape), stream=self._stream)
        return scratch


class _Call:
    """One call on a block: what the kernels are given, and what comes back."""

    def __init__(
        self,
        card: Card,
        block: DeviceBlock,
        order: np.ndarray,
        state: State,
        settings: Settings,
        sides: tuple[np.ndarray, np.ndarray],
        active: np.ndarray,
        batch: int,
    ):
        self.card, self.block, self.settings = card, block, settings
        self.batch = max(1, min(batch, len(order)))
        self.n_problems, self.n_features = state.coef.shape
        double, itemsize = _is_double(block), state.coef.itemsize
        tiles = tiling(self.n_features, itemsize, card.threads, block.sparse)
        self.tile_rows, self.shared_bytes = tiles[0], tiles[0] * tiles[2] * itemsize
        self.kernels: Kernels = kernels(double, block.sparse, card.threads)
        self.numbers = numbers_of(settings, state.clock[0], block.largest, tiles)
        self.double = double

        def sent(array: np.ndarray) -> Any:
            return cuda.to_device(np.ascontiguousarray(array), stream=card._stream)

        chosen = sent(order), sent(sides[0]), sent(sides[1]), sent(np.asarray(active, dtype=np.uint8))
        self.weights = Weights(**{name: sent(array) for name, array in weights_of(state).items()})
        data = Data(block.y, block.sample_weight, *chosen)
        self._given = block.rows, data, self.weights
        self.arguments: tuple = (*self._given, self.scratch(0), self.numbers, self.batch)

    @property
    def shape(self) -> tuple:
        """What the sizes of the working memory follow from."""
        return self.batch, self.n_problems, self.n_features, self.block.sparse, self.tile_rows

    def blocks(self, most: int) -> int:
        """Blocks of a launch: as many as there are tiles of rows, or groups of columns."""
        tiles = -(-self.batch // self.tile_rows)
        groups = self.n_problems * (self.n_features // self.card.threads.warp + 1)
        return max(1, min(most, max(tiles, groups)))

    def scratch(self, blocks: int) -> Scratch:
        """Working memory for so many blocks; for none, its types."""
        k, batch = self.n_problems, self.batch if blocks else 0
        columns = 1 if self.block.sparse else self.n_features + 1

        def empty(shape: tuple[int, ...], dtype: Any = np.float64) -> Any:
            return cuda.to_device(np.zeros(shape if blocks else (0,) * len(shape), dtype))

        return Scratch(
            scores=empty((batch, k)),
            slopes=empty((batch, k)),
            losses=empty((blocks * self.tile_rows, k)),
            penalties=empty((blocks * self.card.threads.warp, k)),
            partials=empty((blocks, k, columns)),
            sums=empty((k, self.n_features + 1)),
            fixed=empty((k, self.n_features) if self.block.sparse else (0, 0), np.int64),
            peaks=empty((blocks,)),
        )

    def launch(self, kernel: Any, blocks: int, *arguments: Any) -> None:
        """Run a kernel after those before it."""
        kernel[blocks, self.card.threads.block, self.card._stream, self.shared_bytes](*arguments)

    def adopt(self, state: State) -> None:
        """Take the parameters over that the kernels have changed."""
        for name in CHANGED:
            array = getattr(state, name)
            if array.size:
                array[...] = getattr(self.weights, name).copy_to_host()

    def totals(self, scratch: Scratch) -> np.ndarray:
        """Sums of the losses, and of the losses with their penalties."""
        totals = np.zeros((2, self.n_problems))
        totals[0] = scratch.losses.copy_to_host().sum(axis=0)
        penalty = scratch.penalties.copy_to_host().sum(axis=0)
        totals[1] = totals[0]
        if self.settings.mode == SOFTMAX:
            totals[1, 0] += penalty.sum()
        else:
            totals[1] += penalty
        return totals


class _CudaBus:
    """The bus of a real card, or of the simulator."""

    def __init__(self) -> None:
        self._stream = cuda.stream()

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        return cuda.device_array(shape, dtype)

    def page_locked(self, nbytes: int) -> np.ndarray:
        return cuda.pinned_array(nbytes, np.uint8)

    def send(self, source: np.ndarray, target: Any, start: int) -> Any:
        part = target.ravel()[start : start + source.size]
        part.copy_to_device(np.asarray(source), stream=self._stream)
        event = cuda.event(timing=False) if not _SIMULATED else cuda.event()
        event.record(self._stream)
        return _Sent(event)


def _pool_memory() -> tuple[int, int]:
    """Free and all bytes of a card whose memory RMM gives out.

    What lies in the pool already is not known; a fit leaves a tenth unused, and ``device_memory`` can say less.
    """
    import rmm.mr

    free, total = rmm.mr.available_device_memory()
    pool = getattr(rmm.mr.get_current_device_resource(), "pool_size", lambda: 0)()
    return int(free) + int(pool), int(total)


class _Sent:
    def __init__(self, event: Any):
        self.wait: Callable[[], None] = event.synchronize


def _is_double(block: DeviceBlock) -> bool:
    return np.dtype(block.rows[0].dtype) == np.float64


@cache
def multiprocessors() -> int:
    """Of the card of this process."""
    return 1 if _SIMULATED else int(cuda.get_current_device().MULTIPROCESSOR_COUNT)
