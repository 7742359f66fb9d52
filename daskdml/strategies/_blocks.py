"""The blocks of a long-running replica: the next one is made while the present one is trained on."""

from __future__ import annotations

import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

from distributed import get_worker

from daskdml.cluster import client_of_task
from daskdml.data import Block, CacheSpec, stream
from daskdml.strategies._plan import Order, Piece, Work, part_of
from daskdml.strategies._work import Blocks

# Blocks of data that are in the cluster's memory already are in no block cache: so many bytes of them at least are kept
# here, since fetching a block anew for each clock that trains a part of it would cost more than the training; and more,
# where the memory that is planned for a cache allows.
_KEPT_BYTES = 2**26
# Permutations of blocks that are kept: the parts of a block are trained in several clocks.
_ORDERS = 4


class InputsLost(RuntimeError):
    """What a block is made of was on a worker that is gone; the driver has it, or can have it made again."""


@dataclass
class Loaded:
    """What reading blocks has cost so far, as in a Report."""

    load_seconds: float = 0.0
    wait_seconds: float = 0.0
    bytes: int = 0
    recipe: int = 0
    memory: int = 0
    disk: int = 0
    device: int = 0


class BlockReader:
    """Gives blocks by number, each made at most one ahead, in a thread of its own.

    The last block is kept until another one is asked for, since the pieces of a clock often belong to one block.
    """

    def __init__(self, blocks: Blocks, inputs: Any = None, batched: bool = False):
        self._blocks = blocks
        self._batched = batched
        self._inputs = inputs
        self._client: Any = client_of_task() if inputs is not None else None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="daskdml-blocks")
        self._coming: tuple[int, Future] | None = None
        self._last: Block | None = None
        self._kept: OrderedDict[int, Block] = OrderedDict()
        planned = 0 if blocks.plan is None or blocks.on_gpu else blocks.plan.cache_bytes // _threads()
        self._room = max(_KEPT_BYTES, planned)
        self._orders: OrderedDict[tuple[int, int], Order] = OrderedDict()
        self.loaded = Loaded()

    def ahead(self, block: int | None) -> None:
        """Begin to make a block that will be asked for next."""
        known = block in self._kept or (self._last is not None and self._last.index == block)
        if block is not None and self._coming is None and not known:
            self._coming = block, self._submit(block)

    def get(self, block: int, following: int | None = None) -> Block:
        """A block; ``following`` is begun as soon as this one is there."""
        if block in self._kept:
            self._last = self._kept[block]
            self._kept.move_to_end(block)
        elif self._last is None or self._last.index != block:
            start = time.perf_counter()
            coming, self._coming = self._coming, None
            # Before the next one is waited for: no more than two blocks exist at a time.
            self._last = None
            made = coming[1].result() if coming is not None and coming[0] == block else None
            if made is None:
                if coming is not None:
                    coming[1].exception()
                made = self._submit(block).result()
            self._last, seconds, source = made
            self.loaded.wait_seconds += time.perf_counter() - start
            self.loaded.load_seconds += seconds
            self.loaded.bytes += self._last.nbytes
            setattr(self.loaded, source, getattr(self.loaded, source) + 1)
            self._keep(self._last)
        self.ahead(following)
        return self._last

    def _keep(self, block: Block) -> None:
        if isinstance(self._blocks.cache, CacheSpec):
            return
        self._kept[block.index] = block
        while len(self._kept) > 1 and sum(b.nbytes for b in self._kept.values()) > self._room:
            self._kept.popitem(last=False)

    def rows(self, work: Work, piece: Piece, n_rows: int) -> Order:
        """The rows of a piece in the order in which they are visited."""
        key = (work.epoch, piece.block)
        order = self._orders.get(key)
        if order is None:
            order = self._orders[key] = work.block_order(piece.block, n_rows, self._batched)
            if len(self._orders) > _ORDERS:
                self._orders.popitem(last=False)
        return part_of(order, piece)

    def take_loaded(self) -> Loaded:
        """What was read since this was last asked."""
        loaded, self.loaded = self.loaded, Loaded()
        return loaded

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._coming = self._last = None
        self._kept.clear()

    def _submit(self, block: int) -> Future:
        # With the context of the task: the thread then knows its worker, whose data need no copy.
        return self._pool.submit(copy_context().run, self._make, block)

    def _make(self, index: int) -> tuple[Block, float, str]:
        recipe = self._blocks.recipes[index]
        # Asked for only if the cache lacks the block: work that blocks share is done anew for each that is asked for.
        given = (lambda made: self._fetched(made.given)) if self._client is not None and recipe.given else None
        with stream(
            [recipe], given, cache=self._blocks.cache, plan=self._blocks.plan, prefetch=0, device=self._blocks.device
        ) as made:
            block, load = next(made)
        return block, load.seconds, load.source

    def _fetched(self, keys: Any) -> list[Any]:
        # Asked first: a future of what nobody has any more would be waited for in vain.
        if self._inputs.lost(self._client, keys):
            raise InputsLost("the cluster has lost data that a block is made of")
        futures = list(self._inputs.of(self._client, keys))
        try:
            return self._client.gather(futures)
        except Exception as error:
            if any(future.status == "error" for future in futures):
                raise
            raise InputsLost(f"the cluster has lost data that a block is made of ({error!r})") from error


def _threads() -> int:
    """Of the worker that this runs in: each may have a reader."""
    try:
        return max(1, get_worker().state.nthreads)
    except ValueError:
        return 1
