"""The block cache of a process: a pinned part in memory, the rest in raw files.

It is a cache and nothing more: whatever it does not have is made again from its recipe.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np

from daskdml.data import _files
from daskdml.data._block import Block
from daskdml.data._buffers import Buffers
from daskdml.data._decode import on_host
from daskdml.data._device import DeviceTier, process_tier
from daskdml.data._held import HeldBlocks, process_held
from daskdml.data._leases import Leases
from daskdml.data._writing import Pace, Write, Writing

# Blocks below this size are written by who made them: a thread costs more than it saves.
_SMALL = 2**20
# What a process writes of a data set before its files go straight to the disk: so much the system's memory for files
# takes, without a hurry to write it, and has for later epochs.
_THROUGH_MEMORY = 2**29
Source = Literal["recipe", "memory", "disk", "device"]


@dataclass(frozen=True)
class CacheSpec:
    """How much of a data set a process may keep.

    Parameters
    ----------
    token : str
        The data set's.
    memory_bytes : int
        Budget of the process, shared by all data sets and replicas in it.
    disk_bytes : int, optional
        Budget for files of this data set; None for no limit, 0 for no files.
    directory : str, optional
        Where to put files; the default is the Dask worker's local directory, or a temporary one.
    lease : str, optional
        Names the fit for which blocks are kept: once :func:`release_cache` was called with it, a task of that fit
        that is late makes its blocks and leaves none behind.

    Examples
    --------
    >>> CacheSpec("a1b2", memory_bytes=2**28).disk_bytes is None
    True
    """

    token: str
    memory_bytes: int
    disk_bytes: int | None = None
    directory: str | None = None
    lease: str = ""


@dataclass
class _Kept:
    """What is kept of one data set."""

    memory: dict[int, Block] = field(default_factory=dict)
    files: dict[int, _files.Stored] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    pending: dict[int, Future[Block]] = field(default_factory=dict)
    pace: Pace = field(default_factory=Pace)
    writing_bytes: int = 0
    disk_failed: bool = False

    def memory_bytes(self) -> int:
        return sum(b.nbytes for b in self.memory.values())

    def disk_bytes(self) -> int:
        return sum(s.nbytes for s in self.files.values())


class BlockCache:
    """Blocks by data set and index, shared by the threads of a process.

    Training scans its blocks in a cycle, where evicting the least recently used would evict each block just
    before its turn. So nothing is evicted: the first blocks that fit are pinned in memory, the others go to files.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sets: dict[str, _Kept] = {}
        self._pinned = 0
        self._leases = Leases()

    def get(
        self,
        spec: CacheSpec,
        index: int,
        make: Callable[[], Block],
        buffers: Buffers,
        directory: str | None,
        elsewhere: Callable[[Block], bool] | None = None,
        writing: Writing | None = None,
    ) -> tuple[Block, Source]:
        """The block from memory or disk, or made and kept; two threads that miss the same one make it once.

        ``elsewhere`` says of a block that was made whether it is kept on a GPU: then it is not here. With ``writing``
        its file is written after this has returned, or not at all where the disk is too slow.
        """
        with self._lock:
            mine_to_keep = self._leases.take(spec.token, spec.lease)
            kept = self._sets.setdefault(spec.token, _Kept()) if mine_to_keep else _Kept()
            if block := kept.memory.get(index):
                return block, "memory"
            stored = kept.files.get(index)
            pending = None if stored else kept.pending.get(index)
            if stored is None and pending is None:
                mine = kept.pending[index] = Future[Block]()
        if stored is not None:
            block = self._read(kept, index, stored, buffers)
            if block is not None:
                return block, "disk"
            return self.get(spec, index, make, buffers, directory, elsewhere, writing)
        if pending is not None:
            return pending.result(), "memory"
        return self._made(spec, kept, index, make, mine, directory, elsewhere, writing), "recipe"

    def has_all(self, spec: CacheSpec, indexes: Iterable[int]) -> bool:
        """Whether all these blocks are in memory."""
        with self._lock:
            kept = self._sets.get(spec.token)
            return kept is not None and all(index in kept.memory for index in indexes)

    def _made(
        self,
        spec: CacheSpec,
        kept: _Kept,
        index: int,
        make: Callable[[], Block],
        mine: Future[Block],
        directory: str | None,
        elsewhere: Callable[[Block], bool] | None,
        writing: Writing | None,
    ) -> Block:
        try:
            if writing is not None:
                writing.before_making()
            start = time.perf_counter()
            block = make()
            kept.pace.made(time.perf_counter() - start, block.nbytes)
        except BaseException as error:
            self._settled(kept, index)
            mine.set_exception(error)
            raise
        to_file = False
        try:
            if elsewhere is None or not elsewhere(block):
                # Where the set was released meanwhile, or the lease was over before, nothing is kept.
                block, to_file = self._keep(spec, kept, _on_host(block))
        finally:
            if not to_file:
                self._settled(kept, index)
            mine.set_result(block)
        if to_file:
            # Until its file is there, others find the block itself.
            beside = writing if block.nbytes >= _SMALL else None
            write = partial(self._write, spec, kept, block, directory, beside is not None)
            if beside is None:
                write()
            else:
                beside.begin(Write(write, partial(self._unwritten, kept, block)), block.nbytes)
        return block

    def _settled(self, kept: _Kept, index: int) -> None:
        with self._lock:
            kept.pending.pop(index, None)

    def _keep(self, spec: CacheSpec, kept: _Kept, block: Block) -> tuple[Block, bool]:
        """The block, pinned where there is room; and whether it goes to a file."""
        with self._lock:
            if self._sets.get(spec.token) is not kept:
                return block, False
            pin = self._pinned + block.nbytes <= spec.memory_bytes
            if pin:
                self._pinned += block.nbytes
            else:
                there = kept.disk_bytes() + kept.writing_bytes
                room = spec.disk_bytes is None or there + block.nbytes <= spec.disk_bytes
                to_file = room and not kept.disk_failed and block.nbytes > 0 and kept.pace.worth_a_file()
                kept.writing_bytes += block.nbytes if to_file else 0
                return block, to_file
        block = _owned(block)
        with self._lock:
            if self._sets.get(spec.token) is kept:
                kept.memory[block.index] = block
            else:
                self._pinned -= block.nbytes
        return block, False

    def _write(self, spec: CacheSpec, kept: _Kept, block: Block, directory: str | None, straight: bool) -> None:
        try:
            self._store(spec, kept, block, directory, straight)
        finally:
            self._unwritten(kept, block)

    def _unwritten(self, kept: _Kept, block: Block) -> None:
        """Its file is not to come any more: it is there, or it is not."""
        with self._lock:
            kept.writing_bytes -= block.nbytes
            kept.pending.pop(block.index, None)

    def _store(self, spec: CacheSpec, kept: _Kept, block: Block, directory: str | None, straight: bool) -> None:
        try:
            parent = spec.directory or directory or _temporary()
            place = os.path.join(parent, f"daskdml-blocks-{spec.token}-{os.getpid()}")
            os.makedirs(place, exist_ok=True)
            with self._lock:
                kept.directories.add(place)
                straight = straight and kept.disk_bytes() >= _THROUGH_MEMORY
                _cleanup_at_exit()
            stored = _files.write(place, block, straight)
        except OSError as error:
            with self._lock:
                released = self._sets.get(spec.token) is not kept
            # Its directory went with the set.
            if not released:
                self._disable(kept, f"cannot write to it ({error})")
            return
        with self._lock:
            if self._sets.get(spec.token) is kept:
                kept.files[block.index] = stored
                return
        with contextlib.suppress(OSError):
            os.unlink(stored.path)
            os.rmdir(place)

    def _read(self, kept: _Kept, index: int, stored: _files.Stored, buffers: Buffers) -> Block | None:
        try:
            return _files.read(index, stored, buffers)
        except OSError as error:
            with self._lock:
                kept.files.pop(index, None)
            # The directory of a worker that left the process is gone with it: a miss like any other.
            if not isinstance(error, FileNotFoundError):
                with contextlib.suppress(OSError):
                    os.unlink(stored.path)
                self._disable(kept, f"cannot read from it ({error})")
            return None

    def _disable(self, kept: _Kept, why: str) -> None:
        with self._lock:
            first, kept.disk_failed = not kept.disk_failed, True
        if first:
            warnings.warn(
                f"the block cache keeps no further blocks on disk: {why}; training goes on and reads them from the "
                "source each epoch. Free space there, or set Dask's temporary-directory to a disk with more.",
                RuntimeWarning,
                stacklevel=2,
            )

    def release(self, token: str, lease: str = "") -> None:
        with self._lock:
            self._leases.end(token, lease)
            kept = self._sets.pop(token, None)
            if kept is None:
                return
            self._pinned -= kept.memory_bytes()
        for directory in kept.directories:
            shutil.rmtree(directory, ignore_errors=True)
        if _temporary_directory is not None:
            # Another data set's files keep it.
            with contextlib.suppress(OSError):
                os.rmdir(_temporary_directory)

    def release_abandoned(self, clients: Collection[str]) -> None:
        with self._lock:
            tokens = self._leases.abandoned(clients)
            for token in tokens:
                self._leases.end_all(token)
        for token in tokens:
            self.release(token)

    def usage(self, token: str) -> dict[str, int]:
        with self._lock:
            kept = self._sets.get(token, _Kept())
            return {
                "memory_bytes": kept.memory_bytes(),
                "memory_blocks": len(kept.memory),
                "disk_bytes": kept.disk_bytes(),
                "disk_blocks": len(kept.files),
            }

    def tokens(self) -> list[str]:
        with self._lock:
            return list(self._sets)


def _on_host(block: Block) -> Block:
    """The block, its rows brought from a GPU that has no room to keep them."""
    X = on_host(block.X)
    return block if X is block.X else Block(block.index, X, block.y, block.sample_weight)


def _owned(block: Block) -> Block:
    """The block without ties to anything larger, so that pinning it pins no more than it counts."""
    X = block.X
    if isinstance(X, np.ndarray):
        X = _own(X)
    elif any(_own(a) is not a for a in (X.data, X.indices, X.indptr)):
        X = X.copy()
    return Block(block.index, X, _own(block.y), _own(block.sample_weight))


def _own(array: np.ndarray | None) -> np.ndarray | None:
    base = None if array is None else array.base
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    if array is None or base is None or getattr(base, "nbytes", 2**63) <= 1.1 * array.nbytes + 64:
        return array
    return array.copy()


_cache = BlockCache()
_temporary_directory: str | None = None
_registered = False


def process_cache() -> BlockCache:
    """The one cache of this process."""
    return _cache


def _temporary() -> str:
    global _temporary_directory
    if _temporary_directory is None or not os.path.isdir(_temporary_directory):
        _temporary_directory = tempfile.mkdtemp(prefix="daskdml-")
    return _temporary_directory


def _cleanup_at_exit() -> None:
    global _registered
    if not _registered:
        _registered = True
        atexit.register(_cleanup)


def _cleanup() -> None:
    for token in _cache.tokens():
        _cache.release(token)
    if _temporary_directory is not None:
        shutil.rmtree(_temporary_directory, ignore_errors=True)


def _keepers() -> tuple[BlockCache, HeldBlocks, DeviceTier]:
    return _cache, process_held(), process_tier()


def release_cache(token: str, lease: str = "") -> None:
    """Forget a data set's blocks in this process: on a GPU, in memory and on disk.

    Parameters
    ----------
    token : str
        ``Dataset.token``. On a cluster: ``client.run(release_cache, data.token)``.
    lease : str, optional
        Of the fit that is over: see :class:`CacheSpec`.
    """
    for keeper in _keepers():
        keeper.release(token, lease)


def release_abandoned(clients: Collection[str]) -> None:
    """Forget the blocks that this process keeps for fits of clients that are gone.

    A client that was killed in the middle of a fit could not free them; every fit on a cluster begins with this.

    Parameters
    ----------
    clients : collection of str
        ``Client.id`` of those that are connected. Blocks for which no lease was given stay.
    """
    for keeper in _keepers():
        keeper.release_abandoned(clients)


def cache_usage(token: str) -> dict[str, int]:
    """Bytes and numbers of a data set's blocks in this process, by tier.

    Examples
    --------
    >>> cache_usage("unknown")
    {'memory_bytes': 0, 'memory_blocks': 0, 'disk_bytes': 0, 'disk_blocks': 0}
    """
    return _cache.usage(token)
