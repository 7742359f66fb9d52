"""Parameter averaging: replicas train by themselves and meet at the mean."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from daskdml.models import Model
from daskdml.strategies._plan import Work
from daskdml.strategies._strategy import Agreed, Partial, Synchronous, require_count
from daskdml.strategies._work import Blocks, InMemory, train_pieces


@dataclass(frozen=True, eq=False)
class _Mean:
    """A weighted mean of states: its total weight, and the total precision where coordinates have one."""

    state: Any
    weight: float
    precision: Any = None


class Averaging(Synchronous):
    """Parameter averaging, also called local SGD.

    Every replica starts a round from the same parameters and runs plain SGD over its part; the mean of the
    results, weighted by rows, is where all go on from. One replica is plain SGD exactly.

    Parameters
    ----------
    n_replicas : int, optional
        How many replicas train; by default one for each thread of the cluster, and one for data in memory
        without a cluster.
    rounds_per_epoch : int, default 1
        How often replicas meet in a pass over the data.
    weighting : {"rows", "adaptive"}, default "rows"
        "adaptive" weighs each coordinate of a replica by the squared gradients it has met this round, so a
        rare feature keeps what the one replica that saw it has learnt ([2]_, equation 1). It needs a learning
        rate that counts them: "adagrad" or "normalized".
    outer_lr : float, default 1.0
        Step from the old parameters to the mean; 1 is the mean itself.
    outer_momentum : float, default 0.0
        Momentum of that step, in [0, 1) ([3]_; block momentum).

    References
    ----------
    .. [1] Stich, "Local SGD converges fast and communicates little", ICLR 2019.
    .. [2] Agarwal, Chapelle, Dudik, Langford, "A reliable effective terascale linear learning system", JMLR 2014.
    .. [3] Douillard et al., "DiLoCo: distributed low-communication training of language models", 2023.

    Examples
    --------
    >>> from daskdml import Averaging
    >>> Averaging(n_replicas=4, rounds_per_epoch=2)
    Averaging(n_replicas=4, rounds_per_epoch=2)
    """

    name = "averaging"

    def __init__(
        self,
        n_replicas: int | None = None,
        *,
        rounds_per_epoch: int = 1,
        weighting: str = "rows",
        outer_lr: float = 1.0,
        outer_momentum: float = 0.0,
    ):
        self.n_replicas = n_replicas
        self.rounds_per_epoch = rounds_per_epoch
        self.weighting = weighting
        self.outer_lr = outer_lr
        self.outer_momentum = outer_momentum

    def check(self, model: Model) -> None:
        super().check(model)
        require_count(self, "rounds_per_epoch")
        if self.weighting not in ("rows", "adaptive"):
            raise ValueError(f"Averaging: weighting must be 'rows' or 'adaptive', got {self.weighting!r}")
        if not isinstance(self.outer_lr, Real) or not self.outer_lr > 0:
            raise ValueError(f"Averaging: outer_lr must be above 0, got {self.outer_lr!r}")
        if not isinstance(self.outer_momentum, Real) or not 0 <= self.outer_momentum < 1:
            raise ValueError(f"Averaging: outer_momentum must be in [0, 1), got {self.outer_momentum!r}")
        if self.weighting == "adaptive":
            fresh = model.init()
            if model.precision(fresh, fresh) is None:
                raise ValueError(
                    "Averaging: weighting='adaptive' needs squared gradients of each coordinate; "
                    "use learning_rate='adagrad' or 'normalized', or weighting='rows'"
                )

    @property
    def is_plain(self) -> bool:
        """Whether one replica is plain SGD, nothing being done between epochs."""
        return self.rounds_per_epoch == 1 and self.outer_lr == 1.0 and self.outer_momentum == 0.0

    def rounds(self, n_blocks: int, n_replicas: int) -> int:
        return self.rounds_per_epoch

    def work(
        self,
        model: Model,
        agreed: Agreed,
        work: Work,
        active: np.ndarray,
        blocks: Blocks | InMemory,
        before: Partial | None = None,
    ) -> Partial:
        state = model.copy(agreed.state if before is None else before.value.state)
        report = train_pieces(model, state, work, active, blocks)
        assert report.totals is not None
        weight = float(report.totals.rows)
        if before is not None:
            weight, report = weight + before.value.weight, before.report + report
        precision = model.precision(state, agreed.state) if self.weighting == "adaptive" else None
        return Partial(_Mean(state, weight, precision), report)

    def combine(self, model: Model, a: Partial, b: Partial) -> Partial:
        first, second = a.value, b.value
        weight = first.weight + second.weight
        # A replica without rows has learnt nothing: it does not pull the mean back to the start.
        part = second.weight / weight if weight else 0.0
        precision = None if first.precision is None else (first.precision, second.precision)
        merged = model.mean(first.state, second.state, part, precision)
        total = None if precision is None else precision[0] + precision[1]
        return Partial(_Mean(merged, weight, total), a.report + b.report)

    def agree(self, model: Model, agreed: Agreed, partial: Partial, active: np.ndarray) -> Agreed:
        state, velocity = model.outer_step(
            agreed.state, partial.value.state, agreed.memory, self.outer_lr, self.outer_momentum
        )
        return Agreed(state, velocity if self.outer_momentum else None, partial.report)
