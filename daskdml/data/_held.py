"""Blocks of chunks that Dask holds in memory: what was made for them, and found fit to train on, is not made again.

A chunk that is used as it is needs no block cache. But its labels are turned into codes, and it is searched for NaN:
in every epoch that would take a quarter of the time of training on it.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from daskdml.data._block import Block
from daskdml.data._leases import Leased

# What is kept beside a chunk has at most this part of its size: no memory plan knows of it.
_BESIDE = 1 / 4


@dataclass(frozen=True)
class HeldSpec:
    """Whose blocks are remembered.

    Parameters
    ----------
    token : str
        The data set's.
    lease : str, optional
        Names the fit for which they are, as that of ``CacheSpec``.

    Examples
    --------
    >>> HeldSpec("a1b2").lease
    ''
    """

    token: str
    lease: str = ""


@dataclass
class _Known:
    """The chunk, for as long as somebody keeps it, and the block but for that."""

    X: weakref.ref[Any]
    rest: Block


class HeldBlocks(Leased[dict[int, _Known]]):
    """Blocks by data set and index, shared by the threads of a process; the chunks themselves are not kept alive.

    Examples
    --------
    >>> blocks, spec, chunk = HeldBlocks(), HeldSpec("t"), np.ones((3, 2))
    >>> blocks.remember(spec, Block(4, chunk))
    >>> blocks.get(spec, 4).X is chunk
    True
    >>> del chunk
    >>> blocks.get(spec, 4) is None
    True
    """

    def remember(self, spec: HeldSpec, block: Block) -> None:
        """Note what was made for a chunk; where that is large beside the chunk, nothing is."""
        beside = sum(array.nbytes for array in (block.y, block.sample_weight) if array is not None)
        if not isinstance(block.X, (np.ndarray, sp.spmatrix, sp.sparray)) or beside > _BESIDE * block.nbytes:
            return
        with self._lock:
            if self._leases.take(spec.token, spec.lease):
                known = _Known(weakref.ref(block.X), replace(block, X=None))
                self._sets.setdefault(spec.token, {})[block.index] = known

    def has_all(self, spec: HeldSpec, indexes: Iterable[int]) -> bool:
        """Whether all these blocks can be had."""
        with self._lock:
            kept = self._sets.get(spec.token, {})
            return all(index in kept and kept[index].X() is not None for index in indexes)

    def get(self, spec: HeldSpec, index: int) -> Block | None:
        """The block, if its chunk is still there."""
        with self._lock:
            kept = self._sets.get(spec.token, {})
            known = kept.get(index)
            if known is None:
                return None
            X = known.X()
            if X is None:
                # It was a copy made for the block, or has left the process.
                del kept[index]
                return None
            return replace(known.rest, X=X)


_held = HeldBlocks()


def process_held() -> HeldBlocks:
    """The ones of this process."""
    return _held
