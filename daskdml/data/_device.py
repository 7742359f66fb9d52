"""Blocks in the memory of a GPU: how much of it a fit may take, and which blocks stay there.

The tier above memory and disk. Its rule is theirs: the first blocks that fit are kept until the data set is released,
nothing is evicted, and whatever is not there is brought from the host again.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dask.utils import format_bytes

from daskdml.data._block import Block, Schema
from daskdml.data._leases import Leased
from daskdml.data._memory import budget_bytes, row_bytes
from daskdml.numerics import DeviceBlock, card, why_no_card

# Of what is free on a card, what a fit may take: the rest is for the library's own needs, and for who comes later.
_USABLE = 0.9
# Blocks on their way in a replica: one is trained on, one arrives.
_BLOCKS = 2


@dataclass(frozen=True)
class CardInfo:
    """What a worker process says of its GPU; ``name`` tells cards of one host apart."""

    host: str
    pid: int
    name: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class DeviceSpec:
    """How much of a data set the GPU of a process may keep.

    Parameters
    ----------
    token : str
        The data set's.
    cache_bytes : int
        Budget of the process, shared by all data sets and replicas in it.
    max_block_bytes : int
        The largest block for which there is room beside those that are kept.
    lease : str, optional
        Names the fit for which blocks are kept, as that of ``CacheSpec``.

    Examples
    --------
    >>> DeviceSpec("a1b2", cache_bytes=2**30, max_block_bytes=2**28).token
    'a1b2'
    """

    token: str
    cache_bytes: int
    max_block_bytes: int
    lease: str = ""

    def check(self, block: Block) -> None:
        """Raise ValueError where a block, now that its size is known, has no room on the card."""
        if block.nbytes > self.max_block_bytes:
            rows = self.max_block_bytes * block.n_rows // max(block.nbytes, 1)
            raise _too_large(block.index, block.nbytes, self.max_block_bytes, rows)


def _too_large(index: int, need: int, room: int, rows: int) -> ValueError:
    return ValueError(
        f"block {index} needs {format_bytes(need)} on the GPU, which has room for blocks of {format_bytes(room)}: "
        f"rechunk X to at most {rows} rows a block, give a smaller device_memory to what is kept, or use device='cpu'"
    )


def card_info() -> CardInfo | str:
    """What there is to know of the GPU of this process; why there is none."""
    found = card()
    if found is None:
        return why_no_card()
    free, total = found.memory()
    return CardInfo(socket.gethostname(), os.getpid(), found.name, free, total)


def require_cards(found: Mapping[str, CardInfo | str]) -> list[CardInfo]:
    """The cards of a cluster's workers, by address; RuntimeError where no worker has one.

    Examples
    --------
    >>> require_cards({"tcp://a:1": "no driver"})
    Traceback (most recent call last):
    RuntimeError: device='cuda' needs a GPU, and none of 1 workers has one that can be used (tcp://a:1: no driver): ...
    """
    cards = [info for info in found.values() if isinstance(info, CardInfo)]
    if not cards:
        address, why = next(iter(found.items()))
        raise RuntimeError(
            f"device='cuda' needs a GPU, and none of {len(found)} workers has one that can be used ({address}: {why}): "
            "start workers with 'dask cuda worker' or daskdml.cluster.local(gpus=True), or use device='auto' to train "
            "in the same batches on the CPU"
        )
    return cards


def plan_device(
    token: str,
    cards: Iterable[CardInfo],
    schema: Schema,
    max_block_rows: int | None,
    working_bytes: int,
    *,
    threads: int = 1,
    budget: int | str | None = None,
    lease: str = "",
) -> DeviceSpec | None:
    """Divide the cards' memory between blocks on their way, working memory, and the blocks that stay.

    Parameters
    ----------
    token : str
        The data set's.
    cards : iterable of CardInfo
        One for each worker; processes that share a card divide what is free on it.
    schema : Schema
    max_block_rows : int or None
        Rows of the largest block; None where unknown: then half of what is free is left for blocks on their way, and
        each block is checked as it is made.
    working_bytes : int
        Parameters, and what a batch needs, of one replica.
    threads : int, default 1
        Replicas that run in a process at once.
    budget : int or str, optional
        ``device_memory``: bytes of the blocks that stay, in each process; by default what is left.
    lease : str, optional
        Of the fit.

    Returns
    -------
    DeviceSpec or None
        The same for all workers, that of the one with least; None without cards.

    Raises
    ------
    ValueError
        If a block, or the budget, has no room.

    Examples
    --------
    >>> import numpy as np
    >>> info = CardInfo("a", 1, "card", 80 * 2**30, 80 * 2**30)
    >>> spec = plan_device("t", [info], Schema(100, np.dtype("f4")), 10_000_000, 2**20)
    >>> spec.cache_bytes // 2**30
    64
    """
    cards = list(dict.fromkeys(cards))
    if not cards:
        return None
    sharing = Counter((c.host, c.name) for c in {(c.host, c.pid): c for c in cards}.values())
    free = min(int(_USABLE * c.free_bytes) // sharing[c.host, c.name] for c in cards) - threads * working_bytes
    row = row_bytes(schema)
    known = max_block_rows is not None and not schema.sparse
    inflight = _BLOCKS * threads * (max_block_rows or 0) * row if known else max(0, free) // 2
    if known and inflight > free:
        fits = max(0, free) // (_BLOCKS * threads)
        raise _too_large(0, (max_block_rows or 0) * row, fits, fits // row)
    asked = budget_bytes(budget, "device_memory")
    if asked is not None and asked > max(0, free - (inflight if known else 0)):
        raise ValueError(
            f"device_memory={budget!r} is more than a worker's share of its GPU can give: of {format_bytes(free)} "
            f"{format_bytes(max(0, free - inflight))} are left beside the blocks on their way; give at most that"
        )
    kept = max(0, free - inflight) if asked is None else asked
    return DeviceSpec(token, kept, max(0, free - kept) // (_BLOCKS * threads), lease)


@dataclass
class _Resident:
    """What lies on the card of one data set: bytes promised, and blocks that are there."""

    promised: dict[int, int] = field(default_factory=dict)
    blocks: dict[int, DeviceBlock] = field(default_factory=dict)


class DeviceTier(Leased[_Resident]):
    """The blocks that stay on the GPU of a process, by data set and index; shared by its threads.

    Examples
    --------
    >>> tier, spec = DeviceTier(), DeviceSpec("t", cache_bytes=100, max_block_bytes=100)
    >>> tier.reserve(spec, 0, 60), tier.reserve(spec, 1, 60), tier.reserve(spec, 2, 40)
    (True, False, True)
    """

    def get(self, token: str, index: int) -> DeviceBlock | None:
        """The block, if it is there."""
        with self._lock:
            kept = self._sets.get(token)
            return None if kept is None else kept.blocks.get(index)

    def reserve(self, spec: DeviceSpec, index: int, nbytes: int) -> bool:
        """Promise room to a block; False where there is none, or where another thread brings that block already."""
        with self._lock:
            if not self._leases.take(spec.token, spec.lease):
                return False
            taken = sum(sum(kept.promised.values()) for kept in self._sets.values())
            kept = self._sets.setdefault(spec.token, _Resident())
            if index in kept.promised or not nbytes or taken + nbytes > spec.cache_bytes:
                return False
            kept.promised[index] = nbytes
            return True

    def fill(self, token: str, block: DeviceBlock) -> None:
        """Keep a block that was promised room; not where the data set was released meanwhile."""
        with self._lock:
            kept = self._sets.get(token)
            if kept is not None and block.index in kept.promised:
                kept.blocks[block.index] = block

    def cancel(self, token: str, index: int) -> None:
        """Take a promise back: the block did not come."""
        with self._lock:
            if token in self._sets:
                self._sets[token].promised.pop(index, None)

    def usage(self, token: str) -> dict[str, int]:
        """Bytes and number of a data set's blocks."""
        with self._lock:
            blocks = self._sets.get(token, _Resident()).blocks
            return {"device_bytes": sum(b.nbytes for b in blocks.values()), "device_blocks": len(blocks)}


_tier = DeviceTier()


def process_tier() -> DeviceTier:
    """The one tier of this process."""
    return _tier


def device_usage(token: str) -> dict[str, int]:
    """Bytes and number of a data set's blocks on the GPU of this process.

    Examples
    --------
    >>> device_usage("unknown")
    {'device_bytes': 0, 'device_blocks': 0}
    """
    return _tier.usage(token)
