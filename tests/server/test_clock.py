"""The vector clock against a model that remembers everything."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from daskdml.server._clock import Ticket, VectorClock

LANES, CLOCKS = 4, 6


class Clocks(RuleBasedStateMachine):
    """Arbitrary ticks, joins and leaves; the model keeps the set of all tickets that count as finished."""

    parts = 1

    def __init__(self):
        super().__init__()
        self.clock = VectorClock(range(LANES), self.parts)
        self.done = {lane: set() for lane in range(LANES)}
        self.live = set(range(LANES))
        self.m = 0

    def completed(self, lane):
        clock = 0
        while all((clock, part) in self.done[lane] for part in range(self.parts)):
            clock += 1
        return clock

    def grown(self):
        before = self.m
        self.m = max(self.m, min(map(self.completed, self.live), default=0))
        return self.m > before

    @rule(lane=st.integers(0, LANES - 1), clock=st.integers(0, CLOCKS), part=st.integers(0, 2))
    def tick(self, lane, clock, part):
        part %= self.parts
        self.done[lane].add((clock, part))
        assert self.clock.tick(clock, lane, part) == self.grown()

    @rule(lane=st.integers(0, LANES - 1))
    def leave(self, lane):
        self.live.discard(lane)
        assert self.clock.leave(lane) == self.grown()

    @rule(lane=st.integers(0, LANES))
    def join(self, lane):
        self.live.add(lane)
        self.done.setdefault(lane, set()).update((c, part) for c in range(self.m) for part in range(self.parts))
        alone = not self.live - {lane}
        self.clock.join(lane)
        assert not self.grown() or alone

    @rule()
    def travel(self):
        state = self.clock.to_dict()
        self.clock = VectorClock.from_dict(json.loads(json.dumps(state)))
        assert self.clock.to_dict() == state

    @invariant()
    def minimum_and_clocks_are_those_of_the_model(self):
        assert self.clock.minimum == self.m
        assert self.clock.clocks == {lane: self.completed(lane) for lane in self.live}
        assert all(self.clock.lane_clock(lane) == self.completed(lane) for lane in self.done)

    @invariant()
    def what_is_finished_is_known(self):
        for lane, done in self.done.items():
            for clock in range(CLOCKS + 1):
                for part in range(self.parts):
                    assert self.clock.applied(Ticket(0, clock, lane, part)) == ((clock, part) in done)

    @invariant()
    def the_gate_keeps_the_bound(self):
        for clock in range(CLOCKS + 2):
            for staleness in (0, 1, 3):
                assert self.clock.may_start(clock, staleness) == (self.m >= clock - staleness)
            assert self.clock.may_start(clock, None)

    @precondition(lambda self: self.live)
    @invariant()
    def the_slowest_may_always_go_on(self):
        slowest = min(self.live, key=self.completed)
        assert self.completed(slowest) >= self.m
        if self.completed(slowest) == self.m:
            assert self.clock.may_start(self.m, 0)


class ClocksOfThreeParts(Clocks):
    parts = 3


TestClocks = Clocks.TestCase
TestClocksOfThreeParts = ClocksOfThreeParts.TestCase
for case in (TestClocks, TestClocksOfThreeParts):
    case.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.permutations([(c, lane) for c in range(5) for lane in range(3)]))
def test_finished_clocks_are_forgotten(order):
    clock = VectorClock(range(3))
    for c, lane in order:
        clock.tick(c, lane)
    state = clock.to_dict()
    assert state["minimum"] == 5 and state["ahead"] == []
    assert clock.applied(Ticket(0, 0, 0)) and not clock.applied(Ticket(0, 5, 0))


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_nobody_gets_further_ahead_than_the_staleness(staleness):
    clock = VectorClock(range(3))
    for _ in range(10):
        c = clock.lane_clock(0)
        if clock.may_start(c, staleness):
            clock.tick(c, 0)
    assert clock.clocks == {0: staleness + 1, 1: 0, 2: 0}
    clock.tick(0, 1)
    assert not clock.may_start(staleness + 1, staleness)
    assert clock.tick(0, 2)
    assert clock.may_start(staleness + 1, staleness)


def test_what_cannot_be_is_refused():
    clock = VectorClock(range(2), parts=2)
    for wrong in [(-1, 0, 0), (0, 0, 2), (0, 0, -1)]:
        with pytest.raises(ValueError, match="no ticket"):
            clock.tick(*wrong)
    with pytest.raises(ValueError, match="lane 2 is not known; it must join"):
        clock.tick(0, 2)
    with pytest.raises(ValueError, match="lane 7"):
        clock.leave(7)
    with pytest.raises(ValueError, match="at least one part"):
        VectorClock(range(2), parts=0)


def test_a_clock_without_lanes_stays_where_it_is():
    clock = VectorClock(range(2))
    for lane in (0, 1):
        clock.tick(0, lane)
    clock.leave(0)
    clock.leave(1)
    assert clock.minimum == 1 and clock.clocks == {}
    clock.join(5)
    assert clock.clocks == {5: 1}
