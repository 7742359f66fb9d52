"""The parameters as the replicas of a worker see them, against shards in this process and a network that fails."""

import threading
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

import numpy as np
import pytest

from daskdml.server import (
    Directory,
    Own,
    Parameters,
    Partition,
    Push,
    Refused,
    ServerLost,
    Shard,
    Table,
    Ticket,
    Unreachable,
    Update,
    VectorClock,
)
from daskdml.server._client import Gone
from daskdml.server._remote import Ref

SIZE, LANES = 4096, 2
# The second is too small for two shards: one has all of it.
TABLES = (Table("w", SIZE, "float64"), Table("b", 1, "float64"))


class Network:
    """A Remote whose hosts are shards in this process; each can be cut off, and messages to it held up."""

    def __init__(self, staleness, optimizer="add", n_shards=2):
        self.partition = Partition(TABLES, n_shards)
        values = self.partition.cut({"w": np.zeros(SIZE), "b": np.zeros(1)})
        self.refs = tuple(Ref(f"tcp://{index}", f"shard-{index}") for index in range(n_shards))
        self.shards = {
            ref: Shard(i, v, TABLES, VectorClock(range(LANES)), optimizer, staleness)
            for i, (ref, v) in enumerate(zip(self.refs, values, strict=True))
        }
        self.ledger = Ref("tcp://ledger", "ledger")
        self.directory = Directory(1, 0, self.refs, (None,) * n_shards, self.ledger)
        self.failing = {}
        self.asked = []
        # As a host does, which handles one message after another.
        self.order = threading.Lock()
        self.held = threading.Event()
        self.held.set()
        self.pool = ThreadPoolExecutor(8)

    def start(self, ref, method, *args, timeout=30.0):
        self.asked.append((ref, method))
        if method in ("changed", "push"):
            return self.pool.submit(self._serve, ref, method, *args)
        future = Future()
        try:
            future.set_result(self._serve(ref, method, *args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _serve(self, ref, method, *args):
        if ref in self.failing:
            raise self.failing[ref]
        if method == "directory":
            return self.directory
        shard = self.shards[ref]
        if method == "pull":
            with self.order:
                return shard.view(*args[:2])
        if method == "push":
            self.held.wait(10)
            return self.handle(shard, *args)
        minimum, wait = args
        end = time.monotonic() + wait
        while shard.clock.minimum <= minimum and time.monotonic() < end:
            time.sleep(0.002)
        with self.order:
            return shard.view() if shard.clock.minimum > minimum else None

    def handle(self, shard, push):
        with self.order:
            return shard.handle(push)


@pytest.fixture
def make():
    opened = []

    def make(staleness=1, eager=False, replays=True, **options):
        network = Network(staleness, **options)
        parameters = Parameters(network, network.directory, network.partition, staleness, eager, replays)
        opened.append((network, parameters))
        return network, parameters

    yield make
    for network, parameters in opened:
        network.held.set()
        parameters.close()
        network.pool.shutdown()


def ones(value=1.0):
    return {"w": Update(np.full(SIZE, value))}


def until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_own_updates_are_seen_once_before_and_after_the_server_has_them(make):
    network, parameters = make(staleness=None)
    own = Own(7)
    assert (parameters.read(0, own).values["w"] == 0).all()
    for clock in range(3):
        sent = parameters.note(own, Ticket(0, clock, 0), ones())
        reading = parameters.read(clock + 1, own)
        assert (reading.values["w"] == clock + 1).all()
        assert reading.replayed[0][-1] == (clock, 0, 0)
        parameters.push(own, sent, 0)
        parameters._pull(range(2), None, 1.0)
        reading = parameters.read(clock + 1, own)
        assert (reading.values["w"] == clock + 1).all() and reading.replayed == {0: [], 1: []}
    # Another runner of the process sees them too, and none twice.
    assert (parameters.read(3, Own(8)).values["w"] == 3).all()


@pytest.mark.parametrize("n_shards", [1, 2, 3])
def test_what_a_reader_adds_on_top_is_not_there_for_the_next(make, n_shards):
    network, parameters = make(staleness=None, n_shards=n_shards)
    parameters._boost = 1.0
    own, other = Own(7), Own(8)
    for reader in (own, other):
        parameters.read(0, reader)
    parameters.note(own, Ticket(0, 0, 0), ones() | {"b": Update(np.ones(1))})
    for _ in range(3):
        reading = parameters.read(1, own)
        # Once for itself, once for the lane that lacks the clock.
        assert reading.boosted[0] == [(0, 0, 0)]
        assert (reading.values["w"] == 2).all() and reading.values["b"] == 2
        # What the reader does with its arrays is its own affair.
        reading.values["b"] += 100
        assert parameters.read(1, other).values["b"] == 0


def test_a_connection_that_dask_gave_up_does_not_end_the_fetching(make):
    network, parameters = make(staleness=None)
    own = Own(0)
    parameters.read(0, own)
    network.failing[network.refs[0]] = CancelledError()
    parameters._wanted.set()
    until(lambda: not parameters._wanted.is_set())
    network.failing.clear()
    parameters.push(own, parameters.note(own, Ticket(0, 0, 0), ones()), 0)
    until(lambda: all(view.sequence == 1 for view in parameters._views.values()))
    assert parameters._fetcher.is_alive()


def test_a_runner_that_dask_begins_again_does_not_take_its_old_updates_for_new_ones(make):
    network, parameters = make(staleness=None)
    first = Own(7)
    for clock in range(2):
        parameters.push(first, parameters.note(first, Ticket(0, clock, 0), ones()), 0)
    again = Own(7)
    assert (parameters.read(2, again).values["w"] == 2).all()
    parameters.note(again, Ticket(0, 2, 0), ones(5.0))
    assert (parameters.read(3, again).values["w"] == 7).all()


def test_what_is_read_never_becomes_older(make):
    network, parameters = make(staleness=None)
    own = Own(0)
    parameters.read(0, own)
    old = [shard.view() for shard in network.shards.values()]
    parameters.push(own, parameters.note(own, Ticket(0, 0, 0), ones()), 0)
    parameters._pull(range(2), None, 1.0)
    for index, view in enumerate(old):
        parameters._keep(index, view)
    assert (parameters.read(1, Own(1)).values["w"] == 1).all()


def test_a_shard_that_moved_is_found(make):
    network, parameters = make(staleness=None)
    own = Own(0)
    parameters.read(0, own)
    old, new = network.refs[0], Ref("tcp://new", "shard-0")
    network.shards[new] = network.shards.pop(old)
    network.failing[old] = Refused("not here any more")
    network.directory = Directory(2, 0, (new, network.refs[1]), (None, None), network.ledger)
    parameters.push(own, parameters.note(own, Ticket(0, 0, 0), ones()), 0)
    assert (parameters.read(1, own).values["w"] == 1).all()
    assert parameters.take_traffic().retries > 0


def test_a_fit_that_is_over_is_not_waited_for(make):
    network, parameters = make()
    network.failing = {ref: Gone("no such actor") for ref in (*network.refs, network.ledger)}
    network.failing[network.refs[1]] = Unreachable("its worker died as well")
    with pytest.raises(ServerLost, match="has ended"):
        parameters.read(0, Own(0))


def test_an_earlier_generation_is_told_so(make):
    network, parameters = make()
    for shard in network.shards.values():
        shard.generation = 3
    own = Own(0)
    with pytest.raises(Refused, match="earlier run"):
        parameters.push(own, parameters.note(own, Ticket(0, 0, 0), ones()), 0)


def test_eager_news_come_without_being_asked_for(make):
    network, parameters = make(staleness=3, eager=True)
    until(lambda: len(parameters._views) == 2)
    for lane in range(LANES):
        for shard in network.shards.values():
            network.handle(shard, Push(0, lane, Ticket(0, 0, lane), network.partition.cut_updates(ones())[shard.index]))
    until(lambda: all(view.minimum == 1 for view in parameters._views.values()))
    pulls = len([method for _, method in network.asked if method == "pull"])
    own = Own(9)
    own.base = {0: 0, 1: 0}
    assert (parameters.read(1, own).values["w"] == LANES).all()
    assert len([method for _, method in network.asked if method == "pull"]) == pulls


def test_with_an_optimizer_a_read_waits_for_the_own_update(make):
    network, parameters = make(staleness=2, replays=False, optimizer="adagrad")
    own = Own(0)
    parameters.read(0, own)
    network.held.clear()
    sent = parameters.note(own, Ticket(0, 0, 0), ones())
    pushing = network.pool.submit(parameters.push, own, sent, 0)
    reading = network.pool.submit(parameters.read, 1, own)
    time.sleep(0.1)
    pulls = len([method for _, method in network.asked if method == "pull"])
    assert not reading.done() and pulls < 20
    network.held.set()
    assert (reading.result(10).values["w"] < 0).all()
    pushing.result(10)


def test_a_runner_whose_updates_cannot_be_sent_does_not_wait_for_them(make):
    network, parameters = make(staleness=2, replays=False, optimizer="adagrad")
    own = Own(0)
    parameters.read(0, own)
    parameters.note(own, Ticket(0, 0, 0), ones())
    own.give_up()
    with pytest.raises(ServerLost, match="do not reach"):
        parameters.read(1, own)


def test_what_the_others_have_not_brought_is_taken_to_be_like_the_own(make):
    network, parameters = make(staleness=3)
    parameters._boost = LANES - 1.0
    own = Own(0)
    parameters.read(0, own)
    sent = parameters.note(own, Ticket(0, 0, 0), ones())
    # Of a mean of two, the other half is not there: before the server has the own half, and after.
    assert (parameters.read(1, own).values["w"] == 2).all()
    parameters.push(own, sent, 0)
    parameters._pull(range(2), None, 1.0)
    reading = parameters.read(1, own)
    assert (reading.values["w"] == 2).all() and reading.boosted == {0: [(0, 0, 0)], 1: [(0, 0, 0)]}
    for shard in network.shards.values():
        network.handle(shard, Push(0, 1, Ticket(0, 0, 1), network.partition.cut_updates(ones(3.0))[shard.index]))
    parameters._pull(range(2), None, 1.0)
    assert (parameters.read(1, own).values["w"] == 4).all() and not own.recent
