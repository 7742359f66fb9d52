"""Walking the blocks of a replica, the next one being made while the present one is trained on."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

from daskdml.data._allocator import give_back, has_room, settle
from daskdml.data._block import Block, Recipe
from daskdml.data._buffers import Buffers, lending
from daskdml.data._cache import CacheSpec, Source, process_cache
from daskdml.data._device import DeviceSpec, process_tier
from daskdml.data._held import HeldSpec, process_held
from daskdml.data._memory import MemoryPlan
from daskdml.data._waiting import announce
from daskdml.data._writing import Writing
from daskdml.numerics import card


@dataclass(frozen=True, slots=True)
class Load:
    """How a block came: seconds it took to make or read, seconds the caller waited for it, and from where."""

    seconds: float
    wait_seconds: float
    nbytes: int
    source: Source


class stream:
    """Iterate over ``(Block, Load)`` pairs of a data set, in the order of the recipes.

    A context manager: leaving it, also early or by an exception, ends the prefetch thread. At any time the
    caller's block and ``prefetch`` more exist. An error in making a block is raised where the block is due.

    Parameters
    ----------
    dataset_or_recipes : Dataset or sequence of Recipe
    inputs : mapping or callable, optional
        By block index, the values of the futures of ``Dataset.inputs``; released as their block is made. A callable
        gives them for a recipe, and is called only for a block that the cache does not have.
    cache : CacheSpec or HeldSpec, optional
        Keep and look for blocks in the cache of this process; or, where their chunks stay in memory, make and check
        each once only.
    prefetch : int, default 1
        Blocks made ahead, by a thread, unless all are in memory; 0 makes each when it is asked for.
    plan : MemoryPlan, optional
        Refuse blocks that turn out larger than it allows.
    device : DeviceSpec, optional
        Bring each block to the GPU of this process, if it has one, and keep there what fits; it is a
        :class:`daskdml.numerics.DeviceBlock` then.

    Examples
    --------
    >>> import numpy as np
    >>> from daskdml.data import as_dataset
    >>> with stream(as_dataset(np.ones((4, 2)), target=None, block_rows=3)) as blocks:
    ...     [block.n_rows for block, load in blocks]
    [3, 1]
    """

    def __init__(
        self,
        dataset_or_recipes: Any,
        inputs: Mapping[int, Sequence[Any]] | Callable[[Any], Sequence[Any]] | None = None,
        *,
        cache: CacheSpec | HeldSpec | None = None,
        prefetch: int = 1,
        plan: MemoryPlan | None = None,
        device: DeviceSpec | None = None,
    ):
        if prefetch < 0:
            raise ValueError(f"prefetch must be at least 0, got {prefetch}")
        recipes: Iterable[Recipe] = getattr(dataset_or_recipes, "recipes", dataset_or_recipes)
        self._recipes = deque(recipes)
        self._fetch = inputs if callable(inputs) else None
        self._inputs = {} if callable(inputs) else dict(inputs or {})
        self._cache = cache
        self._plan = plan
        self._prefetch = prefetch
        # Asked here, in the task's own thread: it knows its worker.
        self._card = None if device is None else card()
        self._device = None if self._card is None else device
        # Beside the caller's and those made ahead, one block is being written and one waits for that.
        self._buffers, self._made = Buffers(prefetch + 1), Buffers(prefetch + 3 if prefetch else 1)
        # A worker is known to its own threads only, not to the prefetch thread.
        worker = _worker()
        self._directory = None if worker is None else str(worker.local_directory)
        self._worker = worker
        self._limit: int | None = None if worker is None else worker.memory_manager.memory_limit
        # Not a method of the stream, which would live, with its buffers, until Python looks for cycles.
        room = partial(_has_room, self._made, self._limit) if self._limit else None
        self._writing = Writing(room) if prefetch else None
        if worker is not None:
            settle(worker)
        self._ready: deque[tuple[Any, float, Source] | BaseException | None] = deque()
        self._changed = threading.Condition()
        self._wanted = prefetch
        self._closed = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Iterator[tuple[Any, Load]]:
        if self._prefetch and not self._at_hand():
            self._thread = threading.Thread(target=self._run, name="daskdml-prefetch", daemon=True)
            self._thread.start()
        return self

    def _at_hand(self) -> bool:
        """Whether nothing is to be made or read, and so nothing to be gained by a thread.

        One that hands over what is there waits for a processor each time, while kernels have them all.
        """
        if self._device is not None or self._cache is None:
            return False
        indexes = [recipe.index for recipe in self._recipes]
        if isinstance(self._cache, CacheSpec):
            return process_cache().has_all(self._cache, indexes)
        return process_held().has_all(self._cache, indexes)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the prefetch thread, and the writing of a block's file, and forget what was not taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._writing is not None:
            self._writing.end()
        self._ready.clear()
        self._recipes.clear()
        self._inputs.clear()

    def __iter__(self) -> Iterator[tuple[Any, Load]]:
        return self

    def __next__(self) -> tuple[Any, Load]:
        start = time.perf_counter()
        made = self._take() if self._thread is not None else self._next_made()
        if made is None:
            self.close()
            raise StopIteration
        if isinstance(made, BaseException):
            self.close()
            raise made
        block, seconds, source = made
        return block, Load(seconds, time.perf_counter() - start, block.nbytes, source)

    def _take(self) -> tuple[Any, float, Source] | BaseException | None:
        with self._changed:
            while not self._ready:
                self._changed.wait()
            made = self._ready.popleft()
            # Only now may the next one be begun: no more than `prefetch` blocks exist beside the caller's.
            self._wanted += 1
            self._changed.notify_all()
            return made

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._wanted and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                self._wanted -= 1
            made = self._next_made()
            with self._changed:
                self._ready.append(made)
                self._changed.notify_all()
            if made is None or isinstance(made, BaseException):
                return
            # Held here, it would outlive the caller's use of it.
            del made

    def _next_made(self) -> tuple[Any, float, Source] | BaseException | None:
        if self._closed or not self._recipes:
            return None
        start = time.perf_counter()
        try:
            block, source = self._block(self._recipes.popleft())
        except BaseException as error:
            return error
        return block, time.perf_counter() - start, source

    def _block(self, recipe: Recipe) -> tuple[Any, Source]:
        if self._device is None:
            return self._host_block(recipe)
        # Brought in this thread, while the kernel runs on the block before.
        tier, spec, index = process_tier(), self._device, recipe.index
        if (resident := tier.get(spec.token, index)) is not None:
            self._inputs.pop(index, None)
            return resident, "device"
        mine = False

        def stays(block: Block) -> bool:
            nonlocal mine
            spec.check(block)
            mine = tier.reserve(spec, index, block.nbytes)
            return mine

        try:
            block, source = self._host_block(recipe, stays)
            assert self._card is not None
            moved = self._card.put(block, kept=source == "memory" and not mine)
        except BaseException:
            if mine:
                tier.cancel(spec.token, index)
            raise
        if mine:
            tier.fill(spec.token, moved)
        return moved, source

    def _host_block(self, recipe: Recipe, elsewhere: Callable[[Block], bool] | None = None) -> tuple[Block, Source]:
        values = [self._inputs.pop(recipe.index, ())]

        def make() -> Block:
            if self._limit and recipe.rows is None:
                announce(self._worker, recipe)
            try:
                given = values.pop() if self._fetch is None else self._fetch(recipe)
                with lending(self._made):
                    block = recipe.resolve(given)
                del given
            except MemoryError as error:
                raise MemoryError(
                    f"block {recipe.index} does not fit in memory ({error}): rechunk X to fewer rows a block"
                ) from error
            if self._plan is not None:
                self._plan.check(block)
            if self._limit:
                give_back(self._limit, block.nbytes)
            return block

        if not isinstance(self._cache, CacheSpec):
            block = None if self._cache is None else process_held().get(self._cache, recipe.index)
            source: Source = "recipe" if block is None else "memory"
            if block is None:
                block = make()
                if self._cache is not None:
                    process_held().remember(self._cache, block)
            if elsewhere is not None:
                elsewhere(block)
            return block, source
        spec, index = self._cache, recipe.index
        return process_cache().get(spec, index, make, self._buffers, self._directory, elsewhere, self._writing)


def _has_room(buffers: Buffers, limit: int, nbytes: int) -> bool:
    return buffers.has(nbytes) or has_room(limit, nbytes)


def _worker() -> Any:
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:
        return None
