"""A shard over arbitrary schedules: each ticket once, nothing lost, the same bits where they are promised."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskdml.server._clock import VectorClock
from daskdml.server._optimizers import OPTIMIZERS, Add
from daskdml.server._shard import Applied, Push, Shard, Ticket
from daskdml.server._tables import Table, Update

SIZE = 6
TABLES = (Table("w", SIZE, "float32"), Table("rows", 1, "int64"), Table("top", SIZE, "float64", "max"))


def initial():
    return {
        "w": np.linspace(-1, 1, SIZE, dtype="float32"),
        "rows": np.zeros(1, "int64"),
        "top": np.zeros(SIZE),
    }


def push(clock, lane, part=0, runner=None, generation=0):
    """The same ticket brings the same updates, whoever brings it: some dense, some sparse, some a table not at all."""
    rng = np.random.default_rng([clock, lane, part])
    keys = np.flatnonzero(rng.random(SIZE) < 0.5) if rng.random() < 0.5 else None
    count = SIZE if keys is None else len(keys)
    updates = {"w": Update(rng.normal(size=count).astype("float32"), keys), "rows": Update(np.array([lane + 1]))}
    if rng.random() < 0.7:
        updates["top"] = Update(rng.normal(size=count), keys)
    runner = lane if runner is None else runner
    return Push(generation, runner, Ticket(clock // 2, clock, lane, part), updates)


def shard_of(lanes, parts=1, staleness: int | None = 0, optimizer="add", **settings):
    clock = VectorClock(range(lanes), parts)
    return Shard(0, initial(), TABLES, clock, OPTIMIZERS[optimizer](), staleness, record=True, **settings)


def expected(pushes):
    """What a sum in plain float64 gives."""
    values = {name: array.astype("float64") for name, array in initial().items()}
    for one in pushes:
        for name, update in one.updates.items():
            where = slice(None) if update.keys is None else update.keys
            if name == "top":
                values[name][where] = np.maximum(values[name][where], update.values)
            else:
                values[name][where] += update.values
    return values


def same_bits(a, b):
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


def flattened(snapshot):
    """A snapshot in a form that can be compared: arrays as their bits."""

    def plain(value):
        if isinstance(value, np.ndarray):
            return [str(value.dtype), value.tobytes().hex()]
        if isinstance(value, dict):
            return {str(key): plain(entry) for key, entry in value.items()}
        return [plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value

    return plain(snapshot)


@st.composite
def schedules(draw):
    """Every ticket at least once, some again, by other runners too, in any order."""
    lanes, parts, clocks = draw(st.integers(1, 4)), draw(st.integers(1, 2)), draw(st.integers(1, 4))
    tickets = [(c, lane, part) for c in range(clocks) for lane in range(lanes) for part in range(parts)]
    again = draw(st.lists(st.tuples(st.sampled_from(tickets), st.integers(0, lanes)), max_size=6))
    pushes = [push(*ticket) for ticket in tickets] + [push(*ticket, runner=runner) for ticket, runner in again]
    return lanes, parts, tickets, draw(st.permutations(pushes))


@settings(max_examples=100, deadline=None)
@given(schedules(), st.sampled_from([0, 1, 3, None]))
def test_each_ticket_is_applied_once_in_any_order(schedule, staleness):
    lanes, parts, tickets, order = schedule
    shard = shard_of(lanes, parts, staleness)
    seen, minimum = {}, 0
    for one in order:
        result = shard.handle(one)
        first = seen.setdefault(one.ticket.id, one)
        assert result.status == (
            "applied" if first is one else "repeated" if first.runner == one.runner else "duplicate"
        )
        assert result.sequence == shard.sequence
        shard.settle()
        assert result.advanced == (result.minimum > minimum)
        assert result.minimum == min(
            next(c for c in range(99) if any((c, lane, part) not in seen for part in range(parts)))
            for lane in range(lanes)
        )
        minimum = result.minimum
        assert shard.sequence == len(shard.log)
        contained = {t for t in seen if staleness != 0 or t[0] < minimum}
        assert {t for t in tickets if shard.includes(Ticket(0, *t))} == contained
        assert {ticket.id for _, ticket, _ in shard.log} == contained
    view = shard.view()
    for name, values in expected(push(*ticket) for ticket in tickets).items():
        np.testing.assert_allclose(view.values[name], values, rtol=1e-5, atol=1e-5)
    assert view.sequence == len(tickets) and [at for at, _, _ in shard.log] == list(range(1, len(tickets) + 1))
    assert view.runners == {
        runner: len({one.ticket.id for one in order if one.runner == runner}) for runner in {o.runner for o in order}
    }


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@settings(max_examples=40, deadline=None)
@given(schedule=schedules())
def test_without_staleness_the_order_of_arrival_changes_no_bit(optimizer, schedule):
    lanes, parts, tickets, order = schedule
    reference = shard_of(lanes, parts, 0, optimizer)
    at_clock = {0: reference.view().values}
    for ticket in tickets:
        result = reference.handle(push(*ticket))
        if result.advanced:
            at_clock[result.minimum] = reference.view().values
    shard = shard_of(lanes, parts, 0, optimizer)
    for one in order:
        shard.handle(one)
        view = shard.view()
        assert same_bits(view.values, at_clock[view.minimum])
    assert same_bits(shard.view().values, reference.view().values)
    assert [ticket for _, ticket, _ in shard.log] == [ticket for _, ticket, _ in reference.log]


@settings(max_examples=60, deadline=None)
@given(schedules(), st.sampled_from([0, 2, None]), st.sampled_from(list(OPTIMIZERS)), st.data(), st.booleans())
def test_a_snapshot_at_any_moment_changes_nothing(schedule, staleness, optimizer, data, copy):
    lanes, parts, _, order = schedule
    plain, moved = (shard_of(lanes, parts, staleness, optimizer) for _ in range(2))
    moment = data.draw(st.integers(0, len(order)))
    for number, one in enumerate(order):
        if number == moment:
            old, before = moved, flattened(moved.snapshot())
            kept = moved.snapshot()
            moved = Shard.restore(moved.snapshot(copy=False), copy=copy)
            assert flattened(moved.snapshot()) == before
        assert moved.handle(one) == plain.handle(one)
    assert flattened(moved.snapshot()) == flattened(plain.snapshot())
    if moment < len(order):
        # The snapshot is one of its moment, whatever the shard did later; so is the old shard, unless taken over.
        assert flattened(kept) == before
        assert not copy or flattened(old.snapshot()) == before


def test_a_snapshot_is_plain():
    shard = shard_of(2, 1, 0, "adam")
    shard.handle(push(0, 1))
    shard.handle(Push(0, -1, None, {}, token="start"))
    json.dumps(flattened(shard.snapshot()))

    def types(value):
        if isinstance(value, dict):
            return {str}.union(*map(types, value), *map(types, value.values()))
        return {type(value)}.union(*map(types, value)) if isinstance(value, list) else {type(value)}

    assert types(shard.snapshot()) <= {str, int, float, bool, type(None), list, dict, np.ndarray}
    with pytest.raises(ValueError, match="format 2, but this version reads format 1"):
        Shard.restore({**shard.snapshot(), "format": 2})


def test_arrays_that_came_over_a_wire_can_be_restored():
    shard = shard_of(1, staleness=None)
    snapshot = shard.snapshot()
    for array in snapshot["values"].values():
        array.flags.writeable = False
    moved = Shard.restore(snapshot, copy=False)
    assert moved.handle(push(0, 0)) == shard.handle(push(0, 0))
    assert same_bits(moved.view().values, shard.view().values)


@settings(max_examples=80, deadline=None)
@given(schedules(), st.sampled_from([0, 1, None]), st.data())
def test_earlier_generations_change_nothing(schedule, staleness, data):
    lanes, parts, _, order = schedule
    shard, undisturbed = (shard_of(lanes, parts, staleness, generation=3) for _ in range(2))
    for one in order:
        if data.draw(st.booleans()):
            before = flattened(shard.snapshot())
            zombie = replace(one, generation=data.draw(st.integers(0, 2)))
            assert shard.handle(zombie) == Applied("fenced", shard.clock.minimum, False, shard.sequence)
            assert flattened(shard.snapshot()) == before
        assert shard.handle(replace(one, generation=3)) == undisturbed.handle(replace(one, generation=3))
    assert flattened(shard.snapshot()) == flattened(undisturbed.snapshot())


def test_a_later_generation_shows_that_the_shard_is_the_old_one():
    with pytest.raises(ValueError, match="generation 1.*generation 2"):
        shard_of(1, generation=1).handle(push(0, 0, generation=2))


@pytest.mark.parametrize("staleness", [0, None])
def test_a_bad_push_is_refused_whole(staleness):
    shard = shard_of(2, staleness=staleness)
    before = flattened(shard.snapshot())
    good = Update(np.ones(SIZE, "float32"))
    for bad, message in [
        ({"top": Update(np.ones(SIZE), np.array([0]))}, "shape"),
        ({"top": Update(np.ones(1), np.array([SIZE]))}, "outside 0..5"),
        ({"top": Update(np.ones(1), np.array([-1]))}, "outside 0..5"),
        ({"top": Update(np.ones(2), np.array([3, 3]))}, "sorted and unique"),
        ({"rows": Update(np.ones(1))}, "int64"),
        ({"v": good}, "no table 'v'; there are 'w', 'rows', 'top'"),
    ]:
        with pytest.raises(ValueError, match=message):
            shard.handle(Push(0, 0, Ticket(0, 0, 0), {"w": good, **bad}))
    with pytest.raises(ValueError, match="lane 2 is not known"):
        shard.handle(push(0, 2))
    with pytest.raises(ValueError, match="needs a token"):
        shard.handle(Push(0, -1, None, {"w": good}))
    assert flattened(shard.snapshot()) == before


@pytest.mark.parametrize("staleness", [0, None])
def test_a_push_of_the_driver_is_known_by_its_token(staleness):
    shard = shard_of(2, staleness=staleness)
    control = Push(0, -1, None, {"w": Update(np.ones(SIZE, "float32"))}, token="mean of epoch 1")
    assert [shard.handle(control).status for _ in range(3)] == ["applied", "repeated", "repeated"]
    assert shard.handle(replace(control, token="mean of epoch 2")).status == "applied"
    np.testing.assert_allclose(shard.view().values["w"], initial()["w"] + 2)
    assert shard.view().runners == {-1: 2} and shard.clock.minimum == 0


def test_what_is_kept_back_is_not_yet_read():
    shard = shard_of(2)
    assert shard.handle(push(0, 1)) == Applied("applied", 0, False, 0)
    # Somebody else did the same work: known, but not yet among what a read contains.
    assert shard.handle(push(0, 1, runner=7)).status == "duplicate"
    assert same_bits(shard.view().values, initial()) and shard.view().runners == {}
    assert shard.clock.applied(Ticket(0, 0, 1)) and not shard.includes(Ticket(0, 0, 1))
    assert shard.handle(push(0, 0)) == Applied("applied", 1, True, 0)
    # The clock is complete, but who works at clock 0, or does so again, is to read what is before it.
    view = shard.view(least=0)
    assert same_bits(view.values, initial()) and view.minimum == 0 and view.clocks == {0: 0, 1: 0}
    assert shard.view(least=1).minimum == 1
    assert shard.includes(Ticket(0, 0, 1)) and shard.view().runners == {0: 1, 1: 1, 7: 1}


@pytest.mark.parametrize("staleness", [0, 2])
def test_a_lane_that_leaves_is_not_waited_for(staleness):
    shard = shard_of(3, staleness=staleness)
    for lane in (0, 1):
        shard.handle(push(0, lane))
    assert shard.view().minimum == 0
    assert shard.leave(2)
    assert shard.view().clocks == {0: 1, 1: 1} and shard.sequence == 2
    # Its push was on the way: applied, since it is counted nowhere else; a second time it is a duplicate.
    assert [shard.handle(push(0, 2)).status for _ in range(2)] == ["applied", "repeated"]
    for name, values in expected(push(0, lane) for lane in range(3)).items():
        np.testing.assert_allclose(shard.view().values[name], values, rtol=1e-5)
    shard.join(2)
    assert shard.view().clocks == {0: 1, 1: 1, 2: 1}


def test_views_are_copies():
    shard = shard_of(1)
    keys = {"w": np.array([1, 3]), "top": None}
    first, some = shard.view(), shard.view(keys)
    assert list(some.values) == ["w", "top"]
    np.testing.assert_array_equal(some.values["w"], initial()["w"][[1, 3]])
    for view in (first, some):
        for array in view.values.values():
            array += 1
    assert same_bits(shard.view().values, initial())
    kept = shard.view()
    shard.handle(push(0, 0))
    assert same_bits(kept.values, initial()) and kept.sequence == 0 and kept.runners == {} and kept.clocks == {0: 0}
    with pytest.raises(ValueError, match="outside"):
        shard.view({"w": np.array([SIZE])})
    with pytest.raises(ValueError, match="no table"):
        shard.view({"v": None})


def test_initial_values_are_copied_unless_handed_over():
    values = {"w": np.zeros(3, "float32")}
    for copy in (True, False):
        shard = Shard(0, values, [Table("w", 3, "float32")], VectorClock([0]), staleness=None, copy=copy)
        shard.handle(Push(0, 0, Ticket(0, 0, 0), {"w": Update(np.ones(3, "float32"))}))
        np.testing.assert_array_equal(values["w"], 0 if copy else 1)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_dense_update_is_its_sparse_one(dtype):
    rng = np.random.default_rng(0)
    dense = rng.normal(size=SIZE).astype(dtype)
    for updates in (
        {"w": Update(dense), "top": Update(dense)},
        {"w": Update(dense, np.arange(SIZE)), "top": Update(dense, np.arange(SIZE))},
    ):
        shard = shard_of(1, staleness=None)
        shard.handle(Push(0, 0, Ticket(0, 0, 0), updates))
        values = shard.view().values
        assert values["w"].dtype == np.float32 and values["top"].dtype == np.float64
        np.testing.assert_array_equal(values["w"], (initial()["w"] + dense).astype("float32"))
        np.testing.assert_array_equal(values["top"], np.maximum(dense, 0).astype("float64"))


def test_an_optimizer_leaves_counts_and_maxima_alone():
    shard = shard_of(1, staleness=None, optimizer="adagrad")
    for clock in range(3):
        shard.handle(push(clock, 0))
    reference = expected(push(clock, 0) for clock in range(3))
    np.testing.assert_array_equal(shard.view().values["rows"], reference["rows"])
    np.testing.assert_array_equal(shard.view().values["top"], reference["top"])


def test_a_sum_is_none_of_the_optimizers_business():
    tables = [Table("w", 2, "float32"), Table("losses", 2, "float32", "sum")]
    values = {table.name: np.zeros(2, "float32") for table in tables}
    shard = Shard(0, values, tables, VectorClock([0]), "momentum", staleness=None)
    ones = Update(np.ones(2, "float32"))
    for clock in range(2):
        shard.handle(Push(0, 0, Ticket(0, clock, 0), {"w": ones, "losses": ones}))
    np.testing.assert_array_equal(shard.view().values["losses"], 2)
    assert np.all(shard.view().values["w"] < 0)


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match=r"values of \['v'\] for tables \['w'\]"):
        Shard(0, {"v": np.zeros(1)}, [Table("w", 1, "float32")], VectorClock([0]))
    with pytest.raises(ValueError, match="one-dimensional"):
        Shard(0, {"w": np.zeros((1, 1))}, [Table("w", 1, "float32")], VectorClock([0]))
    with pytest.raises(TypeError, match="add its class to OPTIMIZERS"):
        Shard(0, {"w": np.zeros(1)}, [Table("w", 1, "float32")], VectorClock([0]), optimizer=object())


def test_memory_does_not_grow_with_the_fit():
    shard = Shard(0, {"w": np.zeros(1)}, [Table("w", 1, "float64")], VectorClock(range(2)), Add(), 0)
    update = {"w": Update(np.ones(1))}

    def lengths(clock):
        for lane in (0, 1):
            shard.handle(Push(0, lane, Ticket(0, clock, lane), update))
        shard.handle(Push(0, -1, None, update, token=str(clock)))
        snapshot = shard.snapshot()
        return len(snapshot["held"]), len(snapshot["tokens"]), len(str(snapshot["clock"])), len(snapshot["log"])

    first, last = ([lengths(clock) for clock in range(start, start + 300)][-1] for start in (0, 300))
    assert last == first
    assert shard.view().runners == {0: 600, 1: 600, -1: 600}
