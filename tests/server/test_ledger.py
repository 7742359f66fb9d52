import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskdml.server._clock import Ticket, VectorClock
from daskdml.server._ledger import Ledger, Stop

INF = float("inf")


def ledger(lanes=2, parts=1, staleness=0, clocks=4, runners=True, **more):
    made = Ledger(lanes, parts, staleness, **more)
    made.open(0, 0, clocks)
    for lane in range(lanes if runners else 0):
        made.enter(lane, lane)
    return made


def work(made, runner, now=0.0):
    ticket = made.claim(runner, now)
    assert isinstance(ticket, Ticket)
    assert made.done(ticket, runner, now + 1.0)
    return ticket


def test_own_tickets_come_in_order_of_clock_and_part():
    made = ledger(lanes=1, parts=2, clocks=2)
    assert [work(made, 0).id for _ in range(4)] == [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 0, 1)]
    assert made.finished(0) and made.minimum == 2


def test_gate_at_staleness_zero():
    made = ledger(speculate=None)
    assert work(made, 0).clock == 0
    assert made.claim(0, 1.0) is None
    assert work(made, 1).clock == 0
    assert work(made, 0).clock == 1


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_alone_a_runner_gets_ahead_by_staleness_and_one_clock(staleness):
    made = ledger(staleness=staleness, clocks=10, reassign=False)
    for clock in range(staleness + 1):
        assert work(made, 0).clock == clock
    assert made.claim(0, 9.0) is None
    assert made.slowest == 1 and made.clocks == {0: staleness + 1, 1: 0}


def test_without_a_bound_a_runner_never_waits():
    made = ledger(staleness=None, clocks=10, reassign=False)
    assert [work(made, 0).clock for _ in range(10)] == list(range(10))


def test_helper_takes_the_last_part_of_a_busy_lane():
    made = ledger(parts=3)
    first = made.claim(1, 0.0)
    for part in range(3):
        assert work(made, 0).id == (0, 0, part)
    helped = work(made, 0, 1.0)
    assert (first.id, helped.id) == ((0, 1, 0), (0, 1, 2))
    assert made.claim(1, 1.0).id == (0, 1, 1)


def test_nobody_helps_before_a_ticket_takes_longer_than_messages_do():
    made = ledger(parts=2, speculate=None)
    made.claim(1, 0.0)
    work(made, 0), work(made, 0)
    assert made.claim(0, 0.001) is None
    soon = made.due(0.001)
    assert 0 < soon < 0.1
    assert made.claim(0, 0.001 + soon).id == (0, 1, 1)


def test_without_reassignment_nobody_helps_a_live_runner():
    made = ledger(parts=2, reassign=False)
    made.claim(1, 0.0)
    work(made, 0), work(made, 0)
    assert made.claim(0, 1.0) is None


def test_a_ticket_is_kept_for_a_runner_that_is_about_to_take_it_but_not_for_ever():
    made = ledger()
    work(made, 0)
    assert made.claim(0, 1.0) is None
    assert made.due(1.0) == pytest.approx(1.0)
    assert made.claim(0, 2.5).id == (0, 1, 0)


def test_help_goes_to_the_nearest_clock():
    made = ledger(lanes=3, staleness=2, speculate=None)
    for _ in range(3):
        work(made, 0)
    work(made, 1)
    made.claim(1, 0.0), made.claim(2, 0.0)
    assert made.claim(0, 5.0).id == (1, 2, 0)


def test_lane_without_a_runner_is_worked_off_also_without_reassignment():
    made = ledger(staleness=None, reassign=False)
    made.claim(1, 0.0)
    made.leave(1)
    # The oldest first, so that the lane does not fall behind.
    assert [work(made, 0).id for _ in range(4)] == [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0)]


def test_what_a_lost_runner_held_comes_first():
    made = ledger(parts=2)
    lost = made.claim(1, 0.0)
    made.leave(1)
    made.leave(1)
    assert made.claim(1, 0.0) == Stop("left")
    made.enter(7, 1)
    assert made.claim(7, 0.0) == lost


def test_a_runner_that_has_left_does_not_come_back():
    """Its question may come late, to a ledger that has heard before that its worker is gone."""
    made = ledger(lanes=2)
    made.leave(9)
    made.enter(9, 0)
    assert made.claim(9, 0.0) == Stop("left") and not made.held.get(9)
    held = made.claim(1, 0.0)
    made.leave(1)
    made.enter(1, 1, [held])
    assert made.claim(1, 0.0) == Stop("left")
    assert 1 not in made.held
    restored = Ledger.restore(made.snapshot())
    restored.enter(1, 1, [held])
    assert restored.claim(1, 0.0) == Stop("left")


def test_speculation_gives_one_duplicate_of_a_late_ticket():
    made = ledger(lanes=3, clocks=3, staleness=1, reassign=False, speculate=3.0)
    late = made.claim(2, 0.0)
    for _ in range(2):
        work(made, 0), work(made, 1)
    assert made.claim(0, 1.5) is None
    assert made.due(1.5) == pytest.approx(1.5)
    assert made.claim(0, 3.0) == late
    assert made.claim(1, 30.0) is None
    assert made.done(late, 0, 4.0)
    assert not made.done(late, 2, 5.0)
    assert made.held == {0: [], 1: [], 2: []}


def test_dismissed_runner_stops_after_what_it_holds():
    made = ledger()
    ticket = made.claim(0, 0.0)
    made.dismiss(0)
    assert made.claim(0, 0.0) == Stop("dismissed")
    assert made.done(ticket, 0, 1.0)
    made.leave(0)
    assert made.claim(0, 1.0) == Stop("left")


def test_unknown_runner_must_enter():
    with pytest.raises(KeyError, match="enter"):
        ledger().claim(9, 0.0)


def test_lost_answers_are_given_again():
    made = ledger()
    ticket = made.claim(0, 0.0, holding=[])
    assert made.claim(0, 1.0, holding=[]) == ticket
    assert made.claim(0, 1.0, holding=[ticket.id]) is None
    assert made.held[0] == [ticket]


def test_stop_only_when_all_is_done():
    made = ledger(clocks=1, speculate=None)
    made.close(after_epoch=0)
    work(made, 0)
    held = made.claim(1, 0.0)
    assert made.claim(0, 1.0) is None
    made.done(held, 1, 1.0)
    assert made.claim(0, 2.0) == Stop("over") and made.over


def test_close_drops_later_epochs_but_not_what_was_begun():
    made = ledger(clocks=1, staleness=2)
    made.open(1, 1, 5)
    made.enter(2, 0)
    begun = [work(made, 0), work(made, 0), made.claim(0, 0.0)]
    assert begun[-1].clock == 2
    work(made, 1)
    made.close(after_epoch=0)
    made.leave(0)
    assert not made.over
    # Clock 1 of lane 0 is done, so only this one has reached some shards and may not have reached others.
    assert made.claim(2, 0.0) == begun[-1]
    made.done(begun[-1], 2, 0.0)
    assert made.claim(1, 0.0) == Stop("over")


def test_epochs_are_opened_in_order():
    made = ledger(clocks=2)
    made.open(0, 0, 2)
    with pytest.raises(ValueError, match="ends at 2"):
        made.open(1, 3, 2)
    made.open(1, 2, 2)
    made.close(1)
    with pytest.raises(ValueError, match="closed"):
        made.open(2, 4, 2)


def test_a_resumed_fit_begins_at_a_later_clock():
    made = Ledger(2, 1, 0)
    made.open(3, 30, 10)
    made.enter(0, 0)
    assert made.minimum == 30 and made.claim(0, 0.0) == Ticket(3, 30, 0)


@pytest.mark.parametrize(
    "wrong", [{"lanes": 0}, {"parts": 0}, {"staleness": -1}, {"speculate": 0.5}, {"speculate": float("nan")}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Ledger(**{"lanes": 1, "parts": 1, "staleness": 0, **wrong})


def test_wrong_calls_are_refused():
    made = ledger()
    with pytest.raises(ValueError, match="lane 5"):
        made.enter(5, 5)
    with pytest.raises(ValueError, match="below 4"):
        made.done(Ticket(0, 4, 0), 0, 0.0)


def test_books_stay_small_and_decisions_fast():
    made = ledger(lanes=8, staleness=3, clocks=2000)
    for _ in range(2000):
        for runner in range(8):
            work(made, runner)
    assert made.minimum == 2000
    assert all(len(lane.done) == len(lane.free) == 0 for lane in made._lanes)
    assert not made._holders and not made._returned


class Play:
    """A ledger and runners that do anything at any time; a plain model beside it."""

    def __init__(self, lanes, parts, staleness, epochs, clocks, seed, **more):
        self.random = random.Random(seed)
        self.lanes, self.parts, self.staleness, self.total = lanes, parts, staleness, epochs * clocks
        self.ledger = Ledger(lanes, parts, staleness, **more)
        for epoch in range(epochs):
            self.ledger.open(epoch, epoch * clocks, clocks)
        self.ledger.close(epochs - 1)
        self.done, self.now, self.next = set(), 0.0, lanes
        self.working = {runner: [] for runner in range(lanes)}
        for runner in range(lanes):
            self.ledger.enter(runner, runner)

    def model_minimum(self):
        def clock(lane):
            full = (
                c for c in range(self.total + 1) if any((c, lane, part) not in self.done for part in range(self.parts))
            )
            return next(full)

        return min(clock(lane) for lane in range(self.lanes))

    def step(self):
        self.now += self.random.random()
        runner = self.random.choice(list(self.working))
        what = self.random.random()
        if what < 0.04:
            self.ledger.leave(runner)
            del self.working[runner]
        elif what < 0.08:
            self.ledger = Ledger.restore(json.loads(json.dumps(self.ledger.snapshot())))
        if what < 0.1 or not self.working:
            self.ledger.enter(self.next, self.random.randrange(self.lanes))
            self.working[self.next] = []
            self.next += 1
        elif runner in self.working and self.working[runner] and what < 0.6:
            ticket = self.working[runner].pop(0)
            assert self.ledger.done(ticket, runner, self.now) == (ticket.id not in self.done)
            self.done.add(ticket.id)
        elif runner in self.working and len(self.working[runner]) < 2:
            self.claim(runner)
        assert self.ledger.minimum == self.model_minimum()

    def claim(self, runner):
        ticket = self.ledger.claim(runner, self.now)
        if isinstance(ticket, Stop):
            assert len(self.done) == self.total * self.lanes * self.parts
        elif ticket is not None:
            assert ticket.id not in self.done and ticket not in self.working[runner]
            assert self.staleness is None or ticket.clock - self.model_minimum() <= self.staleness
            others = [r for r, tickets in self.ledger.held.items() if ticket in tickets]
            assert runner in others and len(others) <= 2
            self.working[runner].append(ticket)

    def nobody_waits_for_nothing(self):
        """Where no one works, someone may start, at the latest after `due`."""
        if self.ledger.over or any(self.ledger.held.values()):
            return
        self.now += 1e6
        for _ in range(2):
            for runner in self.working:
                self.claim(runner)
            self.now += self.ledger.due(self.now) or 0.0
        assert any(self.ledger.held.values())


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([0, 0, 1, 2, None]),
    st.integers(1, 2),
    st.integers(1, 4),
    st.integers(0, 2**32),
    st.booleans(),
    st.sampled_from([None, 1.0, 3.0]),
)
def test_every_ticket_is_done_once_within_the_bound(lanes, parts, staleness, epochs, clocks, seed, reassign, speculate):
    play = Play(lanes, parts, staleness, epochs, clocks, seed, reassign=reassign, speculate=speculate)
    for count in range(5000):
        if play.ledger.over:
            break
        play.step()
        if count % 20 == 0:
            play.nobody_waits_for_nothing()
    assert play.ledger.over
    assert len(play.done) == lanes * parts * epochs * clocks


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 1)), max_size=40),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 1)), max_size=40),
)
def test_rebuilt_from_what_every_shard_has_applied(one, two):
    clocks = [VectorClock(range(3), 2), VectorClock(range(3), 2)]
    for clock, applied in zip(clocks, (one, two), strict=True):
        for id_ in applied:
            clock.tick(*id_)
    made = Ledger.from_applied(clocks, None)
    made.open(0, 0, 6)
    held = Ticket(0, 5, 0, 1)
    made.enter(0, 0, holding=[held])
    both = set(one) & set(two)
    assert made.held[0] == ([] if held.id in both else [held])
    made.done(held, 0, 0.0)
    both.add(held.id)
    found = set()
    while isinstance(ticket := made.claim(0, INF), Ticket):
        assert made.done(ticket, 0, INF)
        found.add(ticket.id)
    assert not found & both
    assert len(found | both) == 6 * 3 * 2 and made.finished(0)
