"""The loop of a fit: epochs, stopping, and what the listeners are told."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from daskdml.models import Model
from daskdml.monitor import CallbackList, EpochEnd, FitEnd, FitInfo, RoundEnd, StoppingRule, StopTraining
from daskdml.strategies._plan import Holdout, Piece, Work, mixed_shares, plan_epoch, shares
from daskdml.strategies._strategy import Agreed, Synchronous
from daskdml.strategies._work import Report

# Into how many pieces a block is cut, for rows of all blocks to mix; more gains nothing on data sorted by label.
MIXING = 32
# The bytes of blocks up to which that is done. Whether they are is known after the first epoch, which is the first
# to read them all; so the result does not depend on how much was known, or on how much memory there is.
MIXED_BYTES = 2**28


class Runner(Protocol):
    """Where a strategy's steps are run."""

    def epoch(self, agreed: Agreed, rounds: list[list[Work]], active: np.ndarray, on_round) -> tuple[Agreed, bool]: ...

    def evaluate(self, agreed: Agreed, works: list[Work]) -> np.ndarray | None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Schedule:
    """How long a fit goes on, and in which order it visits rows."""

    n_blocks: int
    n_replicas: int
    max_epochs: int
    seed: int
    shuffle: bool
    rule: StoppingRule
    holdout: Holdout | None = None


@dataclass(frozen=True, eq=False)
class Trained:
    """The result of a fit; ``rows`` were visited, in ``epochs`` passes."""

    agreed: Agreed
    epochs: int
    rows: int
    reason: str


def train(
    strategy: Synchronous,
    model: Model,
    runner: Runner,
    agreed: Agreed,
    schedule: Schedule,
    listeners: CallbackList,
    info: FitInfo,
) -> Trained:
    """Train until the rule stops every problem, the epochs are over, or a listener has enough."""
    started = time.perf_counter()
    rounds = strategy.rounds(schedule.n_blocks, schedule.n_replicas)
    dealt = shares(schedule.n_blocks, schedule.n_replicas, schedule.seed, schedule.shuffle)
    teller = _Teller(listeners, model)
    reason, epoch = "max_iter", 0
    with listeners:
        listeners.on_fit_start(replace(info, rounds_per_epoch=rounds))
        for epoch in range(1, schedule.max_epochs + 1):
            teller.begin(epoch, ~schedule.rule.stopped)
            if epoch == 2 and schedule.shuffle and schedule.n_blocks > 1 and teller.first_bytes <= MIXED_BYTES:
                dealt = mixed_shares(schedule.n_blocks, schedule.n_replicas, MIXING)
            works = plan_epoch(dealt, rounds, epoch, schedule.seed, schedule.shuffle, schedule.holdout)
            agreed, stopped = runner.epoch(agreed, works, teller.active, teller.on_round)
            if not teller.rows and not stopped:
                raise ValueError(
                    "Found array with 0 sample(s) while a minimum of 1 is required: no block has a row to train on"
                )
            if trouble := model.divergence(agreed.state):
                raise ValueError(f"Floating-point under-/overflow occurred at epoch #{epoch}. {trouble}")
            if stopped:
                reason = "stopped"
                break
            agreed = _judge(model, runner, agreed, schedule, dealt, teller)
            if teller.stopped or schedule.rule.stopped.all():
                reason = "stopped" if teller.stopped else "converged"
                break
        listeners.on_fit_end(FitEnd(reason, epoch, teller.all_rows, time.perf_counter() - started))
    return Trained(agreed, epoch, teller.all_rows, reason)


def _judge(
    model: Model, runner: Runner, agreed: Agreed, schedule: Schedule, dealt: list[list[Piece]], teller: _Teller
) -> Agreed:
    """Let the rule see the epoch; an adaptive rate is reduced where it says so."""
    rates = model.learning_rates(agreed.state)
    if schedule.holdout is None:
        values, score = teller.objectives(), None
    else:
        works = [
            Work(r, teller.epoch, tuple(pieces), schedule.seed, False, schedule.holdout)
            for r, pieces in enumerate(dealt)
        ]
        statistics = runner.evaluate(agreed, works)
        if statistics is None:
            raise ValueError(
                "The validation set is empty: increase validation_fraction or the number of samples, "
                "or disable early_stopping."
            )
        values = model.scores(statistics)
        score = float(values.mean())
    rule = schedule.rule
    decision = rule.update(values, schedule.holdout is not None, rates)
    teller.end(score, float(rates[0]))
    if decision.reduce_rate.any():
        agreed = replace(agreed, state=model.reduce_rates(agreed.state, decision.reduce_rate))
    return agreed


class _Teller:
    """Adds reports up and tells the listeners."""

    def __init__(self, listeners: CallbackList, model: Model):
        self.listeners = listeners
        self.model = model
        self.epoch = self.round = self.all_rows = 0
        self.active = np.ones(model.n_problems, dtype=bool)
        # Of the blocks, all of them once; unknown until the first epoch has read them.
        self.first_bytes = float("inf")
        self._bytes = 0
        self.stopped = False
        self.last: dict[str, np.ndarray] = {}

    def begin(self, epoch: int, active: np.ndarray) -> None:
        self.epoch, self.active = epoch, active
        self.rows = 0
        self.loss = np.zeros(self.model.n_problems)
        self.objective = np.zeros(self.model.n_problems)
        self.started = self.since = time.perf_counter()

    def on_round(self, report: Report) -> None:
        now = time.perf_counter()
        totals = report.totals
        assert totals is not None
        self.round += 1
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
            seconds=now - self.since,
            compute_seconds=report.compute_seconds,
            load_seconds=report.load_seconds,
            wait_seconds=report.wait_seconds,
            bytes=report.bytes,
            blocks_from_recipe=report.recipe,
            blocks_from_memory=report.memory,
            blocks_from_disk=report.disk,
        )
        self.since = now
        self.listeners.on_round_end(event)

    def objectives(self) -> np.ndarray:
        """The mean objective of each problem in this epoch."""
        return self.objective / max(self.rows, 1)

    def end(self, score: float | None, rate: float) -> None:
        if self.epoch == 1:
            self.first_bytes = self._bytes
        event = EpochEnd(
            epoch=self.epoch,
            loss=self._mean("loss", self.loss, self.rows),
            objective=self._mean("objective", self.objective, self.rows),
            rows=self.rows,
            seconds=time.perf_counter() - self.started,
            validation_score=score,
            learning_rate=rate,
        )
        try:
            self.listeners.on_epoch_end(event)
        except StopTraining:
            self.stopped = True

    def _mean(self, name: str, sums: np.ndarray, rows: int) -> float:
        """Over rows and problems; one that has stopped counts with what it last had."""
        if not rows:
            return float("nan")
        last = self.last.setdefault(name, np.zeros(len(sums)))
        last[self.active] = sums[self.active] / rows
        return float(last.mean())
