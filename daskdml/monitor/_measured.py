"""What the rounds of a fit took, divided into what more workers would share and the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_BUSY = ["compute_seconds", "wait_seconds"]


@dataclass(frozen=True, eq=False)
class Measured:
    """The rounds of one fit.

    ``seconds`` is the time of each round, ``work`` how much of it a replica trained or waited for what others trained:
    with more workers each has less of that. ``rounds`` of them make an epoch, in which ``rows`` are visited by
    ``workers`` at a time.
    """

    workers: int
    rows: float
    rounds: float
    seconds: npt.NDArray[np.float64]
    work: npt.NDArray[np.float64]
    strategy: str

    @classmethod
    def of(cls, clf: Any) -> Measured:
        """What a fitted estimator has kept.

        The first epoch is left out where there are others: it reads what later ones find in caches, and compiles.

        Raises
        ------
        TypeError, ValueError
            For what is not fitted, or was not trained for a single round.
        """
        history = getattr(clf, "history_", None)
        if history is None:
            raise TypeError(f"{clf!r} has no history_; fit it first, or pass fitted daskdml estimators")
        if len(history) == 0:
            raise ValueError("the history is empty: nothing was trained, so nothing was measured")
        replicas = int(clf.n_replicas_)
        busy = history[_BUSY].sum(axis=1) / replicas
        rounds = history.assign(work=busy)
        parts = getattr(clf, "replicas_", None)
        if parts is not None and len(parts):
            rounds["work"] = rounds["round"].map(_critical(parts)).fillna(busy)
        if rounds["epoch"].nunique() > 1:
            rounds = rounds[rounds["epoch"] > rounds["epoch"].min()]
        by_epoch = rounds.groupby("epoch")
        seconds = rounds["seconds"].to_numpy(dtype=float)
        return cls(
            _at_a_time(clf, replicas),
            float(by_epoch["rows"].sum().mean()),
            float(by_epoch.size().mean()),
            seconds,
            rounds["work"].to_numpy(dtype=float),
            type(getattr(clf, "strategy_", None)).__name__,
        )

    def epoch(self, chosen: npt.NDArray[np.int64] | slice = slice(None)) -> tuple[float, float]:
        """Seconds of an epoch like the ``chosen`` rounds, and how much of it is work."""
        seconds, work = self.rounds * self.seconds[chosen].mean(), self.rounds * self.work[chosen].mean()
        # Of rounds that overlap, as on a parameter server, one lasts longer than it takes until the next is over.
        return float(seconds), float(min(work, seconds))

    def draw(self, generator: np.random.Generator) -> tuple[float, float]:
        """The same of as many rounds, drawn with replacement."""
        return self.epoch(generator.integers(len(self.seconds), size=len(self.seconds)))


def _critical(parts: Any) -> Any:
    """How long training took in each round, by round.

    In rounds of tasks that is what the slowest replica took. On a parameter server replicas are in different rounds at
    the same time: it is what they trained and waited for each other, on the mean.
    """
    busy = parts[_BUSY].sum(axis=1)
    if parts["sent_bytes"].sum():
        return (busy + parts["gate_seconds"]).groupby(parts["round"]).mean()
    return busy.groupby(parts["round"]).max()


def _at_a_time(clf: Any, replicas: int) -> int:
    """How many replicas could train at the same time."""
    threads = getattr(clf, "provenance_", {}).get("cluster", {}).get("threads")
    return replicas if threads is None else max(1, min(replicas, int(threads)))
