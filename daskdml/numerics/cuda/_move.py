"""Moving arrays to a device: through two page-locked buffers in turn, one being filled while the other is sent."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

# Bytes of a buffer: long enough that starting a copy costs nothing, short enough that the first one starts soon.
STAGE_BYTES = 8 * 2**20


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


class Mover:
    """Copies host arrays to a device; for one thread at a time.

    Parameters
    ----------
    bus : Bus
    stage_bytes : int
        Of each of the two buffers, which exist from the first copy on.
    """

    def __init__(self, bus: Bus, stage_bytes: int = STAGE_BYTES):
        self._bus = bus
        self._stage_bytes = stage_bytes
        self._stages: list[np.ndarray] = []
        self._sent: list[Any] = [None, None]
        self._turn = 0

    def move(self, array: np.ndarray) -> Any:
        """``array`` on the device, whole: when this returns, its last bytes have left."""
        target = self._bus.empty(array.shape, array.dtype)
        if not array.size:
            return target
        flat = array.reshape(-1)
        if not self._stages:
            self._stages = [self._bus.page_locked(self._stage_bytes) for _ in range(2)]
        step = self._stage_bytes // array.itemsize
        for start in range(0, flat.size, step):
            part = flat[start : start + step]
            self._wait(self._turn)
            stage = self._stages[self._turn].view(array.dtype)[: part.size]
            # The other buffer is on its way meanwhile.
            np.copyto(stage, part)
            self._sent[self._turn] = self._bus.send(stage, target, start)
            self._turn = 1 - self._turn
        self._wait(0)
        self._wait(1)
        return target

    def _wait(self, turn: int) -> None:
        sent, self._sent[turn] = self._sent[turn], None
        if sent is not None:
            sent.wait()
