"""The replicas of a fit as Dask tasks: begun where there is room, and again where their workers are lost."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distributed import Client, Future

from daskdml.cluster import LOST, connection_lost, wait_with
from daskdml.data import Dataset
from daskdml.server import Changes, Group, Refused, ServerLost, Unreachable
from daskdml.strategies._blocks import InputsLost
from daskdml.strategies._limits import explained
from daskdml.strategies._replica import Begin, ReplicaJob, run_replica
from daskdml.strategies._tasks import carry

logger = logging.getLogger("daskdml")

# Seconds without any worker before the fit fails.
_PATIENCE = 60.0
# Seconds to wait at the end for replicas that train what others have done already; with compression for what they
# have held back.
_LEAVE = 5.0
# Runners a replica may lose before a clock is finished.
_REPLACED = 10
# A runner that ends so has lost what it works with, and another one goes on.
_UNSERVED = (ServerLost, Refused, Unreachable)
_GONE = (*LOST, InputsLost)
# How the end of a runner's task is told.
_ENDED = {"error": "it lost what it works with", "finished": "it makes room for others"}


@dataclass
class _Running:
    """A runner as a Dask task."""

    lane: int
    address: str
    future: Future


class Runners:
    """Keeps a runner at work for every lane, on whatever workers there are.

    Parameters
    ----------
    client : Client
    data : Dataset
        What the runners' inputs are sent again from, where they are lost.
    token : str
        Of the fit, for the names of tasks.
    remedy : callable
        What an error may add to what is to be done.

    Attributes
    ----------
    next : int
        The number of the next runner: no two of a fit have the same.
    lost : set of int
        Runners that ended without telling all they had done.
    replaced : int
        How many have been since this was last set to 0.
    news : list of str
        What became of runners, since this was last emptied.
    inputs : object or None
        For the runners to fetch what their blocks are made of.
    """

    def __init__(self, client: Client, data: Dataset, token: str, remedy: Callable[[], str]):
        self.client = client
        self.data = data
        self.inputs = None if data.self_contained else data.travelling_inputs(client)
        self.next = self.replaced = 0
        self.lost: set[int] = set()
        self.news: list[str] = []
        self._token = token
        self._remedy = remedy
        self._running: dict[int, _Running] = {}
        # Runners that are gone, and the ledger that has been told of them.
        self._gone: list[int] = []
        self._told: Any = None

    def begin(self, group: Group, job: ReplicaJob, lanes: int) -> None:
        """Begin a runner for every lane."""
        self._group, self._lanes = group, lanes
        self._send(job)
        for lane in range(lanes):
            self._spawn(lane)

    def await_workers(self) -> dict[str, int]:
        """The workers with their threads, waiting a while where there are none."""
        deadline = time.monotonic() + _PATIENCE
        told = False
        while True:
            if (lost := connection_lost(self.client, patience=0)) is not None:
                raise lost
            threads = {a: max(1, n) for a, n in self.client.nthreads().items()}
            if threads:
                return threads
            if not told:
                logger.warning("the cluster has no worker: waiting %.0f s for one", _PATIENCE)
                told = True
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"the cluster has had no worker for {_PATIENCE:.0f} s: start workers, or look at their logs for "
                    "why they ended (often the memory limit), and fit again" + self._remedy()
                )
            time.sleep(0.2)

    def tend(self, changes: Changes) -> None:
        """Begin others for those that ended, and move some to workers that came."""
        for number, running in list(self._running.items()):
            status = running.future.status
            # Also where its worker came and went between two looks.
            lost = running.address in changes.lost or running.address not in changes.present
            if not lost and status == "pending":
                continue
            if lost:
                running.future.cancel()
            elif status == "error":
                self._judge(running.future.exception())
            elif status != "finished":
                self._renew()
            if lost or status != "finished":
                self.lost.add(number)
            why = f"its worker {running.address} is lost" if lost else _ENDED.get(str(status), str(status))
            self.news.append(f"replica {running.lane} begins again: {why}")
            self._replace(number)
        self._tell_gone()
        if changes.joined:
            self._balance()

    def _tell_gone(self) -> None:
        """Tell a ledger that has taken another's place who is gone: it may have been asked for work in their name."""
        if self._told != (serving := self._group.directory.ledger):
            for number in self._gone:
                self._group.ledger("leave", number)
            self._told = serving

    def _judge(self, error: BaseException) -> None:
        """Raise what another runner would meet as well."""
        if isinstance(error, _GONE):
            self._renew()
        elif not isinstance(error, _UNSERVED):
            raise explained(error)

    def dismiss(self, compressed: bool, hear: Callable[[float], Any]) -> None:
        """All is done: wait for the runners that hear so now, but not for those that others have overtaken."""
        end = time.monotonic() + (_PATIENCE if compressed else _LEAVE)
        entered = set(self._group.ledger("entered"))
        while self._running and time.monotonic() < end:
            hear(0.05)
            present = self._group.tend().present
            for number, running in list(self._running.items()):
                lost = running.address not in present
                if lost:
                    self.lost.add(number)
                if lost or running.future.status != "pending" or number not in entered:
                    running.future.cancel()
                    del self._running[number]
        hear(0.0)
        self.abandon()

    def abandon(self) -> None:
        """Let go of all; what they had done and not told is not known."""
        for running in self._running.values():
            running.future.cancel()
        self.lost |= set(self._running)
        self._running.clear()

    def stop(self) -> None:
        """After an error: let the runners end, since a task that runs cannot be cancelled."""
        try:
            for number in self._running:
                self._group.ledger("dismiss", number)
            wait_with(self.client, [running.future for running in self._running.values()], timeout=5.0)
        except Exception as error:
            # Whatever it is, the error that brought us here is the one to be told.
            logger.info("replicas may still run: %r", error)
        self._running.clear()

    def _send(self, job: ReplicaJob) -> None:
        self._local_job = job
        # Everybody waits for it. The ledger's host has just begun in a thread of its worker: no long task holds them
        # all there, and one so short Dask would not move off a worker where one does.
        self._job = self.client.submit(
            carry, job, pure=False, workers=[self._group.directory.ledger.address], allow_other_workers=True
        )

    def _renew(self) -> None:
        """Bring to the cluster again what a lost worker had of the data, and tell new runners where it is."""
        if self.inputs is not None:
            self.data.forget_lost()
            self.inputs = self._local_job.inputs = self.data.travelling_inputs(self.client)
        self._send(self._local_job)

    def _spawn(self, lane: int) -> None:
        """Begin a runner for a lane, on the worker with the fewest of them."""
        threads = self.await_workers()
        load = dict.fromkeys(threads, 0)
        for running in self._running.values():
            if running.address in load:
                load[running.address] += 1
        address = min(threads, key=lambda a: (load[a] / threads[a], a))
        number, self.next = self.next, self.next + 1
        future = self.client.submit(
            run_replica,
            self._job,
            Begin(number, lane, self._group.directory),
            key=f"daskdml-replica-{self._token}-{number}",
            pure=False,
            workers=[address],
            allow_other_workers=False,
        )
        self._running[number] = _Running(lane, address, future)

    def _replace(self, number: int) -> None:
        running = self._running.pop(number)
        self.replaced += 1
        if self.replaced > _REPLACED * self._lanes:
            error = running.future.exception() if running.future.status == "error" else None
            raise RuntimeError(
                f"{self.replaced} replicas ended one after another without finishing a clock: see the workers' logs"
            ) from error
        self._gone.append(number)
        self._group.ledger("leave", number)
        self._spawn(running.lane)

    def _balance(self) -> None:
        """Let runners of crowded workers end, to begin again where there is room."""
        threads = {a: max(1, n) for a, n in self.client.nthreads().items()}
        share = len(self._running) / max(1, sum(threads.values()))
        for address, n in threads.items():
            mine = [number for number, running in self._running.items() if running.address == address]
            for number in mine[max(1, round(share * n)) :]:
                self._group.ledger("dismiss", number)
