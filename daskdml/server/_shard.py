"""A shard of the parameter server: its ranges of the tables, a vector clock, and the rule when an update is applied.

Plain Python and NumPy: what is pushed is handled at once and nothing ever waits. With a staleness of 0 a clock's pushes
are kept back until every lane has completed it and somebody asks for the next, and applied in the order of lanes and
parts: what is read at clock c is then the same bits, whatever the order in which pushes arrived, and also where a lost
worker's ticket is trained again after some shards had its update already. Otherwise a push is applied when it comes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daskdml.server._clock import Ticket, VectorClock
from daskdml.server._optimizers import OPTIMIZERS, Add, Optimizer, as_optimizer
from daskdml.server._tables import Table, Update, check_keys, check_update

__all__ = ["Applied", "Push", "Shard", "Ticket", "View"]

# A runner, or the driver, sends a shard one push at a time: a message that comes twice repeats one of its last few.
_RECENT = 256
# Tickets whose bringer is remembered: others bring the same one soon after, or never.
_BROUGHT = 4096


@dataclass(frozen=True, eq=False)
class Push:
    """Updates of one ticket for one shard. It is handed over: its arrays must not be changed afterwards.

    Parameters
    ----------
    generation : int
        Of the fit, as the sender knows it.
    runner : int
        Who sends it.
    ticket : Ticket or None
        The work it comes from; None for a push of the driver, which no clock counts.
    updates : dict of str to Update
        By table; keys are positions in the shard's range.
    token : str
        Identifies a push without a ticket.
    """

    generation: int
    runner: int
    ticket: Ticket | None
    updates: dict[str, Update]
    token: str = ""

    @property
    def identity(self) -> tuple[int, int, int] | str:
        """What makes two pushes the same."""
        return self.token if self.ticket is None else self.ticket.id


@dataclass(frozen=True)
class Applied:
    """What became of a push.

    Parameters
    ----------
    status : {"applied", "repeated", "duplicate", "fenced"}
        Accepted; accepted from this runner before; its ticket accepted from another runner, so that what this one
        brings does not count; or refused, as it is of an earlier generation. With a staleness of 0 an accepted push
        is part of the values only when its clock is complete.
    minimum : int
        The shard's minimum clock afterwards.
    advanced : bool
        Whether this push made it grow.
    sequence : int
        How many pushes the values contain afterwards.
    """

    status: str
    minimum: int
    advanced: bool
    sequence: int


@dataclass(frozen=True, eq=False)
class View:
    """What was read of a shard; the values are copies.

    Parameters
    ----------
    values : dict of str to ndarray
        By table, in the order of the keys asked for.
    sequence : int
        How many pushes they contain.
    clocks : dict of int to int
        The clock of each lane.
    minimum : int
        The clocks of which the values contain every update.
    generation : int
        The shard's generation.
    runners : dict of int to int
        How many of each runner's pushes the values contain, those among them that were duplicates of another
        runner's push.
    """

    values: dict[str, np.ndarray]
    sequence: int
    clocks: dict[int, int]
    minimum: int
    generation: int
    runners: dict[int, int]


@dataclass
class _Held:
    """A push kept back, and the runners that brought the same ticket."""

    push: Push
    also: list[int] = field(default_factory=list)


class Shard:
    """A range of each table, and all that is needed to apply each ticket's updates exactly once.

    Parameters
    ----------
    index : int
        Its number among the shards.
    values : dict of str to ndarray
        Initial values of its ranges.
    tables : sequence of Table
        The tables, by which types and operations are known; sizes are those of ``values``.
    clock : VectorClock
        Taken over, not copied.
    optimizer : Optimizer or str, default Add()
        What an update of a floating-point table with ``op="add"`` does. Integer tables are always added to.
    staleness : int or None, default 0
        0 keeps a clock's pushes back until it is complete; anything else applies them when they come.
    generation : int, default 0
        Pushes of earlier ones are refused.
    record : bool, default False
        Keep ``log``, the order of application, for a trace.
    copy : bool, default True
        Copy the initial values and state; without, arrays that fit as they are get changed in place.
    state : dict of str to dict of str to ndarray, optional
        The optimizer's state by table, as a snapshot has it; fresh by default.

    Attributes
    ----------
    clock : VectorClock
        Counts accepted pushes, kept back or not.
    sequence : int
        Number of pushes that the values contain.
    log : list of (int, Ticket or None, int)
        If recorded: sequence, ticket and runner of each push, in the order of application.

    Examples
    --------
    >>> shard = Shard(0, {"w": np.zeros(2)}, [Table("w", 2, "float64")], VectorClock(range(2)))
    >>> ones = {"w": Update(np.ones(2))}
    >>> shard.handle(Push(0, runner=1, ticket=Ticket(0, 0, lane=1), updates=ones)).advanced, shard.view().values["w"]
    (False, array([0., 0.]))
    >>> shard.handle(Push(0, runner=0, ticket=Ticket(0, 0, lane=0), updates=ones)).advanced, shard.view().values["w"]
    (True, array([2., 2.]))
    """

    def __init__(
        self,
        index: int,
        values: Mapping[str, np.ndarray],
        tables: Sequence[Table],
        clock: VectorClock,
        optimizer: Optimizer | str = Add(),  # noqa: B008  (frozen and without state)
        staleness: int | None = 0,
        generation: int = 0,
        record: bool = False,
        copy: bool = True,
        state: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    ):
        self.index = index
        self.tables = tuple(tables)
        self.clock = clock
        self.optimizer = as_optimizer(optimizer)
        self.staleness = staleness
        self.generation = generation
        self.record = record
        self.sequence = 0
        self.log: list[tuple[int, Ticket | None, int]] = []
        if {table.name for table in self.tables} != set(values):
            raise ValueError(f"values of {sorted(values)} for tables {sorted(table.name for table in self.tables)}")
        self._values = {table.name: _own(values[table.name], table.dtype, copy) for table in self.tables}
        self._rules = {table.name: self._rule(table) for table in self.tables}
        self._state = self._fresh_state() if state is None else _own_state(state, copy)
        self._held: dict[tuple[int, int, int], _Held] = {}
        self._tokens: dict[str, None] = {}
        self._runners: dict[int, int] = {}
        self._recent: dict[int, dict[tuple[int, int, int] | str, None]] = {}
        self._brought: dict[tuple[int, int, int], int] = {}

    def handle(self, push: Push) -> Applied:
        """Accept a push, or find that it is a duplicate or of an earlier generation.

        Raises
        ------
        ValueError
            For a push of a generation to come, of an unknown lane or table, or with an update that does not fit; the
            shard is as before.
        """
        if push.generation < self.generation:
            return self._applied("fenced")
        if push.generation > self.generation:
            raise ValueError(
                f"shard {self.index} is of generation {self.generation}, the push of runner {push.runner} of "
                f"generation {push.generation}: the shard was replaced and must not be asked"
            )
        if self._known(push):
            self._duplicate(push)
            mine = push.ticket is None or self._brought.get(push.ticket.id) == push.runner
            return self._applied("repeated" if mine else "duplicate")
        self._check(push)
        if push.ticket is None:
            self._tokens[push.token] = None
            if len(self._tokens) > _RECENT:
                del self._tokens[next(iter(self._tokens))]
            self._apply(push)
            return self._applied("applied")
        advanced = self.clock.tick(*push.ticket.id)
        self._brought[push.ticket.id] = push.runner
        if len(self._brought) > _BROUGHT:
            del self._brought[next(iter(self._brought))]
        if self.staleness == 0:
            # Who works at this clock has read all earlier ones.
            self._release(push.ticket.clock)
            self._held[push.ticket.id] = _Held(push)
        else:
            self._apply(push)
        return self._applied("applied", advanced)

    def view(self, keys: Mapping[str, np.ndarray | None] | None = None, least: int | None = None) -> View:
        """Copies of the values, and what they contain.

        Parameters
        ----------
        least : int, optional
            With a staleness of 0, the clock to be worked at: of what is complete, the clocks below it are applied. By
            default all that are.
        keys : dict, optional
            For each table wanted its positions in the shard's range (sorted, unique), or None for all of it. By
            default everything.
        """
        self._release(self.clock.minimum if least is None else least)
        wanted: Mapping[str, np.ndarray | None] = dict.fromkeys(self._values) if keys is None else keys
        values = {}
        for name, positions in wanted.items():
            array = self._table(name)
            if positions is None:
                values[name] = array.copy()
            else:
                check_keys(positions, len(array), name)
                values[name] = array[positions]
        contained, clocks = self.contained, self.clock.clocks
        if self._held:
            clocks = {lane: min(clock, contained) for lane, clock in clocks.items()}
        return View(values, self.sequence, clocks, contained, self.generation, dict(self._runners))

    @property
    def contained(self) -> int:
        """The clocks of which the values contain every update."""
        return min((self.clock.minimum, *(identity[0] for identity in self._held)))

    def settle(self) -> None:
        """Apply every update of the clocks that are complete."""
        self._release(self.clock.minimum)

    def includes(self, ticket: Ticket) -> bool:
        """Whether the values contain a ticket's updates; ``clock.applied`` tells whether they were accepted."""
        return self.clock.applied(ticket) and ticket.id not in self._held

    def join(self, lane: int) -> None:
        """Let ``lane`` count from now on."""
        self.clock.join(lane)

    def leave(self, lane: int) -> bool:
        """Let ``lane`` count no more; whether the minimum has grown."""
        return self.clock.leave(lane)

    @property
    def nbytes(self) -> int:
        """Bytes of values and optimizer state."""
        state = sum(array.nbytes for arrays in self._state.values() for array in arrays.values())
        return state + sum(array.nbytes for array in self._values.values())

    def snapshot(self, copy: bool = True) -> dict[str, Any]:
        """All there is to know, as dicts and lists of arrays, numbers, strings and None.

        Parameters
        ----------
        copy : bool, default True
            Copy the arrays; without, the snapshot is of use only until the next push.
        """
        arrays = {**self._values} if not copy else {name: array.copy() for name, array in self._values.items()}
        state = {
            table: {name: array.copy() if copy else array for name, array in entries.items()}
            for table, entries in self._state.items()
        }
        return {
            "format": 1,
            "index": self.index,
            "generation": self.generation,
            "staleness": self.staleness,
            "record": self.record,
            "sequence": self.sequence,
            "contained": self.contained,
            "tables": [list(dataclasses.astuple(table)) for table in self.tables],
            "values": arrays,
            "optimizer": _optimizer_to_dict(self.optimizer),
            "state": state,
            "clock": self.clock.to_dict(),
            "held": [{"push": _push_to_dict(held.push, copy), "also": list(held.also)} for held in self._held.values()],
            "tokens": list(self._tokens),
            "runners": [[runner, count] for runner, count in self._runners.items()],
            "recent": [
                [runner, [list(key) if isinstance(key, tuple) else key for key in keys]]
                for runner, keys in self._recent.items()
            ],
            "brought": [[list(identity), runner] for identity, runner in self._brought.items()],
            "log": [[sequence, _ticket_to_list(ticket), runner] for sequence, ticket, runner in self.log],
        }

    @classmethod
    def restore(cls, snapshot: Mapping[str, Any], copy: bool = True) -> Shard:
        """The shard that `snapshot` described; it goes on with the same bits.

        Parameters
        ----------
        snapshot : dict
            What `snapshot` returned, on this machine or another.
        copy : bool, default True
            Copy the arrays; without, the snapshot must not be used again.
        """
        if snapshot["format"] != 1:
            raise ValueError(f"a snapshot of format {snapshot['format']}, but this version reads format 1")
        settings = dict(snapshot["optimizer"])
        shard = cls(
            int(snapshot["index"]),
            snapshot["values"],
            [Table(*entry) for entry in snapshot["tables"]],
            VectorClock.from_dict(snapshot["clock"]),
            OPTIMIZERS[settings.pop("name")](**settings),
            snapshot["staleness"],
            int(snapshot["generation"]),
            bool(snapshot["record"]),
            copy,
            snapshot["state"],
        )
        shard.sequence = int(snapshot["sequence"])
        for entry in snapshot["held"]:
            push = _push_from_dict(entry["push"])
            assert push.ticket is not None
            shard._held[push.ticket.id] = _Held(push, list(entry["also"]))
        shard._tokens = dict.fromkeys(snapshot["tokens"])
        shard._runners = {int(runner): int(count) for runner, count in snapshot["runners"]}
        shard._recent = {
            int(runner): {key if isinstance(key, str) else _id(key): None for key in keys}
            for runner, keys in snapshot["recent"]
        }
        shard._brought = {_id(identity): int(runner) for identity, runner in snapshot["brought"]}
        shard.log = [(int(at), _ticket_from_list(ticket), int(runner)) for at, ticket, runner in snapshot["log"]]
        return shard

    def __repr__(self) -> str:
        return f"Shard({self.index}, generation={self.generation}, sequence={self.sequence}, {self.clock!r})"

    def _rule(self, table: Table) -> Optimizer | None:
        """The optimizer of a table; None where the larger value stays."""
        if table.op == "max":
            return None
        steps = table.op == "add" and np.issubdtype(np.dtype(table.dtype), np.floating)
        return self.optimizer if steps else Add()

    def _fresh_state(self) -> dict[str, dict[str, np.ndarray]]:
        return {name: rule.init(self._values[name]) for name, rule in self._rules.items() if rule is not None}

    def _table(self, name: str) -> np.ndarray:
        try:
            return self._values[name]
        except KeyError:
            raise ValueError(f"no table {name!r}; there are {', '.join(map(repr, self._values))}") from None

    def _known(self, push: Push) -> bool:
        if push.ticket is not None:
            return self.clock.applied(push.ticket)
        if not push.token:
            raise ValueError("a push without a ticket needs a token, or it could not be told from its duplicates")
        return push.token in self._tokens

    def _check(self, push: Push) -> None:
        """Raise unless every update can be applied: a push is applied whole or not at all."""
        for name, update in push.updates.items():
            values = self._table(name)
            check_update(update, len(values), name)
            if not np.can_cast(update.values.dtype, values.dtype, "same_kind"):
                raise ValueError(f"table {name!r} is of type {values.dtype}, the update of type {update.values.dtype}")

    def _duplicate(self, push: Push) -> None:
        held = self._held.get(push.identity) if push.ticket is not None else None  # type: ignore[arg-type]
        if held is None:
            self._count(push.runner, push.identity)
        else:
            # The runner's count says what reads contain, and this ticket is not yet among it.
            held.also.append(push.runner)

    def _release(self, below: int) -> None:
        """Apply what was kept back of complete clocks ``below`` one, in an order that does not depend on arrival."""
        below = min(below, self.clock.minimum)
        for identity in sorted(identity for identity in self._held if identity[0] < below):
            held = self._held.pop(identity)
            self._apply(held.push)
            for runner in held.also:
                self._count(runner, identity)

    def _apply(self, push: Push) -> None:
        for name, update in push.updates.items():
            values, rule = self._values[name], self._rules[name]
            if rule is not None:
                rule.step(values, self._state[name], update.keys, update.values)
            elif update.keys is None:
                np.maximum(values, update.values, out=values)
            else:
                values[update.keys] = np.maximum(values[update.keys], update.values)
        self.sequence += 1
        self._count(push.runner, push.identity)
        if self.record:
            self.log.append((self.sequence, push.ticket, push.runner))

    def _count(self, runner: int, identity: tuple[int, int, int] | str) -> None:
        """Count a push for its runner, but a message that came twice only once."""
        recent = self._recent.setdefault(runner, {})
        if identity in recent:
            return
        recent[identity] = None
        if len(recent) > _RECENT:
            del recent[next(iter(recent))]
        self._runners[runner] = self._runners.get(runner, 0) + 1

    def _applied(self, status: str, advanced: bool = False) -> Applied:
        return Applied(status, self.clock.minimum, advanced, self.sequence)


def _own(array: np.ndarray, dtype: Any, copy: bool) -> np.ndarray:
    """An array that may be changed in place; what came over a wire can be read-only."""
    if array.ndim != 1:
        raise ValueError(f"a table is one-dimensional, not of shape {array.shape}")
    if copy:
        return np.array(array, dtype=dtype, order="C")
    return np.require(array, dtype, ["C", "W", "A"])


def _own_state(state: Mapping[str, Mapping[str, np.ndarray]], copy: bool) -> dict[str, dict[str, np.ndarray]]:
    return {
        table: {name: _own(array, array.dtype, copy) for name, array in arrays.items()}
        for table, arrays in state.items()
    }


def _id(parts: Sequence[int]) -> tuple[int, int, int]:
    clock, lane, part = parts
    return int(clock), int(lane), int(part)


def _ticket_to_list(ticket: Ticket | None) -> list[int] | None:
    return None if ticket is None else list(dataclasses.astuple(ticket))


def _ticket_from_list(entry: Sequence[int] | None) -> Ticket | None:
    return None if entry is None else Ticket(*map(int, entry))


def _optimizer_to_dict(optimizer: Any) -> dict[str, Any]:
    name = next(name for name, cls in OPTIMIZERS.items() if cls is type(optimizer))
    return {"name": name, **dataclasses.asdict(optimizer)}


def _push_to_dict(push: Push, copy: bool) -> dict[str, Any]:
    return {
        "generation": push.generation,
        "runner": push.runner,
        "ticket": _ticket_to_list(push.ticket),
        "token": push.token,
        "updates": {
            name: {
                "values": update.values.copy() if copy else update.values,
                "keys": update.keys if update.keys is None or not copy else update.keys.copy(),
            }
            for name, update in push.updates.items()
        },
    }


def _push_from_dict(entry: Mapping[str, Any]) -> Push:
    updates = {name: Update(update["values"], update["keys"]) for name, update in entry["updates"].items()}
    ticket = _ticket_from_list(entry["ticket"])
    return Push(int(entry["generation"]), int(entry["runner"]), ticket, updates, entry["token"])
