"""What a run read and in which order its updates were applied: what the runners read, and the log of each shard.

Nothing here knows of Dask or of time. :mod:`daskdml.server._check` holds a trace against the semantics,
:mod:`daskdml.server._replay` executes it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from daskdml.server._clock import Ticket, TicketId, VectorClock

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


def place_of(read: Read, shard: int | None = None) -> str:
    place = "" if shard is None else f", shard {shard}"
    clock, lane, part = read.ticket.id
    return f"runner {read.runner}, read {read.number} at clock {clock} (lane {lane}, part {part}){place}"


def name_of(id_: TicketId) -> str:
    return f"ticket (clock {id_[0]}, lane {id_[1]}, part {id_[2]})"


def start_of(trace: Trace) -> VectorClock:
    clock = VectorClock(range(trace.lanes), trace.parts).to_dict()
    clock["minimum"] = trace.first_clock
    clock["lanes"] = [[lane, trace.first_clock] for lane in range(trace.lanes)]
    return VectorClock.from_dict(clock)
