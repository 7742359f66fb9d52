"""The loop of a fit: epochs, stopping, and what the listeners are told."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from daskdml.models import Model
from daskdml.monitor import CallbackList, FitEnd, FitInfo, StoppingRule
from daskdml.strategies._checkpoint import Checkpoint, already_further, of_other_rows
from daskdml.strategies._plan import Holdout, Piece, Work, mixed_shares, plan_epoch, shares
from daskdml.strategies._strategy import Agreed, Coming, OnRound, Synchronous
from daskdml.strategies._teller import Teller
from daskdml.strategies._work import Report

logger = logging.getLogger("daskdml")

# Pieces into which a block is cut at most, for rows of all blocks to mix; more gains nothing on data sorted by label.
MIXING = 32
# The bytes of blocks up to which that is done. Whether they are is known after the first epoch, which is the first
# to read them all; so the result does not depend on how much was known, or on how much memory there is.
MIXED_BYTES = 2**28
# Nor is it done where every replica has many blocks, dealt to it at random, and all of them for each replica would be
# more than this many.
MIXED_VISITS = 2**16


class Runner(Protocol):
    """Where a strategy's steps are run; ``on_loss`` is to be called with what was lost and begun again.

    ``wants_all`` says whether all of what each epoch ends with is wanted, as by checkpoints, or as a rule the last.
    """

    on_loss: Callable[[str], None]
    wants_all: bool

    def epoch(
        self,
        agreed: Agreed,
        rounds: list[list[Work]],
        active: np.ndarray,
        on_round: OnRound,
        coming: Coming | None = None,
    ) -> tuple[Agreed, bool]: ...

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
    model_bytes: int = 0

    def mixing(self, nbytes: float) -> int:
        """Into how many pieces each block is cut, of which the first epoch has read so many bytes; 0: rows do not mix.

        A piece is no smaller than the parameters: what it costs beside its rows, as the norm of the weights, is theirs.
        """
        if not self.shuffle or self.n_blocks == 1 or nbytes > MIXED_BYTES:
            return 0
        if self.n_blocks * self.n_replicas > MIXED_VISITS and self.n_blocks >= MIXING * self.n_replicas:
            return 0
        return int(np.clip(nbytes / self.n_blocks / max(1, self.model_bytes), 1, MIXING))


@dataclass(frozen=True, eq=False)
class Trained:
    """The result of a fit; ``rows`` were visited, in ``epochs`` passes."""

    agreed: Agreed
    epochs: int
    rows: int
    reason: str
    trace: Any = None


def train(
    strategy: Synchronous,
    model: Model,
    runner: Runner,
    agreed: Agreed,
    schedule: Schedule,
    listeners: CallbackList,
    info: FitInfo,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Train until the rule stops every problem, the epochs are over, or a listener has enough.

    With a ``checkpoint``, how far the fit has come is saved there from time to time, and at its end; a fit that was
    found there goes on in the round after, and gives the bits it would have given.
    """
    started = time.perf_counter()
    rounds = strategy.rounds(schedule.n_blocks, schedule.n_replicas)
    shuffle = schedule.shuffle and strategy.shuffles
    dealt = shares(schedule.n_blocks, schedule.n_replicas, schedule.seed, shuffle)
    mixing = 0
    teller = Teller(listeners, model)
    keeper = _Keeper(checkpoint, schedule, teller, rounds)
    runner.on_loss = teller.on_recovery
    runner.wants_all = checkpoint is not None
    agreed = keeper.restored(agreed)
    epoch, last = teller.epochs, teller.epochs if schedule.rule.stopped.all() else schedule.max_epochs
    reason = "converged" if schedule.rule.stopped.all() else "max_iter"
    with listeners:
        listeners.on_fit_start(
            replace(info, rounds_per_epoch=rounds, epochs_done=teller.epochs, rows_done=teller.all_rows)
        )
        planned = _Planned(last)
        for epoch in range(teller.epochs + 1, last + 1):
            teller.begin(epoch, ~schedule.rule.stopped, ahead=planned.knows(epoch))
            if shuffle and not mixing and epoch > 1:
                mixing = schedule.mixing(teller.first_bytes)
                dealt = mixed_shares(schedule.n_blocks, schedule.n_replicas, mixing) if mixing else dealt
            plan = partial(plan_epoch, dealt, rounds, seed=schedule.seed, shuffle=shuffle)
            works = planned.take(epoch) or plan(epoch=epoch, holdout=schedule.holdout)[teller.done :]
            # How rows mix is decided after the first epoch; and validation is not to wait for another one.
            ahead = 1 < epoch < last and schedule.holdout is None and not strategy.agrees_here
            coming = planned.after(epoch, plan) if ahead else None
            agreed, stopped = (
                runner.epoch(agreed, works, teller.active, keeper.on_round, coming) if works else (agreed, False)
            )
            if not teller.rows and not stopped:
                raise ValueError(
                    "Found array with 0 sample(s) while a minimum of 1 is required: no block has a row to train on"
                )
            look = agreed.look(model)
            require_finite(look.trouble, epoch)
            if stopped:
                reason = "stopped"
                break
            keeper.check_rows()
            agreed = _judge(model, runner, agreed, look.rates, schedule, dealt, teller)
            if teller.stopped or schedule.rule.stopped.all() or strategy.is_done(agreed):
                reason = "stopped" if teller.stopped else "converged"
                break
            if epoch < last:
                keeper.on_epoch(agreed)
        agreed = agreed.whole()
        keeper.on_end(agreed, reason)
        listeners.on_fit_end(FitEnd(reason, epoch, teller.all_rows, time.perf_counter() - started))
    return Trained(agreed, epoch, teller.all_rows, reason)


def require_finite(trouble: str | None, epoch: int) -> None:
    """Raise where an epoch has left parameters that are not numbers, as ``model.divergence`` tells of them."""
    if trouble:
        raise ValueError(f"Floating-point under-/overflow occurred at epoch #{epoch}. {trouble}")


def _judge(
    model: Model,
    runner: Runner,
    agreed: Agreed,
    rates: np.ndarray,
    schedule: Schedule,
    dealt: list[list[Piece]],
    teller: Teller,
) -> Agreed:
    """Let the rule see the epoch; an adaptive rate is reduced where it says so."""
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
        agreed = replace(agreed.whole(), state=model.reduce_rates(agreed.state, decision.reduce_rate))
    return agreed


class _Planned:
    """The rounds of epochs that may be sent before their turn; of each there is one list, by which it is known."""

    def __init__(self, last: int):
        self._last = last
        self._rounds: dict[int, list[list[Work]]] = {}

    def knows(self, epoch: int) -> bool:
        """Whether the epoch can have been sent."""
        return epoch in self._rounds

    def take(self, epoch: int) -> list[list[Work]] | None:
        """The rounds of the epoch whose turn it is."""
        return self._rounds.pop(epoch, None)

    def after(self, epoch: int, plan: Callable[..., list[list[Work]]]) -> Coming:
        """The rounds of those after it."""

        def coming(ahead: int) -> list[list[Work]] | None:
            number = epoch + ahead
            if number > self._last:
                return None
            if number not in self._rounds:
                self._rounds[number] = plan(epoch=number)
            return self._rounds[number]

        return coming


class _Keeper:
    """Saves how far a fit has come where that is wanted and due, and brings one back to where it was."""

    def __init__(self, checkpoint: Checkpoint | None, schedule: Schedule, teller: Teller, rounds: int):
        self.checkpoint = checkpoint
        self.schedule = schedule
        self.teller = teller
        self.rounds = rounds
        self._expected: int | None = None

    def restored(self, agreed: Agreed) -> Agreed:
        """What was agreed on when the fit was saved; ``agreed`` itself where a fit begins."""
        if self.checkpoint is None or self.checkpoint.progress is None:
            return agreed
        found = self.checkpoint.progress
        self.teller.restore(found["teller"])
        self._expected = self.teller.epoch_rows
        self.schedule.rule.restore(found["rule"])
        reached = self.teller.epochs + (self.teller.done > 0)
        if reached > self.schedule.max_epochs:
            raise already_further(self.checkpoint, reached, self.schedule.max_epochs)
        logger.info("the fit goes on after %d epochs and %d rounds", self.teller.epochs, self.teller.done)
        return Agreed(type(agreed.state)(**found["state"]), found["memory"])

    def check_rows(self) -> None:
        """Raise where an epoch had not as many rows as those before the fit was resumed.

        Lengths may be unknown until the data have been read: then it is here that other data are noticed.
        """
        if self.checkpoint is not None and self._expected not in (None, self.teller.rows):
            raise of_other_rows(self.checkpoint, self._expected, self.teller.rows)

    def on_round(self, report: Report, fetch: Callable[[], Agreed]) -> None:
        """Tell of a round, then save what was agreed on in it, if that is due."""
        if self.checkpoint is not None:
            self.checkpoint.tick()
        self.teller.on_replicas(report)
        self.teller.on_round(report)
        # After its last round an epoch is saved once it has been judged.
        if self.checkpoint is not None and self.checkpoint.due and self.teller.done < self.rounds:
            self._save(fetch())

    def on_epoch(self, agreed: Agreed) -> None:
        """The end of an epoch that is not the last."""
        if self.checkpoint is not None and self.checkpoint.due:
            self._save(agreed)
        elif self.checkpoint is not None:
            self.checkpoint.keep(self._progress(agreed))

    def on_end(self, agreed: Agreed, reason: str) -> None:
        """The end of the fit; one that a listener stopped is not finished."""
        if self.checkpoint is not None and not self.checkpoint.fresh:
            self._save(agreed, None if reason == "stopped" else reason)

    def _save(self, agreed: Agreed, finished: str | None = None) -> None:
        assert self.checkpoint is not None
        self.checkpoint.save(self._progress(agreed), finished)

    def _progress(self, agreed: Agreed) -> dict[str, Any]:
        return {
            "state": agreed.state._asdict(),
            "memory": agreed.memory,
            "rule": self.schedule.rule.progress(),
            "teller": self.teller.progress(),
        }
