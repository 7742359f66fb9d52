"""What happened, round by round, as a table."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

from daskdml.monitor._callback import Callback
from daskdml.monitor._events import EpochEnd, EpochsEnd, FitInfo, ReplicaRound, RoundEnd
from daskdml.monitor._replicas import ReplicaTable

COLUMNS: dict[str, str] = {
    "round": "int64",
    "epoch": "int64",
    "loss": "float64",
    "objective": "float64",
    "rows": "int64",
    "seconds": "float64",
    "compute_seconds": "float64",
    "load_seconds": "float64",
    "wait_seconds": "float64",
    "bytes": "int64",
    "blocks_from_recipe": "int64",
    "blocks_from_memory": "int64",
    "blocks_from_disk": "int64",
    "gate_seconds": "float64",
    "sent_bytes": "int64",
    "received_bytes": "int64",
    "staleness_mean": "float64",
    "staleness_max": "int64",
    "staleness_histogram": "object",
    "retries": "int64",
    "reassigned": "int64",
    "recoveries": "int64",
    "blocks_from_device": "int64",
    "gpu_replicas": "int64",
    "largest_share": "float64",
    "validation_score": "float64",
    "learning_rate": "float64",
}
"""The columns of :meth:`History.to_frame`, in order, with their types."""

_OF_ROUND = [f.name for f in fields(RoundEnd)]
_values = operator.attrgetter(*_OF_ROUND)
_NAN = float("nan")


class History(Callback):
    """Keep every round of a fit; :meth:`to_frame` gives them as a table.

    Each estimator keeps one by itself and shows it as ``history_``. A listener that is used for a second fit
    starts anew.

    Parameters
    ----------
    earlier : dict of columns, optional
        What :meth:`to_columns` gave of the part of the fit that another process has run, if this one resumes it.

    Examples
    --------
    >>> from daskdml.monitor import History
    >>> history = History()
    >>> history.to_frame().columns[:3].tolist()
    ['round', 'epoch', 'loss']
    """

    def __init__(self, earlier: Mapping[str, Sequence[Any] | np.ndarray] | None = None) -> None:
        self._told: list[dict[str, Any]] = []
        self._together: list[EpochsEnd] = []
        self._replicas = ReplicaTable()
        self._earlier: list[dict[str, Any]] = []
        if earlier:
            columns = [c.tolist() if isinstance(c, np.ndarray) else c for c in earlier.values()]
            self._earlier = [dict(zip(earlier, values, strict=True)) for values in zip(*columns, strict=True)]

    def on_fit_start(self, info: FitInfo) -> None:
        self._told, self._earlier, self._together = self._earlier, [], []
        self._replicas = ReplicaTable()

    def on_replica_round(self, event: ReplicaRound) -> None:
        self._replicas.add(event)

    def on_round_end(self, event: RoundEnd) -> None:
        row = dict(zip(_OF_ROUND, _values(event), strict=True))
        row["validation_score"] = row["learning_rate"] = _NAN
        self._rows.append(row)

    def on_epoch_end(self, event: EpochEnd) -> None:
        if not self._rows or self._rows[-1]["epoch"] != event.epoch:
            raise RuntimeError(f"epoch {event.epoch} ended without a round; a strategy reports each round it runs")
        for name in ("validation_score", "learning_rate"):
            value = getattr(event, name)
            self._rows[-1][name] = _NAN if value is None else float(value)

    def on_epochs_end(self, event: EpochsEnd) -> None:
        """Keep epochs that were told of together."""
        self._together.append(event)

    @property
    def _rows(self) -> list[dict[str, Any]]:
        # Of small data a line takes as long to write as an epoch to run: that waits until somebody wants to read.
        together, self._together = self._together, []
        begin = 0.0
        for event in together:
            for e in range(len(event.loss)):
                self._told.append(_line(event, e))
                self._replicas.add(_alone(event, e, begin + e * event.seconds))
            begin += event.seconds * len(event.loss)
        return self._told

    def to_frame(self) -> pd.DataFrame:
        """One line a round.

        Returns
        -------
        pandas.DataFrame
            ``round`` and ``epoch`` count from 1; ``loss`` and ``objective`` are means a row; ``seconds`` is the
            round's wall time (of epochs over few rows in memory, many of which run in one go, their mean);
            ``compute_seconds``, ``load_seconds`` and ``wait_seconds`` are summed over replicas; ``bytes`` of data
            were read, in blocks of which ``blocks_from_recipe`` were made from their source, the others came from
            the cache. With a parameter server a round is a clock, and the columns from ``gate_seconds`` to
            ``recoveries`` tell what :class:`RoundEnd` says of them; elsewhere they are 0.
            ``validation_score`` and ``learning_rate`` stand on the last round
            of an epoch and are NaN elsewhere.
        """
        columns = self.to_columns()
        return pd.DataFrame({name: pd.Series(columns[name], dtype=kind) for name, kind in COLUMNS.items()})

    def to_replicas(self) -> pd.DataFrame:
        """One line for each replica and round: who did what, where and when, and what it waited for.

        The last 100,000 lines are kept. Of a fit that was resumed, those of this process.

        Returns
        -------
        pandas.DataFrame
            The columns are the fields of :class:`ReplicaRound`, ``shard_bytes`` left out.
        """
        # Epochs that were told of together are written down first.
        _ = self._rows
        return self._replicas.to_frame()

    @property
    def n_rounds(self) -> int:
        """Rounds so far."""
        return len(self._rows)

    def to_columns(self, rounds: int | None = None) -> dict[str, Any]:
        """The same as plain columns, for a checkpoint: arrays of numbers, lists of what is none.

        Parameters
        ----------
        rounds : int, optional
            Of so many rounds from the first on; by default of all.

        Returns
        -------
        dict of str to ndarray or list
        """
        columns = {name: [row[name] for row in self._rows[:rounds]] for name in COLUMNS}
        return {name: v if COLUMNS[name] == "object" else np.array(v, COLUMNS[name]) for name, v in columns.items()}


def _alone(event: EpochsEnd, e: int, begin: float) -> ReplicaRound:
    """The one replica's part of epoch ``e`` of those told of together."""
    number, seconds = event.first + e, event.seconds
    return ReplicaRound(0, number, number, None, begin, seconds, seconds, 0.0, 0.0, rows=event.rows, bytes=event.bytes)


def _line(event: EpochsEnd, e: int) -> dict[str, Any]:
    """Epoch ``e`` of those told of together."""
    line = dict.fromkeys(COLUMNS, 0) | {name: 0.0 for name, kind in COLUMNS.items() if kind == "float64"}
    return line | {
        "round": event.first + e,
        "epoch": event.first + e,
        "loss": float(event.loss[e]),
        "objective": float(event.objective[e]),
        "rows": event.rows,
        "seconds": event.seconds,
        "compute_seconds": event.seconds,
        "bytes": event.bytes,
        "blocks_from_memory": 1,
        "staleness_histogram": (),
        "validation_score": _NAN,
        "learning_rate": float(event.learning_rate[e]),
    }
