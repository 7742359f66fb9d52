"""What a fit sends to the scheduler: messages cost it more than tasks do."""

import time
import warnings
from collections import Counter

import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster
from sklearn.exceptions import ConvergenceWarning

from daskdml import BSP, Averaging, FullBatch
from daskdml.data._recipe import BlockRecipe
from daskdml.linear_model import SGDRegressor
from daskdml.monitor import Callback
from daskdml.strategies import _dask
from daskdml.strategies._batch import Batch


@pytest.mark.parametrize("persisted", [False, True], ids=["made in tasks", "persisted"])
@pytest.mark.parametrize("strategy", [BSP(n_replicas=3, rounds_per_epoch=20), Averaging(n_replicas=3)], ids=repr)
def test_tasks_are_sent_together(client, monkeypatch, strategy, persisted):
    X = da.from_array(np.random.default_rng(0).standard_normal((60, 3)), chunks=(10, 3)).map_blocks(np.negative)
    X = client.persist(X) if persisted else X
    sent = []
    send = client._send_to_scheduler

    def watched(message):
        sent.append(message["op"])
        send(message)

    monkeypatch.setattr(client, "_send_to_scheduler", watched)
    SGDRegressor(max_iter=4, tol=None, random_state=0, strategy=strategy).fit(X, X[:, 0])
    rounds = 20 if isinstance(strategy, BSP) else 1
    # One for what all tasks need, then one an epoch. Where blocks come from the scheduler, one a round, and one more
    # for replicas whose blocks come in several windows.
    assert sent.count("update-graph") <= 1 + 4 * (2 * rounds if persisted else 1)


def test_more_rounds_than_are_sent_at_once_give_the_same_bits(client, monkeypatch):
    X = np.random.default_rng(0).standard_normal((90, 3))
    lazy = da.from_array(X, chunks=(10, 3)).map_blocks(np.negative)

    def coef():
        model = SGDRegressor(max_iter=3, tol=None, random_state=0, strategy=BSP(n_replicas=2, rounds_per_epoch=9))
        model.fit(lazy, lazy[:, 0])
        assert model.history_["round"].tolist() == list(range(1, 28))
        return model.coef_

    together = coef()
    monkeypatch.setattr("daskdml.strategies._dask._ROUNDS", 2)
    np.testing.assert_array_equal(coef(), together)
    monkeypatch.setattr("daskdml.strategies._dask._SMALL_BYTES", 0)
    np.testing.assert_array_equal(coef(), together)


def slow(number, before):
    time.sleep(0.1)
    return number


def test_what_is_urgent_does_not_wait_for_all_that_was_sent_with_it():
    ran = []

    def report(number):
        ran.append(number)

    with LocalCluster(1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        with Client(cluster, set_as_default=False) as client:
            batch, before, reports = Batch(client), None, []
            for number in range(6):
                before = batch.add(f"slow-{number}", slow, number, before)
                reports.append(batch.add(f"report-{number}", report, before, urgent=True))
            last, *told = batch.submit([before, *reports])
            told[0].result()
            assert last.status == "pending" and len(ran) < 5
            last.result()


class Clock(Callback):
    def __init__(self):
        self.times = []

    def on_round_end(self, event):
        self.times.append(time.monotonic())


def sleepy(block):
    time.sleep(0.05)
    return block


@pytest.mark.parametrize("persisted", [False, True], ids=["made in tasks", "persisted"])
def test_listeners_hear_of_a_round_before_the_next_are_done(client, persisted):
    X = da.from_array(np.random.default_rng(0).standard_normal((60, 3)), chunks=(6, 3))
    X = client.persist(X) if persisted else X.map_blocks(sleepy)
    clock = Clock()
    strategy = BSP(n_replicas=1, rounds_per_epoch=10)
    SGDRegressor(max_iter=1, tol=None, random_state=0, strategy=strategy, callbacks=[clock]).fit(X, X[:, 0])
    gaps = np.diff(clock.times)
    assert len(gaps) == 9
    assert (gaps > 1e-3).sum() >= 5, "each round takes some milliseconds, and was told of when it was over"


@pytest.mark.parametrize(
    "strategy",
    [
        BSP(3, rounds_per_epoch=5),
        Averaging(4, rounds_per_epoch=2, outer_lr=0.7, outer_momentum=0.5),
        Averaging(1),
        Averaging(2, weighting="adaptive"),
    ],
    ids=repr,
)
def test_replicas_that_agree_each_by_itself_do_so_on_the_same_bits(client, monkeypatch, strategy):
    X = da.from_array(np.random.default_rng(0).standard_normal((180, 3)), chunks=(10, 3)).map_blocks(np.negative)
    tasks = []
    add = _dask.DaskRunner._add

    def noted(self, batch, what, *args, **kwargs):
        tasks.append(what)
        return add(self, batch, what, *args, **kwargs)

    monkeypatch.setattr(_dask.DaskRunner, "_add", noted)

    def model():
        tasks.clear()
        return SGDRegressor(max_iter=5, tol=None, random_state=0, learning_rate="adagrad", strategy=strategy).fit(
            X, X[:, 0]
        )

    each, shown = model(), set(tasks)
    assert "agree" not in shown
    # Parameters that all would have to fetch from all.
    monkeypatch.setattr(_dask, "_EACH_BYTES", 0)
    together = model()
    assert "agree" in tasks
    assert np.array_equal(each.coef_, together.coef_) and np.array_equal(each.intercept_, together.intercept_)
    same = ["round", "epoch", "loss", "objective", "rows"]
    assert each.history_[same].equals(together.history_[same])


@pytest.mark.parametrize("each", [True, False], ids=["each agrees by itself", "a task agrees"])
@pytest.mark.parametrize("strategy", [BSP(2, rounds_per_epoch=3), Averaging(2), FullBatch(2)], ids=repr)
def test_recipes_travel_once(client, monkeypatch, strategy, each):
    """They are kilobytes each, and thousands: sent anew in every epoch, they are what driver and scheduler work on."""
    X = da.from_array(np.random.default_rng(0).standard_normal((60, 3)), chunks=(10, 3)).map_blocks(np.negative)
    pickled = []
    reduce = BlockRecipe.__reduce__
    monkeypatch.setattr(BlockRecipe, "__reduce__", lambda self: pickled.append(self.index) or reduce(self))
    if not each:
        monkeypatch.setattr(_dask, "_EACH_BYTES", 0)
    counts = []
    for epochs in (2, 8):
        pickled.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            SGDRegressor(max_iter=epochs, tol=None, shuffle=False, random_state=0, strategy=strategy).fit(X, X[:, 0])
        counts.append(Counter(pickled))
    assert set(counts[0]) == set(range(6))
    assert counts[0] == counts[1]
