"""Running replicas as Dask tasks: one for each replica and round.

Parameters stay on the workers as futures between the rounds of an epoch; the driver sees reports. At the end of
an epoch the driver takes the agreed state and starts the next one from its own copy: the graph of a task never
reaches back beyond its epoch, so the scheduler forgets finished epochs, and a lost worker costs at most one
epoch's recomputation. Tasks are pure, so what Dask runs again gives the same bits.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import replace
from functools import partial
from typing import Any

import dask
import numpy as np
from distributed import Client, Future

from daskdml.cluster import LOST, connection_lost
from daskdml.data import Dataset, explained, fatal_blocks, release_cache, remedy, trouble, wait_for
from daskdml.models import Model
from daskdml.monitor import StopTraining
from daskdml.strategies import _tasks
from daskdml.strategies._limits import budget
from daskdml.strategies._plan import Work
from daskdml.strategies._strategy import Agreed, OnRound, Synchronous
from daskdml.strategies._work import Blocks, Report

logger = logging.getLogger("daskdml")

# Fan-in of the tree of means: enough that a few replicas meet in one task.
_FAN_IN = 8
# Blocks of one segment, where blocks come from the scheduler: one is trained on, one arrives.
_WINDOW = 2
# Epochs begun anew because the cluster lost their parameters, before the fit gives up.
_RETRIES = 5
# Seconds without any worker that would begin a task before the fit fails.
_PATIENCE = 60.0


class DaskRunner:
    """Runs a strategy's steps on a cluster."""

    def __init__(
        self,
        strategy: Synchronous,
        model: Model,
        data: Dataset,
        client: Client,
        memory_budget: int | str | None = None,
    ):
        self.client = client
        self.data = data
        self.strategy = strategy
        self.plan, self.cache = budget(client, data, model, memory_budget)
        self._local_job = _tasks.Job(strategy, model)
        self.job = client.submit(_tasks.carry, self._local_job, pure=False)
        self._names = f"daskdml-{uuid.uuid4().hex[:12]}"
        self._count = 0
        self._homes: dict[int, str] = {}

    def epoch(
        self,
        agreed: Agreed,
        rounds: list[list[Work]],
        active: np.ndarray,
        on_round: OnRound,
    ) -> tuple[Agreed, bool]:
        """Run the rounds of an epoch; see :meth:`LocalRunner.epoch`. Begun anew if the cluster loses it."""
        done: list[Report] = []

        def once(report: Report, fetch: Callable[[], Agreed]) -> None:
            # A repeated epoch repeats its reports: listeners hear each round once.
            seen.append(report)
            if len(seen) > len(done):
                done.append(report)
                on_round(report, fetch)

        for attempt in range(_RETRIES + 1):
            seen: list[Report] = []
            try:
                return self._epoch(agreed, rounds, active, once)
            except LOST as error:
                if (lost := connection_lost(self.client, patience=0)) is not None:
                    raise lost from error
                self._give_up_on_fatal_blocks()
                if attempt == _RETRIES:
                    raise RuntimeError(
                        f"the cluster lost the parameters of this epoch {attempt + 1} times, the limit: see the "
                        "workers' logs for why they ended (often the memory limit), and fit again"
                    ) from error
                logger.warning("workers were lost with this epoch's parameters; it starts again")
                self._job_again()
        raise AssertionError("unreachable")

    def evaluate(self, agreed: Agreed, works: list[Work]) -> np.ndarray | None:
        """Summed validation statistics of all replicas."""
        nobody = np.ones(0, dtype=bool)
        start = self._send(agreed)
        futures: list[Future] = []
        found: list[np.ndarray | None] = []
        for work in works:
            for segment in [work] if self.data.self_contained else _segments(work):
                task = self._assign(segment, nobody)
                futures.append(
                    self._submit(
                        "evaluate", _tasks.evaluate, self.job, start, task, *self._inputs(segment), home=work.replica
                    )
                )
                if not self.data.self_contained:
                    # The inputs of one segment at a time.
                    found.append(self._gather(futures.pop()))
        found += [self._gather(future) for future in futures]
        kept = [f for f in found if f is not None]
        return sum(kept[1:], kept[0]) if kept else None

    def close(self) -> None:
        """Free the block caches on the workers."""
        if self.cache is None or self.client.status != "running":
            return
        try:
            self.client.run(release_cache, self.cache.token, on_error="ignore")
        except (OSError, TimeoutError, ValueError) as error:
            logger.warning("could not free the block caches: %r", error)

    def _epoch(
        self, agreed: Agreed, rounds: list[list[Work]], active: np.ndarray, on_round: OnRound
    ) -> tuple[Agreed, bool]:
        self._assign_homes(max(len(works) for works in rounds))
        now = self._send(agreed)
        ends: list[Future] = []
        for works in rounds:
            partials = self._partials(now, works, active)
            merged = self._tree(partials)
            now = self._submit("agree", _tasks.agree, self.job, now, merged, active)
            ends.append(now)
            if not self.data.self_contained:
                # Blocks that come from the scheduler arrive for one round at a time.
                self._gather_ready(now)
        for end in ends[:-1]:
            report = self._submit("report", _tasks.report_of, end)
            try:
                on_round(self._gather(report), partial(self._gather, end))
            except StopTraining:
                return self._gather(end), True
        last = self._gather(ends[-1])
        try:
            on_round(last.report, lambda: last)
        except StopTraining:
            return last, True
        return last, False

    def _partials(self, now: Future, works: list[Work], active: np.ndarray) -> list[Future]:
        if self.data.self_contained:
            return [
                self._submit("work", _tasks.work, self.job, now, self._assign(w, active), None, home=w.replica)
                for w in works
            ]
        return self._segmented(now, works, active)

    def _segmented(self, now: Future, works: list[Work], active: np.ndarray) -> list[Future]:
        """Replicas whose blocks the scheduler makes: a chain of tasks, a window of blocks each, one window ahead."""
        waiting = {w.replica: list(_segments(w)) for w in works}
        last: dict[int, Future | None] = {w.replica: None for w in works}
        running: dict[int, list[Future]] = {w.replica: [] for w in works}
        while any(waiting.values()):
            for work in works:
                replica = work.replica
                while waiting[replica] and len(running[replica]) < 2:
                    segment = waiting[replica].pop(0)
                    task, before = self._assign(segment, active), last[replica]
                    future = self._submit(
                        "work", _tasks.work, self.job, now, task, before, *self._inputs(segment), home=replica
                    )
                    last[replica] = future
                    running[replica].append(future)
            self._wait([f for futures in running.values() for f in futures], "FIRST_COMPLETED")
            for replica, futures in running.items():
                for future in futures:
                    if future.status in ("error", "cancelled", "lost"):
                        self._gather(future)
                running[replica] = [f for f in futures if not f.done()]
        return [last[w.replica] for w in works]  # type: ignore[misc]

    def _tree(self, partials: list[Future]) -> Future:
        while len(partials) > 1:
            partials = [
                self._submit("combine", _tasks.combine, self.job, *partials[i : i + _FAN_IN])
                for i in range(0, len(partials), _FAN_IN)
            ]
        return partials[0]

    def _send(self, agreed: Agreed) -> Future:
        """Bring the parameters to the cluster."""
        try:
            return self.client.scatter(agreed, hash=False, timeout=_PATIENCE)
        except TimeoutError:
            # Dask sends to running workers only, and gives up when there is none.
            raise RuntimeError(self._trouble() or "the cluster takes no data: look at its workers' logs") from None

    def _submit(self, what: str, function: Callable[..., Any], *args: Any, home: int | None = None) -> Future:
        self._count += 1
        options: dict[str, Any] = {}
        if home is not None and home in self._homes:
            options = {"workers": [self._homes[home]], "allow_other_workers": True}
        return self.client.submit(
            function, *args, key=f"daskdml-{what}-{self._names}-{self._count}", pure=False, **options
        )

    def _assign(self, work: Work, active: np.ndarray) -> _tasks.Assignment:
        recipes = {block: self.data.recipes[block] for block in work.blocks}
        return _tasks.Assignment(work, Blocks(recipes, {}, self.cache, self.plan), active)

    def _inputs(self, work: Work) -> list[Future]:
        if self.data.self_contained:
            return []
        return [f for block in work.blocks for f in self.data.inputs(self.client, block)]

    def _assign_homes(self, n_replicas: int) -> None:
        """Give every replica a worker, the one it had if that still runs: its blocks are cached there."""
        threads = self._threads()
        if not threads:
            return
        load = dict.fromkeys(threads, 0)
        self._homes = {r: a for r, a in self._homes.items() if a in threads}
        for address in self._homes.values():
            load[address] += 1
        for replica in range(n_replicas):
            if replica not in self._homes:
                address = min(threads, key=lambda a: (load[a] / threads[a], a))
                self._homes[replica] = address
                load[address] += 1

    def _threads(self) -> dict[str, int]:
        return {a: max(1, n) for a, n in self.client.nthreads().items()}

    def _give_up_on_fatal_blocks(self) -> None:
        """Raise where one block has ended as many workers as Dask lets one task end: it would end the next one too."""
        what, deaths = self._fatal()
        if deaths > dask.config.get("distributed.scheduler.allowed-failures"):
            fits = remedy(self.plan.max_block_bytes, self._row_bytes)
            raise RuntimeError(f"workers died {deaths} times while making {what}: {fits}") from None

    def _job_again(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not self._threads():
            if (trouble := self._trouble()) and time.monotonic() > deadline:
                raise RuntimeError(trouble)
            time.sleep(0.5)
        self.data.forget_lost()
        self.job = self.client.submit(_tasks.carry, self._local_job, pure=False)

    def _gather(self, future: Future) -> Any:
        self._gather_ready(future)
        return future.result()

    def _gather_ready(self, future: Future) -> None:
        self._wait([future], "ALL_COMPLETED")
        if future.status == "error":
            raise self._explained(future.exception()) from None
        if future.status in ("cancelled", "lost"):
            raise CancelledError(future.key)

    def _wait(self, futures: list[Future], when: str) -> None:
        wait_for(self.client, futures, when, _PATIENCE)

    def _trouble(self) -> str | None:
        return trouble(self.client, _PATIENCE)

    def _explained(self, error: BaseException) -> BaseException:
        """An error of a task; a killed worker with the block that it was making."""
        return explained(error, self._fatal()[0], self.plan.max_block_bytes, self._row_bytes)

    def _fatal(self) -> tuple[str | None, int]:
        """The blocks that workers most often ended with, in words, and how often."""
        found = fatal_blocks(self.client, self.data.token).most_common(2)
        worst = [block for block, deaths in found if deaths == found[0][1]]
        if not worst:
            return None, 0
        return "block " + " or ".join(map(str, sorted(worst))), found[0][1]

    @property
    def _row_bytes(self) -> int:
        return 0 if self.data.schema.sparse else self.plan.row_bytes


def _segments(work: Work) -> Iterator[Work]:
    """A work in windows of a few blocks; one, empty, where it has none; all of it where blocks come back."""
    if len(work.blocks) < len(work.pieces):
        yield work
        return
    for at in range(0, max(1, len(work.pieces)), _WINDOW):
        yield replace(work, pieces=work.pieces[at : at + _WINDOW])
