"""A recorded run, executed again one ticket at a time."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from daskdml.server._clock import Ticket, TicketId, shares
from daskdml.server._optimizers import Add, Optimizer
from daskdml.server._shard import Push, Shard
from daskdml.server._tables import Partition, Update, add_update
from daskdml.server._trace import Read, Trace, TraceError, name_of, place_of, start_of


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
            Shard(index, part, partition.tables, start_of(trace), optimizer, staleness, record=True)
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
                raise TraceError(f"{place_of(read)}: read twice by the same runner, which update was pushed is unknown")
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
                raise TraceError(f"{name_of(key[2])} of runner {key[1]}, generation {key[0]}: its read is not recorded")
            read = needed[key] = self.every[key]
            # With a staleness of 0, what was undone is done again with the same bits.
            if self.staleness != 0 and self.trace.was_undone(read):
                raise TraceError(f"{place_of(read)}: part of what it read was undone by a later generation")
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
