"""The same bits whatever the cluster: its workers, their number, and their death."""

import os
import signal
import threading
import time

import dask.array as da
import numpy as np
import pytest
from distributed import Event

from daskdml import BSP, SSP, Averaging
from daskdml.data._cache import _cache
from daskdml.linear_model import SGDClassifier
from daskdml.monitor import Callback, StopTraining

N, D = 12_000, 8


def arrays(chunk=1500):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, D))
    y = np.where(X @ rng.standard_normal(D) + 0.2 * rng.standard_normal(N) > 0, "b", "a")
    return da.from_array(X, chunks=(chunk, D)), da.from_array(y, chunks=chunk)


def lazy(delay=0.0):
    """Blocks made by the workers, slowly if wanted."""

    def make(block_info=None):
        time.sleep(delay)
        rng = np.random.default_rng(block_info[None]["chunk-location"][0])
        return rng.standard_normal((1000, D))

    X = da.map_blocks(make, chunks=((1000,) * 12, (D,)), dtype=float, meta=np.empty((0, D)))
    y = X.map_blocks(lambda x: (x.sum(axis=1) > 0).astype(int), drop_axis=1, dtype=int, meta=np.empty(0, dtype=int))
    return X, y


def fitted(strategy, X, y, **params):
    params = {"loss": "log_loss", "max_iter": 3, "tol": None, "random_state": 0} | params
    return SGDClassifier(strategy=strategy, **params).fit(X, y)


def test_one_two_and_three_workers_give_the_same_bits(process_client):
    X, y = lazy()
    coefs = []
    for n_workers in (1, 2, 3):
        client = process_client(n_workers)
        coefs.append([fitted(make(n_replicas=4, rounds_per_epoch=2), X, y).coef_ for make in (Averaging, BSP)])
        client.close()
    for one, two, three in zip(*coefs, strict=True):
        assert (one == two).all() and (one == three).all()


def test_a_worker_killed_in_mid_epoch_changes_no_bit(process_client):
    X, y = lazy(delay=0.05)
    client = process_client(3)
    strategy = Averaging(n_replicas=4, rounds_per_epoch=2)
    whole = fitted(strategy, X, y, max_iter=4).coef_
    killed = []

    class Kill(Callback):
        def on_round_end(self, event):
            if event.round == 3:
                victim = next(iter(client.nthreads()))
                pid = client.run(os.getpid, workers=[victim])[victim]
                threading.Timer(0.1, os.kill, (pid, signal.SIGKILL)).start()
                killed.append(pid)

    again = fitted(strategy, X, y, max_iter=4, callbacks=[Kill()])
    assert killed
    assert (again.coef_ == whole).all()
    assert again.history_.groupby("epoch")["rows"].sum().tolist() == [12_000] * 4


def test_every_worker_killed_restarts_the_epoch(process_client):
    """The parameters of the epoch were on the workers only: it begins anew from the driver's."""
    X, y = lazy(delay=0.05)
    client = process_client(2)
    strategy = Averaging(n_replicas=2)
    whole = fitted(strategy, X, y).coef_

    class KillAll(Callback):
        def on_epoch_end(self, event):
            if event.epoch == 1:
                for pid in client.run(os.getpid).values():
                    threading.Timer(0.15, os.kill, (pid, signal.SIGKILL)).start()

    assert (fitted(strategy, X, y, callbacks=[KillAll()]).coef_ == whole).all()


@pytest.mark.parametrize("strategy", [Averaging(3, rounds_per_epoch=2), BSP(3, rounds_per_epoch=5)])
def test_where_blocks_come_from_changes_no_bit(strategy, client):
    X, y = lazy()
    plain = fitted(strategy, X, y)
    persisted = fitted(strategy, X.persist(), y.persist())
    # A row rechunk there and back: chunks that share upstream work.
    rechunked = fitted(strategy, X.rechunk((1700, D)).rechunk((1000, D)), y)
    in_memory = fitted(strategy, da.from_array(X.compute(), chunks=(1000, D)), y.compute())
    for other in (persisted, rechunked, in_memory):
        assert (other.coef_ == plain.coef_).all()


def test_without_a_client_the_embedded_cluster_gives_the_same_bits(cluster):
    from distributed import Client

    X, y = arrays()
    with Client(cluster):
        active = fitted(Averaging(3), X, y).coef_
    assert (fitted(Averaging(3), X, y).coef_ == active).all()


@pytest.mark.parametrize("strategy", [Averaging(4), BSP(4, rounds_per_epoch=20), Averaging(4, rounds_per_epoch=4)])
@pytest.mark.parametrize("learning_rate", ["optimal", "adagrad", "normalized"])
def test_every_strategy_learns(strategy, learning_rate, client):
    """The shared contract: same data and seed, loss below a bound."""
    X, y = lazy()
    clf = fitted(strategy, X, y, learning_rate=learning_rate, max_iter=5)
    assert clf.score(X, y) > 0.93
    assert clf.history_["loss"].iloc[-1] < 0.6 * np.log(2)
    assert clf.n_replicas_ == 4
    assert clf.history_.groupby("epoch")["rows"].sum().tolist() == [N] * 5


def test_an_error_in_a_block_is_the_users_own(client):
    X, y = lazy()
    X = da.concatenate([X[:5000], X[5000:6000] * np.nan, X[6000:]])
    with pytest.raises(ValueError, match="Input X contains NaN") as caught:
        fitted("averaging", X, y)
    assert "block 5" in str(caught.value)


@pytest.mark.parametrize("strategy", [Averaging(2, rounds_per_epoch=2), SSP(2, n_replicas=2, clock_rows=1000)])
def test_tasks_that_go_on_after_the_fit_leave_no_block(strategy, client, cluster):
    X, y = lazy(delay=0.1)
    # The workers are in this process.
    before = set(_cache.tokens())

    class Enough(Callback):
        def on_round_end(self, event):
            raise StopTraining

    fitted(strategy, X, y, callbacks=[Enough()])
    while any(worker.state.executing for worker in cluster.workers.values()):
        time.sleep(0.05)
    assert not set(_cache.tokens()) - before


@pytest.mark.parametrize("strategy", [Averaging(2), SSP(2, n_replicas=2)])
def test_what_a_killed_client_left_in_the_caches_is_freed_by_the_next_fit(strategy, cluster, monkeypatch):
    from distributed import Client

    from daskdml.strategies import _asynchronous, _dask

    X, y = lazy()
    before = set(_cache.tokens())
    with Client(cluster), monkeypatch.context() as killed:
        for module in (_dask, _asynchronous):
            killed.setattr(module, "release_cache", lambda *args: None)
        fitted(strategy, X, y)
        assert set(_cache.tokens()) - before
    with Client(cluster):
        fitted(strategy, X, y)
    assert not set(_cache.tokens()) - before


def test_a_callback_stops_the_fit_and_keeps_what_was_learnt(client):
    X, y = lazy()

    class Enough(Callback):
        def on_round_end(self, event):
            if event.round == 3:
                raise StopTraining

    strategy = Averaging(2, rounds_per_epoch=2)
    clf = fitted(strategy, X, y, max_iter=5, callbacks=[Enough()])
    assert len(clf.history_) == 3
    whole = fitted(strategy, X, y, max_iter=2)
    assert (clf.coef_ != whole.coef_).any() and np.isfinite(clf.coef_).all()


def test_no_rows_at_all(client):
    X, y = lazy()
    none = da.zeros(12_000, chunks=1000, dtype=bool)
    with pytest.raises(ValueError, match=r"Found array with 0 sample|no rows|0 class"):
        fitted("averaging", X[none], y[none])


def test_blocks_are_cached_and_released(process_client):
    X, y = lazy()
    client = process_client(2)
    clf = fitted(Averaging(2), X, y)
    by_epoch = clf.history_.groupby("epoch")[["blocks_from_recipe", "blocks_from_memory", "blocks_from_disk"]].sum()
    # From the second epoch on every replica reads every block: these data are small enough to mix.
    assert by_epoch["blocks_from_recipe"].tolist() == [12, 12, 0]
    assert by_epoch["blocks_from_memory"].tolist() == [0, 12, 24]
    files = client.run(
        lambda dask_worker: [p for _, _, names in os.walk(dask_worker.local_directory) for p in names if "daskdml" in p]
    )
    assert not any(files.values())


def test_a_budget_of_nothing_streams_from_files(process_client):
    X, y = lazy()
    process_client(1)
    clf = fitted(Averaging(2), X, y, memory_budget=0)
    assert clf.history_["blocks_from_recipe"].tolist() == [12, 0, 0]
    assert clf.history_["blocks_from_memory"].tolist() == [0, 0, 0]
    assert (clf.history_["blocks_from_disk"] > 0).tolist() == [False, True, True]
    assert (clf.coef_ == fitted(Averaging(2), X, y).coef_).all()


def test_early_stopping_holds_rows_out_of_every_block(client):
    X, y = lazy()
    clf = fitted(Averaging(3), X, y, early_stopping=True, tol=1e-3, max_iter=50, n_iter_no_change=2)
    assert clf.n_iter_ < 50
    assert clf.history_["rows"].tolist() == [10_800] * clf.n_iter_
    assert clf.history_["validation_score"].iloc[-1] > 0.9


@pytest.mark.parametrize("n_replicas", [1, 4])
def test_rows_sorted_by_label_are_mixed(n_replicas, client):
    """Six classes, a block each: without mixing the last block's class is all that a replica remembers."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(6), 1000)
    X = rng.standard_normal((6000, 20)) + 1.5 * rng.standard_normal((6, 20))[y]
    clf = fitted(
        Averaging(n_replicas),
        da.from_array(X, chunks=(1000, 20)),
        da.from_array(y, chunks=1000),
        loss="multinomial",
        learning_rate="adagrad",
    )
    assert clf.score(X, y) > 0.97
    assert clf.history_["rows"].tolist() == [6000] * 3


def test_workers_with_another_version_are_named(client, monkeypatch):
    X, y = lazy()
    monkeypatch.setattr("daskdml.cluster.__version__", "999.0")
    with pytest.raises(
        RuntimeError, match=r"worker \S+ has daskdml .* but this process 999.0; install the same on both"
    ):
        fitted("averaging", X, y)


def test_a_cluster_without_workers_is_not_waited_for(monkeypatch):
    from distributed import Client, LocalCluster

    from daskdml import cluster as module

    X, y = lazy()
    original = module.check_workers
    monkeypatch.setattr("daskdml.linear_model._training.check_workers", lambda client: original(client, timeout=0.2))
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster),
        pytest.raises(RuntimeError, match="has no workers; start some"),
    ):
        fitted("averaging", X, y)


def test_a_cluster_whose_workers_are_all_paused_is_not_waited_for(process_client, pause, monkeypatch):
    """A process above 80 % of its limit, with nothing to give back, begins no task: the fit says so."""
    monkeypatch.setattr("daskdml.strategies._dask._PATIENCE", 3.0)
    X, y = lazy()
    client = process_client(1)
    fitted("averaging", X, y)

    class Pause(Callback):
        def on_epoch_end(self, event):
            pause(client)

    with pytest.raises(RuntimeError, match="every worker has been paused by Dask"):
        fitted("averaging", X, y, callbacks=[Pause()])


def test_a_fit_that_waits_for_one_paused_worker_while_others_are_idle_says_so(process_client, pause):
    from daskdml.data import trouble

    client = process_client(2)
    assert trouble(client, 1.0) is None
    pause(client, next(iter(client.nthreads())))
    until = time.monotonic() + 10
    while (found := trouble(client, 1.0)) is None and time.monotonic() < until:
        time.sleep(0.1)
    assert found is not None and "1 of 2 workers have been paused by Dask for 1 s" in found
    # One that works brings the fit forward.
    at_work = client.submit(wait_for_the_end)
    while trouble(client, 1.0) is not None and time.monotonic() < until + 10:
        time.sleep(0.1)
    assert trouble(client, 1.0) is None
    Event("the end", client).set()
    assert at_work.result(10)


def test_workers_that_are_all_paused_before_a_fit_are_told_from_none(process_client, pause):
    from daskdml.cluster import check_workers

    client = process_client(1)
    pause(client)
    with pytest.raises(RuntimeError, match="none of the 1 workers .* takes a task: 1 paused; .* memory"):
        check_workers(client, timeout=1.0)


def wait_for_the_end():
    return Event("the end").wait(30)
