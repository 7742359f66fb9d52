"""One GPU, as a model uses it: rows are brought to it, trained on there, and parameters come back.

Parameters travel with each call: they are small beside the rows, and a task that may be run twice must not find them
changed. What stays on the card are rows.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import config, cuda

from daskdml.numerics._gradient import Gradient
from daskdml.numerics._hessian import Sample
from daskdml.numerics._on_device import DeviceBlock
from daskdml.numerics._rows import CsrRows, DenseRows
from daskdml.numerics._settings import SOFTMAX, Settings, State
from daskdml.numerics._shuffle import ROUNDS, BatchOrder
from daskdml.numerics.cuda._curves import Curves
from daskdml.numerics.cuda._kernels import Kernels, kernels
from daskdml.numerics.cuda._launch import Launch
from daskdml.numerics.cuda._layout import (
    CHANGED,
    LONG_BATCH,
    Data,
    Scratch,
    Shape,
    Threads,
    Weights,
    columns_of_a_block,
    in_registers,
    numbers_of,
    tiling,
    weights_of,
)
from daskdml.numerics.cuda._move import Mover

# Rows whose gradient is added up in one launch, where no step is made in between.
GRADIENT_ROWS = 2**18
# Blocks for each multiprocessor, of kernels that need not all be at work at once.
BLOCKS_EACH = 8
# Threads that fill page-locked memory: one copies 5 to 10 GB/s, a bus takes 25 to 55.
MOVING = 12
# Arrays that travel together begin at multiples of so many bytes.
_ALIGNED = 256
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
        self.stream = cuda.stream()
        self._mover = Mover(_CudaBus(), threads=1 if _SIMULATED else max(1, min(MOVING, cores() * 3 // 4)))
        self._work: tuple[tuple, _Work] | None = None
        self._curves: tuple[tuple, Curves] | None = None
        self._order: Any = None
        # How many arrays for orders there were: tells the present one apart.
        self.orders = 0
        self._permute: dict[int, Launch] = {}
        # The smallest kernel, now: that one cannot be compiled or run is better known before a fit than in it.
        probe = BatchOrder(1, 0)
        self.order(probe, cuda.to_device(probe.keys))
        self.stream.synchronize()

    # -- rows -------------------------------------------------------------------------------------------

    def put(self, block: Any, kept: bool = False) -> DeviceBlock:
        """A block of the host on the card; X may lie there already.

        ``kept`` says that the host keeps it, and that it is likely to be asked for again.
        """
        X = block.X

        def moved(array: np.ndarray) -> Any:
            return self._mover.move(array, kept)

        weight = np.empty(0, dtype=block.y.dtype) if block.sample_weight is None else block.sample_weight
        with self._moving:
            if hasattr(X, "__cuda_array_interface__"):
                rows: DenseRows | CsrRows = DenseRows(cuda.as_cuda_array(X))
                largest = 0.0
            elif isinstance(X, np.ndarray):
                rows, largest = DenseRows(moved(X)), 0.0
            else:
                rows = CsrRows(*(moved(array) for array in (X.data, X.indices, X.indptr)))
                # Two passes and no copy.
                largest = max(float(X.data.max(initial=0.0)), -float(X.data.min(initial=0.0)))
            y, weights = moved(block.y), moved(weight)
        return DeviceBlock(block.index, rows, y, weights, tuple(X.shape), largest, self)

    # -- training ---------------------------------------------------------------------------------------

    def train(
        self,
        block: DeviceBlock,
        order: np.ndarray | BatchOrder,
        state: State,
        settings: Settings,
        sides: tuple[np.ndarray, np.ndarray],
        active: np.ndarray,
        batch: int,
    ) -> np.ndarray:
        """Visit rows in batches, changing ``state`` in place; returns totals as ``train_rows`` does, (2, K)."""
        if not len(order):
            # The kernel would read the rows of a batch ahead, and there are none.
            return np.zeros((2, len(state.coef)))
        with self._running:
            work = self._work_for(block, state, batch, len(order))
            given = work.begin(block, order, state, settings, sides, active)
            work.launch(work.train, work.together, given, "rows data weights scratch numbers", work.batch, len(order))
            work.end(state)
            totals = work.totals(settings)
        state.clock[0] += len(order)
        return totals

    def gradient(
        self,
        block: DeviceBlock,
        order: np.ndarray | BatchOrder,
        state: State,
        settings: Settings,
        sides: tuple[np.ndarray, np.ndarray],
        active: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The sums of the rows' gradients, (K, d + 1) with the intercept's last, and of their losses, (K,)."""
        with self._running:
            sums, totals = self._sums(block, order, state, settings, sides, active, valued=False)
        return sums, totals[0]

    def add_sums(
        self,
        block: DeviceBlock,
        order: np.ndarray | BatchOrder,
        state: State,
        settings: Settings,
        sides: tuple[np.ndarray, np.ndarray],
        active: np.ndarray,
        out: Gradient,
        sample: Sample | None = None,
    ) -> None:
        """Add rows to ``out``, with all that it has, as :func:`daskdml.numerics.sum_matrix` does."""
        if not len(order):
            return
        given = state, settings, sides, active
        with self._running:
            sums, totals = self._sums(block, order, *given, valued=True)
            if len(out.hessian) or len(out.column_squares):
                self._curves_for(block, state, settings).add(block, order, *given, out, sample)
        out.coef[...] += sums[:, :-1]
        out.intercept[...] += sums[:, -1]
        out.totals[0] += totals[0]
        out.value[...] += totals[2]
        out.rows[0] += len(order)

    def _sums(
        self,
        block: DeviceBlock,
        order: np.ndarray | BatchOrder,
        state: State,
        settings: Settings,
        sides: tuple[np.ndarray, np.ndarray],
        active: np.ndarray,
        valued: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Sums of gradients, (K, d + 1), and of losses, (3, K): if ``valued``, by the rows' weights in the last row."""
        if not len(order):
            return np.zeros((len(state.coef), block.shape[1] + 1)), np.zeros((3, len(state.coef)))
        work = self._work_for(block, state, GRADIENT_ROWS, len(order))
        given = work.begin(block, order, state, settings, sides, active)
        for start in range(0, len(order), work.batch):
            span = start, min(start + work.batch, len(order))
            work.slopes(given, *span, valued)
            work.launch(work.kernels.total, work.blocks, given, "data weights scratch numbers", *span)
        work.end(None)
        return work.found("sums").copy(), work.found("totals").sum(axis=2)

    def scores(self, block: DeviceBlock, order: np.ndarray, coef: np.ndarray, intercept: np.ndarray) -> np.ndarray:
        """Scores of rows, (n_rows, K), on the host."""
        found = cuda.device_array((len(order), len(coef)), np.float64)
        if len(order):
            with self._running:
                kernel = kernels(Shape(_is_double(block), block.sparse), self.threads).decide
                blocks = max(1, min(len(order), BLOCKS_EACH * multiprocessors()))
                chosen = cuda.to_device(np.ascontiguousarray(order))
                given = (chosen, cuda.to_device(np.ascontiguousarray(coef)), cuda.to_device(intercept), found)
                kernel[blocks, self.threads.block, self.stream](block.rows, *given)
                self.stream.synchronize()
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

    # -- working memory ---------------------------------------------------------------------------------

    def _work_for(self, block: DeviceBlock, state: State, batch: int, n_rows: int) -> _Work:
        """Working memory for such a call; that of the last call, if it was like this one."""
        # Pieces of a block may differ by a row: that must not ask for other arrays.
        batch = max(1, min(batch, 1 << max(0, n_rows - 1).bit_length()))
        key = _Work.key(block, state, batch)
        if self._work is None or self._work[0] != key:
            # Let go of before its successor is made: the card need not hold both. What a full-batch pass left behind
            # may be large, and calls of another kind do not need it.
            self._work = self._curves = None
            self._work = key, _Work(self, block, state, batch)
        return self._work[1]

    def _curves_for(self, block: DeviceBlock, state: State, settings: Settings) -> Curves:
        """Working memory for second derivatives; that of the last call, if it was like this one."""
        rows = min(GRADIENT_ROWS, 1 << max(0, block.n_rows - 1).bit_length())
        key = _Work.key(block, state, rows), bool(settings.fit_intercept)
        if self._curves is None or self._curves[0] != key:
            self._curves = None
            blocks = BLOCKS_EACH * multiprocessors()
            self._curves = key, Curves(self, block, state, settings.fit_intercept, rows, blocks)
        return self._curves[1]

    def order(self, order: np.ndarray | BatchOrder, keys: Any) -> Any:
        """Row numbers on the device: at the beginning of an array of the card's own, which the next call writes to."""
        if self._order is None or len(self._order) < len(order):
            self._order = None
            self._order = cuda.device_array(max(1, len(order)), np.int32)
            self.orders += 1
        if isinstance(order, BatchOrder):
            blocks = max(1, min(BLOCKS_EACH * multiprocessors(), -(-len(order) // self.threads.block)))
            launch = self._permute.get(blocks)
            if launch is None:
                kernel = kernels(Shape(False, False), self.threads).permute
                launch = self._permute[blocks] = Launch(kernel, (blocks, self.threads.block, self.stream, 0))
            arguments = self._order, order.start, order.stop, order.n_rows, order.bits, keys
            launch(arguments, (self.orders, None, None, None, None, None))
        elif len(order):
            chosen = np.ascontiguousarray(order, dtype=np.int32)
            self._order[: len(order)].copy_to_device(chosen, stream=self.stream)
        return self._order


class _Work:
    """What calls of one kind need: kernels, and memory on the card that the next such call uses again.

    What a call gives and takes lies side by side in one piece of memory, here page-locked and on the card, so that one
    copy brings it and one takes it back: what is found, what is changed, what is only given.
    """

    def __init__(self, card: Card, block: DeviceBlock, state: State, batch: int):
        self.card, self.sparse, self.batch = card, block.sparse, batch
        self.n_problems, self.n_features = state.coef.shape
        threads, itemsize = card.threads, state.coef.itemsize
        ahead = batch < LONG_BATCH * multiprocessors()
        registers = (0, 0) if block.sparse else in_registers(self.n_features, self.n_problems, itemsize, threads, ahead)
        if registers[0]:
            self.tiles, self.shared_bytes = (registers[1] * threads.block // threads.warp, 1, 0), 0
        else:
            self.tiles = tiling(self.n_features, itemsize, threads, block.sparse)
            self.shared_bytes = self.tiles[0] * self.tiles[2] * itemsize
        self.flat = bool(registers[0])
        self.kernels: Kernels = kernels(
            Shape(_is_double(block), block.sparse, *registers, ahead and registers[0] > 0), threads
        )
        self.each = 1 if block.sparse else self.n_features + 1
        self._launches: dict[Any, Launch] = {}
        # Once for the types of all arrays, which say how many blocks there can be.
        self._pack(state, 1)
        self.train, most = self._together(block)
        self.together = self._blocks(most)
        self.blocks = max(self.together, self._blocks(BLOCKS_EACH * multiprocessors()))
        self._pack(state, self.blocks)

    @staticmethod
    def key(block: DeviceBlock, state: State, batch: int) -> tuple:
        """What tells kinds of calls apart."""
        arrays = (*block.rows, block.y, block.sample_weight)
        return batch, tuple(a.dtype for a in arrays), tuple(a.shape for a in state)

    def _blocks(self, most: int) -> int:
        """Blocks of a launch: as many as there are tiles of rows, or groups of columns."""
        tiles = -(-self.batch // self.tiles[0])
        groups = -(-self.n_problems * (self.n_features + 1) // self.card.threads.warp)
        return max(1, min(most, max(tiles, groups)))

    def _together(self, block: DeviceBlock) -> tuple[Any, int]:
        """The kernel for these types, and how many blocks of it can be at work at once.

        They wait for each other between the phases of a batch, so all must be there.
        """
        kernel = self.kernels.train
        if _SIMULATED:
            return kernel, 1
        data = Data(block.y, block.sample_weight, self.card.order(np.empty(0, np.int32), None), *self._sides)
        numbers = numbers_of(Settings(0, 0), 1.0, 0.0, self.tiles)
        found = kernel.specialize(self._rows(block), data, self._weights, self._scratch, numbers, 1, 1)
        (overload,) = found.overloads.values()
        return found, int(overload.max_cooperative_grid_blocks(self.card.threads.block, self.shared_bytes))

    def _rows(self, block: DeviceBlock) -> Any:
        return DenseRows(block.flat) if self.flat else block.rows

    def _pack(self, state: State, blocks: int) -> None:
        """Memory for a call by so many blocks."""
        k, double = self.n_problems, np.dtype(np.float64)
        found = {"totals": ((3, k, blocks), double), "sums": ((k, self.n_features + 1), double)}
        given = {
            "positive_weight": ((k,), double),
            "negative_weight": ((k,), double),
            "active": ((k,), np.dtype(np.uint8)),
            "keys": ((2 * ROUNDS,), np.dtype(np.int64)),
        }
        own = {name: (array.shape, array.dtype) for name, array in weights_of(state).items()}
        names = (*found, *CHANGED, *(name for name in own if name not in CHANGED), *given)
        kinds, places, at = found | own | given, {}, 0
        for name in names:
            shape, dtype = kinds[name]
            nbytes = int(np.prod(shape)) * dtype.itemsize
            places[name] = slice(at, at + nbytes)
            at += -(-nbytes // _ALIGNED) * _ALIGNED
        host, device = cuda.pinned_array(at, np.uint8), cuda.device_array(at, np.uint8)

        def view(memory: Any, name: str) -> Any:
            shape, dtype = kinds[name]
            return memory[places[name]].view(dtype).reshape(shape)

        self._host = {name: view(host, name) for name in names}
        # An empty view has no address.
        there = {n: view(device, n) if self._host[n].size else cuda.device_array(*kinds[n]) for n in names}
        first, last = places[CHANGED[0]].start, places[CHANGED[-1]].stop
        self._up, self._down = (host[first:], device[first:]), (host[:last], device[:last])
        self._weights = Weights(**{name: there[name] for name in own})
        self._sides = there["positive_weight"], there["negative_weight"], there["active"]
        self._keys = there["keys"]
        self._found = there["totals"], there["sums"]
        self._scratch = self._scratch_for(blocks)

    def _scratch_for(self, blocks: int) -> Scratch:
        """Working memory for so many blocks."""
        k, threads = self.n_problems, self.card.threads
        in_batch = 0 if self.flat else self.batch

        def zeros(shape: tuple[int, ...], dtype: Any = np.float64) -> Any:
            array = cuda.device_array(shape, dtype)
            array.copy_to_device(np.zeros(shape, dtype))
            return array

        return Scratch(
            scores=cuda.device_array((in_batch, k), np.float64),
            slopes=cuda.device_array((in_batch, k), np.float64),
            losses=zeros((blocks * self.tiles[0], k)),
            penalties=zeros((blocks * threads.block, k)),
            totals=self._found[0],
            partials=cuda.device_array((blocks, k, self.each), np.float64),
            sums=self._found[1],
            fixed=zeros((k, self.n_features) if self.sparse else (0, 0), np.int64),
            peaks=zeros((blocks,)),
            values=zeros((blocks * self.tiles[0], k)),
        )

    def begin(
        self,
        block: DeviceBlock,
        order: np.ndarray | BatchOrder,
        state: State,
        settings: Settings,
        sides: tuple[np.ndarray, np.ndarray],
        active: np.ndarray,
    ) -> dict[str, tuple[Any, Any]]:
        """Bring what a call is given to the card; the arguments of its kernels, and what tells them apart."""
        given = dict(zip(("positive_weight", "negative_weight", "active"), (*sides, active), strict=True))
        for name, array in (weights_of(state) | given).items():
            self._host[name][...] = array
        if isinstance(order, BatchOrder):
            self._host["keys"][...] = order.keys
        self._up[1].copy_to_device(self._up[0], stream=self.card.stream)
        chosen = self.card.order(order, self._keys)
        width = columns_of_a_block(self.n_problems * self.each, self.together, self.card.threads)
        numbers = numbers_of(settings, state.clock[0], block.largest, self.tiles, width)
        return {
            "rows": (self._rows(block), block.serial),
            "data": (Data(block.y, block.sample_weight, chosen, *self._sides), (block.serial, self.card.orders)),
            "weights": (self._weights, 0),
            "scratch": (self._scratch, 0),
            "numbers": (numbers, None),
        }

    def slopes(self, given: dict[str, tuple[Any, Any]], start: int, stop: int, valued: bool = False) -> None:
        """The gradient of rows: of dense ones the sums of each block, of sparse ones those of columns too."""
        kernel = self.kernels.valued if valued else self.kernels.slopes
        self.launch(kernel, self.blocks, given, "rows data weights scratch numbers", start, stop)
        if self.sparse:
            self.launch(self.kernels.gather, self.blocks, given, "rows data scratch numbers", start, stop)

    def launch(self, kernel: Any, blocks: int, given: dict[str, tuple[Any, Any]], chosen: str, *further: int) -> None:
        """Run a kernel, with the arguments that it takes of those ``given``, after those before it."""
        launch = self._launches.get(kernel)
        if launch is None:
            shape = blocks, self.card.threads.block, self.card.stream, self.shared_bytes
            launch = self._launches[kernel] = Launch(kernel, shape)
        arguments, names = zip(*(given[name] for name in chosen.split()), strict=True)
        launch((*arguments, *further), (*names, *(None for _ in further)))

    def end(self, state: State | None) -> None:
        """Wait for the kernels, and take what they have changed over into ``state``."""
        self._down[1].copy_to_host(self._down[0], stream=self.card.stream)
        self.card.stream.synchronize()
        if state is not None:
            for name in CHANGED:
                getattr(state, name)[...] = self._host[name]

    def found(self, name: str) -> np.ndarray:
        """Of the last call: "totals" (3, K, blocks), or "sums" (K, d + 1); the next one writes to it."""
        return self._host[name]

    def totals(self, settings: Settings) -> np.ndarray:
        """Sums of the losses, and of the losses with their penalties."""
        loss, penalty = self.found("totals")[:2, :, : self.together].sum(axis=2)
        if settings.mode == SOFTMAX:
            penalty = np.where(np.arange(self.n_problems) == 0, penalty.sum(), 0.0)
        return np.stack([loss, loss + penalty])


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

    def lock(self, address: int, nbytes: int) -> bool:
        if _SIMULATED:
            return False
        from numba.cuda.cudadrv.driver import CudaAPIError, driver

        cuda.current_context()
        try:
            driver.cuMemHostRegister(address, nbytes, 0)
        except CudaAPIError:
            # Memory of another kind, as of a file, or more than the system lets be locked.
            return False
        return True

    def unlock(self, address: int) -> None:
        from numba.cuda.cudadrv.driver import driver

        # This thread may be any: that of whoever let go of the array.
        cuda.current_context()
        driver.cuMemHostUnregister(address)


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


def cores() -> int:
    """Of the host that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def multiprocessors() -> int:
    """Of the card of this process."""
    return 1 if _SIMULATED else int(cuda.get_current_device().MULTIPROCESSOR_COUNT)
