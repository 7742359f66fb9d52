"""Memory given back to the system, so that a worker's size is what it uses."""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any

import pyarrow as pa

# From malloc.h: the size from which an allocation is a mapping of its own, which a free returns at once.
_M_MMAP_THRESHOLD = -3
_LARGE = 2**20
# Blocks below this size do not show in a worker's memory.
_SMALL = 2**22


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


@functools.cache
def return_large_allocations() -> None:
    """Make this process return large arrays to the system as soon as they are freed; once is enough.

    By default glibc raises its threshold with each large free, up to 32 MB, and then keeps blocks of data in its
    heap; Arrow's allocator keeps its own. Dask counts both as used, and pauses a worker that only hoards.
    """
    if _libc() is not None:
        _libc().mallopt(_M_MMAP_THRESHOLD, _LARGE)
        pa.set_memory_pool(pa.system_memory_pool())


def give_back(nbytes: int) -> None:
    """Release what allocators hold unused, after a block of ``nbytes`` was made."""
    if nbytes < _SMALL:
        return
    pa.default_memory_pool().release_unused()
    if _libc() is not None:
        _libc().malloc_trim(0)
