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

Small parameters come to the driver with what each replica brought to each round. Larger ones stay where they are: what
each round ended with is kept by the first replica's worker until the next chain is over, the driver hears the reports,
and takes of the parameters what it wants, as a rule the last.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from distributed import Future

from daskdml.strategies._plan import Work
from daskdml.strategies._post import Address, Post
from daskdml.strategies._strategy import Agreed, Look
from daskdml.strategies._tasks import Assignment, Brought, Job, agree, set_out, work
from daskdml.strategies._work import Blocks, Report

# Seconds a chain should take, and an epoch may take to be in one. In rounds it has at most so many.
_CHAIN_SECONDS, _EPOCH_SECONDS, _MOST_ROUNDS = 0.5, 0.6, 64
# Of parameters that stay on the cluster a chain keeps what each of its epochs ended with, of this size in all. Three
# chains' are there at a time, and what replicas hand each other: with 64 MB a worker took 220 MB more, for 1 % of the
# time. Such a chain takes more seconds: what is between two of them takes longer, too.
_KEPT_BYTES, _KEPT_SECONDS = 2**24, 0.8
# What a worker takes more for such chains, as measured: copies that are under way are more than what is kept.
_KEPT_MEMORY = 150 * 2**20


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
    # Where parameters stay on the cluster, of what the driver hears of each round.
    telling: Future | None = None
    # What it heard, or what each replica brought to each round, once the tasks are over; and how long an epoch took.
    brought: list[list[Brought]] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    is_heard: bool = False
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

    def hear(self, found: list[Any], seconds: float) -> None:
        """The tasks are over, after so many seconds: keep the epochs that all replicas have trained.

        ``found`` is what each of them brought to each round; or what the first of them tells, of each round that all
        have.
        """
        if self.telling is None:
            self.brought, rounds = found, min(map(len, found))
        else:
            self.told, rounds = found, len(found)
        ends = np.cumsum([len(epoch) for epoch in self.epochs])
        self.epochs = self.epochs[: int(np.searchsorted(ends, rounds, "right"))]
        self.is_heard, self.seconds = True, seconds / max(1, len(self.epochs))

    def take(self) -> range:
        """The rounds of the next epoch, as numbers."""
        first = sum(len(rounds) for rounds in self.epochs[: self.taken])
        self.taken += 1
        return range(first, first + len(self.epochs[self.taken - 1]))


def can_chain(rounds: list[list[Work]], homes: dict[int, str], threads: dict[str, int]) -> bool:
    """Whether each replica has work in each round, and a thread of its own where it is at home."""
    replicas = list(range(len(rounds[0])))
    if any([work.replica for work in works] != replicas for works in rounds):
        return False
    places = [homes.get(replica) for replica in replicas]
    return all(place is not None and places.count(place) <= threads.get(place, 0) for place in places)


def epochs_at_once(seconds: float, rounds: int, kept_bytes: int = 0) -> int:
    """How many epochs make a chain, where one takes so many seconds and rounds; 0 where none does.

    ``kept_bytes``: of the parameters, where what each epoch ended with is kept.
    """
    if seconds > _EPOCH_SECONDS:
        return 0
    whole = _KEPT_SECONDS if kept_bytes else _CHAIN_SECONDS
    many = max(1, min(int(whole / max(seconds, 1e-3)), _MOST_ROUNDS // rounds))
    if kept_bytes:
        many = min(many, _KEPT_BYTES // kept_bytes)
    return many if many * rounds > 1 else 0


def memory_wanted(state_bytes: int) -> int:
    """Bytes that each process may need for chains whose parameters, of this size, stay on the cluster."""
    return _KEPT_MEMORY if 2 * state_bytes <= _KEPT_BYTES else 0


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


class Told(NamedTuple):
    """What the driver hears of a round whose parameters stay on the cluster."""

    report: Report
    look: Look


@dataclass(frozen=True, eq=False)
class Ran:
    """What one replica has of a chain of which the parameters stay: so many rounds, and what they ended with.

    ``kept`` by the first replica: what each of the rounds ended with.
    """

    rounds: int
    agreed: Agreed
    kept: tuple[Agreed, ...] = ()
    told: tuple[Told, ...] = ()


def run_and_keep(job: Job, blocks: Blocks, plan: Plan, before: Agreed | Ran) -> Ran:
    """One replica's part of all rounds of a chain, or of as many as go well, whose parameters stay on the cluster.

    ``before`` is what was agreed on, or what this replica has of the chain before.
    """
    agreed = before.agreed if isinstance(before, Ran) else before
    if isinstance(before, Ran) and (plan.after is None or before.rounds < plan.after.rounds):
        return Ran(0, agreed)
    post, rounds = Post(plan.address, plan.replica), 0
    kept: list[Agreed] = []
    told: list[Told] = []
    for number, assignment in enumerate(plan.assignments):
        if post.is_over:
            break
        began = Agreed(agreed.state, agreed.memory)
        post.send(number, work(job, blocks, began, assignment, None))
        # Of the last round, too: nobody else brings together what the replicas have.
        if (partials := post.wait(number)) is None:
            break
        agreed, rounds = agree(job, began, assignment.active, *partials), number + 1
        if plan.replica == 0:
            kept.append(agreed)
            told.append(Told(agreed.report, agreed.look(job.model)))
    return Ran(rounds, agreed, tuple(kept), tuple(told))


def tell(ran: Ran) -> list[Told]:
    """The small part of what a chain's first replica has."""
    return list(ran.told)


def kept_after(ran: Ran, number: int) -> Agreed | None:
    """What a round ended with; None where a chain that was run again did not come so far."""
    return ran.kept[number] if number < len(ran.kept) else None
