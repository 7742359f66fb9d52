"""What each replica did: the table of it, and how clocks of workers are brought together."""

import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster

from daskdml import SSP, Averaging
from daskdml.linear_model import SGDClassifier
from daskdml.monitor import Callback, EpochsEnd, History, ReplicaRound, ReplicaTable, StopTraining
from daskdml.strategies._parts import WorkerClocks, merged
from tests.monitor.events import info, replica_round

X = np.random.default_rng(0).standard_normal((4_000, 8)).astype(np.float32)
Y = (X @ np.linspace(-1, 1, 8) > 0).astype(np.int64)


class Ear(Callback):
    def __init__(self):
        self.replicas, self.rounds, self.servers, self.order = [], [], [], []

    def on_server_start(self, event):
        self.servers.append(event)

    def on_replica_round(self, event):
        self.replicas.append(event)
        self.order.append(("replica", event.round))

    def on_round_end(self, event):
        self.rounds.append(event)
        self.order.append(("round", event.round))


@pytest.fixture(scope="module")
def client():
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def fitted(client, strategy, ear=None):
    ear = ear or Ear()
    # Made anew in each task, so that the cache has something to keep.
    blocks = da.from_array(X, chunks=(500, 8)).map_blocks(np.copy), da.from_array(Y, chunks=500)
    with client.as_current():
        clf = SGDClassifier(strategy=strategy, max_iter=2, tol=None, random_state=0, callbacks=[ear])
        return clf.fit(*blocks), ear


@pytest.mark.parametrize("strategy", [Averaging(3, rounds_per_epoch=2), "bsp", SSP(1, n_replicas=3, splits=2)], ids=str)
def test_each_replica_is_heard_once_a_round_before_the_round_is(client, strategy):
    clf, ear = fitted(client, strategy)
    seen = [(event.replica, event.round) for event in ear.replicas]
    assert sorted(seen) == sorted({(r, n) for r in range(clf.n_replicas_) for n in clf.history_["round"]})
    for number in clf.history_["round"]:
        before = ear.order[: ear.order.index(("round", number))]
        assert before.count(("replica", number)) == clf.n_replicas_
    table = clf.replicas_.groupby("round")
    for name in ("rows", "bytes", "sent_bytes", "received_bytes", "reassigned"):
        assert table[name].sum().tolist() == clf.history_[name].tolist(), name
    for name in ("compute_seconds", "load_seconds"):
        np.testing.assert_allclose(table[name].sum(), clf.history_[name])
    assert (table["epoch"].first().to_numpy() == clf.history_["epoch"]).all()


def test_what_is_said_of_a_replica_can_be_true(client):
    clf, ear = fitted(client, SSP(1, n_replicas=2))
    table = clf.replicas_
    assert set(table["worker"]) <= set(client.nthreads())
    assert (table["begin"] >= 0).all() and (table["seconds"] > 0).all()
    took = table[["compute_seconds", "wait_seconds", "gate_seconds", "communicate_seconds"]].sum(axis=1)
    assert (took <= table["seconds"] * 1.01 + 1e-3).all()
    assert (table["cache_memory_bytes"] > 0).any()
    assert all(sum(event.shard_bytes) == event.sent_bytes + event.received_bytes for event in ear.replicas)
    assert table["staleness"].max() == clf.history_["staleness_max"].max()
    (server,) = ear.servers
    assert sum(server.shard_bytes) >= clf.coef_.nbytes


def test_a_wish_to_stop_waits_for_the_end_of_the_round(client):
    class Enough(Callback):
        def on_replica_round(self, event):
            if event.round == 2:
                raise StopTraining

    clf, _ = fitted(client, Averaging(2, rounds_per_epoch=4), Enough())
    assert len(clf.history_) == 2 and len(clf.replicas_) == 4


def test_data_in_memory_have_one_replica_whether_told_at_once_or_not():
    at_once = SGDClassifier(max_iter=5, tol=None, random_state=0).fit(X, Y).replicas_
    ear = Ear()
    each = SGDClassifier(max_iter=5, tol=None, random_state=0, callbacks=[ear]).fit(X, Y).replicas_
    for table in (at_once, each):
        assert table["round"].tolist() == table["epoch"].tolist() == [1, 2, 3, 4, 5]
        assert table["rows"].tolist() == [len(X)] * 5 and table["worker"].isna().all()
        assert (table["begin"].diff().dropna() > 0).all()
    assert len(ear.replicas) == 5


def test_the_table_keeps_the_last_rows():
    table = ReplicaTable(kept=300)
    for number in range(1, 1001):
        table.add(replica_round(0, number, worker=f"tcp://w:{number % 3}"))
    frame = table.to_frame()
    assert frame["round"].tolist() == list(range(701, 1001)) and len(table) == 300
    assert frame["worker"].tolist() == [f"tcp://w:{number % 3}" for number in range(701, 1001)]


def test_a_table_of_nothing_has_the_same_columns():
    full = History()
    full.on_fit_start(info())
    full.on_replica_round(replica_round())
    assert list(History().to_replicas().columns) == list(full.to_replicas().columns)


def test_epochs_told_of_together_are_lines_too():
    history = History()
    history.on_fit_start(info())
    losses = np.array([0.5, 0.4])
    history.on_epochs_end(EpochsEnd(1, losses, losses, losses, rows=10, seconds=0.5, bytes=80))
    frame = history.to_replicas()
    assert frame["begin"].tolist() == [0.0, 0.5] and frame["rows"].tolist() == [10, 10]


def test_a_clock_that_can_be_right_is_believed():
    clocks = WorkerClocks()
    assert clocks.shift("a", begin=5.0, end=6.0, asked=5.0, heard=6.0) == 0.0


@pytest.mark.parametrize("off", [-1000.0, 1000.0])
def test_a_wrong_clock_is_moved_to_where_it_can_be_right(off):
    clocks = WorkerClocks()
    shift = 0.0
    for begin in (10.0, 20.0, 30.0):
        shift = clocks.shift("a", begin + off, begin + 1 + off, asked=begin - 0.1, heard=begin + 1.1)
        assert abs(shift + off) <= 0.1 + 1e-9
    # What was learnt holds for looser bounds as well.
    assert clocks.shift("a", 40 + off, 41 + off, asked=0.0, heard=99.0) == pytest.approx(shift)


def test_tasks_of_one_replica_are_one_part():
    def part(**changed):
        always = {"replica": 1, "round": 0, "epoch": 1, "load_seconds": 0.0, "wait_seconds": 0.5}
        return ReplicaRound(**always | {"compute_seconds": 1.0} | changed)

    together = merged(
        [
            part(begin=0.0, seconds=2.0, rows=10, worker="a", shard_bytes=(1, 2), staleness=3),
            part(begin=3.0, seconds=2.0, rows=20, worker="b", shard_bytes=(5,), staleness=1, cache_memory_bytes=7),
        ]
    )
    assert (together.begin, together.seconds, together.rows, together.worker) == (0.0, 5.0, 30, "b")
    # The second between them it waited for a block.
    assert together.wait_seconds == 2.0 and together.compute_seconds == 2.0
    assert (together.shard_bytes, together.staleness, together.cache_memory_bytes) == ((6, 2), 3, 7)
