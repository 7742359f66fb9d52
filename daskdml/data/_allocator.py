"""Memory given back to the system, so that a worker's size is what it uses, but not page by page."""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any

import pyarrow as pa

# From malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
# Allocations from this size on, the largest that glibc takes, are mappings of their own, which a free returns at once:
# large blocks of data. What decoding takes and frees for each block, chunks of 16 MB say, stays in the heap: returned
# from 4 MB on, half of the time of decoding Zarr went into getting the same memory from the system again.
_LARGE = 32 * 2**20
# Workers of less memory than this have none for that: from so many bytes on their allocations are returned at once.
_ROOMY, _LARGE_WITHOUT_ROOM = 0.9e9, 4 * 2**20
# Free memory kept at the top of the heap: the working space that every slab and column takes and frees again.
_WORKING = 16 * 2**20
# Blocks below this size do not show in a worker's memory.
_SMALL = 2**22
# Dask spills at 70 % of a worker's limit and pauses it at 80 %: what is free in the heap is returned before.
_FULL = 0.65
# Milliseconds between two looks at a worker's memory.
_INTERVAL = 500
_NAME = "daskdml-memory"


@functools.cache
def _libc() -> Any:
    """The C library where it is glibc, else None: musl and others have none of this."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL(None)
        return libc if hasattr(libc, "malloc_trim") and hasattr(libc, "mallopt") else None
    except OSError:
        return None


def settle(worker: Any) -> None:
    """Make a Dask worker with a memory limit allocate as :func:`return_large_allocations` says, and watch it.

    Free memory inside the heap is returned when the worker nears its limit. Something must look: a worker paused
    for what it only hoards runs no task that could return it, and stays paused for ever. The look ends with the
    worker.
    """
    limit = worker.memory_manager.memory_limit
    if not limit or _NAME in worker.periodic_callbacks:
        return
    return_large_allocations(_LARGE if limit >= _ROOMY else _LARGE_WITHOUT_ROOM)
    worker.loop.add_callback(_watch, worker, limit)


def _watch(worker: Any, limit: int) -> None:
    from tornado.ioloop import PeriodicCallback

    if _NAME not in worker.periodic_callbacks and worker.status.name in ("running", "paused", "init"):
        worker.periodic_callbacks[_NAME] = PeriodicCallback(functools.partial(give_back, limit), _INTERVAL)
        worker.periodic_callbacks[_NAME].start()


@functools.cache
def return_large_allocations(large: int = _LARGE) -> None:
    """Make this process return blocks to the system as soon as they are freed, and only those; once is enough.

    By default glibc raises its threshold with each large free, up to 32 MB, and then keeps blocks of data in its
    heap; Arrow's allocator keeps its own. Dask counts both as used, and pauses a worker that only hoards. Dask's
    own remedy for its worker processes, to return all that is free beyond 64 kB, is dear: the working space of
    every step is then taken from the system anew, and page faults cost more than the step itself. One heap serves
    all threads, so that each takes what another has freed.
    """
    if _libc() is not None:
        _libc().mallopt(_M_MMAP_THRESHOLD, large)
        _libc().mallopt(_M_TRIM_THRESHOLD, _WORKING)
        _libc().mallopt(_M_ARENA_MAX, 1)
        pa.set_memory_pool(pa.system_memory_pool())


def give_back(limit: int, nbytes: int = _SMALL) -> None:
    """Release what allocators hold unused, in a process that nears its ``limit``.

    Not after a block of few ``nbytes`` was made, which cannot have changed much.
    """
    if nbytes < _SMALL or _resident() < _FULL * limit:
        return
    pa.default_memory_pool().release_unused()
    if _libc() is not None:
        _libc().malloc_trim(0)


def has_room(limit: int, nbytes: int) -> bool:
    """Whether a process may take so many bytes more and still be clear of its ``limit``."""
    return _resident() + nbytes < _FULL * limit


def _resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)
