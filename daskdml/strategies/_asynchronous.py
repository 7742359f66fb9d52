"""The driver's side of a fit on the parameter server: it opens epochs, listens, judges, and mends what is lost."""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import replace
from typing import Any

import numpy as np
from distributed import Client

from daskdml.data import Dataset, new_lease, release_cache, row_bytes
from daskdml.models import Field, Layout, Model, Totals
from daskdml.monitor import CallbackList, FitEnd, FitInfo, StopTraining
from daskdml.server import (
    Group,
    Ledger,
    Lost,
    Partition,
    Push,
    Read,
    Refused,
    Shard,
    Table,
    Ticket,
    Trace,
    Unreachable,
    Update,
    VectorClock,
    default_shards,
)
from daskdml.strategies._checkpoint import Checkpoint, already_further, of_other_rows
from daskdml.strategies._clocks import FEWEST_CLOCKS, Clock, Pace, clocks_for, first_clocks
from daskdml.strategies._limits import budget, device_budget
from daskdml.strategies._replica import EpochPlan, PartReport, ReplicaJob
from daskdml.strategies._runners import Runners
from daskdml.strategies._speeds import Speeds, new_weights
from daskdml.strategies._ssp import Asynchronous
from daskdml.strategies._strategy import Agreed
from daskdml.strategies._teller import Teller
from daskdml.strategies._train import Schedule, Trained, require_finite
from daskdml.strategies._work import Blocks, Report

logger = logging.getLogger("daskdml")

# Seconds the driver waits at the ledger for news: after so many it notices a loss when nothing else does.
_NEWS = 0.1
# Each report by itself would cost the driver a message; so it hears of all lanes together, or after so many seconds.
_GATHER = 0.05
# Between two looks at which workers there are, for which the scheduler is asked.
_TEND = 0.05
# Seconds it waits for reports of what the shards have: those that a lost worker had not told are lost with it.
_UNHEARD = 0.3
# New starts of a fit from a snapshot, after all copies of a shard were lost, before it gives up.
_RESTARTS = 5
# Tries to get a snapshot of every shard at the same clock.
_SNAPSHOTS = 20
# A state so large is not fetched at every epoch's end to be looked at.
_LOOKED_AT = 2**26


class AsynchronousFit:
    """One fit of a model by a strategy on the parameter server.

    Parameters
    ----------
    strategy : Asynchronous
    model : Model
    data : Dataset
    client : Client
    memory_budget, device_memory : int or str, optional
    """

    def __init__(
        self,
        strategy: Asynchronous,
        model: Model,
        data: Dataset,
        client: Client,
        memory_budget: int | str | None = None,
        device_memory: int | str | None = None,
    ):
        self.strategy = strategy
        self.model = model
        self.data = data
        self.client = client
        self.layout = Layout(model)
        self.trace: Trace | None = None
        self._token = uuid.uuid4().hex[:12]
        self._lease = new_lease(client)
        self._blocks_plan, self._cache = budget(client, data, model, memory_budget, self._lease)
        self._device = device_budget(client, data, model, device_memory, self._lease)
        self._runners = Runners(client, data, self._token, self._advice_to_resume)
        self._group: Group | None = None
        self._generation = 0
        self._recoveries = 0
        self._reads: dict[tuple[int, int], Read] = {}
        self._begins: dict[int, dict[int, int]] = {}
        self._snapshots: list[Any] | None = None

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
        self._clocks: dict[int, Clock] = {}
        # Clocks of lanes that were told of by themselves.
        self._told: set[tuple[int, int]] = set()
        self._emitted = 0
        self._validation: np.ndarray | None = None
        self._pace = Pace()
        self._speeds = Speeds()
        self._reason: str | None = None
        self._minimum = self._unheard = 0
        self._expected: int | None = None
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
            agreed = self._carry_through(agreed)
            assert self._reason is not None
            listeners.on_fit_end(
                FitEnd(self._reason, self.teller.epochs, self.teller.all_rows, time.perf_counter() - started)
            )
        return Trained(agreed, max(self.teller.epochs, 1), self.teller.all_rows, self._reason, self.trace)

    def _carry_through(self, agreed: Agreed) -> Agreed:
        """Train to the end, from the last snapshot on where all copies of a shard are lost on the way."""
        restarts, told = 0, self._emitted
        while True:
            try:
                self._start(agreed)
                self._follow()
                return self._finish()
            except (Lost, Unreachable, Refused) as loss:
                restarts, told = (restarts + 1 if self._emitted == told else 1), self._emitted
                if restarts > _RESTARTS:
                    raise RuntimeError(
                        f"the parameter server was lost {restarts} times one after another ({loss}): see the "
                        "workers' logs for why they end; the fit cannot go on" + self._advice_to_resume()
                    ) from loss
                self._abandon(loss)

    def _advice_to_resume(self) -> str:
        saved = self.checkpoint is not None and self.checkpoint.has_something
        return "; fit(X, y, resume=True) goes on from its checkpoint" if saved else ""

    def _check_epochs(self, saved: dict[str, Any]) -> None:
        reached = saved["teller"]["epochs"] + (saved["teller"]["done"] > 0)
        if reached > self.schedule.max_epochs:
            assert self.checkpoint is not None
            raise already_further(self.checkpoint, reached, self.schedule.max_epochs)

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
        if self._group is not None and self.client.status == "running":
            self._runners.stop()
        if self._group is not None:
            self._group.close()
            self._group = None
        if self.client.status == "running":
            try:
                self.client.run(release_cache, self.data.token, self._lease, on_error="ignore")
            except (OSError, TimeoutError, ValueError) as error:
                logger.warning("could not free what is kept of the data: %r", error)

    # -- starting and starting again --------------------------------------------------------------------

    def _start(self, agreed: Agreed) -> None:
        """Put the shards on the workers, open the epochs that are not over, and begin the runners."""
        strategy, schedule = self.strategy, self.schedule
        workers = self._runners.await_workers()
        shards = self._shards(agreed, len(workers))
        self._minimum = min(shard.clock.minimum for shard in shards)
        ledger = Ledger.from_applied(
            [shard.clock for shard in shards], strategy.staleness, strategy.reassign, strategy.speculate
        )
        self._fill_in([shard.clock for shard in shards])
        self._group = Group(self.client, backups=strategy.backups)
        self.teller.on_server([shard.nbytes for shard in shards])
        self._group.start(shards, ledger)
        del shards
        recipes = dict(enumerate(self.data.recipes))
        job = ReplicaJob(
            f"{self._token}",
            strategy,
            self.model,
            Blocks(recipes, {}, self._cache, self._blocks_plan, self._device),
            self._runners.inputs,
            self._partition,
            self._generation,
            schedule.n_replicas,
            schedule.seed,
            schedule.shuffle,
            schedule.holdout,
        )
        if not self._plans:
            self._plans.append(self._plan_of(1, 0))
        # Before the first ticket can be claimed.
        self._advise()
        for plan in self._plans:
            if plan.first + plan.clocks > self._minimum:
                self._group.ledger("open", plan.epoch, plan.first, plan.clocks)
        self._runners.begin(self._group, job, schedule.n_replicas)

    def _shards(self, agreed: Agreed, n_workers: int) -> list[Shard]:
        """The shards as they were when they were last seen, or new ones."""
        strategy, tables = self.strategy, self._tables
        if self._snapshots is not None:
            self._partition = Partition(tables, len(self._snapshots))
            shards = [Shard.restore(snapshot) for snapshot in self._snapshots]
            for shard in shards:
                shard.generation = self._generation
            return shards
        n_shards = strategy.shards or default_shards(self.layout.nbytes, n_workers)
        self._partition = Partition(tables, n_shards)
        return [
            Shard(
                index,
                values,
                tables,
                VectorClock(range(self.schedule.n_replicas), strategy.splits),
                optimizer=strategy.optimizer,
                staleness=strategy.staleness,
                generation=self._generation,
                record=strategy.trace,
                # They are sent away as they are.
                copy=False,
            )
            for index, values in enumerate(self._partition.cut(self.layout.flat(agreed.state)))
        ]

    def _op(self, found: Field) -> str:
        """How an update of an array meets it: an optimizer changes what has a gradient, counts are summed."""
        if found.largest:
            return "max"
        return "add" if not self.strategy.sends_gradients or found.name in self.model.sloped else "sum"

    def _abandon(self, loss: Exception) -> None:
        """All copies of a shard are gone: what there is goes on from the last snapshot, as a new generation."""
        self._runners.abandon()
        if self._group is not None:
            self._group.close()
            self._group = None
        self._recoveries += 1
        self.teller.on_recovery(f"{loss}; the fit goes back to its last snapshot")
        self._next_generation()

    def _next_generation(self) -> None:
        self._generation += 1
        # Without a snapshot everything is trained again.
        snapshots = self._snapshots or [{"index": k, "sequence": 0} for k in range(self._partition.n_shards)]
        self._begins[self._generation] = {found["index"]: found["sequence"] for found in snapshots}

    def _resume(self, saved: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._check_epochs(saved)
        self.teller.restore(saved["teller"])
        self._expected = self.teller.epoch_rows
        self.schedule.rule.restore(saved["rule"])
        self._plans = [EpochPlan.of(plan) for plan in saved["plans"]]
        self._clocks = {number: Clock.of(clock) for number, clock in saved["clocks"]}
        self._validation = saved["validation"]
        self._emitted = saved["emitted"]
        self._runners.next = saved["next_runner"]
        self._pace = Pace(saved.get("pace", ()))
        self._snapshots = saved["shards"]
        self._generation = saved["generation"]
        self._begins = {generation: dict(begin) for generation, begin in saved["begins"]}
        reads = map(Read.of, saved["reads"])
        self._reads = {(read.runner, read.number): read for read in reads}
        # Those that ran then were killed with the process.
        self._runners.lost = set(range(self._runners.next))
        self._next_generation()

    def _fill_in(self, clocks: list[VectorClock]) -> None:
        """Keep the reports of what the shards contain; what they do not will be done, and reported, again.

        What they contain and nobody has reported is counted as done.
        """
        known, self._clocks = self._clocks, {}
        for plan in self._plans:
            for number in range(max(plan.first, self._emitted), plan.first + plan.clocks):
                parts = known.get(number, Clock()).parts
                done = {
                    (number, lane, part): parts.get((number, lane, part))
                    for lane in range(self.schedule.n_replicas)
                    for part in range(self.strategy.splits)
                    if all(clock.finished(number, lane, part) for clock in clocks)
                }
                if done:
                    self._clocks[number] = Clock(done)

    # -- epochs -----------------------------------------------------------------------------------------

    def _plan_of(self, epoch: int, first: int) -> EpochPlan:
        mixing = self.schedule.mixing(self.teller.first_bytes) if epoch > 1 else 0
        return EpochPlan(epoch, first, self._clocks_of_epoch(), mixing, self._weights())

    def _weights(self) -> tuple[int, ...]:
        """How large the replicas' shares are from the next epoch on, by how fast their workers were in the last two."""
        weights = self._plans[-1].weights if self._plans else ()
        strategy, epochs, lanes = self.strategy, self.teller.epochs, self.schedule.n_replicas
        self._speeds.forget_before(epochs - 1)
        # With staleness 0 the result must not depend on what was measured. An optimizer on the server takes the mean
        # gradient of each replica's rows: those of a large share would count for less.
        if strategy.staleness == 0 or strategy.sends_gradients or not strategy.reassign:
            return weights
        return new_weights(weights, self._speeds.of(epochs - 1, lanes), self._speeds.of(epochs, lanes))

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
        fewest = max(FEWEST_CLOCKS, 16 * (strategy.staleness or 0))
        # With staleness 0 the result must not depend on what was measured.
        pace = None if strategy.staleness == 0 else self._pace.of(self.teller.epochs)
        self._pace.forget_before(self.teller.epochs)
        if pace is None:
            known = None if self.data.n_rows is None or self.data.schema.sparse else self.data.n_rows
            nbytes = None if known is None else known * row_bytes(self.data.schema) // schedule.n_replicas
            return first_clocks(-(-schedule.n_blocks // schedule.n_replicas), nbytes, fewest)
        train, sync = pace
        return clocks_for(train, sync * strategy.splits, fewest)

    def _open_more(self) -> None:
        """Open the epochs that may begin now: one ahead, so that nobody waits at an epoch's end.

        Not after the first, which decides how the others are cut; and not with staleness 0, where what an epoch's
        end decides must reach everybody at the same clock.
        """
        assert self._group is not None
        ahead = 1 if self.teller.epochs and self.strategy.staleness != 0 else 0
        fresh: list[EpochPlan] = []
        while self._plans[-1].epoch < min(self.teller.epochs + 1 + ahead, self.schedule.max_epochs):
            last = self._plans[-1]
            fresh.append(self._plan_of(last.epoch + 1, last.first + last.clocks))
            self._plans.append(fresh[-1])
        # Before the first ticket of the epoch can be claimed.
        self._advise()
        for plan in fresh:
            self._group.ledger("open", plan.epoch, plan.first, plan.clocks)

    def _advise(self) -> None:
        """Tell the runners how the epochs are cut and which problems are still trained."""
        assert self._group is not None
        reached = min(self._minimum, self._emitted)
        plans = [plan.to_payload() for plan in self._plans if plan.first + plan.clocks > reached]
        self._group.ledger("advise", {"plans": plans, "active": ~self.schedule.rule.stopped})

    # -- following --------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Hear what was done, tell it on, and mend what was lost, until a reason to end."""
        behind_since: float | None = None
        tended = time.monotonic()
        if self._reason is None:
            self._catch_up()
        while self._reason is None:
            self._hear(_NEWS)
            # A report can be lost with the worker that held the ledger; what was done is known from the shards.
            late = self._minimum > self._emitted and not self._complete(self._emitted)
            behind_since = (behind_since or time.monotonic()) if late else None
            given_up = behind_since is not None and time.monotonic() - behind_since > _UNHEARD
            while self._reason is None and (self._complete(self._emitted) or (given_up and late)):
                late = False
                self._tell(self._emitted)
            if time.monotonic() - tended >= _TEND:
                self._tend()
                tended = time.monotonic()

    def _catch_up(self) -> None:
        """Do what was to be done when a fit was broken off between the end of an epoch and the next."""
        self._begin_epoch()
        plan = self._current
        if plan is None:
            self._open_more()
        elif self._emitted >= plan.first + plan.clocks:
            self._judge()

    def _hear(self, wait: float) -> None:
        assert self._group is not None
        news = self._group.news(wait, _GATHER)
        self._minimum = max(self._minimum, news.minimum)
        for ticket, part in news.done:
            self._note(ticket, part)

    def _note(self, ticket: Ticket, part: PartReport) -> None:
        if part.read is not None:
            # By runner and number: a report can come twice.
            self._reads[part.read.runner, part.read.number] = part.read
        self._speeds.note(ticket, part.report)
        if ticket.clock < self._emitted:
            return
        clock = self._clocks.setdefault(ticket.clock, Clock())
        if clock.parts.get(ticket.id) is None:
            clock.parts[ticket.id] = part
            self._tell_replica(clock, ticket.clock, ticket.lane)
            self._pace.note(ticket.epoch, ticket.lane, part.report)

    def _tell_replica(self, clock: Clock, number: int, lane: int, whole: bool = True) -> None:
        """A replica's clock is over: tell, once, without waiting for the others."""
        parts = [part for id_, part in sorted(clock.parts.items()) if id_[1] == lane]
        if (number, lane) in self._told or (whole and len(parts) < self.strategy.splits):
            return
        self._told.add((number, lane))
        if heard := [found for part in parts if part is not None for found in part.report.parts]:
            self.teller.on_clock(number + 1, heard)

    @property
    def _tickets_of_clock(self) -> int:
        return self.schedule.n_replicas * self.strategy.splits

    @property
    def _current(self) -> EpochPlan | None:
        """The plan of the epoch that is being told of."""
        return next((plan for plan in self._plans if plan.epoch == self.teller.epoch), None)

    def _complete(self, number: int) -> bool:
        clock = self._clocks.get(number)
        return clock is not None and len(clock.parts) == self._tickets_of_clock

    def _tell(self, number: int) -> None:
        """A clock is over: tell the listeners, and judge the epoch if it was its last."""
        clock = self._clocks.pop(number, Clock())
        # Of parts that were lost with their worker nothing will be heard.
        for lane in range(self.schedule.n_replicas):
            self._tell_replica(clock, number, lane, whole=False)
        self._told = {told for told in self._told if told[0] > number}
        nothing = Report(Totals(0, *np.zeros((2, self.model.n_problems))))
        report = nothing + clock.report() + Report(recoveries=self._recoveries)
        self._recoveries = self._runners.replaced = 0
        self._unheard += self._tickets_of_clock - len(clock.heard)
        self._emitted += 1
        statistics = clock.statistics()
        if statistics is not None:
            self._validation = statistics + (0.0 if self._validation is None else self._validation)
        if self.checkpoint is not None:
            self.checkpoint.tick()
        try:
            self.teller.on_round(report)
        except StopTraining:
            self._reason = "stopped"
            return
        plan = self._current
        if plan is not None and self._emitted == plan.first + plan.clocks:
            self._judge()
        if self._reason is None and self.checkpoint is not None and self.checkpoint.due:
            self.checkpoint.save(self._progress())

    def _begin_epoch(self) -> None:
        self.teller.begin(self.teller.epochs + 1, ~self.schedule.rule.stopped)
        if not self.teller.done:
            self._unheard = 0

    def _judge(self) -> None:
        """Let the rule see the epoch that is over."""
        rule, teller = self.schedule.rule, self.teller
        self._check_rows()
        state = self._look()
        require_finite(self.model.divergence(state), teller.epoch)
        rates = self.model.learning_rates(state)
        before, score = rule.progress(), None
        if self.schedule.holdout is None:
            judged = bool(teller.rows)
            values = teller.objectives()
        else:
            judged = self._validation is not None
            values = self.model.scores(self._validation) if self._validation is not None else teller.objectives()
            score = float(values.mean()) if judged else None
        if judged:
            decision = rule.update(values, self.schedule.holdout is not None, rates)
            try:
                if decision.reduce_rate.any():
                    self._change_rates(state, self.model.reduce_rates(state, decision.reduce_rate))
            except (Lost, Unreachable, Refused):
                # The epoch will be judged again.
                rule.restore(before)
                raise
        self._validation = None
        teller.end(score, float(rates[0]))
        if teller.stopped or rule.stopped.all():
            self._reason = "stopped" if teller.stopped else "converged"
        elif teller.epochs >= self.schedule.max_epochs:
            self._reason = "max_iter"
        else:
            self._begin_epoch()
            self._open_more()
            if self.layout.nbytes <= _LOOKED_AT:
                progress = self._progress()
                if self.checkpoint is not None:
                    self.checkpoint.keep(progress)

    def _check_rows(self) -> None:
        """Raise where an epoch had no rows, or not as many as before the fit was resumed."""
        rows = self.teller.rows
        if self._unheard:
            # Reports were lost with their workers: what is known of the epoch is not all of it.
            return
        if not rows:
            raise ValueError(
                "Found array with 0 sample(s) while a minimum of 1 is required: no block has a row to train on"
            )
        if self.checkpoint is not None and self._expected not in (None, rows):
            raise of_other_rows(self.checkpoint, self._expected, rows)
        if self.schedule.holdout is not None and self._validation is None:
            raise ValueError(
                "The validation set is empty: increase validation_fraction or the number of samples, "
                "or disable early_stopping."
            )

    def _look(self) -> Any:
        """The parameters as they are now; of a very large state only what is small, the rest zeros that take no room.

        A large state is not looked at for divergence: its losses are, by the rule.
        """
        assert self._group is not None
        least = self._emitted if self.strategy.staleness == 0 else None
        if self.layout.nbytes <= _LOOKED_AT:
            return self.layout.state(self._partition.join(self._group.views(least=least)))
        small = [f.name for f in self.layout.fields if f.size * f.dtype.itemsize <= _LOOKED_AT // 64]
        values = self._partition.join(self._group.views(small, least))
        absent = {
            f.name: np.broadcast_to(f.dtype.type(0), (f.size,)) for f in self.layout.fields if f.name not in values
        }
        return self.layout.state(values | absent)

    def _change_rates(self, old: Any, new: Any) -> None:
        assert self._group is not None
        updates = {"eta": Update((new.eta - old.eta).reshape(-1))}
        token = f"{self._token}-rates-{self.teller.epoch}"
        for index, part in enumerate(self._partition.cut_updates(updates)):
            self._group.push(index, Push(self._generation, -1, None, part, token))

    def _progress(self) -> dict[str, Any]:
        """All that is needed to go on from here in another process."""
        assert self._group is not None
        self._snapshots = self._snapshot()
        return {
            "shards": self._snapshots,
            "plans": [plan.to_payload() for plan in self._plans if plan.epoch >= self.teller.epochs],
            "clocks": [[number, clock.to_payload()] for number, clock in self._clocks.items()],
            "validation": self._validation,
            "begins": [[generation, list(begin.items())] for generation, begin in self._begins.items()],
            "reads": [read.to_list() for read in self._reads.values()],
            "teller": self.teller.progress(),
            "rule": self.schedule.rule.progress(),
            "emitted": self._emitted,
            "generation": self._generation,
            "next_runner": self._runners.next,
            "pace": self._pace.to_payload(),
        }

    def _snapshot(self) -> list[Any]:
        """A snapshot of each shard; with staleness 0 all of the same clock, from which every read is exact again."""
        assert self._group is not None
        for _ in range(_SNAPSHOTS):
            snapshots = self._group.snapshot()
            if self.strategy.staleness != 0 or len({found["contained"] for found in snapshots}) == 1:
                break
        return snapshots

    # -- workers ----------------------------------------------------------------------------------------

    def _tend(self) -> None:
        """Replace what was lost, and move work to workers that came."""
        assert self._group is not None
        changes = self._group.tend()
        self._recoveries += changes.recovered
        if changes.recovered:
            lost = ", ".join(sorted(changes.lost)) or "workers that are gone"
            self.teller.on_recovery(f"parts of the parameter server replaced ({changes.recovered}), lost with {lost}")
        self._runners.tend(changes)
        news, self._runners.news = self._runners.news, []
        for what in news:
            self.teller.on_recovery(what)

    # -- the end ----------------------------------------------------------------------------------------

    def _finish(self) -> Agreed:
        """Let everybody end, and take the parameters over."""
        assert self._group is not None and self._reason is not None
        after = self.teller.epochs if self._reason != "stopped" or not self.teller.done else self.teller.epoch - 1
        self._group.ledger("close", after)
        while not self._group.ledger("over"):
            self._hear(0.05)
            # What a lost runner had begun is finished by another.
            self._tend()
        self._runners.dismiss(self.strategy.compression is not None, self._hear)
        # The last clocks of staleness 0 are applied when they are asked for.
        state = self.layout.state(self._partition.join(self._group.views()))
        require_finite(self.model.divergence(state), self.teller.epoch)
        if self.strategy.trace:
            self.trace = self._traced([Shard.restore(snapshot) for snapshot in self._snapshot()])
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
            begins=self._begins,
            lost=sorted(self._runners.lost),
            boost=self.strategy.boost(self.schedule.n_replicas),
        )
