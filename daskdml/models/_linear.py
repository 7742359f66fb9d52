"""Linear models: K score functions ``w_k . x + b_k`` over the same rows."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from daskdml.models._model import Rows, Totals
from daskdml.numerics import (
    ADAGRAD,
    BINARY,
    GRAM_COLUMNS,
    KINKED,
    L2,
    NO_PENALTY,
    NORMALIZED,
    ONE_VERSUS_ALL,
    PA1,
    PA2,
    REGRESSION,
    SOFTMAX,
    BatchOrder,
    DeviceBlock,
    Gradient,
    Kernel,
    Patience,
    Sample,
    Settings,
    State,
    Surface,
    add_gradients,
    apply_gradient,
    as_rows,
    copy_state,
    flat,
    gradient_rows,
    gradient_settings,
    init_state,
    is_many,
    is_plain,
    lassos,
    narrowed,
    parameters,
    penalties,
    sample_for,
    scalar_rate,
    settle,
    shares_for,
    sum_matrix,
    sum_sparse,
    surface_of,
    train_batches,
    train_epochs,
    train_rows,
    train_rows_adaptive,
    train_rows_many,
    train_rows_plain,
    unflat,
    unlocked,
    zero_gradient,
    zero_sums,
)

# What scikit-learn divides an adaptive rate by.
RATE_DIVISOR = 5.0
# The arrays of a state with an entry for each problem.
_BY_PROBLEM = set(State._fields) - {"clock", "scale"}
# Entries of X, and what a row costs beside its own, that are visited in one call before anyone is asked: about 20 ms.
AT_ONCE = 20_000_000
ROW_COST = 20
# Blocks of a grid, notes of each of them (of losses by row of a tile, twice, of penalties by thread), rows of a
# gradient: what the kernels of a GPU have at most.
GRID, NOTES, GRADIENT_ROWS = 1056, 2 * 128 + 256, 2**18
# Columns of a square whose products a block of the grid makes.
SQUARE = 64
# Of second derivatives, on each worker.
CURVED_BYTES = 2**30
_NO_WEIGHTS = {np.dtype(t): np.empty(0, dtype=t) for t in (np.float32, np.float64)}


@dataclass(frozen=True, eq=False)
class LinearModel:
    """Regression, binary classification, one-versus-all or softmax, as ``settings.mode`` says.

    Attributes
    ----------
    settings : Settings
    n_outputs, n_features : int
        K and d. A softmax is one problem with K outputs; otherwise each output is a problem of its own.
    dtype : dtype
        Of the coefficients: X's.
    positive_weight, negative_weight : ndarray of shape (K,)
        Class weights of the rows of a problem's own class, and of the rest; a softmax uses the first only.
    threads : int
        Among which one-versus-all problems are divided; the result is the same.
    batch : int
        Rows of a step; with 1 the kernels visit row after row.
    device : str
        "cpu", or "auto" or "cuda": rows that lie on a GPU are trained on there.
    """

    settings: Settings
    n_outputs: int
    n_features: int
    dtype: np.dtype
    positive_weight: np.ndarray
    negative_weight: np.ndarray
    threads: int = 1
    batch: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", narrowed(self.settings))

    @property
    def n_problems(self) -> int:
        """How many problems are judged, and stopped, by themselves."""
        return 1 if self.settings.mode == SOFTMAX else self.n_outputs

    @property
    def adaptive(self) -> bool:
        """Whether each coordinate has a learning rate of its own."""
        return self.settings.schedule in (ADAGRAD, NORMALIZED)

    @property
    def maxima(self) -> frozenset[str]:
        return frozenset({"scale"})

    def init(self) -> State:
        return init_state(self.n_outputs, self.n_features, self.dtype, self.settings)

    def settled(self, state: State) -> State:
        return settle(state)

    def copy(self, state: State) -> State:
        return copy_state(state)

    @property
    def on_device(self) -> bool:
        # The scales of features, and the rules for single rows, are not among the GPU's kernels.
        return self.device != "cpu" and self.settings.schedule not in (NORMALIZED, PA1, PA2)

    def device_bytes(self, sparse: bool) -> int:
        # Parameters with what the optimizer remembers; sums of a batch, of dense rows in each block of the grid, of
        # which a card runs up to a thousand; scores and slopes of a batch, and the order of the rows.
        parameters = sum(array.nbytes for array in self.init())
        sums = 8 * self.n_outputs * ((2 if sparse else GRID) * self.n_features + GRID * NOTES)
        return 2 * parameters + sums + 16 * max(self.batch, GRADIENT_ROWS) * (self.n_outputs + 1)

    def sums_bytes(self, curved: bool) -> int:
        # Curvatures of rows; then products of columns in squares, of as many slices of the rows as keep the grid at
        # work, and their sums; and the same of columns with themselves.
        outputs, columns = self.n_outputs, -(-(self.n_features + 1) // SQUARE)
        each = columns * (columns + 1) // 2
        pairs = outputs * (outputs + 1) // 2 if self.settings.mode == SOFTMAX else outputs
        squares = pairs * each if curved else each if self.n_features < GRAM_COLUMNS else 0
        numbers = GRADIENT_ROWS * (outputs + 1) + 3 * outputs * (self.n_features + 2)
        numbers += SQUARE**2 * (max(GRID, squares) + squares) if squares else 0
        return 8 * (numbers + SQUARE * (GRID + 2 * outputs * columns))

    @property
    def batched(self) -> bool:
        return self.batch > 1

    def train(self, state: State, block: Rows, order: np.ndarray | BatchOrder, active: np.ndarray) -> Totals:
        if isinstance(block, DeviceBlock):
            sides, on = self._class_weights(), self._on(active)
            found = block.card.train(block, order, state, self.settings, sides, on, self.batch)
            return self._totals(len(order), found)
        order, totals = np.asarray(order), np.zeros((2, self.n_outputs))
        kernel, settings = self._kernel(), self.settings
        positive, negative, on = self.positive_weight, self.negative_weight, self._on(active)
        if self.threads == 1 or settings.mode != ONE_VERSUS_ALL or self.n_outputs == 1 or self._shares_scales:
            kernel(*self._rows(block), order, state, settings, positive, negative, on, totals)
            return self._totals(len(order), totals)

        def part(chosen: slice) -> State:
            own = State(
                *(
                    a[chosen] if len(a) == self.n_outputs and n in _BY_PROBLEM else a.copy()
                    for n, a in state._asdict().items()
                )
            )
            own_settings = settings._replace(first_class=settings.first_class + chosen.start)
            kernel(
                *self._rows(block),
                order,
                own,
                own_settings,
                positive[chosen],
                negative[chosen],
                on[chosen],
                totals[:, chosen],
            )
            return own

        edges = np.linspace(0, self.n_outputs, min(self.threads, self.n_outputs) + 1).astype(int)
        with ThreadPoolExecutor(len(edges) - 1) as pool:
            parts = list(pool.map(part, (slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True))))
        state.clock[...] = parts[0].clock
        return self._totals(len(order), totals)

    def train_epochs(
        self,
        state: State,
        block: Rows,
        seed: int | None,
        first: int,
        active: np.ndarray,
        patience: Patience,
        limit: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        totals, n_rows, began = np.zeros((limit, 2, self.n_outputs)), len(block.y), float(state.clock[0])
        given = (state, self.settings, *self._class_weights(), self._on(active))
        numbered = -1 if seed is None else seed
        done = train_epochs(self._rows_kernel(), self._rows(block), numbered, first, given, patience, totals)
        clocks = began + n_rows * np.arange(1, done + 1)
        rates = scalar_rate(self.settings, clocks[:, None], state.eta[: self.n_problems])
        return totals[:done, :, : self.n_problems], rates

    def epochs_at_once(self, n_rows: int) -> int:
        if self.batch > 1 or (self.threads > 1 and self.settings.mode == ONE_VERSUS_ALL):
            return 1
        return max(1, AT_ONCE // max(1, n_rows * self.n_outputs * (self.n_features + ROW_COST)))

    def _kernel(self) -> Callable[..., None]:
        return self._rows_kernel() if self.batch == 1 else partial(train_batches, self.batch)

    def _rows_kernel(self) -> Kernel:
        if self.adaptive:
            return train_rows_adaptive
        if is_many(self.settings, self.n_outputs):
            return train_rows_many
        return train_rows_plain if is_plain(self.settings, self.n_outputs) else train_rows

    @property
    def _shares_scales(self) -> bool:
        # The scales of features belong to all problems together.
        return self.settings.schedule == NORMALIZED

    def zero_gradient(self, state: State) -> Gradient:
        if self.settings.schedule in (PA1, PA2):
            raise ValueError(
                "learning_rate 'pa1' and 'pa2' are rules for single rows and cannot step along a batch: "
                "use strategy='averaging', or another learning_rate"
            )
        return zero_gradient(state, self.settings)

    def add_gradient(
        self, state: State, block: Rows, order: np.ndarray | BatchOrder, active: np.ndarray, out: Gradient
    ) -> None:
        if isinstance(block, DeviceBlock):
            sums, losses = block.card.gradient(
                block, order, state, self.settings, self._class_weights(), self._on(active)
            )
            out.coef[...] += sums[:, :-1]
            out.intercept[...] += sums[:, -1]
            out.totals[0] += losses
            out.rows[0] += len(order)
            return
        settings, rows = gradient_settings(self.settings), self._rows(block)
        gradient_rows(*rows, np.asarray(order), state, settings, *self._class_weights(), self._on(active), out)

    def sum_gradients(self, a: Gradient, b: Gradient) -> Gradient:
        return add_gradients(a, b)

    def zero_sums(self, state: State, curved: bool, scaled: bool) -> Gradient:
        if self.settings.loss in KINKED and self.settings.mode != SOFTMAX:
            raise ValueError(
                "a loss with kinks, as 'hinge', 'perceptron' and 'epsilon_insensitive', has no gradient there to "
                "descend along: use 'squared_hinge', 'modified_huber', 'log_loss', 'huber' or a squared one, or "
                "strategy='averaging'"
            )
        if curved:
            if lassos(state, self.settings).any():
                raise ValueError("Newton's method takes no l1 penalty: use solver='lbfgs', or penalty 'l2' or None")
            problems, own = parameters(self.settings, self.n_outputs, self.n_features)
            if (nbytes := 8 * problems * own**2) > CURVED_BYTES:
                raise ValueError(
                    f"the second derivatives of {own:,} parameters would take {nbytes / 1e9:.1f} GB on each worker: "
                    "use solver='lbfgs'"
                )
        return zero_sums(state, self.settings, curved, scaled)

    def add_sums(
        self,
        state: State,
        block: Rows,
        order: np.ndarray | BatchOrder,
        active: np.ndarray,
        out: Gradient,
        sample: Sample | None = None,
    ) -> None:
        sides = self._class_weights()
        if isinstance(block, DeviceBlock):
            block.card.add_sums(block, order, state, self.settings, sides, self._on(active), out, sample)
            return
        _, y, weight = self._rows(block)
        settings = gradient_settings(self.settings)
        given = (block.X, y, weight, np.asarray(order), state, settings, *sides, self._on(active), out)
        if isinstance(block.X, np.ndarray) or len(out.hessian) or len(out.gram):
            sum_matrix(*given, sample)
        else:
            sum_sparse(*given)

    def sample(self, shares: np.ndarray | None, rows: float, number: int) -> Sample:
        return sample_for(rows, shares, number)

    def shares(self, sums: Gradient, rows: np.ndarray) -> np.ndarray:
        diagonals = np.diagonal(sums.hessian, axis1=1, axis2=2)
        return shares_for(diagonals, self.settings, self.n_features, float(sums.rows[0]), rows)

    def surface(self, state: State, sums: Gradient) -> Surface:
        return surface_of(state, self.settings, sums)

    def sum_losses(self, sums: Gradient) -> tuple[int, np.ndarray]:
        return int(sums.rows[0]), sums.totals[0, : self.n_problems]

    @property
    def n_curved(self) -> int:
        return parameters(self.settings, self.n_outputs, self.n_features)[1]

    def flat(self, state: State) -> np.ndarray:
        return flat(state, self.settings)

    def unflat(self, values: Any, state: State) -> State:
        return unflat(values, state, self.settings)

    def counted(self, state: State, rows: int) -> State:
        return state._replace(clock=state.clock + np.array([float(rows), 0.0]))

    def lassos(self, state: State) -> np.ndarray:
        return lassos(state, self.settings)

    @property
    def sloped(self) -> frozenset[str]:
        return frozenset({"coef", "intercept"})

    def slopes(self, state: State, gradient: Gradient) -> dict[str, np.ndarray]:
        s = self.settings
        if self.adaptive or s.schedule in (PA1, PA2) or s.average or s.penalty not in (L2, NO_PENALTY):
            raise ValueError(
                "an optimizer on the parameter server takes plain gradients: use learning_rate 'constant', 'optimal', "
                "'invscaling' or 'adaptive' (the optimizer has its own), average=False, and penalty 'l2' or None; "
                "for l1 give the optimizer FTRLProximal(l1=...)"
            )
        rows = max(float(gradient.rows[0]), 1.0)
        coef = gradient.coef / rows
        if s.penalty == L2:
            coef += s.alpha * state.coef
        intercept = gradient.intercept / rows * (s.intercept_decay if s.fit_intercept else 0.0)
        clock = np.array([float(gradient.rows[0]), 0.0])
        return {"coef": coef.astype(self.dtype), "intercept": intercept, "clock": clock}

    def batch_totals(self, state: State, gradient: Gradient) -> Totals:
        totals, rows = gradient.totals.copy(), gradient.rows[0]
        penalty = penalties(state.coef, self.settings)
        totals[1] = totals[0]
        totals[1] += rows * (penalty.sum() if self.settings.mode == SOFTMAX else penalty)
        return self._totals(int(rows), totals)

    def step(self, state: State, gradient: Gradient, active: np.ndarray) -> Totals:
        totals = gradient.totals.copy()
        apply_gradient(state, self.settings, gradient._replace(totals=totals), self._on(active))
        return self._totals(int(gradient.rows[0]), totals)

    def mean(self, a: State, b: State, part: float, precision: tuple[np.ndarray, np.ndarray] | None = None) -> State:
        a, b = settle(a), settle(b)
        # a + (b - a) part, not a weighted sum: the mean of equal states is that state to the last bit.
        merged = {
            name: getattr(a, name) + (getattr(b, name) - getattr(a, name)) * getattr(a, name).dtype.type(part)
            for name in State._fields
        }
        merged["scale"] = np.maximum(a.scale, b.scale)
        if precision is not None:
            total = precision[0] + precision[1]
            share = np.divide(precision[1], total, out=np.full(total.shape, part), where=total > 0)
            merged["coef"] = a.coef + (b.coef - a.coef) * share.astype(a.coef.dtype)
        return State(**merged)

    def precision(self, state: State, start: State) -> np.ndarray | None:
        return (state.squares - start.squares).astype(np.float64) if self.adaptive else None

    def outer_step(
        self, old: State, new: State, velocity: tuple[np.ndarray, np.ndarray] | None, rate: float, momentum: float
    ) -> tuple[State, tuple[np.ndarray, np.ndarray]]:
        delta = (new.coef - old.coef, new.intercept - old.intercept)
        if velocity is not None:
            delta = tuple(momentum * v + step for v, step in zip(velocity, delta, strict=True))
        if rate == 1.0 and momentum == 0.0:
            return new, delta
        coef = (old.coef + rate * delta[0]).astype(old.coef.dtype)
        return new._replace(coef=coef, intercept=old.intercept + rate * delta[1]), delta

    def decision(self, state: State, X: np.ndarray) -> np.ndarray:
        """Scores of shape (n_rows, K)."""
        return np.asarray(X @ state.coef.T) + state.intercept

    def evaluate(self, state: State, block: Rows, order: np.ndarray) -> np.ndarray:
        if isinstance(block, DeviceBlock):
            scores = block.card.scores(block, order, state.coef, state.intercept)
            y, weight = block.card.targets(block, order)
        else:
            scores, y = self.decision(state, block.X[order]), block.y[order]
            weight = np.ones(len(order)) if block.sample_weight is None else block.sample_weight[order].astype(float)
        if self.settings.mode == REGRESSION:
            residual = y - scores[:, 0]
            y = y.astype(float)
            return np.array([[weight.sum(), weight @ y, weight @ y**2, weight @ residual**2]])
        if self.settings.mode == SOFTMAX:
            hit = scores.argmax(axis=1)[:, None] == y[:, None]
        else:
            mine = y[:, None] > 0 if self.settings.mode == BINARY else y[:, None] == np.arange(self.n_outputs)
            hit = (scores > 0) == mine
        return np.stack([np.full(hit.shape[1], weight.sum()), weight @ hit], axis=1)

    def scores(self, statistics: np.ndarray) -> np.ndarray:
        if self.settings.mode != REGRESSION:
            return statistics[:, 1] / statistics[:, 0]
        weight, first, second, error = statistics.T
        spread = second - first**2 / weight
        return np.where(spread > 0, 1.0 - error / np.where(spread > 0, spread, 1.0), np.where(error > 0, 0.0, 1.0))

    def learning_rates(self, state: State) -> np.ndarray:
        return scalar_rate(self.settings, state.clock[0], state.eta[: self.n_problems])

    def reduce_rates(self, state: State, chosen: np.ndarray) -> State:
        return state._replace(eta=state.eta / np.where(self._on(chosen), RATE_DIVISOR, 1.0))

    def divergence(self, state: State) -> str | None:
        if np.isfinite(state.coef).all() and np.isfinite(state.intercept).all():
            return None
        remedy = "Scaling input data with StandardScaler or MinMaxScaler might help; so does "
        if self.adaptive:
            return remedy + "a smaller coordinate_eta0."
        return remedy + "learning_rate='normalized', or a smaller eta0."

    def _on(self, active: np.ndarray) -> np.ndarray:
        return active if len(active) == self.n_outputs else np.repeat(active, self.n_outputs)

    def _totals(self, rows: int, totals: np.ndarray) -> Totals:
        # A softmax keeps its sums in the first column.
        return Totals(rows, *totals[:, : self.n_problems])

    def _rows(self, block: Rows) -> tuple:
        weight = _NO_WEIGHTS[block.X.dtype] if block.sample_weight is None else block.sample_weight
        return as_rows(block.X), unlocked(block.y), unlocked(weight)

    def _class_weights(self) -> tuple[np.ndarray, np.ndarray]:
        return self.positive_weight, self.negative_weight


def problems_of(mode: int, n_classes: int) -> int:
    """How many score functions a mode trains for so many classes."""
    return n_classes if mode in (ONE_VERSUS_ALL, SOFTMAX) else 1
