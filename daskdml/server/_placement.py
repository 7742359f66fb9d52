"""The driver's side of the parameter server: where shards lie, and what is done when a worker goes or comes.

Only the driver decides who serves a shard. Each decision makes a new directory with a higher number, which every host
is told; whoever finds a host gone, or refusing, asks the others for it.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
import uuid
from collections.abc import Sequence, Set
from concurrent.futures import Future as Call
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from distributed import Client, Future

from daskdml.server._actors import ShardHost
from daskdml.server._clock import VectorClock
from daskdml.server._ledger import Ledger
from daskdml.server._ledger_host import LedgerHost, News
from daskdml.server._parcels import messages
from daskdml.server._remote import Directory, Ref, Refused, Remote, Unreachable
from daskdml.server._shard import Push, Shard

logger = logging.getLogger("daskdml")

# Seconds an actor may take to begin on a worker whose threads are all at work; after so many another worker is asked
# too, and who begins first has it.
_BEGIN = 60.0
_SLOW = 1.0
# Seconds to wait at the start for second copies, and at the end for actors that have not begun yet: here, then beside.
_END = 10.0
_SOON = 0.5
_LATER = 600.0
# Seconds after the last attempt to retire a worker in which it is taken for about to leave.
_LEAVING = 60.0
# What the future of an actor says when its worker is lost.
_DEAD = ("error", "cancelled", "lost")
# Seconds between looks at the cluster while an answer is waited for.
_LOOK = 0.1
# Seconds the driver tries to reach a host that the scheduler still takes for alive.
_PATIENCE = 60.0


class Lost(RuntimeError):
    """No copy of a shard is left."""


@dataclass
class Changes:
    """What happened to the cluster since it was last asked, who is there, and how many things were replaced."""

    lost: set[str] = field(default_factory=set)
    joined: set[str] = field(default_factory=set)
    present: set[str] = field(default_factory=set)
    recovered: int = 0


@dataclass
class _Membership:
    """What the scheduler's events said; filled by the client's event loop, emptied by the driver."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    leaving: set[str] = field(default_factory=set)

    def heard(self, address: str, event: Any) -> None:
        message = event[1] if isinstance(event, tuple) else event
        if isinstance(message, dict) and message.get("action") == "could-not-retire":
            with self.lock:
                self.leaving.add(address)


class Group:
    """The shards of a fit and its ledger, as actors on the workers of a cluster.

    Parameters
    ----------
    client : Client
    backups : {1, 0}, default 1
        Second copies of each shard, on another worker than the first; none where there is a single worker.
    """

    def __init__(self, client: Client, backups: int = 1):
        self._client = client
        self._backups = backups
        self._remote = Remote(client)
        self._token = uuid.uuid4().hex[:10]
        self._names = itertools.count()
        # The futures keep the actors alive.
        self._futures: dict[Ref, Future] = {}
        self._unwanted: dict[Ref, Future] = {}
        self._number = 0
        self._generation = 0
        self._primaries: list[Ref] = []
        self._seconds: list[Ref | None] = []
        self._ledger: Ref | None = None
        # A host for the ledger, should its own be lost; and second copies that have not begun yet, by shard.
        self._spare: Ref | None = None
        self._coming: dict[int, Ref] = {}
        self._settings: tuple[Any, ...] = ()
        self._epochs: list[tuple[int, int, int]] = []
        self._closed_after: int | None = None
        self._advice: dict[str, Any] = {}
        self._heard = 0
        self._alive: set[str] = set()
        self._busy: set[str] = set()
        # When somebody last tried to retire a worker.
        self._leaving: dict[str, float] = {}
        self._changes = Changes()
        self._membership = _Membership()
        self._subscribed: set[str] = set()
        self._lock = threading.RLock()

    # -- beginning and ending ---------------------------------------------------------------------------

    def start(self, shards: Sequence[Shard], ledger: Ledger) -> Directory:
        """Put shards and ledger on the workers."""
        self._alive = set(self._client.nthreads())
        self._listen()
        self._generation = shards[0].generation
        self._settings = (ledger.staleness, ledger.reassign, ledger.speculate)
        for shard in shards:
            self._busy = self._at_work()
            ref = self._make(ShardHost)
            for message in messages(shard, True, self._number):
                self._remote.call(ref, *message, timeout=_BEGIN)
            self._primaries.append(ref)
            self._seconds.append(None)
        self._ledger = self._make(LedgerHost)
        self._remote.call(self._ledger, "start", ledger, (), {}, timeout=_BEGIN)
        self._heal()
        begun = looked = time.monotonic()
        while any(self._is_coming(ref) for ref in self._coming.values()) and time.monotonic() < begun + _END:
            time.sleep(0.005)
            if time.monotonic() > looked + _LOOK:
                self._busy, looked = self._at_work(), time.monotonic()
        # What has not begun by now, on a worker that is busy or gone, does while the fit goes on.
        self._heal()
        self._busy.clear()
        self._publish()
        return self.directory

    def _at_work(self) -> set[str]:
        """Workers all of whose threads are taken by others: an actor begins in one, not before a task ends there.

        What ends this very moment counts too, and what is sent this moment does not, so that it can be wrong.
        """
        threads = self._client.nthreads()
        tasks = {a: [k for k in keys if self._token not in str(k)] for a, keys in self._client.processing().items()}
        return {a for a, others in tasks.items() if len(others) >= threads.get(a, 1)}

    def _is_coming(self, ref: Ref) -> bool:
        idle = self._client.nthreads().keys() - self._busy
        return self._futures[ref].status == "pending" and ref.address in idle

    def close(self) -> None:
        """Let the actors go."""
        for address in self._subscribed:
            # A second group on this client may have ended it already, and the scheduler may be gone.
            with contextlib.suppress(ValueError, OSError):
                self._client.unsubscribe_topic(address)
        self._subscribed.clear()
        for ref in list(self._futures):
            self._forget(ref)
        self._let_go(wait=_SOON)
        if self._unwanted:
            # On workers whose threads are all at work for somebody else, who is not to be waited for.
            threading.Thread(target=self._let_go, args=(_LATER,), name="daskdml-actors", daemon=True).start()

    @property
    def directory(self) -> Directory:
        """Who serves what."""
        assert self._ledger is not None
        return Directory(self._number, self._generation, tuple(self._primaries), tuple(self._seconds), self._ledger)

    def _listen(self) -> None:
        """Hear of attempts to retire workers.

        Each worker's own topic, not that of all events: one of those that cannot be sent (of a function that was run)
        makes the scheduler close the connection to the client, and with it every future of it.
        """
        for address in self._alive - self._subscribed:
            self._client.subscribe_topic(address, partial(self._membership.heard, address))
            self._subscribed.add(address)

    def _begin(self, host: type, address: str) -> Ref:
        """An actor on a worker, which may take a while: a new process has everything to import."""
        key = f"daskdml-{host.__name__}-{self._token}-{next(self._names)}"
        ref = Ref(address, key)
        self._futures[ref] = self._client.submit(
            host, actor=True, key=key, pure=False, workers=[address], allow_other_workers=False
        )
        return ref

    def _make(self, host: type, without: Set[str] = frozenset()) -> Ref:
        """An actor on the roomiest worker, waited for; where it does not begin soon, on the one that begins it first.

        Who is at work is known only of the moment before: a task of the user's can be longer than a fit.
        """
        begun: list[Ref] = []
        tried = set(without)
        further = time.monotonic()
        end = further + _BEGIN
        try:
            while True:
                there = self._client.nthreads()
                tried |= self._alive - there.keys()
                for ref in list(begun):
                    status = self._futures[ref].status
                    if status == "finished":
                        begun.remove(ref)
                        return ref
                    if status != "pending" or ref.address not in there:
                        begun.remove(ref)
                        self._forget(ref)
                now = time.monotonic()
                if begun and now > end:
                    raise Unreachable(f"no actor could begin on {', '.join(ref.address for ref in begun)}")
                if not begun or (now >= further and self._alive - tried):
                    begun.append(self._begin(host, self._roomiest(tried)))
                    tried.add(begun[-1].address)
                    further = now + _SLOW
                time.sleep(0.005)
        finally:
            for ref in begun:
                self._forget(ref)

    def _roomiest(self, without: Set[str]) -> str:
        """The worker with the fewest hosts."""
        usable = self._alive - without - self._avoided or self._alive - without
        if not usable:
            raise Unreachable("no worker to place a shard on")
        hosts = [ref.address for ref in (*self._primaries, *self._seconds, *self._coming.values()) if ref is not None]
        if self._ledger is not None:
            hosts.append(self._ledger.address)
        return min(usable, key=lambda address: (address in self._busy, hosts.count(address), address))

    # -- what the driver asks ---------------------------------------------------------------------------

    def ledger(self, method: str, *args: Any) -> Any:
        """Call a method of the ledger, wherever it is; what must outlast it is remembered."""
        if method == "open" and args not in self._epochs:
            self._epochs.append(args)
        elif method == "advise":
            (self._advice,) = args
        elif method == "close":
            (self._closed_after,) = args
        return self._asked(lambda: self._ledger, method, *args)

    def news(self, wait: float, gather: float = 0.0) -> News:
        """Reports of what was done since this was last called; ``gather``: seconds to wait for more than the first."""
        news = self._asked(lambda: self._ledger, "news", self._heard, wait, gather)
        self._heard = news.number
        return news

    def push(self, shard: int, push: Push) -> Any:
        """Bring an update to a shard."""
        return self._asked(lambda: self._primaries[shard], "push", push)

    def snapshot(self) -> list[dict[str, Any]]:
        """A snapshot of each shard; each is consistent in itself."""
        return [self._asked(lambda k=k: self._primaries[k], "snapshot") for k in range(len(self._primaries))]

    def views(self, names: Sequence[str] | None = None, least: int | None = None) -> list[dict[str, np.ndarray]]:
        """Each shard's values, of the tables of these names, once the slowest lane has completed ``least`` clocks."""
        keys = None if names is None else dict.fromkeys(names)
        shards = range(len(self._primaries))
        return [self._asked(lambda k=k: self._primaries[k], "pull", keys, least).values for k in shards]

    def _asked(self, who: Any, method: str, *args: Any) -> Any:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return self._answer(self._remote.start(who(), method, *args))
            except (Unreachable, Refused) as error:
                if time.monotonic() > deadline:
                    raise Lost(f"{method}: {error}") from error
                self._mend()
                time.sleep(0.01)

    def _answer(self, call: Call[Any]) -> Any:
        """What a call gives. Meanwhile the cluster is looked after: a host can be waiting for that itself."""
        while True:
            try:
                return call.result(_LOOK)
            except TimeoutError:
                if call.done():
                    raise
                # A primary whose second copy is lost answers nobody before it is told to go on without.
                self._mend()

    # -- membership -------------------------------------------------------------------------------------

    def tend(self) -> Changes:
        """Look at the cluster, and replace what it has lost."""
        self._mend()
        self._let_go()
        with self._lock:
            changes, self._changes = self._changes, Changes()
            changes.present = set(self._alive)
        return changes

    def _mend(self) -> None:
        with self._membership.lock:
            leaving, self._membership.leaving = self._membership.leaving, set()
        present = set(self._client.nthreads())
        lost, joined = self._alive - present, present - self._alive
        if not lost and not joined and not leaving and not self._wanting and not self._bereft:
            return
        with self._lock:
            self._alive = present
            fresh = self._changes
            fresh.lost, fresh.joined = fresh.lost | lost, fresh.joined | joined
            self._leaving = {a: since for a, since in self._leaving.items() if a in present}
            self._listen()
            for address in lost:
                self._remote.lose(address)
            for address in joined:
                self._remote.find(address)
            if lost or self._bereft:
                fresh.recovered += self._replace_lost()
            for address in leaving & present:
                try:
                    self._move_off(address)
                except (Unreachable, Refused) as error:
                    # Something was lost meanwhile; Dask asks again.
                    logger.info("nothing could move off %s yet: %s", address, error)
            if self._heal():
                self._publish()

    @property
    def _bereft(self) -> bool:
        """Whether a copy of a shard, or the ledger, is lost."""
        return any(self._is_lost(ref) for ref in (*self._primaries, *self._seconds, self._ledger, self._spare))

    def _is_lost(self, ref: Ref | None) -> bool:
        """Whether an actor is gone with its worker, which may have begun anew at the same address."""
        return ref is not None and (ref.address not in self._alive or self._futures[ref].status in _DEAD)

    @property
    def _wanting(self) -> list[int]:
        """Shards without a second copy, and -1 for the ledger without another host to go on with."""
        if not self._backups or len(self._alive - self._avoided) < 2:
            return []
        shards = [index for index, ref in enumerate(self._seconds) if ref is None]
        return shards + ([-1] if self._spare is None else [])

    @property
    def _avoided(self) -> set[str]:
        """Workers about to be retired: nothing new is put there while others have room."""
        now = time.monotonic()
        return {address for address, since in self._leaving.items() if now - since < _LEAVING}

    def _replace_lost(self) -> int:
        """Promote backups of lost primaries, drop lost backups, and begin the ledger anew if it is gone."""
        replaced = 0
        self._number += 1
        for index, ref in enumerate(self._primaries):
            second = self._seconds[index]
            if not self._is_lost(ref):
                if second is not None and self._is_lost(second):
                    replaced += self._drop_second(index)
                continue
            if second is None or self._is_lost(second):
                raise Lost(f"shard {index} was on {ref.address}, which is lost, and no other worker has a copy")
            try:
                self._remote.call(second, "promote", self._number)
            except (Unreachable, Refused) as error:
                # Gone as well, as the next look at the cluster will say.
                logger.info("the second copy of shard %d does not take over yet: %s", index, error)
                continue
            self._primaries[index], self._seconds[index] = second, None
            self._forget(ref)
            replaced += 1
        if self._spare is not None and self._is_lost(self._spare):
            self._forget(self._spare)
            self._spare = None
        lost = self._ledger
        if lost is not None and self._is_lost(lost):
            try:
                self._begin_ledger()
                self._forget(lost)
                replaced += 1
            except (Unreachable, Refused) as error:
                logger.info("no new ledger yet: %s", error)
        self._publish()
        return replaced

    def _drop_second(self, index: int) -> int:
        """Let a primary go on without its lost backup: until it is told to, it acknowledges nothing."""
        second = self._seconds[index]
        try:
            self._remote.call(self._primaries[index], "drop_backup", self._number)
        except (Unreachable, Refused) as error:
            logger.info("shard %d still waits for its second copy: %s", index, error)
            return 0
        self._seconds[index] = None
        if second is not None:
            self._forget(second)
        return 1

    def _begin_ledger(self, ledger: Ledger | None = None, reports: Sequence[Any] = ()) -> None:
        """A ledger on another worker, by default from what all shards have applied."""
        if ledger is None:
            clocks = [VectorClock.from_dict(self._remote.call(ref, "clock")) for ref in self._primaries]
            ledger = Ledger.from_applied(clocks, *self._settings)
            # Epochs that are over in every lane need not be opened again.
            lowest = ledger.minimum
            opened = [e for e in self._epochs if e[1] + e[2] > lowest] or self._epochs[-1:]
        else:
            opened = []
        spare, self._spare = self._spare, None
        host = spare if spare is not None else self._make(LedgerHost)
        self._remote.call(host, "start", ledger, opened, self._advice, list(reports), timeout=_BEGIN)
        self._ledger, self._heard = host, 0
        if opened and self._closed_after is not None:
            self._remote.call(self._ledger, "close", self._closed_after)

    def _heal(self) -> bool:
        """Give every shard a second copy, where there is a worker for it; whether any got one.

        Nothing is waited for: an actor that is asked for now is brought up to date when it is there.
        """
        healed = False
        assert self._ledger is not None
        for index in self._wanting:
            first = self._ledger if index < 0 else self._primaries[index]
            coming = self._coming.get(index)
            possible = self._alive - self._avoided - {first.address}
            if coming is not None and coming.address not in possible:
                self._forget(self._coming.pop(index))
                coming = None
            if coming is None:
                if possible:
                    self._coming[index] = self._begin(
                        LedgerHost if index < 0 else ShardHost, self._roomiest({first.address})
                    )
                continue
            status = self._futures[coming].status
            if status == "pending":
                continue
            del self._coming[index]
            if status != "finished":
                self._forget(coming)
            elif index < 0:
                self._spare = coming
            else:
                healed |= self._add_backup(index, coming)
        return healed

    def _add_backup(self, index: int, second: Ref) -> bool:
        try:
            self._remote.call(self._primaries[index], "add_backup", second, self._number + 1, timeout=120.0)
        except (Unreachable, Refused) as error:
            # A worker that has just gone; the next look at the cluster knows.
            logger.info("no second copy of shard %d yet: %s", index, error)
            self._number += 2
            # It may have succeeded all the same, and the answer been late.
            self._try(self._primaries[index], "drop_backup", self._number)
            self._forget(second)
            return False
        self._number += 1
        self._seconds[index] = second
        return True

    def _publish(self) -> None:
        """Tell every host who serves what now."""
        self._number += 1
        directory = self.directory
        started = [self._remote.start(ref, "set_directory", directory, timeout=5.0) for ref in directory.hosts]
        for future in started:
            try:
                future.result()
            except (Unreachable, Refused):
                # Lost since; it has no one to tell.
                continue

    def _try(self, ref: Ref, method: str, *args: Any) -> None:
        try:
            self._remote.call(ref, method, *args)
        except (Unreachable, Refused) as error:
            logger.info("%s of %s: %s", method, ref.key, error)

    def _forget(self, ref: Ref) -> None:
        future = self._futures.pop(ref, None)
        if future is not None and future.status == "pending":
            # Released before it has begun, an actor is counted as its worker's for ever, which then cannot be retired.
            self._unwanted[ref] = future
        elif future is not None:
            future.release()

    def _let_go(self, wait: float = 0.0) -> None:
        """Release the actors that were not wanted any more before they had begun."""
        end = time.monotonic() + wait
        while True:
            # On a worker that is gone they will never begin.
            there = self._client.nthreads() if self._unwanted and self._client.status == "running" else {}
            coming = {r: f for r, f in self._unwanted.items() if f.status == "pending" and r.address in there}
            if not coming or time.monotonic() >= end:
                break
            time.sleep(0.005)
        for ref in self._unwanted.keys() - coming.keys():
            self._unwanted.pop(ref).release()

    # -- moving -----------------------------------------------------------------------------------------

    def move_off(self, address: str) -> None:
        """Take shards and ledger off a worker, so that Dask can retire it.

        Raises
        ------
        ValueError
            If it is the only worker.
        """
        with self._lock:
            self._alive = set(self._client.nthreads())
            if self._alive == {address}:
                raise ValueError(f"{address} is the only worker: there is none that its shards could move to")
            self._move_off(address)
            self._heal()
            self._publish()

    def _move_off(self, address: str) -> None:
        if self._alive == {address}:
            return
        self._leaving[address] = time.monotonic()
        for index, ref in enumerate(self._primaries):
            second = self._seconds[index]
            if second is not None and second.address == address:
                self._number += 1
                self._remote.call(ref, "drop_backup", self._number)
                self._forget(second)
                self._seconds[index] = second = None
            if ref.address != address:
                continue
            if second is None:
                second = self._make(ShardHost, {address})
                self._number += 1
                self._remote.call(ref, "add_backup", second, self._number, timeout=120.0)
            # From here on the old copy's forwards are refused, and it refuses whoever asks it.
            self._number += 1
            self._remote.call(second, "promote", self._number)
            self._primaries[index], self._seconds[index] = second, None
            self._try(ref, "demote")
            self._forget(ref)
        assert self._ledger is not None
        if self._spare is not None and self._spare.address == address:
            self._forget(self._spare)
            self._spare = None
        if self._ledger.address == address:
            self._move_ledger()
        self._publish()

    def _move_ledger(self) -> None:
        old = self._ledger
        assert old is not None
        ledger, reports = self._remote.call(old, "hand_over", self._heard)
        try:
            self._begin_ledger(ledger, reports)
        except (Unreachable, Refused):
            # It handed its books over and would refuse everybody: give them back.
            self._remote.call(old, "start", ledger, (), self._advice, reports, timeout=_BEGIN)
            raise
        self._forget(old)
