"""Running replicas as Dask tasks: one for each replica and round.

Parameters stay on the workers as futures between the rounds of an epoch; the driver sees reports. At the end of
an epoch the driver takes the agreed state and starts the next one from its own copy: the graph of a task never
reaches back beyond its epoch, so the scheduler forgets finished epochs, and a lost worker costs at most one
epoch's recomputation. Tasks are pure, so what Dask runs again gives the same bits.

Few replicas with few parameters do not wait, between rounds, for a task that agrees: each agrees by itself, on the same
bits, at the start of its next round, and so does the driver. So a round waits for one message to the scheduler and one
to a worker, not for two of each.

What replicas need in every round goes to the cluster once, as the results of tasks: model and strategy, and for each
replica the recipes of its blocks, which are kilobytes each.

Where epochs are short, what is between them is a good part of the whole: the way of the parameters to the driver and
back takes 20 ms, and 60 where they are 4 MB. So the next epoch is sent while one is under way, as a continuation of
its tasks, and is let go of where the driver decides otherwise at the end. Then a graph reaches back over a few epochs.

Where few replicas have short epochs many of these are one task (:mod:`_chain`). Of parameters that are not small what
such epochs end with stays on the cluster until it is wanted; should it be lost, these epochs are trained once more, in
tasks of their own, from what the driver had before.
"""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from dask._task_spec import TaskRef
from distributed import Client, Future, wait

from daskdml.cluster import LOST, connection_lost
from daskdml.data import Dataset, new_lease, release_cache, trouble, wait_for
from daskdml.models import Model
from daskdml.monitor import StopTraining
from daskdml.strategies import _chain, _post, _tasks
from daskdml.strategies._batch import Batch
from daskdml.strategies._fatal import give_up_on_fatal_blocks, told
from daskdml.strategies._homes import settled
from daskdml.strategies._limits import budget, device_budget
from daskdml.strategies._plan import Work, segments
from daskdml.strategies._strategy import Agreed, Away, Coming, OnRound, Synchronous
from daskdml.strategies._work import Blocks, Late, Report, nobody_told

logger = logging.getLogger("daskdml")

# Fan-in of the tree of means: enough that a few replicas meet in one task.
_FAN_IN = 8
# So many replicas agree each by itself: they take what all others brought, of this size in all.
_EACH_REPLICAS, _EACH_BYTES = 4, 2**18
# Rounds of an epoch that are sent in one message: the first begins before the last is planned.
_ROUNDS = 32
# Parameters up to this size, in all tasks that begin with them together, travel with the tasks.
_SMALL_BYTES = 2**20
# Segments of a replica that are under way, where blocks come from the scheduler.
_UNDER_WAY = 2
# An epoch is sent ahead where the last one took less than so many seconds, since one that nobody wants any more goes on
# to its end all the same; where parameters have at most so many bytes, which are twice on the cluster then; and after
# at most so many that were, because what is lost of the last one is computed again from the first one on.
_AHEAD_SECONDS, _AHEAD_BYTES, _AHEAD_CHAIN = 1.0, 2**26, 8
# Seconds to wait, at the end of a fit, for one that nobody wants.
_AHEAD_PATIENCE = 5.0
# Epochs begun anew because the cluster lost their parameters, before the fit gives up.
_RETRIES = 5
# Seconds without any worker that would begin a task before the fit fails.
_PATIENCE = 60.0


@dataclass(eq=False)
class _Begun:
    """An epoch that was sent ahead, and what has to be so at the end of the one before for it to be the next."""

    rounds: list[list[Work]]
    active: np.ndarray
    # How many before it were sent ahead, one after another.
    chain: int = 0
    # Of each round what was agreed on, and, but for the last round, the report of that.
    ends: list[Future] = field(default_factory=list)
    reports: list[Future] = field(default_factory=list)
    # Instead of these, what each replica brought to each round, where each agrees by itself.
    brought: list[list[Future]] = field(default_factory=list)
    # Known once the epoch before is over.
    agreed: Agreed | None = None

    @property
    def futures(self) -> list[Future]:
        """Of all its tasks."""
        return [*self.ends, *self.reports, *(future for futures in self.brought for future in futures)]

    def is_next(self, agreed: Agreed, rounds: list[list[Work]], active: np.ndarray) -> bool:
        return self.agreed is agreed and self.rounds is rounds and np.array_equal(self.active, active)


def _one_process(client: Client) -> bool:
    """Whether the workers are threads of this process."""
    return all(address.startswith("inproc://") for address in client.nthreads())


def _unheard(report: Report, fetch: Callable[[], Agreed]) -> None:
    """Of a round that listeners have heard of before."""


class DaskRunner:
    """Runs a strategy's steps on a cluster."""

    def __init__(
        self,
        strategy: Synchronous,
        model: Model,
        data: Dataset,
        client: Client,
        memory_budget: int | str | None = None,
        device_memory: int | str | None = None,
        reads_once: bool = False,
    ):
        self.client = client
        self.data = data
        self.strategy = strategy
        # Of blocks that the cluster makes or moves for a replica a few are there at a time. In one process none moves.
        self._whole = data.self_contained or (data.at_hand and _one_process(client))
        self._names = f"daskdml-{uuid.uuid4().hex[:12]}"
        self._lease = new_lease(client)
        state_bytes = sum(np.asarray(array).nbytes for array in model.init())
        wanted = 0 if reads_once or not self._may_stay(state_bytes) else _chain.memory_wanted(state_bytes)
        self.plan, self.cache = budget(client, data, model, memory_budget, self._lease, reads_once, wanted)
        self.device = device_budget(client, data, model, device_memory, self._lease, strategy.sums_bytes(model))
        self._local_job = _tasks.Job(strategy, model)
        self.job = client.submit(_tasks.carry, self._local_job, pure=False)
        self._count = 0
        self._homes: dict[int, str] = {}
        # For each replica, of which blocks it has the recipes, and the future of them.
        self._recipes: dict[int, tuple[set[int], Future | TaskRef]] = {}
        self._latest: Any = None
        self._begun: _Begun | None = None
        # The chain that is under way and the one after it, where rounds are in chains, which has gone well so far.
        self._chains: list[_chain.Chain] = []
        self._chained = 0
        self._chains_well = True
        # Tasks of chains that nobody wanted any more.
        self._left: list[Future] = []
        # What the driver last had all of, and the epochs since, which end with what is away.
        self._origin: Agreed | None = None
        self._since: list[tuple[list[list[Work]], np.ndarray]] = []
        # When the last epoch, or chain of them, was heard of: the next one was under way then.
        self._heard = 0.0
        self._seconds = float("inf")
        self._state_bytes = 0
        self._pools: Any = None
        self.on_loss: Callable[[str], None] = nobody_told
        self.wants_all = False

    def epoch(
        self,
        agreed: Agreed,
        rounds: list[list[Work]],
        active: np.ndarray,
        on_round: OnRound,
        coming: Coming | None = None,
    ) -> tuple[Agreed, bool]:
        """Run the rounds of an epoch; see :meth:`LocalRunner.epoch`. Begun anew if the cluster loses it."""
        started = time.perf_counter()
        done: list[Report] = []
        if not isinstance(agreed, Away):
            self._origin, self._since = agreed, []

        def once(report: Report, fetch: Callable[[], Agreed]) -> None:
            # A repeated epoch repeats its reports: listeners hear each round once.
            seen.append(report)
            if len(seen) > len(done):
                done.append(report)
                on_round(report, fetch)

        for attempt in range(_RETRIES + 1):
            seen: list[Report] = []
            try:
                if (chain := self._next_chain(agreed, rounds, active, coming)) is not None:
                    self._seconds = chain.seconds
                    return self._chained_epoch(chain, agreed, active, once)
                found = self._epoch(agreed, rounds, active, once, coming)
                self._heard = time.perf_counter()
                self._seconds = self._heard - started
                return found
            except LOST as error:
                # A chain that is under way ends by itself, within the second that it waits for what was lost.
                self._begun, self._chains, self._chains_well = None, [], False
                if (lost := connection_lost(self.client, patience=0)) is not None:
                    raise lost from error
                give_up_on_fatal_blocks(self.client, self.data, self.plan)
                if attempt == _RETRIES:
                    raise RuntimeError(
                        f"the cluster lost the parameters of this epoch {attempt + 1} times, the limit: see the "
                        "workers' logs for why they ended (often the memory limit), and fit again"
                    ) from error
                self.on_loss("workers were lost with this epoch's parameters; it starts again")
                self._job_again()
        raise AssertionError("unreachable")

    def evaluate(self, agreed: Agreed, works: list[Work]) -> np.ndarray | None:
        """Summed validation statistics of all replicas."""
        nobody = np.ones(0, dtype=bool)
        # What the strategy remembers trains, and does not predict.
        batch, start = self._batch([works]), self._start(Agreed(agreed.state), len(works))
        found: list[np.ndarray | None] = []
        tasks: list[TaskRef] = []
        for work in works:
            for segment in [work] if self._whole else segments(work):
                tasks.append(self._add_task(batch, "evaluate", _tasks.evaluate, start, segment, nobody))
                if not self._whole:
                    # The inputs of one segment at a time.
                    found.append(self._gather(*self._submit(batch, tasks)))
                    batch, tasks = Batch(self.client), []
        if tasks:
            found += [self._gather(future) for future in self._submit(batch, tasks)]
        kept = [f for f in found if f is not None]
        return sum(kept[1:], kept[0]) if kept else None

    def close(self) -> None:
        """Free what the workers keep of the data."""
        if self.client.status != "running":
            return
        # Tasks that nobody wants any more would be in the way of the next fit's.
        self._end_chains()
        left, self._left = self._left, []
        if (begun := self._begun) is not None:
            self._begun = None
            left += begun.futures
        with contextlib.suppress(Exception):
            wait(left, timeout=_AHEAD_PATIENCE)
        if self._chained:
            with contextlib.suppress(Exception):
                self.client.run(_post.forget_chains, self._names, on_error="ignore")
        try:
            self.client.run(release_cache, self.data.token, self._lease, on_error="ignore")
        except (OSError, TimeoutError, ValueError) as error:
            logger.warning("could not free what is kept of the data: %r", error)

    def _epoch(
        self,
        agreed: Agreed,
        rounds: list[list[Work]],
        active: np.ndarray,
        on_round: OnRound,
        coming: Coming | None,
    ) -> tuple[Agreed, bool]:
        if self.strategy.agrees_here:
            with self._blas_alone():
                return self._agreeing_here(agreed, rounds, active, on_round)
        agreed = agreed.whole()
        self._state_bytes = sum(np.asarray(a).nbytes for a in agreed.state)
        begun, self._begun = self._begun, None
        if begun is None or not begun.is_next(agreed, rounds, active):
            n_replicas = max(len(works) for works in rounds)
            self._homes = settled(self._homes, n_replicas, self._threads())
            now = self._start(agreed, n_replicas)
            begun = _Begun(rounds, active)
            # Let go of once this epoch is under way: a message of what is no longer wanted would hold up its own.
            before, self._latest = self._latest, begun if isinstance(now, Agreed) else None
            stopped = self._send(begun, now, on_round)
            del before
            if stopped is not None:
                return stopped, True
        if coming is not None and (following := coming(1)) is not None and self._goes_ahead(begun, following):
            latest = begun.brought[-1] if begun.brought else begun.ends[-1]
            if not self._send_chain(latest, 1, coming, active, begun.chain + 1):
                self._begun = _Begun(following, active, begun.chain + 1)
                self._send(self._begun, latest, on_round)
        if begun.brought:
            for futures in begun.brought:
                agreed = self._agreed_by_each(agreed, futures, active)
                try:
                    on_round(agreed.report, partial(Agreed, agreed.state, agreed.memory, agreed.report))
                except StopTraining:
                    return agreed, True
            for ahead in (self._begun, *self._chains):
                if ahead is not None:
                    ahead.agreed = agreed
            return agreed, False
        if self._whole:
            # The last round has no report: what was agreed on in it comes whole.
            if (stopped := self._tell(zip(begun.ends, begun.reports, strict=False), on_round)) is not None:
                return stopped, True
        agreed = self._gather(begun.ends[-1])
        try:
            on_round(agreed.report, lambda: agreed)
        except StopTraining:
            return agreed, True
        for ahead in (self._begun, *self._chains):
            if ahead is not None:
                ahead.agreed = agreed
        return agreed, False

    def _send_chain(
        self,
        now: Future | list[Future],
        first: int,
        coming: Coming,
        active: np.ndarray,
        depth: int,
        after: _chain.After | None = None,
    ) -> bool:
        """Send a chain that begins so many epochs from this one, if there is anything to gain by one.

        It goes on from ``now``: what each replica brought to the last round before, or to all of the chain before; or
        what all agreed on, where it is too large for each to take what all others bring to the driver, too.
        """
        rounds = coming(first)
        if rounds is None or not self._chains_well or not self.data.self_contained:
            return False
        n_replicas, stays = len(rounds[0]), not self._each_agrees(rounds)
        if stays and (len(rounds) > 1 or not self._whole or n_replicas > _EACH_REPLICAS or self.wants_all):
            return False
        if stays and not self.plan.has_beside:
            return False
        if not _chain.can_chain(rounds, self._homes, self._threads()):
            return False
        if isinstance(now, list) and len(now) != n_replicas:
            return False
        epochs: list[list[list[Work]]] = []
        kept_bytes = self._state_bytes if stays else 0
        for ahead in range(first, first + _chain.epochs_at_once(self._seconds, len(rounds), kept_bytes)):
            if (rounds := coming(ahead)) is None:
                break
            epochs.append(rounds)
        if not epochs or len(epochs) * len(epochs[0]) == 1:
            return False
        self._chained += 1
        homes = tuple(self._homes[replica] for replica in range(n_replicas))
        chain = _chain.Chain(_post.Address(self._names, self._chained, homes), epochs, active, depth)
        batch = self._batch(chain.rounds)
        tasks: list[TaskRef] = []
        for replica in range(n_replicas):
            assignments = [_tasks.Assignment(works[replica], active) for works in chain.rounds]
            plan = _chain.Plan(chain.address, replica, assignments, after)
            # From another chain each goes on by itself.
            before = [now] if isinstance(now, Future) else now if after is None else [now[replica]]
            run = _chain.run_and_keep if stays else _chain.run_chain
            tasks.append(
                self._add(batch, "work", run, self.job, self._recipes[replica][1], plan, *before, home=replica)
            )
        if stays:
            tasks.append(self._add(batch, "report", _chain.tell, tasks[0], home=0))
        chain.futures = self._submit(batch, tasks)
        if stays:
            chain.telling = chain.futures.pop()
        self._chains.append(chain)
        return True

    def _next_chain(
        self, agreed: Agreed, rounds: list[list[Work]], active: np.ndarray, coming: Coming | None
    ) -> _chain.Chain | None:
        """The chain that this epoch was trained in, if one is under way and nothing was decided otherwise."""
        if not self._chains:
            return None
        chain = self._chains[0]
        if not chain.is_next(agreed, rounds, active):
            self._end_chains()
            return None
        if not chain.is_heard:
            if coming is not None and chain.depth < _AHEAD_CHAIN:
                after = _chain.After(chain.address.number, len(chain.rounds))
                self._send_chain(chain.futures, len(chain.epochs), coming, active, chain.depth + 1, after)
            whole = len(chain.epochs)
            for future in chain.futures:
                self._gather_ready(future)
            found = self.client.gather(chain.futures) if chain.telling is None else self._gather(chain.telling)
            before, self._heard = self._heard, time.perf_counter()
            chain.hear(found, self._heard - before)
            if len(chain.epochs) < whole:
                self._chains_well = False
                self._end_chains()
                if not chain.epochs:
                    return None
                self._chains = [chain]
        return chain

    def _chained_epoch(
        self, chain: _chain.Chain, agreed: Agreed, active: np.ndarray, on_round: OnRound
    ) -> tuple[Agreed, bool]:
        """Tell of an epoch that was trained in a chain."""
        rounds = chain.epochs[chain.taken]
        late = Late(chain.asked, chain.seconds / len(rounds))
        for number in chain.take():
            if chain.telling is None:
                brought = [of[number].partial for of in chain.brought]
                agreed = _tasks.agree(self._local_job, agreed, active, *brought)
            else:
                self._since.append((rounds, active))
                fetch = partial(self._kept, chain, number, len(self._since))
                agreed = Away(chain.told[number].report, chain.told[number].look, fetch)
            try:
                on_round(replace(agreed.report, late=late), agreed.whole)
            except StopTraining:
                return agreed, True
        if chain.taken == len(chain.epochs):
            self._chains.remove(chain)
        for ahead in self._chains:
            ahead.agreed = agreed
        return agreed, False

    def _kept(self, chain: _chain.Chain, number: int, epochs: int) -> Agreed:
        """What a round of a chain ended with, which is so many epochs after what the driver last had."""
        # Who wants it goes on in another way: a chain under way would only be in the way of the task that fetches it.
        self._end_chains()
        try:
            batch = Batch(self.client)
            future = self._submit(batch, [self._add(batch, "report", _chain.kept_after, chain.futures[0], number)])[0]
            if (found := self._gather(future)) is not None:
                return found
        except LOST as error:
            if (lost := connection_lost(self.client, patience=0)) is not None:
                raise lost from error
        self._begun, self._chains_well = None, False
        self.on_loss("workers were lost with the parameters of the last epochs; these are trained again")
        agreed, again = self._origin, self._since[:epochs]
        assert agreed is not None
        self._job_again()
        for rounds, active in again:
            agreed, _ = self.epoch(agreed, rounds, active, _unheard)
        return agreed

    def _end_chains(self) -> None:
        """Let go of the chains that are under way."""
        chains, self._chains = self._chains, []
        left = [future for chain in chains if not chain.is_heard for future in chain.futures]
        if left:
            with contextlib.suppress(Exception):
                self.client.run(_post.end_chains, self._names, chains[-1].address.number, on_error="ignore")
        # At the end of a fit they are waited for.
        self._left = [future for future in self._left if not future.done()] + left

    def _agreeing_here(
        self, agreed: Agreed, rounds: list[list[Work]], active: np.ndarray, on_round: OnRound
    ) -> tuple[Agreed, bool]:
        """Rounds whose sums come to the driver, which makes the step: one is sent when the last is over."""
        for number, works in enumerate(rounds):
            self._homes = settled(self._homes, len(works), self._threads())
            now = self._start(self.strategy.sent(self._local_job.model, agreed), len(works))
            batch = self._batch(rounds if number == 0 else [works])
            if self._whole:
                partials: list[Any] = [self._add_work(batch, now, work, active, None) for work in works]
            else:
                self._submit(batch, [])
                batch, partials = self._segmented(now, works, active)
            while len(partials) > 1:
                partials = self._combined(batch, partials)
            # A future that was made already is not of this batch.
            (total,) = self._submit(batch, partials) if isinstance(partials[0], TaskRef) else partials
            found = self._gather(total)
            began = time.perf_counter()
            agreed = self.strategy.agree(self._local_job.model, agreed, found, active)
            seconds = time.perf_counter() - began
            agreed = replace(agreed, report=replace(agreed.report, agree_seconds=seconds))
            try:
                on_round(agreed.report, partial(Agreed, agreed.state, agreed.memory, agreed.report))
            except StopTraining:
                return agreed, True
        return agreed, False

    def _blas_alone(self) -> contextlib.AbstractContextManager:
        """Replicas that are threads of this process are all its threads: with more of BLAS for each, all wait for all.

        Workers that Dask starts as processes have one by its own doing.
        """
        if not _one_process(self.client) or sum(self._threads().values()) == 1:
            return contextlib.nullcontext()
        if self._pools is None:
            from threadpoolctl import ThreadpoolController

            self._pools = ThreadpoolController()
        return self._pools.limit(limits=1, user_api="blas")

    def _send(self, begun: _Begun, now: Future | Agreed | list[Future], on_round: OnRound) -> Agreed | None:
        """Submit the rounds of an epoch that begins with ``now``, or with what each replica brought to the one before.

        See :meth:`_tell` for what is returned.
        """
        rounds = begun.rounds
        if isinstance(now, list) or self._each_agrees(rounds):
            for at in range(0, len(rounds), _ROUNDS):
                some = rounds[at : at + _ROUNDS]
                begun.brought += self._submit_each(self._batch(rounds if at == 0 else some), now, some, begun.active)
                now = begun.brought[-1]
            return None
        for at in range(0, len(rounds), self._rounds_at_once):
            some = rounds[at : at + self._rounds_at_once]
            last = at + len(some) == len(rounds)
            batch = self._batch(rounds if at == 0 else some)
            if not self._whole:
                self._submit(batch, [])
            found = self._submit_rounds(batch, now, some, begun.active, last)
            begun.ends += found[: len(some)]
            begun.reports += found[len(some) :]
            now = begun.ends[-1]
            if not self._whole:
                # Blocks that come from the scheduler arrive for one round at a time.
                self._gather_ready(now)
                told_of = zip(begun.ends[at:], begun.reports[at:], strict=False)
                if (stopped := self._tell(told_of, on_round)) is not None:
                    return stopped
        return None

    def _may_stay(self, state_bytes: int) -> bool:
        """Whether there may be chains of epochs whose parameters, of this size, stay on the cluster."""
        n_blocks = len(self.data.recipes)
        n_replicas = self.strategy.n_replicas or min(n_blocks, sum(self._threads().values()))
        one_round = self.strategy.rounds(n_blocks, n_replicas) == 1 and not self.strategy.agrees_here
        few = n_replicas <= _EACH_REPLICAS and 2 * n_replicas * state_bytes > _EACH_BYTES
        return one_round and few and self.data.self_contained

    def _each_agrees(self, rounds: list[list[Work]]) -> bool:
        """Whether each replica sees by itself to what is agreed on at the end of these rounds."""
        n_replicas = max(len(works) for works in rounds)
        return self._whole and n_replicas <= _EACH_REPLICAS and 2 * n_replicas * self._state_bytes <= _EACH_BYTES

    def _submit_each(
        self, batch: Batch, now: Future | Agreed | list[Future], rounds: list[list[Work]], active: np.ndarray
    ) -> list[list[Future]]:
        """Send rounds ahead: the futures of what each replica brings to each."""
        added: list[list[TaskRef]] = []
        known: Any = now
        for works in rounds:
            if isinstance(known, list):
                first, *others = known
                given = len(others), *others
                known = [self._add_task(batch, "work", _tasks.go_on, first, work, active, *given) for work in works]
            else:
                known = [self._add_task(batch, "work", _tasks.set_out, known, work, active) for work in works]
            added.append(known)
        found = iter(self._submit(batch, [ref for refs in added for ref in refs]))
        return [[next(found) for _ in refs] for refs in added]

    def _agreed_by_each(self, agreed: Agreed, futures: list[Future], active: np.ndarray) -> Agreed:
        """What the replicas agree on, each by itself, after a round that began with ``agreed``."""
        for future in futures:
            self._gather_ready(future)
        brought = self.client.gather(futures)
        return _tasks.agree(self._local_job, agreed, active, *(b.partial for b in brought))

    def _goes_ahead(self, begun: _Begun, coming: list[list[Work]]) -> bool:
        """Whether the next epoch is sent now."""
        return (
            self._whole
            and len(coming) <= _ROUNDS
            and self._seconds < _AHEAD_SECONDS
            and begun.chain < _AHEAD_CHAIN
            and self._state_bytes <= _AHEAD_BYTES
        )

    def _tell(self, rounds: Iterable[tuple[Future, Future]], on_round: OnRound) -> Agreed | None:
        """Tell of rounds, given by what was agreed on and the report; returns what a listener stopped the fit with."""
        for end, report in rounds:
            try:
                on_round(self._gather(report), partial(self._gather, end))
            except StopTraining:
                return self._gather(end)
        return None

    @property
    def _rounds_at_once(self) -> int:
        return _ROUNDS if self._whole else 1

    def _submit_rounds(
        self, batch: Batch, now: Future | Agreed, rounds: list[list[Work]], active: np.ndarray, last: bool
    ) -> list[Future]:
        """Send rounds ahead: the futures of what is agreed on in each, then of its reports but for the ``last`` one."""
        ends: list[TaskRef] = []
        reports: list[TaskRef] = []
        known: Future | TaskRef | Agreed = now
        for works in rounds:
            if self._whole:
                partials = [self._add_work(batch, known, work, active, None) for work in works]
            else:
                batch, partials = self._segmented(now, works, active)
            known = self._agree(batch, known, partials, active)
            ends.append(known)
            # What is agreed on at an epoch's end comes whole.
            if not last or len(ends) < len(rounds):
                reports.append(self._add(batch, "report", _tasks.report_of, known))
        return self._submit(batch, ends + reports)

    def _segmented(self, now: Future | Agreed, works: list[Work], active: np.ndarray) -> tuple[Batch, list[Any]]:
        """Replicas whose blocks the scheduler makes: a chain of tasks, a window of blocks each, one window ahead.

        The last tasks are in a batch that is still to be sent.
        """
        waiting = {w.replica: list(segments(w)) for w in works}
        last: dict[int, Any] = dict.fromkeys(waiting)
        running: dict[int, list[Future]] = {replica: [] for replica in waiting}
        while True:
            batch = Batch(self.client)
            added: list[tuple[int, TaskRef]] = []
            for replica, left in waiting.items():
                count = _UNDER_WAY - len(running[replica])
                for segment in left[:count]:
                    last[replica] = self._add_work(batch, now, segment, active, last[replica])
                    added.append((replica, last[replica]))
                del left[:count]
            if not any(waiting.values()):
                return batch, [last[w.replica] for w in works]
            for (replica, _), future in zip(added, self._submit(batch, [ref for _, ref in added]), strict=True):
                last[replica] = future
                running[replica].append(future)
            self._wait([f for futures in running.values() for f in futures], "FIRST_COMPLETED")
            for replica, futures in running.items():
                for future in futures:
                    if future.status in ("error", "cancelled", "lost"):
                        self._gather(future)
                running[replica] = [f for f in futures if not f.done()]

    def _agree(self, batch: Batch, now: Any, partials: list[Any], active: np.ndarray) -> TaskRef:
        """The end of a round: a tree of sums, whose root is the task that makes the step."""
        while len(partials) > _FAN_IN:
            partials = self._combined(batch, partials)
        return self._add(batch, "agree", _tasks.agree, self.job, now, active, *partials)

    def _combined(self, batch: Batch, partials: list[Any]) -> list[Any]:
        """One level of the tree."""
        return [
            self._add(batch, "combine", _tasks.combine, self.job, *partials[i : i + _FAN_IN])
            for i in range(0, len(partials), _FAN_IN)
        ]

    def _start(self, agreed: Agreed, n_replicas: int) -> Future | Agreed:
        """The parameters for tasks to begin with: in the tasks themselves where they are small, else on the cluster."""
        if (n_replicas + 1) * sum(np.asarray(a).nbytes for a in agreed.state) <= _SMALL_BYTES:
            return agreed
        try:
            return self.client.scatter(agreed, hash=False, timeout=_PATIENCE)
        except TimeoutError:
            # Dask sends to running workers only, and gives up when there is none.
            raise RuntimeError(
                trouble(self.client, _PATIENCE) or "the cluster takes no data: look at its workers' logs"
            ) from None

    def _batch(self, rounds: list[list[Work]]) -> Batch:
        """A batch with which each replica gets the recipes of blocks that it visits in these rounds and has not got."""
        batch = Batch(self.client)
        wanted: dict[int, set[int]] = {}
        for works in rounds:
            for work in works:
                wanted.setdefault(work.replica, set()).update(work.blocks)
        for replica, indices in wanted.items():
            known, _ = self._recipes.get(replica, (set(), None))
            if replica not in self._recipes or not indices <= known:
                indices |= known
                recipes = {index: self.data.recipes[index] for index in sorted(indices)}
                blocks = Blocks(recipes, {}, self.cache, self.plan, self.device)
                # Where all workers are lost, Dask never again runs a task that is ready and preferred on one of them.
                # What waits for a task without preference becomes ready when that has run: when there is a worker.
                task = self._add(batch, "recipes", _tasks.carry, blocks, self.job, home=replica)
                self._recipes[replica] = indices, task
        return batch

    def _submit(self, batch: Batch, wanted: list[TaskRef]) -> list[Future]:
        """Send a batch; the recipes that go with it are kept for the next ones."""
        fresh = {replica: ref for replica, (_, ref) in self._recipes.items() if isinstance(ref, TaskRef)}
        found = batch.submit([*wanted, *fresh.values()])
        for replica, future in zip(fresh, found[len(wanted) :], strict=True):
            self._recipes[replica] = self._recipes[replica][0], future
        return found[: len(wanted)]

    def _add_work(self, batch: Batch, now: Any, work: Work, active: np.ndarray, before: Any) -> TaskRef:
        return self._add_task(batch, "work", _tasks.work, now, work, active, before)

    def _add_task(
        self,
        batch: Batch,
        what: str,
        function: Callable[..., Any],
        now: Any,
        work: Work,
        active: np.ndarray,
        *args: Any,
    ) -> TaskRef:
        """A task of one replica with blocks of its own."""
        _, recipes = self._recipes[work.replica]
        given = (self.job, recipes, now, _tasks.Assignment(work, active), *args, *self._inputs(work))
        return self._add(batch, what, function, *given, home=work.replica)

    def _add(
        self, batch: Batch, what: str, function: Callable[..., Any], *args: Any, home: int | None = None
    ) -> TaskRef:
        self._count += 1
        worker = None if home is None else self._homes.get(home)
        # Listeners are to hear of a round before the next ones, which are at the scheduler already, are done.
        name = f"daskdml-{what}-{self._names}-{self._count}"
        return batch.add(name, function, *args, worker=worker, urgent=what == "report")

    def _inputs(self, work: Work) -> list[Future]:
        if self.data.self_contained:
            return []
        return list(self.data.inputs(self.client, *work.blocks))

    def _threads(self) -> dict[str, int]:
        return {a: max(1, n) for a, n in self.client.nthreads().items()}

    def _job_again(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not self._threads():
            if (found := trouble(self.client, _PATIENCE)) and time.monotonic() > deadline:
                raise RuntimeError(found)
            time.sleep(0.5)
        self.data.forget_lost()
        self._recipes.clear()
        self.job = self.client.submit(_tasks.carry, self._local_job, pure=False)

    def _gather(self, future: Future) -> Any:
        self._gather_ready(future)
        return future.result()

    def _gather_ready(self, future: Future) -> None:
        self._wait([future], "ALL_COMPLETED")
        if future.status == "error":
            raise told(future.exception(), self.client, self.data, self.plan) from None
        if future.status in ("cancelled", "lost"):
            raise CancelledError(future.key)

    def _wait(self, futures: list[Future], when: str) -> None:
        wait_for(self.client, futures, when, _PATIENCE)
