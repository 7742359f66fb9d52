"""Memory for blocks, taken again once nobody holds the block that lay there."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

# Arrays start at multiples of a cache line, buffers at a page of memory: the disk takes whole pages as they lie.
ALIGN = 64
PAGE = 4096
# Smaller arrays come from the heap, which keeps their memory anyway.
_LARGE = 4 * 2**20


class Buffers:
    """Buffers of bytes, of which up to ``keep`` are remembered.

    New memory is not only asked for: the system has to clear each page of it, and a virtual machine often has to find
    one first.
    """

    def __init__(self, keep: int = 2):
        self._keep = keep
        self._buffers: list[np.ndarray] = []

    def take(self, nbytes: int) -> np.ndarray:
        """A buffer of at least so many bytes, from a page's start, that nobody else has."""
        buffer = self._free(nbytes)
        if buffer is None:
            buffer = np.empty(nbytes + PAGE, np.uint8)
            # A buffer of another size, and nobody's, is worth less than the memory it takes.
            held = [b for b in self._buffers if sys.getrefcount(b) > 3]
            self._buffers = [buffer, *held[: self._keep - 1]]
        return buffer[-buffer.ctypes.data % PAGE :]

    def has(self, nbytes: int) -> bool:
        """Whether so many bytes need no new memory."""
        return self._free(nbytes) is not None

    def _free(self, nbytes: int) -> np.ndarray | None:
        for buffer in self._buffers:
            # Held by the list, the loop and getrefcount's argument, and by no array of a block.
            if sys.getrefcount(buffer) <= 3 and nbytes + PAGE <= buffer.nbytes <= 2 * (nbytes + PAGE):
                return buffer
        return None


_lent = threading.local()


@contextmanager
def lending(buffers: Buffers) -> Iterator[None]:
    """Give ``buffers`` to who makes rows in this thread meanwhile."""
    before = getattr(_lent, "buffers", None)
    _lent.buffers = buffers
    try:
        yield
    finally:
        _lent.buffers = before


def empty_rows(n_rows: int, n_columns: int, dtype: Any) -> np.ndarray:
    """A C-contiguous array for rows, its values not set; where a stream makes blocks, in memory that it had before.

    Examples
    --------
    >>> empty_rows(3, 2, "f4").shape
    (3, 2)
    """
    kind = np.dtype(dtype)
    nbytes = n_rows * n_columns * kind.itemsize
    buffers: Buffers | None = getattr(_lent, "buffers", None)
    if buffers is None or nbytes < _LARGE:
        return np.empty((n_rows, n_columns), kind)
    return buffers.take(nbytes)[:nbytes].view(kind).reshape(n_rows, n_columns)
