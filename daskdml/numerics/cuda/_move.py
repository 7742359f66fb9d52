"""Moving arrays to a device: through page-locked buffers in turn, some being filled while another is sent.

What the host keeps, and brings again in every epoch, is page-locked where it lies: the device then reads it at the rate
of the bus, and no thread of the host copies anything. To lock memory takes about as long as to copy it twice.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

# Bytes of a buffer: long enough that starting a copy costs nothing, short enough that the first one starts soon.
STAGE_BYTES = 16 * 2**20
# Smaller arrays are not page-locked in place: a page belongs to several of them.
LEAST_LOCKED = 2**20


# Half of the host's memory: what is locked cannot be swapped out.
_MOST_LOCKED = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


class Bus(Protocol):
    """What a device offers to whoever moves data to it; a fake one lets the order of things be tested."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """An array on the device."""

    def page_locked(self, nbytes: int) -> np.ndarray:
        """Host memory that the device can read by itself, as bytes."""

    def send(self, source: np.ndarray, target: Any, start: int) -> Any:
        """Begin to copy ``source``, flat and page-locked, to entries ``start`` on of ``target``.

        Returns what has a ``wait()``, after which ``source`` may be written to again.
        """

    def lock(self, address: int, nbytes: int) -> bool:
        """Page-lock memory of the host; False where that cannot be done."""

    def unlock(self, address: int) -> None:
        """Undo :meth:`lock`, before the memory is given back."""


class Mover:
    """Copies host arrays to a device; for one thread at a time.

    Parameters
    ----------
    bus : Bus
    stage_bytes : int
        Of each buffer; buffers exist from the first copy on, for each thread and one or two that are on their way.
    threads : int
        That fill buffers. A bus takes several times what one thread copies.
    """

    def __init__(self, bus: Bus, stage_bytes: int = STAGE_BYTES, threads: int = 1):
        self._bus = bus
        self._stage_bytes = stage_bytes
        self._threads = threads
        self._stages: list[np.ndarray] = []
        self._sent: list[Any] = [None] * (threads + 2 if threads > 1 else 2)
        self._turn = 0
        self._pool: ThreadPoolExecutor | None = None
        self._locked: dict[int, bool] = {}

    def move(self, array: np.ndarray, kept: bool = False) -> Any:
        """``array`` on the device, whole: when this returns, its last bytes have left.

        ``kept`` says that the array stays on the host and comes again.
        """
        target = self._bus.empty(array.shape, array.dtype)
        if not array.size:
            return target
        flat = array.reshape(-1)
        if kept and self._is_locked(array):
            self._bus.send(flat, target, 0).wait()
            return target
        if not self._stages:
            self._stages = [self._bus.page_locked(self._stage_bytes) for _ in self._sent]
        step = self._stage_bytes // array.itemsize
        filling: deque[tuple[Future | None, int, np.ndarray, int]] = deque()
        for start in range(0, flat.size, step):
            if len(filling) == self._threads:
                self._send(target, *filling.popleft())
            part, turn = flat[start : start + step], self._turn
            self._wait(turn)
            stage = self._stages[turn].view(array.dtype)[: part.size]
            filling.append((self._fill(stage, part), turn, stage, start))
            self._turn = (turn + 1) % len(self._sent)
        while filling:
            self._send(target, *filling.popleft())
        for turn in range(len(self._sent)):
            self._wait(turn)
        return target

    def _is_locked(self, array: np.ndarray) -> bool:
        """Whether the memory of ``array`` is page-locked, which it is made if it can be."""
        owner = _owner(array)
        if owner is None or not LEAST_LOCKED <= owner.nbytes <= _MOST_LOCKED:
            return False
        key = id(owner)
        if key not in self._locked:
            address = owner.ctypes.data
            self._locked[key] = self._bus.lock(address, owner.nbytes)
            # Called before the array's memory is given back: what was locked must not become somebody else's.
            weakref.finalize(owner, self._forget, key, address).atexit = False
        return self._locked[key]

    def _forget(self, key: int, address: int) -> None:
        if self._locked.pop(key):
            self._bus.unlock(address)

    def _fill(self, stage: np.ndarray, part: np.ndarray) -> Future | None:
        """Copy ``part``, in another thread where there are several."""
        if self._threads == 1:
            np.copyto(stage, part)
            return None
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="daskdml-move")
        return self._pool.submit(np.copyto, stage, part)

    def _send(self, target: Any, filled: Future | None, turn: int, stage: np.ndarray, start: int) -> None:
        if filled is not None:
            filled.result()
        # The other buffers are on their way, or being filled, meanwhile.
        self._sent[turn] = self._bus.send(stage, target, start)

    def _wait(self, turn: int) -> None:
        sent, self._sent[turn] = self._sent[turn], None
        if sent is not None:
            sent.wait()


def _owner(array: np.ndarray) -> np.ndarray | None:
    """The array that will give the memory back; None where that is no array, or not of one piece."""
    owner: Any = array
    while not isinstance(owner, np.ndarray) or owner.base is not None:
        if isinstance(owner, np.ndarray):
            owner = owner.base
        elif isinstance(owner, memoryview):
            # What came from another process lies in such.
            owner = owner.obj
        else:
            return None
    return owner if owner.flags.c_contiguous else None
