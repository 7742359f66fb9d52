"""Fits on the parameter server while workers are killed, retired, lost altogether, or join."""

import os
import signal
import threading
import time

import dask.array as da
import numpy as np
import pytest

from daskdml import ASP, ESSP, SSP
from daskdml.cluster import retire
from daskdml.linear_model import SGDClassifier
from daskdml.monitor import Callback
from daskdml.server import check_trace
from daskdml.strategies import _runners

N, D, BLOCKS = 4000, 6, 8
CLOCK = {"n_replicas": 4, "clock_rows": 125}
TICKETS = 4 * 8


def block(block_info=None):
    return np.random.default_rng(block_info[None]["chunk-location"][0]).standard_normal((N // BLOCKS, D))


def data():
    """Blocks that any worker can make by itself, as those of files are."""
    X = da.map_blocks(block, chunks=((N // BLOCKS,) * BLOCKS, (D,)), dtype=float, meta=np.empty((0, D)))
    y = X.map_blocks(lambda x: (x.sum(axis=1) > 0).astype(int), drop_axis=1, dtype=int, meta=np.empty(0, dtype=int))
    return X, y


def classifier(strategy, epochs, **params):
    defaults = {"loss": "log_loss", "learning_rate": "constant", "eta0": 0.05, "tol": None, "random_state": 0}
    return SGDClassifier(max_iter=epochs, strategy=strategy, **(defaults | params))


def actors(client):
    return client.run(lambda dask_worker: list(dask_worker.state.actors), on_error="ignore")


def holder(client, kind, number=min):
    """The worker of the first actor of a kind; the first ledger is the one in use until it is lost."""
    found = [(int(key.rsplit("-", 1)[1]), a) for a, keys in actors(client).items() for key in keys if kind in key]
    return number(found)[1]


class Disturb(Callback):
    """Does something to the cluster at the end of a round, once, and waits until the scheduler knows."""

    def __init__(self, at, act):
        self.at, self.act, self.done = at, act, False

    def on_round_end(self, event):
        if event.round == self.at:
            self.act()
            self.done = True


def kill(client, *addresses):
    pids = client.run(os.getpid, workers=list(addresses))
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 30
    while set(addresses) & set(client.nthreads()) and time.monotonic() < end:
        time.sleep(0.01)


@pytest.fixture
def three(process_client):
    client = process_client(3)
    client.wait_for_workers(3)
    return client


@pytest.mark.slow
def test_staleness_0_is_bit_identical_whoever_dies(three):
    strategy = SSP(0, shards=2, trace=True, **CLOCK)
    whole = classifier(strategy, 3).fit(*data())
    for kind, number in [("Shard", min), ("Ledger", min), ("Shard", max)]:
        three.wait_for_workers(3)
        disturb = Disturb(11, lambda kind=kind, number=number: kill(three, holder(three, kind, number)))
        clf = classifier(strategy, 3, callbacks=[disturb]).fit(*data())
        assert disturb.done
        assert (clf.coef_ == whole.coef_).all() and (clf.intercept_ == whole.intercept_).all()
        assert check_trace(clf.trace_, strategy)["staleness_max"] == 0
        assert len(clf.history_) == 24


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [SSP(2, **CLOCK), ESSP(1, splits=2, **CLOCK), ASP(**CLOCK)], ids=repr)
def test_traces_of_processes_that_lose_the_ledger_and_another_worker(three, strategy):
    strategy = strategy.set_params(trace=True, shards=2)
    first = Disturb(6, lambda: kill(three, holder(three, "Ledger")))
    second = Disturb(30, lambda: kill(three, sorted(three.nthreads())[0]))
    clf = classifier(strategy, 5, callbacks=[first, second]).fit(*data())
    assert first.done and second.done
    told = check_trace(clf.trace_, strategy)
    assert told["applied"] == 5 * TICKETS * strategy.splits
    assert clf.trace_.lost and clf.n_iter_ == 5 and len(clf.history_) == 40


@pytest.mark.slow
def test_without_second_copies_a_fit_goes_back_to_its_last_snapshot(process_client):
    client = process_client(2)
    client.wait_for_workers(2)
    strategy = SSP(1, backups=0, trace=True, **CLOCK)
    # In the middle of an epoch, and at the end of one.
    for at in (13, 16):
        client.wait_for_workers(2)
        disturb = Disturb(at, lambda: kill(client, holder(client, "Shard")))
        clf = classifier(strategy, 4, callbacks=[disturb]).fit(*data())
        told = check_trace(clf.trace_, strategy)
        assert disturb.done and told["applied"] == 4 * TICKETS
        assert clf.trace_.begins and clf.n_iter_ == 4 and len(clf.history_) == 32


@pytest.mark.slow
def test_all_workers_are_killed_and_come_again(process_client):
    client = process_client(2)
    client.wait_for_workers(2)
    for at in (3, 20):
        client.wait_for_workers(2)
        disturb = Disturb(at, lambda: kill(client, *client.nthreads()))
        clf = classifier(SSP(2, **CLOCK), 4, callbacks=[disturb]).fit(*data())
        assert disturb.done and clf.n_iter_ == 4 and len(clf.history_) == 32


@pytest.mark.slow
@pytest.mark.parametrize("saved", [False, True])
def test_a_cluster_without_workers_is_waited_for_then_told(process_client, monkeypatch, caplog, tmp_path, saved):
    monkeypatch.setattr(_runners, "_PATIENCE", 1.0)
    client = process_client(1)
    params = {"checkpoint": tmp_path, "checkpoint_every": "1 hour"} if saved else {}
    disturb = Disturb(19, lambda: client.cluster.scale(0))
    with pytest.raises(RuntimeError, match="has had no worker for 1 s: start workers") as error:
        classifier(SSP(1, **CLOCK), 4, callbacks=[disturb], **params).fit(*data())
    assert "waiting 1 s for one" in caplog.text
    assert ("resume=True" in str(error.value)) == saved
    if saved:
        # No save was due, so it is the end of the second epoch that was kept.
        client.cluster.scale(1)
        client.wait_for_workers(1)
        clf = classifier(SSP(1, **CLOCK), 4, **params).fit(*data(), resume=True)
        assert clf.n_iter_ == 4 and len(clf.history_) == 32


@pytest.mark.slow
def test_workers_that_join_get_replicas_and_shards(process_client):
    client = process_client(1)
    found = []

    def join():
        client.cluster.scale(3)
        client.wait_for_workers(3)

    def look():
        end = time.monotonic() + 20
        while not (found and all(found)) and time.monotonic() < end:
            time.sleep(0.1)
            tasks = client.processing()
            found[:] = [bool(tasks.get(a)) and bool(actors(client).get(a)) for a in client.nthreads()]

    strategy = SSP(2, trace=True, **CLOCK)
    looking = threading.Thread(target=look)
    events = [Disturb(4, join), Disturb(5, looking.start)]

    class Slowly(Callback):
        def on_round_end(self, event):
            if looking.ident and looking.is_alive():
                time.sleep(0.2)

    clf = classifier(strategy, 20, callbacks=[*events, Slowly()]).fit(*data())
    looking.join()
    assert found == [True] * 3
    assert check_trace(clf.trace_, strategy)["applied"] == 20 * TICKETS


@pytest.mark.slow
def test_workers_are_retired_while_a_fit_goes_on(three):
    retired = []

    def shrink():
        for _ in range(2):
            retired.extend(retire(holder(three, "Ledger"), timeout=30))

    shrinking = threading.Thread(target=shrink)

    class Slowly(Callback):
        def on_round_end(self, event):
            if event.round == 4:
                shrinking.start()
            elif shrinking.ident and shrinking.is_alive():
                time.sleep(0.1)

    strategy = SSP(2, trace=True, **CLOCK)
    clf = classifier(strategy, 20, callbacks=[Slowly()]).fit(*data())
    shrinking.join()
    assert len(retired) == 2 and len(three.nthreads()) == 1
    assert check_trace(clf.trace_, strategy)["applied"] == 20 * TICKETS
    # Moved, not lost.
    assert not clf.trace_.begins


@pytest.mark.slow
def test_compressed_updates_of_tickets_that_several_train_count_once(three):
    X, y = data()
    wide = da.hstack([X, da.zeros((N, 5000), chunks=(N // BLOCKS, 5000))]).rechunk((N // BLOCKS, -1))
    losses = []
    for act in (lambda: None, lambda: kill(three, sorted(three.nthreads())[0])):
        # Nearly every ticket is trained twice.
        strategy = SSP(2, compression="topk", speculate=1.0, **CLOCK)
        clf = classifier(strategy, 6, callbacks=[Disturb(9, act)]).fit(wide, y)
        losses.append(clf.history_["loss"].iloc[-8:].mean())
        assert np.isfinite(clf.coef_).all() and clf.score(wide, y) > 0.95
    assert abs(losses[1] - losses[0]) < 0.1 * losses[0]
