"""What a run read and in which order its updates were applied; a check of that against the semantics; a replay.

Nothing here knows of Dask or of time: a trace is what the runners read and the log of each shard. The invariants are
those of stale synchronous parallel training (Ho et al. 2013); the content of a read is taken from the logs, not from
what the server said of it, which is checked in turn.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daskdml.server._clock import Ticket, TicketId, VectorClock, shares
from daskdml.server._optimizers import Add, Optimizer
from daskdml.server._shard import Push, Shard
from daskdml.server._tables import Partition, Update, add_update

Entry = tuple[int, TicketId | None, int]


class TraceError(AssertionError):
    """A trace violates an invariant; the message names the runner, the clock and the shard."""


@dataclass(frozen=True)
class Read:
    """What a runner read to work on a ticket.

    Parameters
    ----------
    generation, runner : int
    ticket : Ticket
    shards : dict of int to int
        For each shard, how many pushes the values contained: those up to this sequence of its log.
    clocks : dict of int to dict of int to int
        For each shard, the lane clocks it had then.
    replayed : dict of int to list of ticket ids
        For each shard, the runner's own tickets that were added on top, in this order.
    boosted : dict of int to list of ticket ids
        For each shard, the runner's own tickets of clocks that not every lane had finished: they were added once
        more, ``boost`` times the part of the other lanes that had not.
    number : int
        The how-many-eth read of the runner this is.
    """

    generation: int
    runner: int
    ticket: Ticket
    shards: dict[int, int]
    clocks: dict[int, dict[int, int]]
    replayed: dict[int, list[TicketId]] = field(default_factory=dict)
    number: int = 0
    boosted: dict[int, list[TicketId]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[int, int, TicketId]:
        """Generation, runner and ticket."""
        return self.generation, self.runner, self.ticket.id

    def to_list(self) -> list[Any]:
        """All of it as nested lists of integers."""
        return [
            *(self.generation, self.runner, self.number, self.ticket.epoch, *self.ticket.id),
            [
                [shard, at, list(self.clocks[shard].items()), self.replayed.get(shard, []), self.boosted.get(shard, [])]
                for shard, at in self.shards.items()
            ],
        ]

    @classmethod
    def of(cls, entry: Sequence[Any]) -> Read:
        """What `to_list` gave."""
        generation, runner, number, *ticket, shards = entry
        return cls(
            generation,
            runner,
            Ticket(*ticket),
            {shard: at for shard, at, *_ in shards},
            {shard: dict(clocks) for shard, _, clocks, _, _ in shards},
            {shard: [_id(ticket) for ticket in replayed] for shard, _, _, replayed, _ in shards},
            number,
            {shard: [_id(ticket) for ticket in boosted] for shard, _, _, _, boosted in shards if boosted},
        )


@dataclass
class Trace:
    """A recorded run.

    Parameters
    ----------
    lanes, parts : int
        The tickets of a clock are ``parts`` of each lane.
    staleness : int or None
    n_shards : int
    reads : list of Read
        In any order.
    logs : dict of int to list of (int, ticket id or None, int)
        For each shard sequence, ticket and runner of what was applied, in this order; ticket None for what the
        driver pushed.
    info : dict
        Anything JSON can hold, not looked at here.
    first_clock : int
        Where the run began; a resumed one does not begin at 0.
    begins : dict of int to dict of int to int
        For each generation after the first, the sequence of each shard in the snapshot that it began from. What an
        earlier one did after that was undone.
    lost : list of int
        Runners of which not all reads are known, as they were killed.
    boost : float
        How many times more a runner's own updates count for itself while all others are behind.
    """

    lanes: int
    parts: int
    staleness: int | None
    n_shards: int
    reads: list[Read] = field(default_factory=list)
    logs: dict[int, list[Entry]] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    first_clock: int = 0
    begins: dict[int, dict[int, int]] = field(default_factory=dict)
    lost: list[int] = field(default_factory=list)
    boost: float = 0.0

    def add_log(self, shard: int, log: Iterable[tuple[int, Ticket | None, int]]) -> None:
        """Set the log of a shard, as `Shard` keeps it."""
        self.logs[shard] = [(at, None if ticket is None else ticket.id, runner) for at, ticket, runner in log]

    def to_json(self) -> str:
        """The trace as text."""
        plain = {
            **{name: getattr(self, name) for name in ("lanes", "parts", "staleness", "n_shards", "first_clock")},
            "lost": self.lost,
            "boost": self.boost,
            "info": self.info,
            "begins": [[generation, list(begin.items())] for generation, begin in self.begins.items()],
            "logs": [[shard, log] for shard, log in self.logs.items()],
            "reads": [read.to_list() for read in self.reads],
        }
        return json.dumps(plain, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Trace:
        """The trace that `to_json` wrote."""
        plain = json.loads(text)
        plain["begins"] = {generation: dict(begin) for generation, begin in plain["begins"]}
        plain["logs"] = {
            shard: [(at, None if ticket is None else _id(ticket), runner) for at, ticket, runner in log]
            for shard, log in plain["logs"]
        }
        plain["reads"] = [Read.of(entry) for entry in plain["reads"]]
        return cls(**plain)

    def generation_of(self, shard: int, sequence: int) -> int | None:
        """The generation in which an entry of a log was applied; None for the first one."""
        later = [generation for generation, begin in self.begins.items() if sequence > begin.get(shard, 0)]
        return max(later, default=None)

    def was_undone(self, read: Read) -> bool:
        """Whether a later generation began from a snapshot older than what was read."""
        return any(
            sequence > begin.get(shard, 0)
            for generation, begin in self.begins.items()
            if generation > read.generation
            for shard, sequence in read.shards.items()
        )


def _id(parts: Iterable[int]) -> TicketId:
    clock, lane, part = parts
    return clock, lane, part


# The check ---------------------------------------------------------------------------------------------------


def check_trace(trace: Trace, strategy: Any = None) -> dict[str, Any]:
    """Verify every invariant that a trace can show.

    Each ticket is applied once at each shard, after it was read, and each one begun is applied. A read at clock c
    contains all tickets of clocks up to c - staleness - 1 of every lane, no lane is ahead of another by more than the
    bound, each runner sees its own updates, once, and what it sees never becomes older. With a staleness of 0 a read at
    clock c contains exactly the clocks before c.

    Parameters
    ----------
    trace : Trace
        Of a run that has ended.
    strategy : object, optional
        Anything with ``staleness``, in place of that of the trace; None for no bound.

    Returns
    -------
    dict
        ``reads``, ``applied`` tickets, ``duplicates`` (reads of tickets that were read before), ``undone`` (reads of
        earlier generations after the snapshot that the next began from), ``replayed`` own updates, ``overlaps`` (own
        updates replayed on another runner's for the same ticket), and the observed staleness, by how many clocks the
        slowest lane lacks in what was read: ``staleness_mean``, ``staleness_max``, ``staleness_histogram``.

    Raises
    ------
    TraceError
        Names the first violation.
    """
    staleness = trace.staleness if strategy is None else strategy.staleness
    undone = sum(trace.was_undone(read) for read in trace.reads)
    reads = [read for read in trace.reads if not trace.was_undone(read)]
    positions = _check_logs(trace)
    for shard in range(trace.n_shards):
        _check_order(trace, shard, staleness)
    for read in reads:
        _check_shape(trace, read)
    _check_causes(trace, positions)
    _check_all_applied(trace, reads, positions, staleness)
    used = _used(reads, positions)
    observed: dict[tuple[int, int, TicketId, int], int] = defaultdict(int)
    for shard in range(trace.n_shards):
        required = _required(trace, positions[shard])
        for read, clock in _walk(trace, reads, shard):
            _check_said(read, shard, clock, staleness)
            _check_content(trace, read, shard, staleness, required, positions[shard], used)
            key = (*read.key, read.number)
            observed[key] = max(observed[key], read.ticket.clock - clock.minimum)
    overlaps = 0
    for own in _by_runner(reads).values():
        _check_monotone(own)
        if staleness != 0:
            overlaps += _check_own(trace, own, positions)
    lags = list(observed.values())
    return {
        "reads": len(reads),
        "applied": len(positions[0]) if positions else 0,
        "duplicates": len(reads) - len({read.ticket.id for read in reads}),
        "undone": undone,
        "replayed": sum(len(ids) for read in reads for ids in read.replayed.values()),
        "overlaps": overlaps,
        "staleness_mean": float(np.mean(lags)) if lags else 0.0,
        "staleness_max": max(lags, default=0),
        "staleness_histogram": dict(sorted(Counter(lags).items())),
    }


def _where(read: Read, shard: int | None = None) -> str:
    place = "" if shard is None else f", shard {shard}"
    clock, lane, part = read.ticket.id
    return f"runner {read.runner}, read {read.number} at clock {clock} (lane {lane}, part {part}){place}"


def _name(id_: TicketId) -> str:
    return f"ticket (clock {id_[0]}, lane {id_[1]}, part {id_[2]})"


def _by_runner(reads: Iterable[Read]) -> dict[tuple[int, int], list[Read]]:
    result: dict[tuple[int, int], list[Read]] = defaultdict(list)
    for read in reads:
        result[read.generation, read.runner].append(read)
    return {key: sorted(own, key=lambda read: read.number) for key, own in result.items()}


def _check_logs(trace: Trace) -> list[dict[TicketId, tuple[int, int]]]:
    """Each ticket once at every shard; returns each shard's ticket -> (sequence, runner)."""
    if set(trace.logs) != set(range(trace.n_shards)):
        raise TraceError(f"logs of shards {sorted(trace.logs)}, but there are {trace.n_shards} shards")
    positions = []
    for shard in range(trace.n_shards):
        where: dict[TicketId, tuple[int, int]] = {}
        for index, (sequence, id_, runner) in enumerate(trace.logs[shard], start=1):
            if sequence != index:
                raise TraceError(f"shard {shard}: entry {index} of the log has sequence {sequence}")
            if id_ is None:
                continue
            if id_[0] < trace.first_clock or not 0 <= id_[1] < trace.lanes or not 0 <= id_[2] < trace.parts:
                raise TraceError(f"shard {shard}: runner {runner} has pushed {_name(id_)}, which does not exist")
            if id_ in where:
                raise TraceError(
                    f"shard {shard}: {_name(id_)} is applied twice, at {where[id_][0]} (runner {where[id_][1]}) and at "
                    f"{sequence} (runner {runner})"
                )
            where[id_] = sequence, runner
        positions.append(where)
    for shard, where in enumerate(positions):
        for id_ in sorted(positions[0].keys() ^ where.keys()):
            lacking = shard if id_ in positions[0] else 0
            _, runner = (positions[0].get(id_) or where.get(id_)) or (0, -1)
            raise TraceError(f"shard {lacking} has not applied {_name(id_)} of runner {runner}, another shard has")
    return positions


def _start(trace: Trace) -> VectorClock:
    clock = VectorClock(range(trace.lanes), trace.parts).to_dict()
    clock["minimum"] = trace.first_clock
    clock["lanes"] = [[lane, trace.first_clock] for lane in range(trace.lanes)]
    return VectorClock.from_dict(clock)


def _check_order(trace: Trace, shard: int, staleness: int | None) -> None:
    """No lane ahead by more than the bound; with a staleness of 0, the order of clocks, lanes and parts."""
    clock, last = _start(trace), None
    for sequence, id_, runner in trace.logs[shard]:
        if id_ is None:
            continue
        if not clock.may_start(id_[0], staleness):
            raise TraceError(
                f"shard {shard}: {_name(id_)} of runner {runner} is applied at {sequence}, when the slowest lane has "
                f"completed {clock.minimum} clocks; the bound is {staleness}"
            )
        if staleness == 0 and last is not None and id_ < last:
            raise TraceError(f"shard {shard}: {_name(id_)} of runner {runner} is applied after {_name(last)}")
        last = id_
        clock.tick(*id_)
    if staleness == 0 and last is not None and clock.minimum != last[0] + 1:
        raise TraceError(f"shard {shard}: clock {last[0]} is applied, but not by every lane")


def _check_shape(trace: Trace, read: Read) -> None:
    shards = set(range(trace.n_shards))
    if set(read.shards) != shards or set(read.clocks) != shards or not set(read.replayed) <= shards:
        raise TraceError(f"{_where(read)}: read shards {sorted(read.shards)} of {trace.n_shards}")
    for shard, sequence in read.shards.items():
        if not 0 <= sequence <= len(trace.logs[shard]):
            raise TraceError(
                f"{_where(read, shard)}: read up to {sequence}, but {len(trace.logs[shard])} pushes were applied"
            )


def _check_causes(trace: Trace, positions: list[dict[TicketId, tuple[int, int]]]) -> None:
    """What is applied was read before, by the runner that pushed it."""
    first: dict[tuple[int, TicketId], Read] = {}
    for read in sorted(trace.reads, key=lambda read: (read.generation, read.number)):
        first.setdefault((read.runner, read.ticket.id), read)
    for shard, where in enumerate(positions):
        for id_, (sequence, runner) in where.items():
            cause = first.get((runner, id_))
            if cause is None:
                if runner not in trace.lost:
                    raise TraceError(f"shard {shard}: {_name(id_)} is applied for runner {runner}, which never read it")
            elif cause.shards[shard] >= sequence and not trace.was_undone(cause):
                raise TraceError(
                    f"{_where(cause, shard)}: its own update at {sequence} is in what it read, up to "
                    f"{cause.shards[shard]}"
                )


def _check_all_applied(
    trace: Trace, reads: list[Read], positions: list[dict[TicketId, tuple[int, int]]], staleness: int | None
) -> None:
    # Of the last one there may be no reads, where all was done already.
    newest = max([*trace.begins, *(read.generation for read in reads)], default=0)
    end = trace.first_clock
    while all((end, lane, part) in positions[0] for lane in range(trace.lanes) for part in range(trace.parts)):
        end += 1
    for read in reads:
        # With a staleness of 0, what was begun beyond the end of the fit is never released.
        # What a killed runner had begun and not pushed is dropped if it lies there.
        beyond = read.ticket.clock >= end and (staleness == 0 or read.runner in trace.lost)
        if read.generation == newest and not beyond and read.ticket.id not in positions[0]:
            raise TraceError(f"{_where(read)}: the ticket was begun but never applied")


def _required(trace: Trace, where: Mapping[TicketId, tuple[int, int]]) -> list[float]:
    """For each clock from the first on, the sequence from which on it and all before are contained."""
    last = max((id_[0] for id_ in where), default=trace.first_clock - 1)
    required: list[float] = []
    for clock in range(trace.first_clock, last + 1):
        wanted = [(clock, lane, part) for lane in range(trace.lanes) for part in range(trace.parts)]
        at = max(where[id_][0] if id_ in where else float("inf") for id_ in wanted)
        required.append(max(at, required[-1] if required else 0))
    return required


def _walk(trace: Trace, reads: list[Read], shard: int) -> Iterator[tuple[Read, VectorClock]]:
    """Each read with the clock of what it contained, by the log."""
    clock, at = _start(trace), 0
    log = trace.logs[shard]
    for read in sorted(reads, key=lambda read: (read.shards[shard], read.runner, read.number)):
        for _, id_, _ in log[at : read.shards[shard]]:
            if id_ is not None:
                clock.tick(*id_)
        at = max(at, read.shards[shard])
        yield read, clock


def _check_said(read: Read, shard: int, clock: VectorClock, staleness: int | None) -> None:
    """The clocks that the server gave with the values are true."""
    said = read.clocks[shard]
    # With a staleness of 0 clocks count what was accepted; what is applied are whole clocks.
    true = clock.minimum == min(said.values()) if staleness == 0 else said == clock.clocks
    if not true:
        raise TraceError(f"{_where(read, shard)}: was told the clocks {said}, but contained {clock.clocks}")


def _used(reads: list[Read], positions: list[dict[TicketId, tuple[int, int]]]) -> set[tuple[int, int, TicketId]]:
    """The keys of the reads whose update some shard has applied."""
    winners = {(runner, id_) for where in positions for id_, (_, runner) in where.items()}
    return {read.key for read in reads if (read.runner, read.ticket.id) in winners}


def _check_content(
    trace: Trace,
    read: Read,
    shard: int,
    staleness: int | None,
    required: list[float],
    where: Mapping[TicketId, tuple[int, int]],
    used: set[tuple[int, int, TicketId]],
) -> None:
    if staleness is None:
        return
    sequence, replayed = read.shards[shard], set(read.replayed.get(shard, ()))
    oldest = read.ticket.clock - staleness - 1
    index = oldest - trace.first_clock
    if index >= 0 and (index >= len(required) or required[index] > sequence):
        for clock in range(trace.first_clock, oldest + 1):
            for id_ in ((clock, lane, part) for lane in range(trace.lanes) for part in range(trace.parts)):
                if where.get(id_, (len(trace.logs[shard]) + 1, 0))[0] > sequence and id_ not in replayed:
                    raise TraceError(
                        f"{_where(read, shard)}: {_name(id_)} is not in what it read, but everything up to clock "
                        f"{oldest} must be, as the bound is {staleness}"
                    )
    if staleness == 0:
        # The log is in order, as was checked: this ticket comes before all others of the clock.
        newer = where.get((read.ticket.clock, 0, 0), (sequence + 1, 0))[0] <= sequence
        # One that came too late is harmless where all shards have what another runner did instead.
        if replayed or (newer and read.key in used):
            raise TraceError(f"{_where(read, shard)}: contained more than the clocks before {read.ticket.clock}")


def _check_monotone(own: list[Read]) -> None:
    """What a runner sees of a shard never becomes older."""
    for before, read in zip(own, own[1:], strict=False):
        if read.number == before.number:
            raise TraceError(f"{_where(read)}: two reads of the same number")
        for shard, sequence in read.shards.items():
            older = [lane for lane, at in before.clocks[shard].items() if read.clocks[shard].get(lane, at) < at]
            if older or sequence < before.shards[shard]:
                raise TraceError(
                    f"{_where(read, shard)}: read up to {sequence} and clocks {read.clocks[shard]}, the read before up "
                    f"to {before.shards[shard]} and {before.clocks[shard]}"
                )


def _check_boosted(trace: Trace, read: Read, shard: int, mine: set[TicketId]) -> None:
    """What counts more is the runner's own, each once, of clocks that not every lane had finished."""
    boosted = read.boosted.get(shard, [])
    more = shares(boosted, read.clocks[shard], trace.parts)
    for id_, count in Counter(boosted).items():
        if count > 1 or id_ not in more or (id_ not in mine and read.runner not in trace.lost):
            raise TraceError(f"{_where(read, shard)}: {_name(id_)} must not count for more")


def _check_own(trace: Trace, own: list[Read], positions: list[dict[TicketId, tuple[int, int]]]) -> int:
    """A runner's own updates are in what it reads, once; returns how often another's came first."""
    overlaps = 0
    for shard in range(trace.n_shards):
        where = positions[shard]
        pending: list[TicketId] = []
        mine: set[TicketId] = set()
        for read in own:
            _check_boosted(trace, read, shard, mine)
            sequence, replayed = read.shards[shard], read.replayed.get(shard, [])
            for id_, count in Counter(replayed).items():
                at, winner = where.get(id_, (sequence + 1, -1))
                if id_ not in mine and read.runner not in trace.lost:
                    raise TraceError(f"{_where(read, shard)}: {_name(id_)} was added on top, but is not its own")
                if count > 1 or (at <= sequence and winner == read.runner):
                    raise TraceError(f"{_where(read, shard)}: its own {_name(id_)} is contained twice")
                overlaps += at <= sequence
            pending = [id_ for id_ in pending if where.get(id_, (sequence + 1, -1))[0] > sequence]
            for id_ in pending:
                if id_ not in replayed:
                    raise TraceError(f"{_where(read, shard)}: does not contain its own {_name(id_)}")
            pending.append(read.ticket.id)
            mine.add(read.ticket.id)
    return overlaps


# The replay --------------------------------------------------------------------------------------------------


def replay(
    trace: Trace,
    partition: Partition,
    initial: Mapping[str, np.ndarray],
    train: Callable[[Ticket, dict[str, np.ndarray]], dict[str, Update]],
    optimizer: Optimizer | str = Add(),  # noqa: B008  (frozen and without state)
    staleness: int | None = None,
    control: Callable[[int, int], dict[str, Update]] | None = None,
) -> dict[str, np.ndarray]:
    """Execute a recorded run again, one ticket at a time: the final values, bit for bit.

    Parameters
    ----------
    trace : Trace
        With the reads of all runners.
    partition : Partition
        As in the run.
    initial : dict of str to ndarray
        The values the run began with; not changed.
    train : callable
        The updates of a ticket, from the ticket and the values that were read (its own copy); the same as in the
        run, and without state.
    optimizer : Optimizer or str, default Add()
        As in the run.
    staleness : int or None
        As in the run.
    control : callable, optional
        What the driver pushed, from the shard and the sequence in its log; keys are positions in the shard's range.

    Raises
    ------
    TraceError
        If the trace lacks a read, or what was read is not in the logs any more since a later generation began from
        snapshots that were not taken together; or if no order of execution gives the trace.
    """
    return _Replay(trace, partition, initial, train, optimizer, staleness, control).run()


class _Replay:
    """Shards go forward through their logs; a read waits for all shards, an entry of a log for its update."""

    def __init__(
        self,
        trace: Trace,
        partition: Partition,
        initial: Mapping[str, np.ndarray],
        train: Callable[[Ticket, dict[str, np.ndarray]], dict[str, Update]],
        optimizer: Optimizer | str,
        staleness: int | None,
        control: Callable[[int, int], dict[str, Update]] | None,
    ) -> None:
        self.trace, self.partition, self.train, self.control = trace, partition, train, control
        self.shards = [
            Shard(index, part, partition.tables, _start(trace), optimizer, staleness, record=True)
            for index, part in enumerate(partition.cut(dict(initial)))
        ]
        self.staleness = staleness
        self.reads = self._needed()
        # Read -> what it has of each shard; read -> the shards' parts of its update, and how often they are needed.
        self.pieces: dict[tuple, dict[int, dict[str, np.ndarray]]] = {key: {} for key in self.reads}
        self.updates: dict[tuple, list[dict[str, Update]]] = {}
        self.uses = self._count_uses()
        self.wanted: list[dict[int, list[tuple]]] = [defaultdict(list) for _ in self.shards]
        self.ready: list[tuple] = []
        for key, read in self.reads.items():
            for shard, sequence in read.shards.items():
                self.wanted[shard][sequence].append(key)

    def _cause(self, shard: int, sequence: int, id_: TicketId, runner: int) -> tuple:
        generation = self.trace.generation_of(shard, sequence)
        generation = self.first if generation is None else generation
        # What is kept back outlives a new start in the snapshot, so the push may be of an earlier generation.
        candidates = ((earlier, runner, id_) for earlier in range(generation, self.first - 1, -1))
        return next((key for key in candidates if key in self.every), (generation, runner, id_))

    def _needed(self) -> dict[tuple, Read]:
        """The reads whose update was applied somewhere, or added on top of such a read."""
        self.first = min((read.generation for read in self.trace.reads), default=0)
        self.every: dict[tuple, Read] = {}
        for read in self.trace.reads:
            if read.key in self.every:
                raise TraceError(f"{_where(read)}: read twice by the same runner, which update was pushed is unknown")
            self.every[read.key] = read
        needed: dict[tuple, Read] = {}
        wanted = deque(
            self._cause(shard, sequence, id_, runner)
            for shard, log in self.trace.logs.items()
            for sequence, id_, runner in log
            if id_ is not None
        )
        while wanted:
            key = wanted.popleft()
            if key in needed:
                continue
            if key not in self.every:
                raise TraceError(f"{_name(key[2])} of runner {key[1]}, generation {key[0]}: its read is not recorded")
            read = needed[key] = self.every[key]
            # With a staleness of 0, what was undone is done again with the same bits.
            if self.staleness != 0 and self.trace.was_undone(read):
                raise TraceError(f"{_where(read)}: part of what it read was undone by a later generation")
            wanted.extend(self._own(read))
        return needed

    @staticmethod
    def _own(read: Read) -> Iterator[tuple]:
        """The reads whose updates were added on top of this one."""
        ids = (id_ for which in (read.replayed, read.boosted) for found in which.values() for id_ in found)
        return ((read.generation, read.runner, id_) for id_ in ids)

    def _count_uses(self) -> Counter:
        uses: Counter = Counter()
        for shard, log in self.trace.logs.items():
            uses.update(self._cause(shard, sequence, id_, runner) for sequence, id_, runner in log if id_ is not None)
        for read in self.reads.values():
            uses.update(self._own(read))
        return uses

    def run(self) -> dict[str, np.ndarray]:
        moved = True
        while moved:
            moved = False
            for shard in self.shards:
                while self._advance(shard):
                    moved = True
                moved |= self._look(shard)
            ready, self.ready = sorted(self.ready, key=lambda key: self.reads[key].number), []
            for key in ready:
                if all(own in self.updates for own in self._own(self.reads[key])):
                    self._train(key)
                    moved = True
                else:
                    self.ready.append(key)
        for shard in self.shards:
            at, log = len(shard.log), self.trace.logs[shard.index]
            if at < len(log):
                raise TraceError(f"shard {shard.index}: entry {at + 1} of the log, {log[at]}, comes before its cause")
        return self.partition.join([shard.view().values for shard in self.shards])

    def _look(self, shard: Shard) -> bool:
        """Hand the present values to those that read them."""
        keys = self.wanted[shard.index].pop(shard.sequence, ())
        for key in keys:
            self.pieces[key][shard.index] = shard.view().values
            if len(self.pieces[key]) == len(self.shards):
                self.ready.append(key)
        return bool(keys)

    def _advance(self, shard: Shard) -> bool:
        """Apply the next entry of a log, if its update is there."""
        self._look(shard)
        # Pushes that the shard keeps back are behind it already.
        at = shard.sequence + len(shard._held)
        log = self.trace.logs[shard.index]
        if at >= len(log):
            return False
        sequence, id_, runner = log[at]
        if id_ is None:
            if self.control is None:
                raise TraceError(f"shard {shard.index}: entry {sequence} is a push of the driver; pass `control`")
            shard.handle(Push(0, runner, None, self.control(shard.index, sequence), token=str(sequence)))
            shard.settle()
            return True
        key = self._cause(shard.index, sequence, id_, runner)
        if key not in self.updates:
            return False
        shard.handle(Push(0, runner, self.reads[key].ticket, self.updates[key][shard.index]))
        # The log says what was applied, so nothing need be kept back.
        shard.settle()
        self._used(key)
        return True

    def _train(self, key: tuple) -> None:
        read, pieces = self.reads[key], self.pieces.pop(key)
        for shard, ids in read.replayed.items():
            for id_ in ids:
                self._add_on_top(pieces[shard], read, shard, id_, 1.0)
        for shard, ids in read.boosted.items():
            more = shares(ids, read.clocks[shard], self.trace.parts)
            for id_ in ids:
                self._add_on_top(pieces[shard], read, shard, id_, self.trace.boost * more[id_])
        values = self.partition.join([pieces[shard] for shard in range(len(self.shards))])
        self.updates[key] = self.partition.cut_updates(self.train(read.ticket, values))

    def _add_on_top(self, values: dict[str, np.ndarray], read: Read, shard: int, id_: TicketId, factor: float) -> None:
        own = (read.generation, read.runner, id_)
        ops = {table.name: table.op for table in self.partition.tables}
        for name, update in self.updates[own][shard].items():
            add_update(values[name], update, ops[name], factor)
        self._used(own)

    def _used(self, key: tuple) -> None:
        self.uses[key] -= 1
        if not self.uses[key]:
            self.updates[key] = []
