"""What a fit tells its listeners: reports added up by round and by epoch."""

from __future__ import annotations

import time
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np

from daskdml.models import Model
from daskdml.monitor import CallbackList, EpochEnd, Recovery, ReplicaRound, RoundEnd, ServerStart, StopTraining
from daskdml.strategies._parts import WorkerClocks, as_event, merged
from daskdml.strategies._work import Report

# What a teller adds up over rounds.
_SUMS = (
    "epochs",
    "done",
    "round",
    "rows",
    "all_rows",
    "epoch_rows",
    "loss",
    "objective",
    "first_bytes",
    "_bytes",
    "last",
)


class Teller:
    """Adds reports up and tells the listeners."""

    def __init__(self, listeners: CallbackList, model: Model):
        self.listeners = listeners
        self.model = model
        self.epoch = self.round = self.all_rows = self.rows = 0
        # Epochs that are over, and rounds of the one after that.
        self.epochs = self.done = 0
        # Of the last epoch that is over.
        self.epoch_rows: int | None = None
        self.loss = self.objective = np.zeros(model.n_problems)
        self.active = np.ones(model.n_problems, dtype=bool)
        # Of the blocks, all of them once; unknown until the first epoch has read them.
        self.first_bytes = float("inf")
        self._bytes = 0
        self.stopped = False
        # When the fit and the epoch began, by the clock that other processes can be compared with.
        self.began = self.asked = self._begun = time.time()
        self._clocks = WorkerClocks()
        self._wish: StopTraining | None = None
        self.last: dict[str, np.ndarray] = {}

    def begin(self, epoch: int, active: np.ndarray, ahead: bool = False) -> None:
        """An epoch begins, of which some may be done: ``ahead`` where it can have been sent during the one before."""
        self.epoch, self.active = epoch, active
        if not self.done:
            self.rows = 0
            self.loss = np.zeros(self.model.n_problems)
            self.objective = np.zeros(self.model.n_problems)
        self.started = self.since = time.perf_counter()
        # Of rounds of this epoch that are told of, and whether they are told of as they are over.
        self._seconds, self._late = 0.0, False
        before, self._begun = self._begun, time.time()
        self.asked = before if ahead else self._begun

    def on_replicas(self, report: Report) -> None:
        """What each replica did in the round of which :meth:`on_round` will tell."""
        lanes: dict[int, list[ReplicaRound]] = {}
        asked = self.asked if report.late is None else report.late.asked
        for part in self._clocks.moved(report.parts, asked):
            lanes.setdefault(part.replica, []).append(part)
        parts = [merged(lanes[replica]) for replica in sorted(lanes)]
        last = max((part.begin + part.seconds for part in parts), default=0.0)
        for part in parts:
            # Those of one process work one after another, and wait for nobody.
            gate = 0.0 if part.worker is None else last - part.begin - part.seconds
            together = replace(part, gate_seconds=gate, communicate_seconds=report.agree_seconds)
            self._on_replica(together, self.round + 1)

    def on_clock(self, number: int, parts: list[ReplicaRound]) -> None:
        """What a replica did in a clock, told before the clock is over for all."""
        self._on_replica(merged(self._clocks.moved(parts, self.began)), number)

    def on_server(self, shards: Iterable[int]) -> None:
        """A parameter server holds the model, in shards of so many bytes."""
        try:
            self.listeners.on_server_start(ServerStart(tuple(shards)))
        except StopTraining as wish:
            self._wish = wish

    def on_recovery(self, what: str) -> None:
        """Something was lost and replaced."""
        try:
            self.listeners.on_recovery(Recovery(time.time() - self.began, what))
        except StopTraining as wish:
            self._wish = wish

    def _on_replica(self, part: ReplicaRound, number: int) -> None:
        try:
            self.listeners.on_replica_round(as_event(part, number, self.began))
        except StopTraining as wish:
            # The round is told of first.
            self._wish = wish

    def on_round(self, report: Report) -> None:
        now = time.perf_counter()
        seconds = now - self.since if report.late is None else report.late.seconds
        totals = report.totals
        assert totals is not None
        self._seconds += seconds
        self._late = report.late is not None
        self.round += 1
        self.done += 1
        self.rows += totals.rows
        self.all_rows += totals.rows
        self._bytes += report.bytes
        self.loss += totals.loss
        self.objective += totals.objective
        event = RoundEnd(
            epoch=self.epoch,
            round=self.round,
            loss=self._mean("loss", totals.loss, totals.rows),
            objective=self._mean("objective", totals.objective, totals.rows),
            rows=totals.rows,
            seconds=seconds,
            compute_seconds=report.compute_seconds,
            load_seconds=report.load_seconds,
            wait_seconds=report.wait_seconds,
            bytes=report.bytes,
            blocks_from_recipe=report.recipe,
            blocks_from_memory=report.memory,
            blocks_from_disk=report.disk,
            gate_seconds=report.gate_seconds,
            sent_bytes=report.sent_bytes,
            received_bytes=report.received_bytes,
            staleness_mean=float(np.mean(report.staleness)) if report.staleness else 0.0,
            staleness_max=max(report.staleness, default=0),
            staleness_histogram=tuple(np.bincount(report.staleness).tolist()) if report.staleness else (),
            retries=report.retries,
            reassigned=report.reassigned,
            recoveries=report.recoveries,
            blocks_from_device=report.device,
            gpu_replicas=len({part.replica for part in report.parts if part.gpu}),
            largest_share=max((part.share for part in report.parts), default=0.0),
        )
        self.since = now
        self.listeners.on_round_end(event)
        if self._wish is not None:
            raise self._wish

    def objectives(self) -> np.ndarray:
        """The mean objective of each problem in this epoch."""
        return self.objective / max(self.rows, 1)

    def end(self, score: float | None, rate: float) -> None:
        if self.epoch == 1:
            self.first_bytes = self._bytes
        self.epochs, self.done, self.epoch_rows = self.epoch, 0, self.rows
        event = EpochEnd(
            epoch=self.epoch,
            loss=self._mean("loss", self.loss, self.rows),
            objective=self._mean("objective", self.objective, self.rows),
            rows=self.rows,
            seconds=self._seconds if self._late else time.perf_counter() - self.started,
            validation_score=score,
            learning_rate=rate,
        )
        try:
            self.listeners.on_epoch_end(event)
        except StopTraining:
            self.stopped = True

    def progress(self) -> dict[str, Any]:
        """All that is needed to go on telling."""
        return deepcopy({name: getattr(self, name) for name in _SUMS})

    def restore(self, progress: dict[str, Any]) -> None:
        """Go on from what :meth:`progress` gave."""
        for name in _SUMS:
            setattr(self, name, progress[name])

    def _mean(self, name: str, sums: np.ndarray, rows: int) -> float:
        """Over rows and problems; one that has stopped counts with what it last had."""
        if not rows:
            return float("nan")
        last = self.last.get(name)
        if last is None:
            last = self.last[name] = np.zeros(len(sums))
        if len(sums) == 1 and self.active[0]:
            # Plain numbers: with few rows an epoch takes no longer than what is told of it.
            last[0] = mean = float(sums[0]) / rows
            return mean
        np.divide(sums, rows, out=last, where=self.active)
        return float(np.add.reduce(last) / len(last))
