"""The worker's side of the parameter server: a copy of the parameters that the replicas of a process share.

Reads are served from the copy while it is new enough; a thread fetches newer ones beside the training. What a runner
has pushed and the copy does not contain yet is added on top, so that a runner always sees its own updates, once.
Messages that a lost worker swallowed are sent again to whoever serves the shard now; tickets make that harmless.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daskdml.server._clock import Ticket, shares
from daskdml.server._remote import Directory, Gone, Refused, Remote, Unreachable
from daskdml.server._shard import Push, View
from daskdml.server._tables import Partition, Update, add_update

# Seconds a shard may stay unserved before a runner gives up; losing both copies takes a new start by the driver.
_PATIENCE = 60.0
# Seconds between looks for who serves a shard now.
_PAUSE = 0.02
# Of own updates that the server has, so many bytes are kept to count for more while others are behind.
_KEPT_BYTES = 2**26
# Seconds of one message, however large.
_TIMEOUT = 30.0
# Seconds the server holds an answer back that has no news: as long may the end of a fit have to wait.
_NEWS = 0.5


class ServerLost(RuntimeError):
    """No shard of the parameter server could be reached for a while."""


@dataclass
class Traffic:
    """What went between this process and the server since it was last asked."""

    sent_bytes: int = 0
    received_bytes: int = 0
    retries: int = 0
    shards: Counter[int] = field(default_factory=Counter)

    def by_shard(self, n_shards: int) -> tuple[int, ...]:
        """Bytes to and from each shard."""
        return tuple(self.shards[shard] for shard in range(n_shards))


@dataclass(frozen=True, eq=False)
class Reading:
    """Parameters as a replica may train on them, and what is in them.

    ``shards`` is the number of updates each shard had applied, ``clocks`` the lane clocks it had then, ``replayed`` the
    tickets of the reader added on top, ``boosted`` those of them, or of what the server had, that count in full, and
    ``minimum`` the slowest lane's clock of all shards.
    """

    values: dict[str, np.ndarray]
    shards: dict[int, int]
    clocks: dict[int, dict[int, int]]
    replayed: dict[int, list[tuple[int, int, int]]]
    boosted: dict[int, list[tuple[int, int, int]]]
    minimum: int


@dataclass(frozen=True, eq=False)
class _Sent:
    """A push of a runner that some shard may not contain yet."""

    number: int
    ticket: Ticket | None
    parts: list[dict[str, Update]]
    token: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of values and keys."""
        return sum(update.nbytes for part in self.parts for update in part.values())


@dataclass
class Own:
    """What a runner has pushed, for read-my-writes.

    ``base`` is what each shard had of this runner when it first read: more than 0 where Dask runs its task again.
    """

    runner: int
    count: int = 0
    acknowledged: int = 0
    broken: bool = False
    base: dict[int, int] | None = None
    recent: deque[_Sent] = field(default_factory=deque)
    lock: threading.Condition = field(default_factory=threading.Condition)

    def contained(self, shard: int, view: View) -> int:
        """How many of this runner's pushes are in a view of a shard."""
        return view.runners.get(self.runner, 0) - (self.base or {}).get(shard, 0)

    def give_up(self) -> None:
        """Nothing more will be acknowledged: whoever waits for that is to go on."""
        with self.lock:
            self.broken = True
            self.lock.notify_all()


class Parameters:
    """The parameters as a process sees them.

    Parameters
    ----------
    remote : Remote
    directory : Directory
        Who serves what, when this was made; news are asked of the hosts themselves.
    partition : Partition
    staleness : int or None
        Of the strategy; None for no bound.
    eager : bool
        Let the server send news whenever the slowest lane has finished a clock, instead of asking after each push.
    replays : bool
        Whether own updates can be added on top (plain sums); otherwise a reader waits for its own updates.
    boost : float, default 0
        How many times more an own update counts for its runner itself while no other lane has finished its clock, and
        less as they do. Updates are scaled down, so that those of all replicas make a mean: what is not there yet of
        the others is taken to be like the own. Else a replica would learn from one clock to the next what it has
        learnt already, and all would overshoot by as many times as reads lag behind.
    parts : int, default 1
        Tickets of a lane at each clock.
    """

    def __init__(
        self,
        remote: Remote,
        directory: Directory,
        partition: Partition,
        staleness: int | None,
        eager: bool = False,
        replays: bool = True,
        boost: float = 0.0,
        parts: int = 1,
    ):
        self.remote = remote
        self.partition = partition
        self.staleness = staleness
        self.traffic = Traffic()
        # At staleness 0 a read has to be exact: nothing newer is of use.
        self._eager = eager and staleness != 0
        self._replays = replays and staleness != 0
        self._boost, self._parts = boost if self._replays else 0.0, parts
        self._ops = {table.name: table.op for table in partition.tables}
        self._directory = directory
        self._views: dict[int, View] = {}
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._closed = False
        fetch = self._follow if self._eager else self._fetch
        self._fetcher = threading.Thread(target=fetch, name="daskdml-parameters", daemon=True)
        self._fetcher.start()

    # -- reading --------------------------------------------------------------------------------------

    def read(self, clock: int, own: Own, patience: float = _PATIENCE) -> Reading:
        """Parameters for training at ``clock``, in arrays of the caller's own."""
        least = None if self.staleness is None else clock - self.staleness
        if own.base is None:
            self._begin(own, least, patience)
        views = self._fresh(least, own, patience)
        with own.lock:
            sent = list(own.recent)
        values = self._own_copy(views)
        replayed: dict[int, list[tuple[int, int, int]]] = {shard: [] for shard in range(len(views))}
        boosted: dict[int, list[tuple[int, int, int]]] = {shard: [] for shard in range(len(views))}
        for shard, view in enumerate(views):
            if not self._replays:
                continue
            for push in sent:
                if push.number > own.contained(shard, view):
                    self._add(values, push, shard)
                    if push.ticket is not None:
                        replayed[shard].append(push.ticket.id)
            if self._boost:
                # Whoever helps a lane that is behind is to work as that lane would, which has not come so far.
                before = [push for push in sent if push.ticket is not None and push.ticket.clock <= clock]
                latest = {push.ticket.id: push for push in before if push.ticket is not None}
                more = shares(list(latest), view.clocks, self._parts)
                for id_, push in latest.items():
                    if id_ in more:
                        self._add(values, push, shard, self._boost * more[id_])
                        boosted[shard].append(id_)
        self._forget(own)
        return Reading(
            values,
            {shard: view.sequence for shard, view in enumerate(views)},
            {shard: dict(view.clocks) for shard, view in enumerate(views)},
            replayed,
            {shard: ids for shard, ids in boosted.items() if ids},
            min(view.minimum for view in views),
        )

    def _own_copy(self, views: Sequence[View]) -> dict[str, np.ndarray]:
        """What the views have, in arrays that may be changed: an array of one shard alone is not copied by joining."""
        shared = {id(array) for view in views for array in view.values.values()}
        values = self.partition.join([view.values for view in views])
        return {name: array.copy() if id(array) in shared else array for name, array in values.items()}

    def _add(self, values: dict[str, np.ndarray], push: _Sent, shard: int, factor: float = 1.0) -> None:
        for name, update in push.parts[shard].items():
            start, stop = self.partition.range(name, shard)
            add_update(values[name][start:stop], update, self._ops[name], factor)

    def _begin(self, own: Own, least: int | None, patience: float) -> None:
        """A runner's first read: what is here may be older than what its lane has seen on another worker."""
        shards = range(self.partition.n_shards)
        self._pull(shards, least, patience)
        with self._lock:
            own.base = {shard: self._views[shard].runners.get(own.runner, 0) for shard in shards}

    def _fresh(self, least: int | None, own: Own, patience: float) -> list[View]:
        """A view of every shard that contains what the strategy promises."""
        deadline = time.monotonic() + patience
        while True:
            with self._lock:
                views = [self._views.get(shard) for shard in range(self.partition.n_shards)]
            stale = [shard for shard, view in enumerate(views) if not self._serves(shard, view, least, own)]
            if not stale:
                return [view for view in views if view is not None]
            if not self._replays and self.staleness != 0:
                self._await_own(own, deadline)
            self._pull(stale, least, patience)
            if time.monotonic() > deadline:
                raise ServerLost(f"parameters of clock {least} did not come in {patience:.0f} s")

    def _serves(self, shard: int, view: View | None, least: int | None, own: Own) -> bool:
        if view is None or (least is not None and view.minimum < least):
            return False
        # An update that cannot be added on top must be in the view.
        return self._replays or self.staleness == 0 or own.contained(shard, view) >= own.count

    def _await_own(self, own: Own, deadline: float) -> None:
        """Wait until the server has what the runner sent, which is then to be read."""
        with own.lock:
            own.lock.wait_for(
                lambda: own.broken or own.acknowledged >= own.count, timeout=max(0.0, deadline - time.monotonic())
            )
            if own.broken:
                raise ServerLost("the updates of this runner do not reach the server")

    def _pull(self, shards: Sequence[int], least: int | None, patience: float) -> None:
        for shard, view in zip(shards, self.each(shards, "pull", None, least, patience=patience), strict=True):
            self._keep(shard, view)

    def _keep(self, shard: int, view: View) -> None:
        with self._lock:
            present = self._views.get(shard)
            # Answers may overtake each other: the clock of what is read never goes back.
            if present is None or view.sequence >= present.sequence or view.generation > present.generation:
                self._views[shard] = view
            received = sum(a.nbytes for a in view.values.values())
            self.traffic.received_bytes += received
            self.traffic.shards[shard] += received

    def _forget(self, own: Own) -> None:
        """Drop own updates that every view contains, and that do not count in full any more."""
        with self._lock:
            views = [self._views.get(shard) for shard in range(self.partition.n_shards)]
        everywhere = min(0 if v is None else own.contained(shard, v) for shard, v in enumerate(views))
        with own.lock:
            while own.recent and own.recent[0].number <= everywhere:
                # Without a bound on the staleness, a replica far ahead must not fill the memory with what it did.
                small = sum(sent.nbytes for sent in own.recent) <= _KEPT_BYTES
                if small and self._counts(own.recent[0], views):
                    break
                own.recent.popleft()

    def _counts(self, push: _Sent, views: Sequence[View | None]) -> bool:
        """Whether an own update counts for more than itself in one of the views."""
        if not self._boost or push.ticket is None:
            return False
        return any(v is None or shares([push.ticket.id], v.clocks) for v in views)

    def _fetch(self) -> None:
        """Bring newer parameters while the replicas train."""
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._closed:
                return
            try:
                self._pull(range(self.partition.n_shards), None, _PATIENCE)
            except (ServerLost, Refused, Unreachable, CancelledError):
                # A reader that needs them will find out by itself, and say so.
                if self._closed:
                    return

    def _follow(self) -> None:
        """Have the server send parameters whenever the slowest lane has finished a clock."""
        shards = range(self.partition.n_shards)
        while not self._closed:
            with self._lock:
                known = [self._views[shard].minimum if shard in self._views else -1 for shard in shards]
            try:
                found = self.each(shards, "changed", lambda shard: known[shard], _NEWS)  # noqa: B023
            except (ServerLost, Refused, Unreachable, CancelledError):
                # A reader will find out by itself, and say so.
                time.sleep(_PAUSE)
                continue
            for shard, view in zip(shards, found, strict=True):
                if view is not None:
                    self._keep(shard, view)

    # -- writing --------------------------------------------------------------------------------------

    def note(self, own: Own, ticket: Ticket | None, updates: dict[str, Update], token: str = "") -> _Sent:
        """Remember an update from now on, before it is sent: the runner's next read contains it."""
        with own.lock:
            own.count += 1
            sent = _Sent(own.count, ticket, self.partition.cut_updates(updates), token)
            own.recent.append(sent)
        return sent

    def push(self, own: Own, sent: _Sent, generation: int) -> list[Any]:
        """Bring an update to every shard, whatever happens to workers meanwhile; returns what each shard said."""
        shards = range(self.partition.n_shards)
        answers = self.each(
            shards,
            "push",
            lambda shard: Push(generation, own.runner, sent.ticket, sent.parts[shard], sent.token),
        )
        with self._lock:
            for shard, part in enumerate(sent.parts):
                nbytes = sum(update.nbytes for update in part.values())
                self.traffic.sent_bytes += nbytes
                self.traffic.shards[shard] += nbytes
        if any(answer.status == "fenced" for answer in answers):
            raise Refused("this runner belongs to an earlier run of the fit")
        with own.lock:
            own.acknowledged += 1
            own.lock.notify_all()
        if not self._eager and self.staleness != 0:
            self._wanted.set()
        return answers

    # -- messages -------------------------------------------------------------------------------------

    def each(
        self,
        shards: Sequence[int],
        method: str,
        argument: Callable[[int], Any] | None,
        *more: Any,
        patience: float = _PATIENCE,
    ) -> list[Any]:
        """Call a method of several shards at once; a shard whose worker is lost is asked again where it is now."""
        answers: dict[int, Any] = {}
        deadline = time.monotonic() + patience
        while True:
            directory = self._directory
            started: list[tuple[int, Future]] = []
            for shard in shards:
                if shard not in answers:
                    args = (None,) if argument is None else (argument(shard),)
                    started.append((shard, self._start(directory, shard, method, *args, *more)))
            for shard, future in started:
                try:
                    answers[shard] = future.result()
                except (Unreachable, Refused):
                    with self._lock:
                        self.traffic.retries += 1
            if len(answers) == len(shards):
                return [answers[shard] for shard in shards]
            if time.monotonic() > deadline:
                missing = [shard for shard in shards if shard not in answers]
                raise ServerLost(f"nobody has served shard {missing[0]} for {patience:.0f} s")
            self.learn(directory)

    def _start(self, directory: Directory, shard: int, method: str, *args: Any) -> Future:
        return self.remote.start(directory.primaries[shard], method, *args, timeout=_TIMEOUT)

    def learn(self, known: Directory) -> Directory:
        """Ask whoever answers who serves what now."""
        if self._directory.number > known.number:
            return self._directory
        started = [self.remote.start(ref, "directory", timeout=2.0) for ref in known.hosts]
        gone = answers = 0
        for future in started:
            try:
                found = future.result()
            except Gone:
                gone += 1
                continue
            except (Unreachable, Refused):
                continue
            answers += 1
            if found is not None and found.number > self._directory.number:
                self._directory = found
        if gone and not answers:
            # A worker answers that has nothing of this fit any more, and nobody else does: it is over.
            raise ServerLost("the parameter server of this fit has ended")
        if self._directory.number == known.number:
            time.sleep(_PAUSE)
        return self._directory

    def ask_ledger(self, method: str, *args: Any, patience: float = _PATIENCE) -> Any:
        """Call a method of the ledger, wherever it is now."""
        deadline = time.monotonic() + patience
        while True:
            directory = self._directory
            try:
                return self.remote.call(directory.ledger, method, *args, timeout=_TIMEOUT)
            except (Unreachable, Refused):
                if time.monotonic() > deadline:
                    raise ServerLost(f"nobody has handed out work for {patience:.0f} s") from None
                with self._lock:
                    self.traffic.retries += 1
                self.learn(directory)

    @property
    def directory(self) -> Directory:
        """Who serves what, as far as known."""
        return self._directory

    def take_traffic(self) -> Traffic:
        """What went over the network since this was last asked."""
        with self._lock:
            traffic, self.traffic = self.traffic, Traffic()
        return traffic

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._wanted.set()
        self._fetcher.join()
