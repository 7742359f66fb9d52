"""The protocol in which a strategy and a model meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from daskdml.numerics import BatchOrder, Patience, Sample, Surface


class Rows(Protocol):
    """The rows a model learns from: a block of the data room, or anything shaped like it."""

    @property
    def X(self) -> Any:
        """C-contiguous ndarray or CSR matrix (n_rows, n_features)."""

    @property
    def y(self) -> Any:
        """Real targets or class codes (n_rows,), in X's dtype."""

    @property
    def sample_weight(self) -> Any:
        """Weights (n_rows,), or None for ones."""


@dataclass(frozen=True)
class Totals:
    """What training on some rows adds up to: ``loss`` and ``objective`` have one entry a problem."""

    rows: int
    loss: np.ndarray
    objective: np.ndarray

    def __add__(self, other: Totals) -> Totals:
        return Totals(self.rows + other.rows, self.loss + other.loss, self.objective + other.objective)


class Model(Protocol):
    """What is trained. Frozen settings; all that changes is in a ``state`` it makes.

    A state is a tuple of arrays (a NamedTuple), so it travels, copies and checkpoints without knowing the model.
    ``active`` is a boolean array with one entry for each problem the model trains side by side; the stopped
    ones are left as they are. ``order`` holds the row numbers of a block to visit, in order, or says how to find them.
    """

    @property
    def n_problems(self) -> int:
        """How many problems are trained side by side, each judged and stopped by itself."""

    @property
    def maxima(self) -> frozenset[str]:
        """The arrays of a state on whose largest value replicas agree, not on a mean."""

    @property
    def on_device(self) -> bool:
        """Whether rows are brought to a GPU where the process that trains has one."""

    def device_bytes(self, sparse: bool) -> int:
        """Memory of a GPU that training takes beside the rows, which are sparse or not, about."""

    def sums_bytes(self, curved: bool) -> int:
        """Memory of a GPU that :meth:`add_sums` takes beside that, about; ``curved`` with second derivatives."""

    def init(self) -> Any:
        """A fresh state."""

    def settled(self, state: Any) -> Any:
        """``state`` in the form in which it may be shown, averaged and added to; itself where it is so already."""

    def copy(self, state: Any) -> Any:
        """A deep copy of ``state``."""

    @property
    def batched(self) -> bool:
        """Whether :meth:`train` steps once for several rows: it is then given a ``BatchOrder``, where all rows are."""

    def train(self, state: Any, block: Rows, order: np.ndarray | BatchOrder, active: np.ndarray) -> Totals:
        """Learn from rows one after another, or batch after batch, changing ``state`` in place."""

    def train_epochs(
        self, state: Any, block: Rows, seed: int | None, first: int, active: np.ndarray, patience: Patience, limit: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Up to ``limit`` passes over all rows of a block, in the orders of ``seed``.

        They end early where a problem's patience does. The last one is not noted in ``patience``. Returns the sums of
        loss and objective of each pass, (n_passes, 2, n_problems), and the learning rates after it.
        """

    def epochs_at_once(self, n_rows: int) -> int:
        """How many passes over so many rows nobody minds waiting for."""

    def zero_gradient(self, state: Any) -> Any:
        """The gradient of no rows."""

    def add_gradient(
        self, state: Any, block: Rows, order: np.ndarray | BatchOrder, active: np.ndarray, out: Any
    ) -> None:
        """Add the gradient of rows to ``out``; ``state`` is only read."""

    def sum_gradients(self, a: Any, b: Any) -> Any:
        """The gradient of the union of two batches."""

    @property
    def sloped(self) -> frozenset[str]:
        """The arrays of a state that have a gradient."""

    def slopes(self, state: Any, gradient: Any) -> dict[str, np.ndarray]:
        """For the optimizer of a server: the mean gradient of a batch with that of the penalty, by array of the state.

        Other arrays that it names, as a count of rows, are to be added. Raises ValueError for settings whose step is
        more than a gradient.
        """

    def zero_sums(self, state: Any, curved: bool, scaled: bool) -> Any:
        """The sums of no rows: of value and gradient; also second derivatives, or their size by parameter, if wanted.

        Raises ValueError for settings that have no such gradient everywhere, or no second derivatives of a size that
        can be kept.
        """

    def add_sums(
        self,
        state: Any,
        block: Rows,
        order: np.ndarray | BatchOrder,
        active: np.ndarray,
        out: Any,
        sample: Sample | None = None,
    ) -> None:
        """Add rows to ``out``; ``state`` is only read. Two of them add up by :meth:`sum_gradients`.

        Second derivatives are those of the rows of ``sample``, if there is one.
        """

    def sample(self, shares: np.ndarray | None, rows: float, number: int) -> Sample:
        """Of what rows second derivatives are made in pass ``number``: about so many for each feature.

        By the ``shares`` of the pass before, or None.
        """

    def shares(self, sums: Any, rows: np.ndarray) -> np.ndarray:
        """What one pass says of the next one's sample, by problem, as are the ``rows`` for each feature."""

    def surface(self, state: Any, sums: Any) -> Surface:
        """The objective around ``state``, from the sums of all rows."""

    def sum_losses(self, sums: Any) -> tuple[int, np.ndarray]:
        """How many rows there are in sums, and the losses of each problem, without weights, added up."""

    @property
    def n_curved(self) -> int:
        """How many parameters a problem has: the root of what its second derivatives take."""

    def flat(self, state: Any) -> np.ndarray:
        """The parameters of each problem in a row of float64."""

    def unflat(self, values: Any, state: Any) -> Any:
        """``state`` with the parameters for which :meth:`flat` gives ``values``, rows of an array or of a list."""

    def counted(self, state: Any, rows: int) -> Any:
        """``state``, so many more rows having been visited."""

    def lassos(self, state: Any) -> np.ndarray:
        """The weight of the absolute value of each parameter of a problem in its objective."""

    def batch_totals(self, state: Any, gradient: Any) -> Totals:
        """What a batch's gradient says of its rows' losses."""

    def step(self, state: Any, gradient: Any, active: np.ndarray) -> Totals:
        """One step along a gradient, changing ``state`` in place."""

    def mean(self, a: Any, b: Any, part: float, precision: tuple[Any, Any] | None = None) -> Any:
        """A new state, ``a`` moved to ``b`` by ``part`` (by coordinate, in the ratio of ``precision``)."""

    def precision(self, state: Any, start: Any) -> Any:
        """How much was learnt about each coordinate since ``start``; None where the model does not know."""

    def outer_step(self, old: Any, new: Any, velocity: Any, rate: float, momentum: float) -> tuple[Any, Any]:
        """Move ``old`` along ``new - old`` with momentum; returns the state and the velocity."""

    def evaluate(self, state: Any, block: Rows, order: np.ndarray) -> np.ndarray:
        """Sufficient statistics of the validation scores on rows; they add up over blocks."""

    def scores(self, statistics: np.ndarray) -> np.ndarray:
        """The score of each problem, higher being better, from summed statistics."""

    def learning_rates(self, state: Any) -> np.ndarray:
        """The present rate of each problem."""

    def reduce_rates(self, state: Any, chosen: np.ndarray) -> Any:
        """A new state, the rates of the chosen problems divided by 5."""

    def divergence(self, state: Any) -> str | None:
        """Why ``state`` is unusable, or None."""
