"""Deterministic descent: every step is made of all rows."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np

from daskdml.models import Model, Totals
from daskdml.numerics import Descent, Gradient, Plan, Surface, begun, moved, trial
from daskdml.strategies._averaging import Averaging
from daskdml.strategies._plan import Piece, Work
from daskdml.strategies._strategy import Agreed, Partial, Synchronous, require_count
from daskdml.strategies._work import Blocks, InMemory, Report, sum_pieces

# Parameters of a problem up to which "auto" makes second derivatives. At this size those of HESSIAN_ROWS rows for each
# take about as long as a pass over half a million rows, and a tenth of the passes are wanted.
NEWTON_UP_TO = 256
# Rows for each feature that second derivatives are made of, by default. With a quarter there are more passes on real
# data; with four times as many there are as many as with all rows.
HESSIAN_ROWS = 256
# A step that promises less than this part of the objective is one of the last, which want to be more exact: from one to
# the next there are so many times as many rows, for the passes to become ever better ones.
LAST, GROWTH = 1e-4, 4.0
# Passes of L-BFGS after which curvature is looked at anew: where it begins, and when much of it has changed.
LOOKS = (1, 8, 24)
# What L-BFGS remembers, by default.
HISTORY_BYTES = 2**28


class FullBatch(Synchronous):
    """Full-batch descent, by Newton's method or L-BFGS: deterministic, and exact to many digits.

    A pass over the data is one evaluation of the objective and its gradient (and for Newton's method its second
    derivatives, of some rows) at one point: every replica adds up its rows, the sums meet in a tree, and the next point
    is decided on from them, with a line search. What a fit returns is the best point that was evaluated; ``history_``
    has its loss.
    The fit ends where the gradient is flat (``gtol``), where a step changes nothing that can be measured, or by the
    estimator's ``tol`` and ``max_iter``, which count passes.

    The learning rate and its parameters, and ``shuffle``, belong to the passes of ``warm_up`` alone. It needs a loss
    without kinks: not "hinge", "perceptron" or "epsilon_insensitive".

    With ``device="cuda"`` or "auto" rows on a GPU are added up there, and the passes of ``warm_up`` go in batches. This
    has been run in a simulator of GPUs only, not on a card.

    Parameters
    ----------
    n_replicas : int, optional
        How many replicas add up rows; by default one for each thread of the cluster, and one for data in memory
        without a cluster. Of the same chunks the result is the same up to the rounding of sums.
    solver : {"auto", "newton", "lbfgs"}, default "auto"
        "newton" makes the second derivatives of all pairs of parameters ([1]_): some five to ten passes to full
        precision. "lbfgs" remembers the last steps instead ([2]_), and takes an l1 penalty too, by orthants (OWL-QN,
        [3]_). With up to 1024 columns and without l1 it begins with second derivatives of the mean output, which halves
        its passes. "auto" is "newton" up to 256 parameters of a problem without an l1 penalty, else "lbfgs".
    warm_up : int, default 0
        Passes of parameter averaging before the first step: SGD comes near fast, this comes close fast ([4]_).
    history : int, optional
        Steps that "lbfgs" remembers, each of two vectors of float64 of a problem's parameters, in this process alone.
        The more, the fewer passes; by default as many as 256 MB hold, but from 10 to 100.
    hessian_rows : int, optional
        "newton": of about how many rows for each feature its second derivatives are made, by default 256. They are
        those that add the most to them, each counting for as many as it stands for ([5]_), and ever more as the descent
        ends. All rows are taken where these are more than half of them.
    gtol : float, default 1e-5
        The fit has converged where no component of the gradient of the mean loss and its penalty is larger.

    References
    ----------
    .. [1] Nocedal, Wright, "Numerical Optimization", 2nd edition 2006, chapters 3 and 7.
    .. [2] Liu, Nocedal, "On the limited memory BFGS method for large scale optimization", 1989.
    .. [3] Andrew, Gao, "Scalable training of L1-regularized log-linear models", ICML 2007.
    .. [4] Agarwal, Chapelle, Dudik, Langford, "A reliable effective terascale linear learning system", JMLR 2014.
    .. [5] Xu, Yang, Roosta-Khorasani, Re, Mahoney, "Sub-sampled Newton Methods with Non-uniform Sampling", NIPS 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from daskdml import FullBatch
    >>> from daskdml.linear_model import SGDRegressor
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> reg = SGDRegressor(penalty=None, strategy=FullBatch()).fit(X, [1.0, 3.0, 5.0, 7.0])
    >>> reg.coef_.round(6), reg.intercept_.round(6), reg.n_iter_
    (array([2.]), array([1.]), 2)
    """

    name = "full_batch"
    agrees_here = True
    goes_on = False

    def __init__(
        self,
        n_replicas: int | None = None,
        *,
        solver: str = "auto",
        warm_up: int = 0,
        history: int | None = None,
        hessian_rows: int | None = None,
        gtol: float = 1e-5,
    ):
        self.n_replicas = n_replicas
        self.solver = solver
        self.warm_up = warm_up
        self.history = history
        self.hessian_rows = hessian_rows
        self.gtol = gtol

    def facts(self) -> list[tuple[str, str]]:
        return [*super().facts(), ("step", "of all rows, with a line search")]

    def check(self, model: Model) -> None:
        super().check(model)
        if self.solver not in ("auto", "newton", "lbfgs"):
            raise ValueError(f"FullBatch: solver must be 'auto', 'newton' or 'lbfgs', got {self.solver!r}")
        if not isinstance(self.warm_up, Integral) or isinstance(self.warm_up, bool) or self.warm_up < 0:
            raise ValueError(f"FullBatch: warm_up must be an integer of at least 0, got {self.warm_up!r}")
        if self.history is not None:
            require_count(self, "history")
        if self.hessian_rows is not None:
            require_count(self, "hessian_rows")
        if not isinstance(self.gtol, Real) or not self.gtol >= 0:
            raise ValueError(f"FullBatch: gtol must be at least 0, got {self.gtol!r}")
        state = model.init()
        model.zero_sums(state, self._curved(model, state), False)

    @property
    def shuffles(self) -> bool:
        return self.warm_up > 0

    def sums_bytes(self, model: Model) -> int:
        return model.sums_bytes(self._curved(model, model.init()))

    def rounds(self, n_blocks: int, n_replicas: int) -> int:
        return 1

    def sent(self, model: Model, agreed: Agreed) -> Agreed:
        # What a descent remembers is many times the parameters, and nobody needs it to add up rows.
        if agreed.memory is None:
            return agreed
        return Agreed(model.unflat(agreed.memory["trials"], agreed.state), {"shares": agreed.memory["shares"]})

    def work(
        self,
        model: Model,
        agreed: Agreed,
        work: Work,
        active: np.ndarray,
        blocks: Blocks | InMemory,
        before: Partial | None = None,
    ) -> Partial:
        if work.epoch <= self.warm_up:
            return _SGD.work(model, agreed, work, active, blocks, before)
        curved = self._curved(model, agreed.state)
        sums = self._zero_sums(model, agreed.state, curved, work.epoch - self.warm_up)
        shares = None if agreed.memory is None else agreed.memory["shares"]
        sample = model.sample(shares, self._hessian_rows, work.epoch) if curved else None
        report = sum_pieces(model, agreed.state, sums, _in_order(work), active, blocks, sample)
        if before is None:
            return Partial(sums, report)
        return Partial(model.sum_gradients(before.value, sums), before.report + report)

    def _zero_sums(self, model: Model, state: Any, curved: bool, number: int) -> Gradient:
        sums = model.zero_sums(state, curved, not curved and number in LOOKS)
        # The sizes of columns alone do not change.
        return sums if len(sums.gram) or number == 1 else model.zero_sums(state, curved, False)

    def combine(self, model: Model, a: Partial, b: Partial) -> Partial:
        if not isinstance(a.value, Gradient):
            return _SGD.combine(model, a, b)
        return Partial(model.sum_gradients(a.value, b.value), a.report + b.report)

    def agree(self, model: Model, agreed: Agreed, partial: Partial, active: np.ndarray) -> Agreed:
        if not isinstance(partial.value, Gradient):
            return _SGD.agree(model, agreed, partial, active)
        rows, losses = model.sum_losses(partial.value)
        if not rows:
            return replace(agreed, report=partial.report + Report(Totals(0, losses, losses)))
        at = self.sent(model, agreed).state
        found, points, lasso = model.surface(at, partial.value), model.flat(at), model.lassos(at)
        if agreed.memory is None:
            _require_finite(found)
        plan = Plan(self._curved(model, at), self._remembered(model), float(self.gtol), _noise(at))
        descents: list[dict[str, Any]] = []
        if agreed.memory is None:
            descents = [_begun(found, k, point, lasso, plan) for k, point in enumerate(points)]
        else:
            known = agreed.memory["descents"]
            for k, before in enumerate(known):
                descents.append(_moved(before, found, k, points[k], lasso, plan) if active[k] else before)
            # What is told of is the best point of each problem, like the parameters.
            kept = [before["value"] is now["value"] for before, now in zip(known, descents, strict=True)]
            losses = np.where(kept, agreed.memory["losses"], losses)
        grown = np.ones(len(points)) if agreed.memory is None else agreed.memory["grown"]
        grown = np.where([_is_last(d) for d in descents], np.minimum(grown * GROWTH, 1e9), grown)
        memory = {
            "descents": descents,
            "trials": [trial(Descent(**d), lasso) for d in descents],
            "shares": model.shares(partial.value, self._hessian_rows * grown) if plan.newton else np.zeros(0),
            "grown": grown,
            "losses": losses,
        }
        state = model.unflat([d["point"] for d in descents], agreed.state)
        objectives = rows * np.array([float(d["value"][0]) for d in descents])
        report = partial.report + Report(Totals(rows, losses, objectives))
        return Agreed(model.counted(state, rows), memory, report)

    def is_done(self, agreed: Agreed) -> bool:
        return agreed.memory is not None and all(Descent(**d).is_over for d in agreed.memory["descents"])

    @property
    def _hessian_rows(self) -> int:
        return self.hessian_rows or HESSIAN_ROWS

    def _remembered(self, model: Model) -> int:
        if self.history is not None:
            return int(self.history)
        return int(np.clip(HISTORY_BYTES // (16 * model.n_curved * model.n_problems), 10, 100))

    def _curved(self, model: Model, state: Any) -> bool:
        if self.solver == "auto":
            return model.n_curved <= NEWTON_UP_TO and not model.lassos(state).any()
        return self.solver == "newton"


_SGD = Averaging()


def _begun(found: Surface, k: int, point: np.ndarray, lasso: np.ndarray, plan: Plan) -> dict[str, Any]:
    """The descent of problem ``k``, as a checkpoint can hold it, from ``point``."""
    scale = found.bound if len(found.bound) else found.diagonal[k] if len(found.diagonal) else None
    return begun(point, *_here(found, k), scale, lasso, plan)._asdict()


def _moved(
    before: dict[str, Any], found: Surface, k: int, point: np.ndarray, lasso: np.ndarray, plan: Plan
) -> dict[str, Any]:
    """It, after its trial at ``point``."""
    before = before | {"scale": found.bound} if len(found.bound) else before
    return moved(Descent(**before), point, *_here(found, k), lasso, plan)._asdict()


def _here(found: Surface, k: int) -> tuple[float, np.ndarray, np.ndarray | None]:
    return float(found.values[k]), found.slopes[k], found.hessians[k] if len(found.hessians) else None


def _is_last(descent: dict[str, Any]) -> bool:
    """Whether the coming step promises so little that it is one of the last."""
    promised = -0.5 * float(descent["slope"] @ descent["step"])
    return promised < LAST * abs(float(descent["value"][0]))


def _require_finite(found: Surface) -> None:
    """Raise where a descent cannot begin."""
    if not (np.isfinite(found.values).all() and np.isfinite(found.slopes).all()):
        raise ValueError(
            "Floating-point under-/overflow occurred at the point where the descent begins. Scaling input data with "
            "StandardScaler or MinMaxScaler might help; so does float64 in place of float32."
        )


def _in_order(work: Work) -> Work:
    """The same rows as they stand, in as few pieces as there can be: that is the fastest order to read them in."""
    merged: list[Piece] = []
    for piece in sorted(work.pieces, key=lambda piece: (piece.block, piece.start)):
        if merged and merged[-1].block == piece.block and merged[-1].stop == piece.start:
            piece = replace(merged.pop(), stop=piece.stop)
        merged.append(piece)
    return replace(work, pieces=tuple(merged), shuffle=False)


def _noise(state: Any) -> float:
    """To how much of itself the mean loss of many rows is known, whose scores are made in the parameters' dtype."""
    return float(np.finfo(state.coef.dtype).eps) * 1e-2
