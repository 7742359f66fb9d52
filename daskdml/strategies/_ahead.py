"""Few rows in memory, one replica, nobody to ask after each epoch: many epochs run in one compiled call.

The result is that of :func:`daskdml.strategies.train`, to the last bit; what differs is when listeners hear of it.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from daskdml.data import Block
from daskdml.models import Model
from daskdml.monitor import CallbackList, EpochsEnd, FitEnd, FitInfo, StoppingRule
from daskdml.numerics import Patience
from daskdml.strategies._averaging import Averaging
from daskdml.strategies._strategy import Agreed, Synchronous
from daskdml.strategies._train import Schedule, Trained, require_finite


def runs_ahead(strategy: Synchronous, model: Model, block: Block, schedule: Schedule, listeners: CallbackList) -> bool:
    """Whether epochs of a fit in memory may be run before the last one was told of."""
    return (
        isinstance(strategy, Averaging)
        and strategy.is_plain
        and schedule.holdout is None
        and listeners.only_keep
        and model.epochs_at_once(block.n_rows) > 1
    )


def train_ahead(
    model: Model, block: Block, agreed: Agreed, schedule: Schedule, listeners: CallbackList, info: FitInfo
) -> Trained:
    """Train one replica on a block until the rule stops every problem or the epochs are over."""
    started = time.perf_counter()
    state, rule = model.copy(agreed.state), schedule.rule
    at_once, seed = model.epochs_at_once(block.n_rows), schedule.seed if schedule.shuffle else None
    last = np.zeros((2, model.n_problems))
    reason, epoch = "max_iter", 0
    with listeners:
        listeners.on_fit_start(replace(info, rounds_per_epoch=1))
        while epoch < schedule.max_epochs:
            active, begun = ~rule.stopped, time.perf_counter()
            limit = min(at_once, schedule.max_epochs - epoch)
            totals, rates = model.train_epochs(state, block, seed, epoch + 1, active, _patience(rule), limit)
            seconds = (time.perf_counter() - begun) / len(totals)
            # A problem that has stopped counts with what it last had.
            means = np.where(active, totals / block.n_rows, last)
            last, (losses, objectives) = means[-1], means.mean(axis=2).T
            first, epoch = epoch + 1, epoch + len(totals)
            require_finite(model.divergence(state), epoch)
            listeners.on_epochs_end(
                EpochsEnd(first, losses, objectives, rates[:, 0], block.n_rows, seconds, block.nbytes)
            )
            decision = rule.update(last[1], False, rates[-1])
            if decision.reduce_rate.any():
                state = model.reduce_rates(state, decision.reduce_rate)
            if rule.stopped.all():
                reason = "converged"
                break
        rows = epoch * block.n_rows
        listeners.on_fit_end(FitEnd(reason, epoch, rows, time.perf_counter() - started))
    return Trained(Agreed(state), epoch, rows, reason)


def _patience(rule: StoppingRule) -> Patience:
    """What is left of the rule's patience: a compiled epoch that decides nothing is noted in its own arrays."""
    if rule.best is None:
        rule.best = np.full(rule.n_problems, np.inf)
    return Patience(rule.best, rule.stalled, -np.inf if rule.tol is None else rule.tol, rule.n_iter_no_change)
