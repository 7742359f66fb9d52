"""The driver's side of a fit on the parameter server: it opens epochs, listens, judges, and mends what is lost."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from distributed import Client, Future, wait
from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError

from daskdml.data import Dataset, release_cache
from daskdml.models import Field, Layout, Model, Totals
from daskdml.monitor import CallbackList, FitEnd, FitInfo, StopTraining
from daskdml.server import (
    Group,
    Ledger,
    Lost,
    Partition,
    Push,
    Refused,
    ServerLost,
    Shard,
    Table,
    Ticket,
    Trace,
    Unreachable,
    Update,
    VectorClock,
    default_shards,
)
from daskdml.strategies._blocks import InputsLost
from daskdml.strategies._checkpoint import Checkpoint
from daskdml.strategies._limits import budget, explained
from daskdml.strategies._replica import Begin, EpochPlan, PartReport, ReplicaJob, run_replica
from daskdml.strategies._ssp import Asynchronous
from daskdml.strategies._strategy import Agreed
from daskdml.strategies._tasks import carry
from daskdml.strategies._teller import Teller
from daskdml.strategies._train import MIXED_BYTES, MIXING, Schedule, Trained
from daskdml.strategies._work import Blocks, Report

logger = logging.getLogger("daskdml")

# Seconds the driver waits at the ledger for news.
_NEWS = 0.25
# Seconds without any worker before the fit fails.
_PATIENCE = 60.0
# The part of a replica's time that messages may take, where the clock's size is chosen.
_COMMUNICATION = 0.1
# Clocks of a replica in an epoch: at least, and so many in the first, before anything is measured; and at most. What
# is read lags by up to the staleness in clocks: where those are large parts of an epoch, replicas learn the same thing
# several times over, and overshoot.
_FEWEST_CLOCKS = 32
_MOST_CLOCKS = 1024
# New starts of a fit from a snapshot, after all copies of a shard were lost, before it gives up.
_RESTARTS = 5
# Runners a replica may lose before a clock is finished.
_REPLACED = 10
# A runner that ends so has lost what it works with, and another one goes on.
_UNSERVED = (ServerLost, Refused, Unreachable)
_GONE = (CancelledError, asyncio.CancelledError, CommClosedError, FutureCancelledError, InputsLost)
# A state so large is not fetched at every epoch's end to be looked at.
_LOOKED_AT = 2**26


@dataclass
class _Clock:
    """What was reported of a clock so far."""

    tickets: set[tuple[int, int, int]] = field(default_factory=set)
    report: Report = Report()
    statistics: np.ndarray | None = None

    def add(self, ticket: Ticket, part: PartReport) -> None:
        self.tickets.add(ticket.id)
        self.report = self.report + part.report
        if part.statistics is not None:
            self.statistics = part.statistics if self.statistics is None else self.statistics + part.statistics


@dataclass
class _Running:
    """A runner as a Dask task."""

    lane: int
    address: str
    future: Future


class AsynchronousFit:
    """One fit of a model by a strategy on the parameter server.

    Parameters
    ----------
    strategy : Asynchronous
    model : Model
    data : Dataset
    client : Client
    memory_budget : int or str, optional
    """

    def __init__(
        self,
        strategy: Asynchronous,
        model: Model,
        data: Dataset,
        client: Client,
        memory_budget: int | str | None = None,
    ):
        self.strategy = strategy
        self.model = model
        self.data = data
        self.client = client
        self.layout = Layout(model)
        self.trace: Trace | None = None
        self._blocks_plan, self._cache = budget(client, data, model, memory_budget)
        self._token = uuid.uuid4().hex[:12]
        self._inputs = None if data.self_contained else data.travelling_inputs(client)
        self._group: Group | None = None
        self._generation = 0
        self._next_runner = 0
        self._runners: dict[int, _Running] = {}
        self._recoveries = self._replaced = 0
        self._reads: dict[tuple[int, int], Any] = {}
        self._lost_runners: set[int] = set()
        self._initial: dict[str, np.ndarray] = {}

    # -- the story ------------------------------------------------------------------------------------

    def train(
        self,
        agreed: Agreed,
        schedule: Schedule,
        listeners: CallbackList,
        info: FitInfo,
        checkpoint: Checkpoint | None = None,
    ) -> Trained:
        """Train until the rule stops every problem, the epochs are over, or a listener has enough."""
        started = time.perf_counter()
        self.schedule, self.checkpoint = schedule, checkpoint
        self.teller = Teller(listeners, self.model)
        self._plans: list[EpochPlan] = []
        self._clocks: dict[int, _Clock] = {}
        self._emitted = 0
        self._validation: np.ndarray | None = None
        self._cost = [0, 0.0, 0.0]
        self._reason: str | None = None
        self._last_look = time.monotonic()
        saved = None if checkpoint is None else checkpoint.progress
        if saved is not None:
            self._resume(saved)
        with listeners:
            listeners.on_fit_start(
                replace(
                    info,
                    rounds_per_epoch=self._clocks_of_epoch(),
                    epochs_done=self.teller.epochs,
                    rows_done=self.teller.all_rows,
                )
            )
            if saved is not None and (schedule.rule.stopped.all() or self.teller.epochs >= schedule.max_epochs):
                return self._again(saved, started, listeners)
            self._start(agreed, None if saved is None else saved["shards"])
            restarts = 0
            while self._reason is None:
                try:
                    self._follow()
                except Lost as loss:
                    restarts += 1
                    if restarts > _RESTARTS:
                        raise RuntimeError(
                            f"the parameter server lost all copies of a part of the parameters {restarts} times "
                            f"({loss}): see the workers' logs; the fit cannot go on"
                        ) from loss
                    self._restart(loss)
            agreed = self._finish()
            listeners.on_fit_end(
                FitEnd(self._reason, self.teller.epochs, self.teller.all_rows, time.perf_counter() - started)
            )
        return Trained(agreed, max(self.teller.epochs, 1), self.teller.all_rows, self._reason, self.trace)

    def _stop_runners(self, group: Group) -> None:
        """After an error: let the replicas end, since a task that runs cannot be cancelled."""
        try:
            for number in self._runners:
                group.ledger("dismiss", number)
            wait([running.future for running in self._runners.values()], timeout=5.0)
        except (Lost, TimeoutError, OSError, RuntimeError) as error:
            logger.info("replicas may still run: %r", error)

    def _again(self, saved: dict[str, Any], started: float, listeners: CallbackList) -> Trained:
        """The result of a fit that was over when it was saved."""
        reason = "converged" if self.schedule.rule.stopped.all() else "max_iter"
        shards = [Shard.restore(snapshot) for snapshot in saved["shards"]]
        partition = Partition(self._tables, len(shards))
        state = self.layout.state(partition.join([shard.view().values for shard in shards]))
        epochs, rows = self.teller.epochs, self.teller.all_rows
        listeners.on_fit_end(FitEnd(reason, epochs, rows, time.perf_counter() - started))
        return Trained(Agreed(state), epochs, rows, reason)

    @property
    def _tables(self) -> tuple[Table, ...]:
        return tuple(Table(f.name, f.size, f.dtype.name, self._op(f)) for f in self.layout.fields)

    def close(self) -> None:
        """Give back what the fit holds on the cluster."""
        if self._group is not None and self._runners and self.client.status == "running":
            self._stop_runners(self._group)
        self._runners.clear()
        if self._group is not None:
            self._group.close()
            self._group = None
        if self._cache is not None and self.client.status == "running":
            try:
                self.client.run(release_cache, self._cache.token, on_error="ignore")
            except (OSError, TimeoutError, ValueError) as error:
                logger.warning("could not free the block caches: %r", error)

    # -- starting and starting again --------------------------------------------------------------------

    def _start(self, agreed: Agreed, snapshots: list[Any] | None) -> None:
        """Put the shards on the workers, open the epochs that are not over, and begin the runners."""
        strategy, schedule = self.strategy, self.schedule
        self._await_workers()
        workers = self.client.nthreads()
        n_shards = strategy.shards or default_shards(self.layout.nbytes, len(workers))
        tables = self._tables
        if snapshots is None:
            self._partition = Partition(tables, n_shards)
            self._initial = {name: array.copy() for name, array in self.layout.flat(agreed.state).items()}
            shards = [
                Shard(
                    index,
                    values,
                    tables,
                    VectorClock(range(schedule.n_replicas), strategy.splits),
                    optimizer=strategy.optimizer,
                    staleness=strategy.staleness,
                    generation=self._generation,
                    record=strategy.trace,
                )
                for index, values in enumerate(self._partition.cut(self._initial))
            ]
            ledger = Ledger(
                schedule.n_replicas, strategy.splits, strategy.staleness, strategy.reassign, self._speculate
            )
        else:
            self._partition = Partition(tables, len(snapshots))
            shards = [Shard.restore(snapshot) for snapshot in snapshots]
            for shard in shards:
                shard.generation = self._generation
            ledger = Ledger.from_applied(
                [shard.clock for shard in shards], strategy.staleness, strategy.reassign, self._speculate
            )
        self._snapshots: list[Any] = [shard.snapshot() for shard in shards]
        self._group = Group(self.client, backups=strategy.backups)
        self._group.start(shards, ledger)
        recipes = dict(enumerate(self.data.recipes))
        job = ReplicaJob(
            f"{self._token}",
            strategy,
            self.model,
            Blocks(recipes, {}, self._cache, self._blocks_plan),
            self._inputs,
            self._partition,
            self._generation,
            schedule.n_replicas,
            schedule.seed,
            schedule.shuffle,
            MIXING,
            schedule.holdout,
        )
        self._send_job(job)
        known, self._plans = self._plans, []
        for plan in known or [self._plan_of(1, 0)]:
            self._open(plan)
        if snapshots is not None:
            self._fill_in()
        for lane in range(schedule.n_replicas):
            self._spawn(lane)

    @property
    def _speculate(self) -> float | None:
        # A ticket trained twice could be read by one shard's clock and not yet by another's: with staleness 0 every
        # read is exact, so no ticket is trained twice while no worker is lost.
        return None if self.strategy.staleness == 0 else self.strategy.speculate

    def _send_job(self, job: ReplicaJob) -> None:
        self._local_job = job
        self._job = self.client.submit(carry, job, pure=False)

    def _renew_job(self) -> None:
        """Bring to the cluster again what a lost worker had of the data, and tell new runners where it is."""
        if self._inputs is not None:
            self.data.forget_lost()
            self._inputs = self._local_job.inputs = self.data.travelling_inputs(self.client)
        self._send_job(self._local_job)

    def _op(self, found: Field) -> str:
        """How an update of an array meets it: an optimizer changes what has a gradient, counts are summed."""
        if found.largest:
            return "max"
        return "add" if not self.strategy.sends_gradients or found.name in self.model.sloped else "sum"

    def _restart(self, loss: Lost) -> None:
        """All copies of a shard are gone: go back to the last snapshot, as a new generation."""
        logger.warning("%s; the fit goes back to its last snapshot", loss)
        for running in self._runners.values():
            running.future.cancel()
        self._runners.clear()
        assert self._group is not None
        self._group.close()
        self._generation += 1
        self._recoveries += 1
        self._start(Agreed(None), self._snapshots)

    def _resume(self, saved: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.teller.restore(saved["teller"])
        for name, value in saved["rule"].items():
            setattr(self.schedule.rule, name, value)
        self._plans = [EpochPlan(*plan) for plan in saved["plans"]]
        self._emitted = saved["emitted"]
        self._generation = saved["generation"] + 1
        self._next_runner = saved["next_runner"]
        self._cost = list(saved["cost"])

    def _fill_in(self) -> None:
        """Count what the snapshot contains of clocks not yet told as reported; what it does not will be done again."""
        clocks = [Shard.restore(snapshot).clock for snapshot in self._snapshots]
        self._clocks.clear()
        for plan in self._plans:
            for number in range(max(plan.first, self._emitted), plan.first + plan.clocks):
                done = {
                    (number, lane, part)
                    for lane in range(self.schedule.n_replicas)
                    for part in range(self.strategy.splits)
                    if all(clock.finished(number, lane, part) for clock in clocks)
                }
                if not done:
                    return
                self._clocks[number] = _Clock(done, Report(Totals(0, *np.zeros((2, self.model.n_problems)))))

    # -- epochs -----------------------------------------------------------------------------------------

    def _plan_of(self, epoch: int, first: int) -> EpochPlan:
        mixed = (
            epoch > 1
            and self.schedule.shuffle
            and self.schedule.n_blocks > 1
            and self.teller.first_bytes <= MIXED_BYTES
        )
        return EpochPlan(epoch, first, self._clocks_of_epoch(), mixed)

    def _clocks_of_epoch(self) -> int:
        """Into how many clocks a replica's part of an epoch is cut."""
        strategy, schedule = self.strategy, self.schedule
        if strategy.clock_rows is not None:
            rows = self.data.n_rows or (self.teller.all_rows // self.teller.epochs if self.teller.epochs else None)
            if rows is not None:
                return max(1, round(rows / schedule.n_replicas / strategy.clock_rows))
            # Lengths are not known before the first epoch has read them.
            return max(1, -(-schedule.n_blocks // schedule.n_replicas))
        if strategy.clock_blocks is not None:
            return max(1, round(schedule.n_blocks / schedule.n_replicas / strategy.clock_blocks))
        tickets, train, sync = self._cost
        fewest = max(_FEWEST_CLOCKS, 16 * (strategy.staleness or 0))
        if not self.teller.epochs or not tickets:
            return min(_MOST_CLOCKS, max(fewest, -(-schedule.n_blocks // schedule.n_replicas)))
        each = train / self.teller.epochs / schedule.n_replicas
        return int(np.clip(_COMMUNICATION * each / max(sync / tickets, 1e-6) / strategy.splits, fewest, _MOST_CLOCKS))

    def _open(self, plan: EpochPlan) -> None:
        assert self._group is not None
        self._plans.append(plan)
        # Before the first ticket of the epoch can be claimed.
        self._advise()
        if plan.first + plan.clocks > self._emitted:
            self._group.ledger("open", plan.epoch, plan.first, plan.clocks)

    def _open_more(self) -> None:
        """Open the epochs that may begin now: one ahead, so that nobody waits at an epoch's end.

        Not after the first, which decides how the others are cut; and not with staleness 0, where what an epoch's
        end decides must reach everybody at the same clock.
        """
        last = self._plans[-1]
        self._advise()
        ahead = 1 if self.teller.epochs and self.strategy.staleness != 0 else 0
        while last.epoch < min(self.teller.epochs + 1 + ahead, self.schedule.max_epochs):
            last = self._plan_of(last.epoch + 1, last.first + last.clocks)
            self._open(last)

    def _advise(self) -> None:
        """Tell the runners how the epochs are cut and which problems are still trained."""
        assert self._group is not None
        recent = [p for p in self._plans if p.epoch >= self.teller.epochs]
        plans = {p.epoch: (p.first, p.clocks, p.mixed) for p in recent}
        self._group.ledger("advise", {"plans": plans, "active": ~self.schedule.rule.stopped})

    # -- following --------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Hear what was done, tell it on, and mend what was lost, until a reason to end."""
        behind_since: float | None = None
        self._begin_epoch()
        while self._reason is None:
            assert self._group is not None
            news = self._group.news(_NEWS)
            for ticket, part in news.done:
                self._note(ticket, part)
            # A report can be lost with the worker that held the ledger; what was done is known from the shards.
            late = news.minimum > self._emitted and not self._complete(self._emitted)
            behind_since = (behind_since or time.monotonic()) if late else None
            given_up = behind_since is not None and time.monotonic() - behind_since > 2.0
            while self._reason is None and (self._complete(self._emitted) or (given_up and late)):
                late = False
                self._tell(self._emitted)
            self._tend()

    def _note(self, ticket: Ticket, part: PartReport) -> None:
        if part.read is not None:
            # By runner and number: a report can come twice.
            self._reads[part.read.runner, part.read.number] = part.read
        if ticket.clock < self._emitted:
            return
        clock = self._clocks.setdefault(ticket.clock, _Clock())
        if ticket.id not in clock.tickets:
            clock.add(ticket, part)
            self._cost[0] += 1
            self._cost[1] += part.train_seconds
            self._cost[2] += part.sync_seconds

    def _complete(self, number: int) -> bool:
        clock = self._clocks.get(number)
        return clock is not None and len(clock.tickets) == self.schedule.n_replicas * self.strategy.splits

    def _tell(self, number: int) -> None:
        """A clock is over: tell the listeners, and judge the epoch if it was its last."""
        clock = self._clocks.pop(number, _Clock())
        nothing = Report(Totals(0, *np.zeros((2, self.model.n_problems))))
        report = nothing + clock.report + Report(recoveries=self._recoveries)
        self._recoveries = self._replaced = 0
        self._emitted += 1
        if clock.statistics is not None:
            self._validation = clock.statistics + (0.0 if self._validation is None else self._validation)
        if self.checkpoint is not None:
            self.checkpoint.tick()
        try:
            self.teller.on_round(report)
        except StopTraining:
            self._reason = "stopped"
            return
        plan = next(p for p in self._plans if p.epoch == self.teller.epoch)
        if self._emitted == plan.first + plan.clocks:
            self._judge()
        if self._reason is None and self.checkpoint is not None and self.checkpoint.due:
            self.checkpoint.save(self._progress())

    def _begin_epoch(self) -> None:
        self.teller.begin(self.teller.epochs + 1, ~self.schedule.rule.stopped)

    def _judge(self) -> None:
        """Let the rule see the epoch that is over."""
        rule, teller = self.schedule.rule, self.teller
        if not teller.rows:
            raise ValueError(
                "Found array with 0 sample(s) while a minimum of 1 is required: no block has a row to train on"
            )
        state = self._look()
        if trouble := self.model.divergence(state):
            raise ValueError(f"Floating-point under-/overflow occurred at epoch #{teller.epoch}. {trouble}")
        rates = self.model.learning_rates(state)
        values, score = teller.objectives(), None
        if self.schedule.holdout is not None:
            if self._validation is None:
                raise ValueError(
                    "The validation set is empty: increase validation_fraction or the number of samples, "
                    "or disable early_stopping."
                )
            values = self.model.scores(self._validation)
            score, self._validation = float(values.mean()), None
        decision = rule.update(values, self.schedule.holdout is not None, rates)
        teller.end(score, float(rates[0]))
        if decision.reduce_rate.any():
            self._change_rates(state, self.model.reduce_rates(state, decision.reduce_rate))
        if teller.stopped or rule.stopped.all():
            self._reason = "stopped" if teller.stopped else "converged"
        elif teller.epochs >= self.schedule.max_epochs:
            self._reason = "max_iter"
        else:
            self._begin_epoch()
            self._open_more()
            if self.layout.nbytes <= _LOOKED_AT:
                assert self._group is not None
                self._snapshots = self._group.snapshot()

    def _look(self) -> Any:
        """The parameters as they are now; of a very large state what the rule needs."""
        assert self._group is not None
        return self.layout.state(self._partition.join(self._group.views()))

    def _change_rates(self, old: Any, new: Any) -> None:
        assert self._group is not None
        changes = self.layout.changes(self.layout.flat(old), new, 1.0)
        updates = {name: Update(change) for name, change in changes.items() if name == "eta"}
        token = f"{self._token}-rates-{self.teller.epochs}"
        for index, part in enumerate(self._partition.cut_updates(updates)):
            self._group.push(index, Push(self._generation, -1, None, part, token))

    def _progress(self) -> dict[str, Any]:
        """All that is needed to go on from here in another process."""
        assert self._group is not None
        self._snapshots, rule = self._group.snapshot(), self.schedule.rule
        return {
            "shards": self._snapshots,
            "plans": [[p.epoch, p.first, p.clocks, p.mixed] for p in self._plans if p.epoch >= self.teller.epochs],
            "teller": self.teller.progress(),
            "rule": {"best": rule.best, "stalled": rule.stalled, "stopped": rule.stopped},
            "emitted": self._emitted,
            "generation": self._generation,
            "next_runner": self._next_runner,
            "cost": list(self._cost),
        }

    # -- workers ----------------------------------------------------------------------------------------

    def _spawn(self, lane: int) -> None:
        """Begin a runner for a lane, on the worker with the fewest of them."""
        assert self._group is not None
        threads = self._await_workers()
        load = dict.fromkeys(threads, 0)
        for running in self._runners.values():
            if running.address in load:
                load[running.address] += 1
        address = min(threads, key=lambda a: (load[a] / threads[a], a))
        number, self._next_runner = self._next_runner, self._next_runner + 1
        future = self.client.submit(
            run_replica,
            self._job,
            Begin(number, lane, self._group.directory),
            key=f"daskdml-replica-{self._token}-{number}",
            pure=False,
            workers=[address],
            allow_other_workers=False,
        )
        self._runners[number] = _Running(lane, address, future)

    def _await_workers(self) -> dict[str, int]:
        """The workers with their threads, waiting a while where there are none."""
        deadline = time.monotonic() + _PATIENCE
        told = False
        while True:
            if self.client.status != "running":
                raise RuntimeError(
                    f"the connection to the scheduler is {self.client.status}: the fit cannot go on; "
                    "start a scheduler, connect a Client, and fit again"
                )
            threads = {a: max(1, n) for a, n in self.client.nthreads().items()}
            if threads:
                return threads
            if not told:
                logger.warning("the cluster has no worker: waiting %.0f s for one", _PATIENCE)
                told = True
            if time.monotonic() > deadline:
                if self.checkpoint is not None and self._snapshots:
                    self._save_last()
                raise RuntimeError(
                    f"the cluster has had no worker for {_PATIENCE:.0f} s: start workers, or look at their logs for "
                    "why they ended (often the memory limit), and fit again"
                    + ("" if self.checkpoint is None else " with resume=True")
                )
            time.sleep(0.2)

    def _save_last(self) -> None:
        assert self.checkpoint is not None
        logger.warning("the last snapshot of the fit is kept in its checkpoint")

    def _tend(self) -> None:
        """Replace what was lost, and move work to workers that came."""
        assert self._group is not None
        changes = self._group.tend()
        self._recoveries += changes.recovered
        for number, running in list(self._runners.items()):
            if running.address in changes.lost:
                running.future.cancel()
                self._lost_runners.add(number)
                self._replace(number)
            elif running.future.status == "error":
                error = running.future.exception()
                if isinstance(error, _GONE):
                    self._renew_job()
                elif not isinstance(error, _UNSERVED):
                    raise explained(error)
                self._replace(number)
            elif running.future.status in ("cancelled", "lost"):
                self._renew_job()
                self._replace(number)
            elif running.future.status == "finished":
                self._replace(number)
        if changes.joined:
            self._balance()

    def _replace(self, number: int) -> None:
        assert self._group is not None
        running = self._runners.pop(number)
        self._replaced += 1
        if self._replaced > _REPLACED * self.schedule.n_replicas:
            error = running.future.exception() if running.future.status == "error" else None
            raise RuntimeError(
                f"{self._replaced} replicas ended one after another without finishing a clock: see the workers' logs"
            ) from error
        self._group.ledger("leave", number)
        self._spawn(running.lane)

    def _balance(self) -> None:
        """Let runners of crowded workers end, to begin again where there is room."""
        assert self._group is not None
        threads = {a: max(1, n) for a, n in self.client.nthreads().items()}
        share = len(self._runners) / max(1, sum(threads.values()))
        for address, n in threads.items():
            mine = [number for number, running in self._runners.items() if running.address == address]
            for number in mine[max(1, round(share * n)) :]:
                self._group.ledger("dismiss", number)

    # -- the end ----------------------------------------------------------------------------------------

    def _finish(self) -> Agreed:
        """Let everybody end, and take the parameters over."""
        assert self._group is not None and self._reason is not None
        after = self.teller.epochs if self._reason != "stopped" or not self.teller.done else self.teller.epoch - 1
        self._group.ledger("close", after)
        deadline = time.monotonic() + _PATIENCE
        while self._runners and time.monotonic() < deadline:
            for _, part in self._group.news(0.05).done:
                if part.read is not None:
                    self._reads[part.read.runner, part.read.number] = part.read
            changes = self._group.tend()
            for number, running in list(self._runners.items()):
                if running.future.status == "error":
                    error = running.future.exception()
                    if isinstance(error, _GONE):
                        self._renew_job()
                    elif not isinstance(error, _UNSERVED):
                        raise explained(error)
                if running.address in changes.lost:
                    self._lost_runners.add(number)
                if running.address in changes.lost or running.future.status != "pending":
                    del self._runners[number]
                    self._group.ledger("leave", number)
            if not self._runners and not self._group.ledger("over"):
                # What a lost runner had begun is finished by another.
                self._spawn(0)
        self._snapshots = self._group.snapshot()
        shards = [Shard.restore(snapshot) for snapshot in self._snapshots]
        state = self.layout.state(self._partition.join([shard.view().values for shard in shards]))
        if trouble := self.model.divergence(state):
            raise ValueError(f"Floating-point under-/overflow occurred at epoch #{self.teller.epoch}. {trouble}")
        if self.strategy.trace:
            self.trace = self._traced(shards)
        if self.checkpoint is not None and not self.checkpoint.fresh:
            # One that a listener stopped is not finished.
            self.checkpoint.save(self._progress(), None if self._reason == "stopped" else self._reason)
        return Agreed(state)

    def _traced(self, shards: list[Shard]) -> Trace:
        logs = {
            shard.index: [(at, None if ticket is None else ticket.id, runner) for at, ticket, runner in shard.log]
            for shard in shards
        }
        return Trace(
            lanes=self.schedule.n_replicas,
            parts=self.strategy.splits,
            staleness=self.strategy.staleness,
            n_shards=len(shards),
            reads=list(self._reads.values()),
            logs=logs,
            lost=sorted(self._lost_runners),
        )
