"""Many rounds in one task of each replica, where rounds are short: replicas hand each other what they bring.

Between two rounds that are tasks of their own lie half a dozen messages and 20 ms of the processors' time, scheduler,
driver and workers together: as much as two replicas need for a million rows in memory. Here the worker of each replica
sends what it brings straight to the workers of the others, which takes one or two, and the driver hears of the rounds
when the task is over. So a chain is short: what the driver decides at the end of an epoch comes late, and what was
trained after it is let go of.

Nothing depends on it that all this goes well. What others bring is waited for only so long, and then the task ends
with the rounds it has: a worker may be lost or busy with something else, or a task may run elsewhere than was thought.
The driver takes the rounds that all replicas have, whose bits are those of rounds in tasks of their own, and goes on
with such tasks to the end of the fit.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from distributed import Future, get_worker
from distributed.protocol.pickle import dumps, loads

from daskdml.strategies._plan import Work
from daskdml.strategies._strategy import Agreed
from daskdml.strategies._tasks import Assignment, Brought, Job, agree, set_out
from daskdml.strategies._work import Blocks, worker_address

# Seconds a chain should take, and an epoch may take to be in one. In rounds it has at most so many.
_CHAIN_SECONDS, _EPOCH_SECONDS, _MOST_ROUNDS = 0.3, 0.6, 64
# Seconds to wait for what another replica brings to a round.
_PATIENCE = 1.0
_HANDLER = "daskdml_letter"
# Fits whose letters a process keeps: of those that were not told that they are over, the last ones.
_FITS = 16


@dataclass(frozen=True)
class Address:
    """Which chain of which fit, and on which workers its replicas are thought to be."""

    fit: str
    number: int
    homes: tuple[str, ...]


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


class Plan:
    """What one replica's task of a chain does; opaque, so that Dask takes nothing in it for a dependency."""

    def __init__(self, address: Address, replica: int, assignments: list[Assignment], expected: int):
        self.address = address
        self.replica = replica
        self.assignments = assignments
        # Rounds of the chain before, which all have to be there.
        self.expected = expected


def run_chain(job: Job, blocks: Blocks, plan: Plan, *before: Brought | list[Brought]) -> list[Brought]:
    """One replica's part of all rounds of a chain, or of as many as go well.

    ``before`` is what each replica brought to the round before, or to all rounds of the chain before.
    """
    if any(isinstance(b, list) and len(b) < plan.expected for b in before):
        return []
    lasts = [b[-1] if isinstance(b, list) else b for b in before]
    n_replicas, box = len(before), _box(plan.address.fit)
    done: list[Brought] = []
    for number, assignment in enumerate(plan.assignments):
        if box.is_over(plan.address.number):
            break
        agreed = agree(job, lasts[0].before, assignment.active, *(b.partial for b in lasts))
        done.append(set_out(job, blocks, agreed, assignment))
        if number + 1 == len(plan.assignments):
            break
        _hand_round(plan, number, done[-1])
        found = box.wait(plan.address.number, number, n_replicas)
        if found is None:
            break
        lasts = found
    return done


class _Box:
    """What came for the replicas of a fit in this process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._over = -1
        self._letters: dict[tuple[int, int], dict[int, Brought]] = {}

    def put(self, chain: int, number: int, replica: int, brought: Brought) -> None:
        with self._changed:
            for old in [key for key in self._letters if key < (chain, number - 1)]:
                del self._letters[old]
            self._letters.setdefault((chain, number), {})[replica] = brought
            self._changed.notify_all()

    def end(self, chain: int) -> None:
        with self._changed:
            self._over = max(self._over, chain)
            self._changed.notify_all()

    def is_over(self, chain: int) -> bool:
        return chain <= self._over

    def wait(self, chain: int, number: int, n_replicas: int) -> list[Brought] | None:
        """What all replicas brought to a round, in their order; None where it does not come, or nobody wants it."""

        def there() -> bool:
            return self.is_over(chain) or len(self._letters.get((chain, number), ())) == n_replicas

        with self._changed:
            self._changed.wait_for(there, _PATIENCE)
            found = self._letters.get((chain, number), {})
            complete = len(found) == n_replicas and not self.is_over(chain)
            return [found[replica] for replica in range(n_replicas)] if complete else None


_boxes: dict[str, _Box] = {}
# From which worker of this process to which others a letter has gone.
_opened: set[tuple[str, str]] = set()
_boxes_lock = threading.Lock()


def _box(fit: str) -> _Box:
    with _boxes_lock:
        if fit not in _boxes:
            while len(_boxes) >= _FITS:
                del _boxes[next(iter(_boxes))]
            _boxes[fit] = _Box()
        return _boxes[fit]


def end_chains(fit: str, number: int) -> None:
    """Let tasks of a fit's chains up to this one end with the round they are at; for the workers."""
    _box(fit).end(number)


def forget_chains(fit: str) -> None:
    """Free what this process keeps of a fit that is over; for the workers."""
    with _boxes_lock:
        _boxes.pop(fit, None)


def _deliver(fit: str, chain: int, number: int, replica: int, brought: Brought) -> None:
    _box(fit).put(chain, number, replica, brought)


def _open(dask_worker: Any, letter: bytes) -> None:
    """The first letter of a worker: from then on it can send them to this one by their own name."""
    dask_worker.handlers.setdefault(_HANDLER, _receive)
    _receive(letter)


def _receive(letter: bytes) -> None:
    _deliver(*loads(letter))


def _hand_round(plan: Plan, number: int, brought: Brought) -> None:
    """Send what a replica brings to the workers of all others, without waiting for it."""
    address = plan.address
    letter = address.fit, address.number, number, plan.replica, brought
    here = worker_address()
    away = {home for home in address.homes if home != here and not home.startswith("inproc://")}
    if away:
        worker, written = get_worker(), dumps(letter)
        for home in away:
            asyncio.run_coroutine_threadsafe(_send(worker, home, written), worker.loop.asyncio_loop)  # type: ignore[attr-defined]
    # Last: this may wake the replicas of this process, which go on at once.
    _deliver(*letter)


async def _send(worker: Any, home: str, letter: bytes) -> None:
    # Whoever waits for it notices when it does not come.
    with contextlib.suppress(OSError, RuntimeError, asyncio.CancelledError):
        if (worker.address, home) in _opened:
            await getattr(worker.rpc(home), _HANDLER)(letter=letter)
        else:
            # Dask writes a line to the log for each function that is run so: one is enough.
            await worker.rpc(home).run(function=dumps(_open), kwargs=dumps({"letter": letter}))
            _opened.add((worker.address, home))
