"""The protocol of a synchronous strategy, and how users name one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import numpy as np

from daskdml.models import Model
from daskdml.strategies._parameters import Parameters
from daskdml.strategies._plan import Work
from daskdml.strategies._work import Blocks, InMemory, Report


@dataclass(frozen=True, eq=False)
class Look:
    """What the driver wants to know of parameters: learning rates by problem, and what is wrong with them, if any."""

    rates: np.ndarray
    trouble: str | None


@dataclass(frozen=True, eq=False)
class Agreed:
    """What all replicas know after a round: the state, what the strategy remembers, and what the round did."""

    state: Any
    memory: Any = None
    report: Report = Report()

    def look(self, model: Model) -> Look:
        """What there is to know of the state without having it."""
        return Look(model.learning_rates(self.state), model.divergence(self.state))

    def whole(self) -> Agreed:
        """The same, all of it here."""
        return self


class Away(Agreed):
    """What was agreed on and is still on the cluster: it comes when somebody wants more than a look at it."""

    _look: Look
    _fetch: Callable[[], Agreed]

    def __init__(self, report: Report, look: Look, fetch: Callable[[], Agreed]):
        object.__setattr__(self, "report", report)
        object.__setattr__(self, "_look", look)
        object.__setattr__(self, "_fetch", fetch)

    # Of a frozen class; the fields are there once they are wanted.
    @property
    def state(self) -> Any:
        return self.whole().state

    @property
    def memory(self) -> Any:
        return self.whole().memory

    def look(self, model: Model) -> Look:
        return self._look

    def whole(self) -> Agreed:
        if "_whole" not in self.__dict__:
            found = self._fetch()
            object.__setattr__(self, "_whole", Agreed(found.state, found.memory, self.report))
        return self.__dict__["_whole"]


@dataclass(frozen=True, eq=False)
class Partial:
    """What some replicas bring to the end of a round; the strategy says what ``value`` is."""

    value: Any
    report: Report


# What a runner tells after a round: its report, and how to fetch what was agreed on, which may be on the cluster.
OnRound = Callable[[Report, Callable[[], Agreed]], None]
# The rounds of the epoch so many after the present one, unless something else is decided; None after the last.
Coming = Callable[[int], "list[list[Work]] | None"]


class Synchronous(Parameters):
    """A strategy in rounds: each replica works by itself, what they bring is combined, and all agree again.

    The three steps are pure functions: they return new objects and leave their arguments alone, because Dask may run a
    task twice. ``combine`` is applied in a fixed tree, so a result does not depend on the order of arrival.
    """

    name: str
    n_replicas: int | None
    # Whether ``agree`` is run by the driver: where it remembers much more than what replicas need.
    agrees_here: ClassVar[bool] = False
    # Whether a fit may go on with other rows.
    goes_on: ClassVar[bool] = True

    @property
    def shuffles(self) -> bool:
        """Whether the order in which rows are visited means anything to it."""
        return True

    @abstractmethod
    def rounds(self, n_blocks: int, n_replicas: int) -> int:
        """Rounds in an epoch."""

    @abstractmethod
    def work(
        self,
        model: Model,
        agreed: Agreed,
        work: Work,
        active: np.ndarray,
        blocks: Blocks | InMemory,
        before: Partial | None = None,
    ) -> Partial:
        """What one replica does; ``before`` is what it brought from earlier blocks of the same round."""

    @abstractmethod
    def combine(self, model: Model, a: Partial, b: Partial) -> Partial:
        """The contributions of two groups of replicas as one."""

    @abstractmethod
    def agree(self, model: Model, agreed: Agreed, partial: Partial, active: np.ndarray) -> Agreed:
        """What all replicas know after the round."""

    def sent(self, model: Model, agreed: Agreed) -> Agreed:
        """What replicas need of what was agreed on."""
        return agreed

    def is_done(self, agreed: Agreed) -> bool:
        """Whether the strategy itself has nothing to improve any more."""
        return False

    def sums_bytes(self, model: Model) -> int:
        """Memory of a GPU that it takes beside what training takes, about."""
        return 0

    def facts(self) -> list[tuple[str, str]]:
        """What it promises, by name: shown in notebooks."""
        return [
            ("replicas", spoken_replicas(self.n_replicas)),
            ("waiting", "all replicas wait for each other at the end of each round"),
            ("result", "the same bits for the same data, seed and number of replicas, whoever trains and dies"),
        ]

    def check(self, model: Model) -> None:
        """Raise ValueError for a model or parameters this strategy cannot train."""
        self.check_replicas()

    def check_replicas(self) -> None:
        """Raise ValueError for a number of replicas that is none: it is needed before there is a model."""
        if self.n_replicas is not None:
            require_count(self, "n_replicas")


def spoken_replicas(count: int | None) -> str:
    """A number of replicas in words."""
    return "one for each thread of the cluster" if count is None else f"{count:,}"


def require_count(strategy: Parameters, parameter: str) -> None:
    """Raise ValueError where a parameter is not a positive integer."""
    value = getattr(strategy, parameter)
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{type(strategy).__name__}: {parameter} must be an integer of at least 1, got {value!r}")
