"""Running replicas one after another in this process: data in memory, no cluster."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce

import numpy as np

from daskdml.models import Model
from daskdml.monitor import StopTraining
from daskdml.strategies._plan import Work
from daskdml.strategies._strategy import Agreed, Coming, OnRound, Synchronous
from daskdml.strategies._work import InMemory, evaluate_pieces, nobody_told


class LocalRunner:
    """Runs a strategy's steps as plain calls."""

    def __init__(self, strategy: Synchronous, model: Model, blocks: InMemory):
        self.strategy = strategy
        self.model = model
        self.blocks = blocks
        # Of a runner, and never needed here: nothing is lost but with the process.
        self.on_loss: Callable[[str], None] = nobody_told
        # All is here.
        self.wants_all = False

    def epoch(
        self,
        agreed: Agreed,
        rounds: list[list[Work]],
        active: np.ndarray,
        on_round: OnRound,
        coming: Coming | None = None,
    ) -> tuple[Agreed, bool]:
        """Run the rounds of an epoch; returns what is agreed on after, and whether a callback ended it early."""
        strategy, model = self.strategy, self.model
        for works in rounds:
            sent = strategy.sent(model, agreed)
            partials = [strategy.work(model, sent, work, active, self.blocks) for work in works]
            merged = reduce(lambda a, b: strategy.combine(model, a, b), partials)
            agreed = strategy.agree(model, agreed, merged, active)
            try:
                on_round(agreed.report, partial(_same, agreed))
            except StopTraining:
                return agreed, True
        return agreed, False

    def evaluate(self, agreed: Agreed, works: list[Work]) -> np.ndarray | None:
        """Summed validation statistics."""
        found = [evaluate_pieces(self.model, agreed.state, work, self.blocks) for work in works]
        kept = [f for f in found if f is not None]
        return sum(kept[1:], kept[0]) if kept else None

    def close(self) -> None:
        """Nothing to give back."""


def _same(agreed: Agreed) -> Agreed:
    return agreed
