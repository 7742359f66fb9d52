"""Whether a trace keeps the invariants of stale synchronous parallel training (Ho et al. 2013).

The content of a read is taken from the logs, not from what the server said of it, which is checked in turn.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from daskdml.server._clock import TicketId, VectorClock, shares
from daskdml.server._trace import Read, Trace, TraceError, name_of, place_of, start_of


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
                raise TraceError(f"shard {shard}: runner {runner} has pushed {name_of(id_)}, which does not exist")
            if id_ in where:
                raise TraceError(
                    f"shard {shard}: {name_of(id_)} is applied twice, at {where[id_][0]} (runner {where[id_][1]}) and "
                    f"at {sequence} (runner {runner})"
                )
            where[id_] = sequence, runner
        positions.append(where)
    for shard, where in enumerate(positions):
        for id_ in sorted(positions[0].keys() ^ where.keys()):
            lacking = shard if id_ in positions[0] else 0
            _, runner = (positions[0].get(id_) or where.get(id_)) or (0, -1)
            raise TraceError(f"shard {lacking} has not applied {name_of(id_)} of runner {runner}, another shard has")
    return positions


def _check_order(trace: Trace, shard: int, staleness: int | None) -> None:
    """No lane ahead by more than the bound; with a staleness of 0, the order of clocks, lanes and parts."""
    clock, last = start_of(trace), None
    for sequence, id_, runner in trace.logs[shard]:
        if id_ is None:
            continue
        if not clock.may_start(id_[0], staleness):
            raise TraceError(
                f"shard {shard}: {name_of(id_)} of runner {runner} is applied at {sequence}, when the slowest lane has "
                f"completed {clock.minimum} clocks; the bound is {staleness}"
            )
        if staleness == 0 and last is not None and id_ < last:
            raise TraceError(f"shard {shard}: {name_of(id_)} of runner {runner} is applied after {name_of(last)}")
        last = id_
        clock.tick(*id_)
    if staleness == 0 and last is not None and clock.minimum != last[0] + 1:
        raise TraceError(f"shard {shard}: clock {last[0]} is applied, but not by every lane")


def _check_shape(trace: Trace, read: Read) -> None:
    shards = set(range(trace.n_shards))
    if set(read.shards) != shards or set(read.clocks) != shards or not set(read.replayed) <= shards:
        raise TraceError(f"{place_of(read)}: read shards {sorted(read.shards)} of {trace.n_shards}")
    for shard, sequence in read.shards.items():
        if not 0 <= sequence <= len(trace.logs[shard]):
            raise TraceError(
                f"{place_of(read, shard)}: read up to {sequence}, but {len(trace.logs[shard])} pushes were applied"
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
                    raise TraceError(
                        f"shard {shard}: {name_of(id_)} is applied for runner {runner}, which never read it"
                    )
            elif cause.shards[shard] >= sequence and not trace.was_undone(cause):
                raise TraceError(
                    f"{place_of(cause, shard)}: its own update at {sequence} is in what it read, up to "
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
            raise TraceError(f"{place_of(read)}: the ticket was begun but never applied")


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
    clock, at = start_of(trace), 0
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
        raise TraceError(f"{place_of(read, shard)}: was told the clocks {said}, but contained {clock.clocks}")


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
                        f"{place_of(read, shard)}: {name_of(id_)} is not in what it read, but everything up to clock "
                        f"{oldest} must be, as the bound is {staleness}"
                    )
    if staleness == 0:
        # The log is in order, as was checked: this ticket comes before all others of the clock.
        newer = where.get((read.ticket.clock, 0, 0), (sequence + 1, 0))[0] <= sequence
        # One that came too late is harmless where all shards have what another runner did instead.
        if replayed or (newer and read.key in used):
            raise TraceError(f"{place_of(read, shard)}: contained more than the clocks before {read.ticket.clock}")


def _check_monotone(own: list[Read]) -> None:
    """What a runner sees of a shard never becomes older."""
    for before, read in zip(own, own[1:], strict=False):
        if read.number == before.number:
            raise TraceError(f"{place_of(read)}: two reads of the same number")
        for shard, sequence in read.shards.items():
            older = [lane for lane, at in before.clocks[shard].items() if read.clocks[shard].get(lane, at) < at]
            if older or sequence < before.shards[shard]:
                raise TraceError(
                    f"{place_of(read, shard)}: read up to {sequence} and clocks {read.clocks[shard]}, the read before "
                    f"up to {before.shards[shard]} and {before.clocks[shard]}"
                )


def _check_boosted(trace: Trace, read: Read, shard: int, mine: set[TicketId]) -> None:
    """What counts more is the runner's own, each once, of clocks that not every lane had finished."""
    boosted = read.boosted.get(shard, [])
    more = shares(boosted, read.clocks[shard], trace.parts)
    for id_, count in Counter(boosted).items():
        if count > 1 or id_ not in more or (id_ not in mine and read.runner not in trace.lost):
            raise TraceError(f"{place_of(read, shard)}: {name_of(id_)} must not count for more")


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
                    raise TraceError(f"{place_of(read, shard)}: {name_of(id_)} was added on top, but is not its own")
                if count > 1 or (at <= sequence and winner == read.runner):
                    raise TraceError(f"{place_of(read, shard)}: its own {name_of(id_)} is contained twice")
                overlaps += at <= sequence
            pending = [id_ for id_ in pending if where.get(id_, (sequence + 1, -1))[0] > sequence]
            for id_ in pending:
                if id_ not in replayed:
                    raise TraceError(f"{place_of(read, shard)}: does not contain its own {name_of(id_)}")
            pending.append(read.ticket.id)
            mine.add(read.ticket.id)
    return overlaps
