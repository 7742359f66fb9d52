"""The checker accepts what is right, and finds each violation that is planted."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from daskdml.server._check import check_trace
from daskdml.server._clock import Ticket
from daskdml.server._replay import replay
from daskdml.server._tables import Partition, Table, Update
from daskdml.server._trace import Read, Trace, TraceError

LANES, CLOCKS = 2, 4


def clocks_at(log, sequence):
    clocks = dict.fromkeys(range(LANES), 0)
    for _, id_, _ in log[:sequence]:
        if id_ is not None:
            clocks[id_[1]] += 1
    return clocks


def run(staleness=1, first_clock=0):
    """Two lanes on two shards, in step; the second reads before the first's latest updates have arrived."""
    ids = [(clock, lane, 0) for clock in range(first_clock, first_clock + CLOCKS) for lane in range(LANES)]
    log = [(at, id_, id_[1]) for at, id_ in enumerate(ids, start=1)]
    trace = Trace(LANES, 1, staleness, 2, logs={0: list(log), 1: list(log)}, first_clock=first_clock)
    for number, clock in enumerate(range(first_clock, first_clock + CLOCKS)):
        for lane in range(LANES):
            # With a bound of 1, all but the last clock is contained; its own update of that one comes on top.
            behind = 0 if staleness == 0 else min(number, 1)
            at = (number - behind) * LANES
            clocks = {lane_: first_clock + c for lane_, c in clocks_at(log, at).items()}
            trace.reads.append(
                Read(
                    0,
                    lane,
                    Ticket(0, clock, lane),
                    {0: at, 1: at},
                    {0: clocks, 1: clocks},
                    {shard: [(clock - 1, lane, 0)] if behind else [] for shard in range(2)},
                    number,
                )
            )
    return trace


def change(trace, index, **more):
    trace.reads[index] = replace(trace.reads[index], **more)


@pytest.mark.parametrize("staleness", [0, 1])
@pytest.mark.parametrize("first_clock", [0, 10])
def test_right_traces_are_accepted(staleness, first_clock):
    trace = run(staleness, first_clock)
    found = check_trace(trace)
    assert found["reads"] == found["applied"] == 8
    assert found["staleness_max"] == staleness
    assert found["staleness_histogram"] == ({0: 8} if staleness == 0 else {0: 2, 1: 6})
    assert Trace.from_json(trace.to_json()) == trace


def test_the_bound_is_that_of_the_strategy_if_one_is_given():
    @dataclass
    class Strategy:
        staleness: int | None

    check_trace(run(1), Strategy(None))
    check_trace(run(1), Strategy(3))
    with pytest.raises(TraceError, match="the bound is 0"):
        check_trace(run(1), Strategy(0))


def drop_at_one_shard(trace):
    trace.logs[1] = trace.logs[1][:-1]


def drop_everywhere(trace):
    trace.logs = {shard: log[:-1] for shard, log in trace.logs.items()}


def apply_twice(trace):
    trace.logs[1].append((9, (1, 0, 0), 0))


def skip_a_sequence(trace):
    trace.logs[0][3] = (5, *trace.logs[0][3][1:])


def unknown_ticket(trace):
    trace.logs[0].append((9, (4, 5, 0), 0))


def never_read(trace):
    del trace.reads[3]


def break_the_gate(trace):
    # Lane 0 finishes all its clocks before lane 1 has one.
    order = sorted(trace.logs[0], key=lambda entry: (entry[1][1], entry[1][0]))
    trace.logs[0] = [(at, *entry[1:]) for at, entry in enumerate(order, start=1)]


def read_too_old(trace):
    change(
        trace,
        6,
        shards={0: 4, 1: 0},
        clocks={0: {0: 2, 1: 2}, 1: {0: 0, 1: 0}},
        replayed={0: [(2, 0, 0)], 1: [(0, 0, 0), (1, 0, 0), (2, 0, 0)]},
    )


def lose_own_write(trace):
    change(trace, 3, replayed={0: [], 1: [(0, 1, 0)]})


def own_write_twice(trace):
    change(trace, 5, replayed={0: [(1, 1, 0)], 1: [(0, 1, 0), (1, 1, 0)]})


def own_write_twice_on_top(trace):
    change(trace, 3, replayed={0: [(0, 1, 0)], 1: [(0, 1, 0), (0, 1, 0)]})


def foreign_write(trace):
    change(trace, 3, replayed={0: [(0, 1, 0)], 1: [(0, 1, 0), (0, 0, 0)]})


def wrong_clocks(trace):
    change(trace, 5, clocks={0: trace.reads[5].clocks[0], 1: {0: 2, 1: 1}})


def from_the_future(trace):
    change(trace, 7, shards={0: 4, 1: 99})


def own_effect_before_cause(trace):
    change(trace, 7, shards={0: 4, 1: 8}, clocks={0: {0: 2, 1: 2}, 1: {0: 4, 1: 4}}, replayed={0: [(2, 1, 0)], 1: []})


def shard_not_read(trace):
    change(trace, 5, shards={0: 2})


def same_number_twice(trace):
    change(trace, 5, number=1)


@pytest.mark.parametrize(
    "plant, message",
    [
        (drop_at_one_shard, r"shard 1 has not applied ticket \(clock 3, lane 1, part 0\) of runner 1"),
        (drop_everywhere, "runner 1, read 3 at clock 3 .*begun but never applied"),
        (apply_twice, r"shard 1: ticket \(clock 1, lane 0, part 0\) is applied twice, at 3 .* and at 9"),
        (skip_a_sequence, "shard 0: entry 4 of the log has sequence 5"),
        (unknown_ticket, "lane 5.*does not exist"),
        (never_read, "shard 0: .*clock 1, lane 1.* runner 1, which never read it"),
        (break_the_gate, "shard 0: .*clock 2, lane 0.*completed 0 clocks; the bound is 1"),
        (read_too_old, r"runner 0, read 3 at clock 3 .*shard 1: ticket \(clock 0, lane 1, part 0\) is not in"),
        (lose_own_write, r"runner 1, read 1 at clock 1 .*shard 0: does not contain its own"),
        (own_write_twice, r"runner 1, read 2 at clock 2 .*shard 1: its own .*clock 0.* contained twice"),
        (own_write_twice_on_top, "runner 1, read 1 at clock 1 .*shard 1: its own .* contained twice"),
        (foreign_write, "runner 1, read 1 at clock 1 .*shard 1: .*lane 0.*not its own"),
        (wrong_clocks, "runner 1, read 2 at clock 2 .*shard 1: was told the clocks"),
        (from_the_future, "runner 1, read 3 at clock 3 .*shard 1: read up to 99, but 8"),
        (own_effect_before_cause, "runner 1, read 3 at clock 3 .*shard 1: its own update at 8"),
        (shard_not_read, r"read shards \[0\] of 2"),
        (same_number_twice, "two reads of the same number"),
    ],
)
def test_planted_violations_are_found(plant, message):
    trace = run(1)
    plant(trace)
    with pytest.raises(TraceError, match=message):
        check_trace(trace)


def test_what_is_seen_never_becomes_older():
    trace = run(None)
    trace.reads[6] = replace(trace.reads[6], shards={0: 4, 1: 0}, clocks={0: {0: 2, 1: 2}, 1: {0: 0, 1: 0}})
    with pytest.raises(
        TraceError, match="runner 0, read 3 at clock 3 .*shard 1: read up to 0 .*the read before up to 2"
    ):
        check_trace(trace)


@pytest.mark.parametrize(
    "at, message", [(5, "contained more than the clocks before 2"), (3, "clock 1, lane 1.* is not in what it read")]
)
def test_staleness_zero_reads_exactly_the_clocks_before(at, message):
    trace = run(0)
    assert trace.reads[4].shards == {0: 4, 1: 4}
    clocks = {lane: min(clock, at // 2) for lane, clock in clocks_at(trace.logs[1], at).items()}
    change(trace, 4, shards={0: 4, 1: at}, clocks={0: {0: 2, 1: 2}, 1: clocks})
    # The cause of sequence 5 is this very read, unless another runner did it.
    trace.logs[1][4] = (5, (2, 0, 0), 1)
    trace.reads.append(replace(trace.reads[4], runner=1, number=9, shards={0: 4, 1: 4}, clocks=trace.reads[5].clocks))
    with pytest.raises(TraceError, match=message):
        check_trace(trace)


def test_staleness_zero_applies_in_order():
    trace = run(0)
    log = trace.logs[1]
    log[2], log[3] = (3, *log[3][1:]), (4, *log[2][1:])
    with pytest.raises(TraceError, match="shard 1: .*clock 1, lane 0.* is applied after .*lane 1"):
        check_trace(trace)


def test_reads_of_killed_runners_may_be_missing():
    trace = run(1)
    del trace.reads[7]
    with pytest.raises(TraceError, match="never read"):
        check_trace(trace)
    trace.lost = [1]
    check_trace(trace)


def train(ticket, values):
    return {"w": Update(np.float32(0.1) * (ticket.lane + ticket.clock - values["w"]))}


def test_replay_gives_what_the_reads_say():
    partition = Partition((Table("w", 2048, "float32"),), 2)
    start = {"w": np.linspace(0, 1, 2048, dtype="float32")}
    w, seen = [start["w"]], {}
    trace = run(1)
    for _, id_, _ in trace.logs[0]:
        clock, lane, _ = id_
        read = next(read for read in trace.reads if read.ticket.id == id_)
        value = w[read.shards[0]].copy()
        for own in read.replayed[0]:
            value += seen[own]
        seen[id_] = train(read.ticket, {"w": value})["w"].values
        w.append(w[-1] + seen[id_])
    found = replay(trace, partition, start, train, "add", 1)
    np.testing.assert_array_equal(found["w"], w[-1])


def test_replay_needs_what_the_driver_pushed():
    partition = Partition((Table("w", 3, "float32"),), 2)
    trace = Trace(1, 1, None, 2, logs={0: [(1, None, -1)], 1: []})
    with pytest.raises(TraceError, match="pass `control`"):
        replay(trace, partition, {"w": np.zeros(3, "float32")}, train)
    found = replay(
        trace,
        partition,
        {"w": np.zeros(3, "float32")},
        train,
        control=lambda shard, sequence: {"w": Update(np.full(3, sequence, "float32"))},
    )
    np.testing.assert_array_equal(found["w"], [1, 1, 1])


def test_replay_refuses_an_effect_before_its_cause_and_a_missing_read():
    partition = Partition((Table("w", 3, "float32"),), 2)
    start = {"w": np.zeros(3, "float32")}
    trace = run(1)
    own_effect_before_cause(trace)
    with pytest.raises(TraceError, match="before its cause"):
        replay(trace, partition, start, train)
    trace = run(1)
    never_read(trace)
    with pytest.raises(TraceError, match="not recorded"):
        replay(trace, partition, start, train)
