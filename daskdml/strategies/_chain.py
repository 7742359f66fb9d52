"""Many rounds in one task of each replica, where rounds are short: replicas hand each other what they bring.

Between two rounds that are tasks of their own lie half a dozen messages and 20 ms of the processors' time, scheduler,
driver and workers together: as much as two replicas need for a million rows in memory. Here the worker of each replica
hands what it brings straight to the workers of the others (:mod:`_post`), and the driver hears of the rounds when the
task is over. So a chain is short: what the driver decides at the end of an epoch comes late, and what was
trained after it is let go of.

Nothing depends on it that all this goes well. What others bring is waited for only so long, and then the task ends
with the rounds it has: a worker may be lost or busy with something else, or a task may run elsewhere than was thought.
The driver takes the rounds that all replicas have, whose bits are those of rounds in tasks of their own, and goes on
with such tasks to the end of the fit.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from distributed import Future

from daskdml.strategies._plan import Work
from daskdml.strategies._post import Address, Post
from daskdml.strategies._strategy import Agreed
from daskdml.strategies._tasks import Assignment, Brought, Job, agree, set_out
from daskdml.strategies._work import Blocks

# Seconds a chain should take, and an epoch may take to be in one. In rounds it has at most so many.
_CHAIN_SECONDS, _EPOCH_SECONDS, _MOST_ROUNDS = 0.3, 0.6, 64


@dataclass(eq=False)
class Chain:
    """Epochs that were sent in one task of each replica, as the driver knows them."""

    address: Address
    epochs: list[list[list[Work]]]
    active: np.ndarray
    # How many before it were sent ahead, one after another.
    depth: int
    # When it was sent, by the driver's clock.
    asked: float = field(default_factory=time.time)
    futures: list[Future] = field(default_factory=list)
    # What each replica brought to each round, once the tasks are over; and how long an epoch took.
    brought: list[list[Brought]] | None = None
    seconds: float = 0.0
    # Epochs that the driver has taken, and what was agreed on at the end of the last one of them.
    taken: int = 0
    agreed: Agreed | None = None

    @property
    def rounds(self) -> list[list[Work]]:
        """Of all its epochs, one after another."""
        return [works for rounds in self.epochs for works in rounds]

    def is_next(self, agreed: Agreed, rounds: list[list[Work]], active: np.ndarray) -> bool:
        """Whether it goes on with an epoch of these rounds, from what is agreed on."""
        known = self.agreed is agreed and self.taken < len(self.epochs) and self.epochs[self.taken] is rounds
        return known and np.array_equal(self.active, active)

    def hear(self, brought: list[list[Brought]], seconds: float) -> None:
        """The tasks are over, after so many seconds: keep the epochs that all replicas have trained."""
        rounds = min(map(len, brought))
        ends = np.cumsum([len(epoch) for epoch in self.epochs])
        self.epochs = self.epochs[: int(np.searchsorted(ends, rounds, "right"))]
        self.brought, self.seconds = brought, seconds / max(1, len(self.epochs))

    def take(self) -> list[list[Brought]]:
        """What all replicas brought to each round of the next epoch."""
        assert self.brought is not None
        first = sum(len(rounds) for rounds in self.epochs[: self.taken])
        self.taken += 1
        return [[of[first + n] for of in self.brought] for n in range(len(self.epochs[self.taken - 1]))]


def can_chain(rounds: list[list[Work]], homes: dict[int, str], threads: dict[str, int]) -> bool:
    """Whether each replica has work in each round, and a thread of its own where it is at home."""
    replicas = list(range(len(rounds[0])))
    if any([work.replica for work in works] != replicas for works in rounds):
        return False
    places = [homes.get(replica) for replica in replicas]
    return all(place is not None and places.count(place) <= threads.get(place, 0) for place in places)


def epochs_at_once(seconds: float, rounds: int) -> int:
    """How many epochs make a chain, where one takes so many seconds and rounds; 0 where none does."""
    if seconds > _EPOCH_SECONDS:
        return 0
    many = max(1, min(int(_CHAIN_SECONDS / max(seconds, 1e-3)), _MOST_ROUNDS // rounds))
    return many if many * rounds > 1 else 0


class After(NamedTuple):
    """The chain before: its number, and its rounds, which all have to be there."""

    chain: int
    rounds: int


class Plan:
    """What one replica's task of a chain does; opaque, so that Dask takes nothing in it for a dependency."""

    def __init__(self, address: Address, replica: int, assignments: list[Assignment], after: After | None):
        self.address = address
        self.replica = replica
        self.assignments = assignments
        self.after = after


def run_chain(job: Job, blocks: Blocks, plan: Plan, *before: Brought | list[Brought]) -> list[Brought]:
    """One replica's part of all rounds of a chain, or of as many as go well.

    ``before`` is what each replica brought to the round before. Or, where that was the last of another chain, what this
    replica brought to all rounds of that; what the others brought they have handed over, as between any two rounds.
    """
    post = Post(plan.address, plan.replica)
    if plan.after is not None:
        (mine,) = before
        assert isinstance(mine, list)
        chain, rounds = plan.after
        found = post.wait(rounds - 1, chain) if len(mine) == rounds else None
        if found is None:
            return []
        began, partials = mine[-1].before, found
    else:
        lasts = [last for last in before if isinstance(last, Brought)]
        began, partials = lasts[0].before, [last.partial for last in lasts]
    done: list[Brought] = []
    for number, assignment in enumerate(plan.assignments):
        if post.is_over:
            break
        agreed = agree(job, began, assignment.active, *partials)
        done.append(set_out(job, blocks, agreed, assignment))
        began = done[-1].before
        post.send(number, done[-1].partial)
        if number + 1 == len(plan.assignments) or (found := post.wait(number)) is None:
            break
        partials = found
    return done
