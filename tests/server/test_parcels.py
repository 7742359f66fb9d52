"""A shard taken apart and put together again elsewhere."""

import numpy as np
import pytest

from daskdml.server import AdaGrad, Push, Shard, Table, Ticket, Update, VectorClock
from daskdml.server._parcels import Arrival, Room, parcel

TABLES = (Table("w", 1000, "float32"), Table("b", 3, "float64"))


@pytest.fixture
def shard():
    rng = np.random.default_rng(0)
    values = {"w": rng.random(1000).astype("f4"), "b": rng.random(3)}
    shard = Shard(0, values, TABLES, VectorClock(range(2)), AdaGrad(), staleness=2)
    shard.handle(Push(0, 7, Ticket(0, 0, 0), {"w": Update(rng.random(1000).astype("f4"))}))
    return shard


def arrived(snapshot, pieces, order):
    arrival = Arrival(snapshot, len(pieces))
    for at in order:
        assert not arrival.complete
        arrival.add(*pieces[at])
        arrival.add(*pieces[at])
    assert arrival.complete
    return Shard.restore(arrival.snapshot, copy=False)


@pytest.mark.parametrize("piece", [7, 1000, 4000, 2**25])
def test_what_arrives_is_what_was_sent_in_whatever_order(shard, piece):
    snapshot, pieces = parcel(shard, piece)
    assert all(values.nbytes <= max(piece, 8) for _, _, values in pieces)
    there = arrived(snapshot, pieces, np.random.default_rng(1).permutation(len(pieces)))
    push = Push(0, 7, Ticket(0, 1, 0), {"w": Update(np.ones(2, "f4"), np.array([4, 999]))})
    for each in (shard, there):
        each.handle(push)
    for name in ("w", "b"):
        np.testing.assert_array_equal(there.view().values[name], shard.view().values[name])
    assert there.clock.clocks == shard.clock.clocks


def test_large_arrays_of_values_and_optimizer_leave_room(shard):
    snapshot, pieces = parcel(shard, 1000)
    assert isinstance(snapshot["values"]["w"], Room) and isinstance(snapshot["values"]["b"], np.ndarray)
    assert {path[0] for path, _, _ in pieces} == {"values", "state"}
    assert not parcel(shard)[1], "a small shard travels in one message"
