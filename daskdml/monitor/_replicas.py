"""The last rounds of every replica, in little memory."""

from __future__ import annotations

import operator

import numpy as np
import pandas as pd

from daskdml.monitor._events import ReplicaRound

KEPT = 100_000
"""Rows of a :class:`ReplicaTable`; the oldest make room for new ones."""

_WHOLE = (
    "replica round epoch rows bytes sent_bytes received_bytes staleness reassigned cache_memory_bytes cache_disk_bytes "
    "gpu"
).split()
_REAL = "begin seconds compute_seconds load_seconds wait_seconds gate_seconds communicate_seconds share".split()
_DTYPE = np.dtype([*((n, "i8") for n in _WHOLE), *((n, "f8") for n in _REAL), ("worker", "i8")])
_values = operator.attrgetter(*_WHOLE, *_REAL)
_COLUMNS = [
    *("replica", "round", "epoch", "worker"),
    *_REAL,
    *(name for name in _WHOLE if name not in ("replica", "round", "epoch")),
]
_FIRST = 256


class ReplicaTable:
    """The last ``kept`` events of replicas, as numbers in one array: 170 bytes each.

    Parameters
    ----------
    kept : int, default 100,000

    Examples
    --------
    >>> from daskdml.monitor import ReplicaRound, ReplicaTable
    >>> table = ReplicaTable(kept=2)
    >>> for round in (1, 2, 3):
    ...     table.add(ReplicaRound(0, round, 1, None, 0.0, 0.5, 0.4, 0.1, 0.0))
    >>> table.to_frame()["round"].tolist()
    [2, 3]
    """

    def __init__(self, kept: int = KEPT) -> None:
        if kept < 1:
            raise ValueError(f"kept must be at least 1 row, got {kept}")
        self.kept = kept
        self._rows = np.zeros(min(_FIRST, kept), dtype=_DTYPE)
        self._count = 0
        self._workers: dict[str | None, int] = {None: 0}

    def __len__(self) -> int:
        return min(self._count, self.kept)

    def add(self, event: ReplicaRound) -> None:
        """Keep an event."""
        if self._count == len(self._rows) < self.kept:
            self._rows = np.resize(self._rows, min(2 * self._count, self.kept))
        number = self._workers.setdefault(event.worker, len(self._workers))
        self._rows[self._count % self.kept] = (*_values(event), number)
        self._count += 1

    def to_frame(self) -> pd.DataFrame:
        """One line for each replica and round, in the order of the events.

        Returns
        -------
        pandas.DataFrame
            The columns are the fields of :class:`ReplicaRound`, ``shard_bytes`` left out.
        """
        rows = np.roll(self._rows, -(self._count % self.kept)) if self._count > self.kept else self._rows[: len(self)]
        workers = np.array(list(self._workers), dtype=object)
        columns = {name: workers[rows["worker"]] if name == "worker" else rows[name].copy() for name in _COLUMNS}
        return pd.DataFrame(columns)
