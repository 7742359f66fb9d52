"""Who works on what: tickets are claimed, returned, handed on, and done once in the books."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from daskdml.server._clock import Ticket, TicketId, VectorClock
from daskdml.server._lane import Durations, Lane


@dataclass(frozen=True)
class Stop:
    """The answer to a claim of a runner for which the fit is over.

    Parameters
    ----------
    reason : str
        ``"over"`` (every ticket is done), ``"dismissed"`` or ``"left"`` (it was taken for lost, and the others
        do its work now).
    """

    reason: str = "over"


# Seconds within which nobody is late: messages take milliseconds. Tickets of less would be handed to and fro among
# replicas that are as fast as one another, and each worker would read the blocks of all.
_SOON = 0.02


@dataclass
class _Runner:
    """What the ledger knows of a runner."""

    lane: int
    # Ticket id -> the ticket and when it was begun, in the order of the claims.
    held: dict[TicketId, tuple[Ticket, float | None]] = field(default_factory=dict)
    # Since when it could have claimed a ticket of its own lane and has not; None: not known to be late.
    late_since: float | None = None
    dismissed: bool = False


class Ledger:
    """The work of a fit: every ticket is done, once in the books, by whichever runner there is.

    A runner takes the tickets of its own lane in their order. A lane whose runner was lost is worked off by all.
    A runner that may not go on, because it is ahead of the slowest lane by more than the staleness or because
    its lane has no more work, helps the slowest lanes; at last it repeats a ticket that takes suspiciously long, as
    backup tasks do [1]_. Handing on of work within the bound of the staleness follows FlexRR [2]_.

    All times are those of the caller, in seconds; nothing here waits.

    Parameters
    ----------
    lanes : int
        Number of lanes (logical replicas).
    parts : int
        Into how many tickets the work of a lane at a clock is divided.
    staleness : int or None
        A ticket of clock c may be claimed while the slowest lane has completed at least c - staleness clocks;
        None: at any time.
    reassign : bool
        Whether a runner without work of its own takes tickets of lanes that have a live runner.
    speculate : float or None
        A ticket held for longer than this times the median duration is given to a second runner too, if that one
        has nothing else to do; None: never.

    References
    ----------
    .. [1] J. Dean, S. Ghemawat, "MapReduce: simplified data processing on large clusters", OSDI 2004, section 3.6.
    .. [2] A. Harlap et al., "Addressing the straggler problem for iterative convergent parallel ML", SoCC 2016.

    Examples
    --------
    >>> ledger = Ledger(lanes=2, parts=1, staleness=0)
    >>> ledger.open(epoch=0, first_clock=0, clocks=2)
    >>> ledger.enter(runner=0, lane=0)
    >>> ledger.enter(runner=1, lane=1)
    >>> mine = ledger.claim(0, now=0.0)
    >>> ledger.done(mine, 0, now=1.0)
    True
    >>> ledger.claim(0, now=1.0) is None  # lane 1 has not completed clock 0
    True
    """

    def __init__(
        self, lanes: int, parts: int, staleness: int | None, reassign: bool = True, speculate: float | None = 3.0
    ) -> None:
        if lanes < 1 or parts < 1:
            raise ValueError(f"lanes={lanes} and parts={parts} must be at least 1")
        if staleness is not None and staleness < 0:
            raise ValueError(f"staleness={staleness} must be at least 0, or None for no bound")
        if speculate is not None and not speculate >= 1:
            raise ValueError(f"speculate={speculate} must be at least 1, or None for no second runners")
        self.lanes = lanes
        self.parts = parts
        self.staleness = staleness
        self.reassign = reassign
        self.speculate = speculate
        self._lanes = [Lane(parts) for _ in range(lanes)]
        self._minimum = 0
        # (epoch, first clock, clock after the last) of what was opened; only clocks below the end are still wanted.
        self._epochs: list[tuple[int, int, int]] = []
        self._end = 0
        self._closed = False
        # After closing, tickets of later epochs that had been begun: an update may have reached some shards only.
        self._extra: set[TicketId] = set()
        self._returned: set[TicketId] = set()
        self._runners: dict[int, _Runner] = {}
        self._left: set[int] = set()
        self._of_lane: list[set[int]] = [set() for _ in range(lanes)]
        self._abandoned: set[int] = set()
        self._holders: dict[TicketId, set[int]] = {}
        self._durations = Durations()

    # What there is to do -------------------------------------------------------------------------------------

    def open(self, epoch: int, first_clock: int, clocks: int) -> None:
        """Make the tickets of an epoch available; epochs are opened in order, and may be opened ahead.

        Raises
        ------
        ValueError
            After `close`, or if ``first_clock`` is not where the last opened epoch ends.
        """
        stop = first_clock + clocks
        if (epoch, first_clock, stop) in self._epochs:
            return
        if self._closed:
            raise ValueError(f"epoch {epoch} cannot be opened: the ledger was closed")
        if clocks < 1:
            raise ValueError(f"epoch {epoch} has {clocks} clocks; at least 1 is needed")
        if not self._epochs:
            self._begin(first_clock)
        elif (last := self._epochs[-1])[0] >= epoch or last[2] != first_clock:
            raise ValueError(
                f"epoch {epoch} begins at clock {first_clock}, but the last opened epoch {last[0]} ends at {last[2]}"
            )
        self._epochs.append((epoch, first_clock, stop))
        self._end = stop

    def _begin(self, first_clock: int) -> None:
        untouched = all(lane.clock == lane.frontier == 0 for lane in self._lanes)
        if untouched:
            # A resumed fit: what lies before was done by an earlier one.
            self._lanes = [Lane(self.parts, first_clock) for _ in self._lanes]
            self._minimum = first_clock
        elif first_clock > self._minimum:
            raise ValueError(
                f"the first epoch begins at clock {first_clock}, but lane {self.slowest} has done only the clocks "
                f"below {self._minimum}; open the epoch of that clock first"
            )

    def close(self, after_epoch: int) -> None:
        """Nothing comes after this epoch: tickets of later epochs are dropped, unless they have been begun."""
        self._closed = True
        kept = [stop for epoch, _, stop in self._epochs if epoch <= after_epoch]
        self._end = kept[-1] if kept else self._minimum
        # With staleness 0 a clock that not all lanes complete is never applied, so there is nothing to complete.
        if self.staleness != 0:
            self._extra = {id_ for id_ in {*self._holders, *self._returned} if id_[0] >= self._end}

    @property
    def _opened(self) -> int:
        return self._epochs[-1][2] if self._epochs else 0

    @property
    def over(self) -> bool:
        """Whether all is done and nothing more will come."""
        return self._closed and self._minimum >= self._end and not self._extra

    def finished(self, epoch: int) -> bool:
        """Whether all tickets of an opened epoch are done."""
        return any(opened[0] == epoch and self._minimum >= opened[2] for opened in self._epochs)

    def _is_done(self, id_: TicketId) -> bool:
        return self._lanes[id_[1]].is_done(id_[0], id_[2])

    # Who there is --------------------------------------------------------------------------------------------

    def enter(self, runner: int, lane: int, holding: Iterable[Ticket] = ()) -> None:
        """A runner begins to work for a lane, or says again what it works on.

        One that has left does not come back: what it asks for late, from a worker that is about to end, would be
        held by nobody for ever.

        Parameters
        ----------
        runner, lane : int
        holding : iterable of Ticket
            What it works on already, where this ledger replaces one that was lost. What it was thought to hold and
            does not name goes back.
        """
        if not 0 <= lane < self.lanes:
            raise ValueError(f"runner {runner} enters lane {lane}, but the lanes are 0 to {self.lanes - 1}")
        if runner in self._left:
            return
        known = self._runners.get(runner)
        named = {ticket.id: ticket for ticket in holding}
        for id_ in [] if known is None else list(known.held):
            self._drop(id_, runner)
        if known is not None:
            self._of_lane[known.lane].discard(runner)
        self._runners[runner] = _Runner(lane, dismissed=known is not None and known.dismissed)
        self._of_lane[lane].add(runner)
        self._abandoned.discard(lane)
        for id_, ticket in named.items():
            if not self._is_done(id_) and id_[0] < self._opened:
                self._hold(ticket, runner, None)
                if self._closed and self.staleness != 0 and id_[0] >= self._end:
                    self._extra.add(id_)

    def leave(self, runner: int) -> None:
        """A runner works no more; what it held can be claimed by others. Harmless when repeated."""
        known = self._runners.get(runner)
        self._left.add(runner)
        if known is None:
            return
        for id_ in list(known.held):
            self._drop(id_, runner)
        del self._runners[runner]
        self._of_lane[known.lane].discard(runner)
        if not self._of_lane[known.lane]:
            self._abandoned.add(known.lane)

    def dismiss(self, runner: int) -> None:
        """The next claim of a runner is answered by `Stop`; it leaves when it has done what it holds."""
        if runner in self._runners:
            self._runners[runner].dismissed = True

    def _hold(self, ticket: Ticket, runner: int, now: float | None) -> None:
        self._lanes[ticket.lane].take(ticket.clock, ticket.part)
        self._holders.setdefault(ticket.id, set()).add(runner)
        self._runners[runner].held[ticket.id] = (ticket, now)

    def _drop(self, id_: TicketId, runner: int) -> None:
        del self._runners[runner].held[id_]
        self._holders[id_].discard(runner)
        if not self._holders[id_]:
            del self._holders[id_]
            self._lanes[id_[1]].give_back(id_[0], id_[2])
            self._returned.add(id_)

    # Claims --------------------------------------------------------------------------------------------------

    def claim(self, runner: int, now: float, holding: Iterable[TicketId] | None = None) -> Ticket | None | Stop:
        """The next ticket of a runner.

        Parameters
        ----------
        runner : int
        now : float
        holding : iterable of ticket ids, optional
            What the runner knows it holds, begun or not. A ticket given to it by an answer that was lost is then
            given again.

        Returns
        -------
        Ticket, None or Stop
            None: nothing may start now; ask again after a change, or after `due` seconds.

        Raises
        ------
        KeyError
            If the runner has never entered.
        """
        known = self._runners.get(runner)
        if known is None:
            if runner in self._left:
                return Stop("left")
            raise KeyError(f"runner {runner} has not entered; call enter(runner, lane) before claiming")
        if holding is not None:
            mine = set(holding)
            for id_ in mine - known.held.keys():
                # From a ledger that was lost, by an answer that came after the runner had entered here.
                if id_[0] < self._opened and not self._is_done(id_):
                    self._hold(self._ticket(id_[0], id_[1], id_[2]), runner, now)
            for id_, (lost, _) in known.held.items():
                if id_ not in mine:
                    known.held[id_] = (lost, now)
                    return lost
        if self.over:
            return Stop("over")
        if known.dismissed:
            return Stop("dismissed")
        ticket = self._own(known) or self._other(known, now) or self._repeat(runner, now)
        if ticket is None:
            known.late_since = None
            return None
        self._hold(ticket, runner, now)
        known.late_since = None
        return ticket

    @property
    def _gate(self) -> float:
        return float("inf") if self.staleness is None else self._minimum + self.staleness

    def _own(self, known: _Runner) -> Ticket | None:
        best = (*first, known.lane) if (first := self._first(known.lane)) else None
        # All who remain do the work of lost runners, else those lanes would fall behind without a bound in ASP.
        for lane in self._abandoned:
            first = self._first(lane)
            if first is not None and (best is None or first[0] < best[0]):
                best = (*first, lane)
        return None if best is None else self._ticket(best[0], best[2], best[1])

    def _first(self, lane: int) -> tuple[int, int] | None:
        first = self._lanes[lane].first(self._end) or self._first_extra(lane)
        return first if first is not None and first[0] <= self._gate else None

    def _first_extra(self, lane: int) -> tuple[int, int] | None:
        # They are few, and only at the end of a fit.
        if not self._extra:
            return None
        free = self._lanes[lane].free
        return min((ticket for ticket in free if (ticket[0], lane, ticket[1]) in self._extra), default=None)

    def _other(self, known: _Runner, now: float) -> Ticket | None:
        """A ticket of a lane that is behind, the nearest clock first."""
        best: tuple[int, int, int, int] | None = None
        for index, lane in enumerate(self._lanes):
            live = self._of_lane[index]
            if index == known.lane or (live and (not self.reassign or self._has_just_begun(index, now))):
                continue
            spare = self._first_extra(index) or lane.spare(self._end, self._is_reserved(index, now))
            if spare is None or spare[0] > self._gate:
                continue
            if best is None or (spare[0], lane.clock) < best[:2]:
                best = (spare[0], lane.clock, index, spare[1])
        return None if best is None else self._ticket(best[0], best[2], best[3])

    def _has_just_begun(self, lane: int, now: float) -> bool:
        """Whether a runner of the lane is at work, and not for longer than messages take."""
        held = (self._runners[runner].held.values() for runner in self._of_lane[lane])
        return any(began is not None and now - began < _SOON for one in held for _, began in one)

    def _is_reserved(self, lane: int, now: float) -> bool:
        """Whether a runner of the lane is free and about to claim its next ticket.

        Without this, the helper that happens to ask first takes the ticket of a runner which is between two.
        """
        waiting = [r for r in self._of_lane[lane] if not self._runners[r].held and not self._runners[r].dismissed]
        if not waiting or self._first(lane) is None:
            return False
        for runner in waiting:
            if self._runners[runner].late_since is None:
                self._runners[runner].late_since = now
        patience = self._patience
        return any(now - (self._runners[r].late_since or 0.0) < patience for r in waiting)

    @property
    def _patience(self) -> float:
        """How long a ticket is kept for its own runner."""
        if self._durations.median is not None:
            return max(self._durations.median, _SOON)
        # Nothing to compare with: someone must be at work, or all would wait for one another.
        return float("inf") if self._holders else 0.0

    def _repeat(self, runner: int, now: float) -> Ticket | None:
        """A ticket that takes suspiciously long, if it is with one runner only."""
        limit = self._limit
        late = [
            (ticket.clock, began, other, ticket)
            for other, began, ticket in self._alone(now)
            if other != runner and now - began >= limit and not self._is_done(ticket.id)
        ]
        return min(late, key=lambda suspect: suspect[:3])[-1] if late else None

    def _alone(self, now: float) -> Iterator[tuple[int, float, Ticket]]:
        """The tickets with one runner only: which runner, and since when."""
        for id_, runners in self._holders.items():
            if len(runners) == 1:
                (runner,) = runners
                ticket, began = self._runners[runner].held[id_]
                if began is None:
                    began = now
                    self._runners[runner].held[id_] = (ticket, now)
                yield runner, began, ticket

    @property
    def _limit(self) -> float:
        median = self._durations.median
        # The first tickets of a fit compile and load; two or three say nothing yet.
        if median is None or self.speculate is None or len(self._durations.recent) < 3:
            return float("inf")
        return max(self.speculate * median, _SOON)

    def due(self, now: float) -> float | None:
        """Seconds after which a claim answered by None may succeed without any other change; None: never."""
        limit, patience = self._limit, self._patience
        times = [began + limit for _, began, _ in self._alone(now)] if limit < float("inf") else []
        times += [began + _SOON for _, began, _ in self._alone(now)]
        times += [r.late_since + patience for r in self._runners.values() if r.late_since is not None]
        later = [time - now for time in times if now < time < float("inf")]
        return min(later, default=None)

    def _ticket(self, clock: int, lane: int, part: int) -> Ticket:
        at = bisect_right(self._epochs, clock, key=lambda opened: opened[1]) - 1
        return Ticket(self._epochs[max(at, 0)][0], clock, lane, part)

    def done(self, ticket: Ticket, runner: int, now: float) -> bool:
        """A runner has done a ticket: every shard has acknowledged its updates.

        Returns
        -------
        bool
            Whether this is the first report of it.
        """
        id_, lane = ticket.id, self._lanes[ticket.lane]
        if ticket.clock >= self._opened:
            raise ValueError(f"{ticket} is done, but only the clocks below {self._opened} have been opened")
        self._time(id_, runner, now)
        if lane.is_done(ticket.clock, ticket.part):
            return False
        for holder in self._holders.pop(id_, ()):
            del self._runners[holder].held[id_]
        before = lane.clock
        lane.finish(ticket.clock, ticket.part)
        self._extra.discard(id_)
        self._returned.discard(id_)
        if before == self._minimum < lane.clock:
            self._minimum = min(one.clock for one in self._lanes)
        return True

    def _time(self, id_: TicketId, runner: int, now: float) -> None:
        known = self._runners.get(runner)
        if known is None or id_ not in known.held:
            return
        began = known.held[id_][1]
        if began is not None:
            self._durations.add(now - began)
        # What it claimed ahead begins now.
        later = list(known.held)[list(known.held).index(id_) + 1 :]
        known.held.update({other: (known.held[other][0], now) for other in later})

    # What is known -------------------------------------------------------------------------------------------

    @property
    def minimum(self) -> int:
        """The clocks that the slowest lane has completed."""
        return self._minimum

    @property
    def clocks(self) -> dict[int, int]:
        """For each lane, the number of leading clocks of which all parts are done."""
        return {index: lane.clock for index, lane in enumerate(self._lanes)}

    @property
    def slowest(self) -> int:
        """The lane with the fewest completed clocks."""
        return min(range(self.lanes), key=lambda index: self._lanes[index].clock)

    @property
    def held(self) -> dict[int, list[Ticket]]:
        """For each runner, the tickets it works on, in the order in which it claimed them."""
        return {runner: [ticket for ticket, _ in known.held.values()] for runner, known in self._runners.items()}

    def snapshot(self) -> dict[str, Any]:
        """All that the ledger knows, as plain Python."""
        return {
            "settings": [self.lanes, self.parts, self.staleness, self.reassign, self.speculate],
            "lanes": [
                {"clock": lane.clock, "frontier": lane.frontier, "done": sorted(lane.done), "free": list(lane.free)}
                for lane in self._lanes
            ],
            "epochs": list(self._epochs),
            "end": self._end,
            "closed": self._closed,
            "extra": sorted(self._extra),
            "returned": sorted(self._returned),
            "runners": [
                {
                    "runner": runner,
                    "lane": known.lane,
                    "held": [(ticket.epoch, *ticket.id, began) for ticket, began in known.held.values()],
                    "late_since": known.late_since,
                    "dismissed": known.dismissed,
                }
                for runner, known in self._runners.items()
            ],
            "left": sorted(self._left),
            "abandoned": sorted(self._abandoned),
            "durations": list(self._durations.recent),
        }

    @classmethod
    def restore(cls, snapshot: dict[str, Any]) -> Ledger:
        """The ledger of a snapshot; its times must go on from the same clock."""
        self = cls(*snapshot["settings"])
        for lane, saved in zip(self._lanes, snapshot["lanes"], strict=True):
            lane.clock, lane.frontier = saved["clock"], saved["frontier"]
            lane.done = {(clock, part) for clock, part in saved["done"]}
            lane.free = [(clock, part) for clock, part in saved["free"]]
        self._minimum = min(lane.clock for lane in self._lanes)
        self._epochs = [(epoch, first, stop) for epoch, first, stop in snapshot["epochs"]]
        self._end, self._closed = snapshot["end"], snapshot["closed"]
        self._extra = {(clock, lane, part) for clock, lane, part in snapshot["extra"]}
        self._returned = {(clock, lane, part) for clock, lane, part in snapshot["returned"]}
        for saved in snapshot["runners"]:
            known = self._runners[saved["runner"]] = _Runner(saved["lane"])
            known.late_since, known.dismissed = saved["late_since"], saved["dismissed"]
            self._of_lane[known.lane].add(saved["runner"])
            for *ticket, began in saved["held"]:
                self._hold(Ticket(*ticket), saved["runner"], began)
        self._left, self._abandoned = set(snapshot["left"]), set(snapshot["abandoned"])
        self._durations = Durations(snapshot["durations"])
        return self

    @classmethod
    def from_applied(
        cls,
        clocks: Sequence[VectorClock],
        staleness: int | None,
        reassign: bool = True,
        speculate: float | None = 3.0,
    ) -> Ledger:
        """A ledger in place of one that was lost: done is what every shard has applied.

        What was claimed is not known any more: open the epochs again, from that of the clock `minimum` on or an
        earlier one, then let the runners enter with what they hold, and only then close if there was a close.

        Parameters
        ----------
        clocks : sequence of VectorClock
            Those of all shards.
        staleness, reassign, speculate
            As for `Ledger`.
        """
        states = [clock.to_dict() for clock in clocks]
        self = cls(len(states[0]["lanes"]), states[0]["parts"], staleness, reassign, speculate)
        somewhere = {(clock, lane, part) for state in states for lane, clock, parts in state["ahead"] for part in parts}
        for index in range(self.lanes):
            reached = [clock.lane_clock(index) for clock in clocks]
            self._lanes[index] = Lane(self.parts, min(reached))
            for clock in range(min(reached), max(reached)):
                somewhere |= {(clock, index, part) for part in range(self.parts)}
        for id_ in sorted(somewhere):
            lane = self._lanes[id_[1]]
            if all(clock.finished(*id_) for clock in clocks):
                lane.finish(id_[0], id_[2])
            else:
                # Some shards have it, so the others must get it, also if the fit is closed before this clock.
                lane.touch(id_[0])
                self._returned.add(id_)
        self._minimum = min(lane.clock for lane in self._lanes)
        return self
