"""Bulk synchronous parallel: one step a round, along the gradient of all replicas' rows together."""

from __future__ import annotations

import numpy as np

from daskdml.models import Model
from daskdml.strategies._plan import Work
from daskdml.strategies._strategy import Agreed, Partial, Synchronous, require_count
from daskdml.strategies._work import Blocks, InMemory, Report, add_pieces

_LEAST_ROUNDS = 32


class BSP(Synchronous):
    """Bulk synchronous parallel training, as in Spark: the serial minibatch algorithm, computed together.

    In a round every replica reads the identical parameters and adds up the gradient of its part of the batch; the sum
    makes one step. The result is that of one process taking the same batches, whatever the number of replicas
    up to the rounding of sums, and bit for bit the same for the same number.

    Parameters
    ----------
    n_replicas : int, optional
        How many replicas add up gradients; by default one for each thread of the cluster, and one for data in
        memory without a cluster.
    rounds_per_epoch : int, optional
        Steps in a pass over the data: a batch is this fraction of the rows (Spark's ``miniBatchFraction``, its
        inverse). By default one for each block of a replica, but at least 32.

    References
    ----------
    .. [1] Valiant, "A bridging model for parallel computation", CACM 1990.
    .. [2] Dekel, Gilad-Bachrach, Shamir, Xiao, "Optimal distributed online prediction using mini-batches", JMLR 2012.

    Examples
    --------
    >>> from daskdml import BSP
    >>> BSP(rounds_per_epoch=100)
    BSP(rounds_per_epoch=100)
    """

    name = "bsp"

    def __init__(self, n_replicas: int | None = None, *, rounds_per_epoch: int | None = None):
        self.n_replicas = n_replicas
        self.rounds_per_epoch = rounds_per_epoch

    def check(self, model: Model) -> None:
        super().check(model)
        if self.rounds_per_epoch is not None:
            require_count(self, "rounds_per_epoch")
        model.zero_gradient(model.init())

    def rounds(self, n_blocks: int, n_replicas: int) -> int:
        # A round that takes part of a block reads all of it: with many blocks, whole ones are taken.
        return self.rounds_per_epoch or max(_LEAST_ROUNDS, -(-n_blocks // n_replicas))

    def work(
        self,
        model: Model,
        agreed: Agreed,
        work: Work,
        active: np.ndarray,
        blocks: Blocks | InMemory,
        before: Partial | None = None,
    ) -> Partial:
        gradient = model.zero_gradient(agreed.state)
        report = add_pieces(model, agreed.state, gradient, work, active, blocks)
        if before is None:
            return Partial(gradient, report)
        return Partial(model.sum_gradients(before.value, gradient), before.report + report)

    def combine(self, model: Model, a: Partial, b: Partial) -> Partial:
        return Partial(model.sum_gradients(a.value, b.value), a.report + b.report)

    def agree(self, model: Model, agreed: Agreed, partial: Partial, active: np.ndarray) -> Agreed:
        state = model.copy(agreed.state)
        totals = model.step(state, partial.value, active)
        return Agreed(state, None, partial.report + Report(totals))
