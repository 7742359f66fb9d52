"""Epochs that are sent while the one before is under way: what is decided at its end still holds."""

import os
import signal

import dask.array as da
import numpy as np
import pytest

from daskdml import BSP, Averaging
from daskdml.data._cache import _cache
from daskdml.linear_model import SGDClassifier
from daskdml.models import LinearModel
from daskdml.monitor import Callback, StopTraining
from daskdml.strategies import _chain, _dask
from tests.strategies.test_on_clusters import lazy


@pytest.fixture
def sent(monkeypatch):
    """Of each epoch that was sent, whether it was ahead: it begins with a future. None is sent with others."""
    monkeypatch.setattr(_chain, "epochs_at_once", lambda *about: 0)
    seen = []
    send = _dask.DaskRunner._send

    def noted(self, begun, now, on_round):
        seen.append(begun.chain > 0)
        return send(self, begun, now, on_round)

    monkeypatch.setattr(_dask.DaskRunner, "_send", noted)
    return seen


def fitted(given, **params):
    params = {"loss": "log_loss", "max_iter": 14, "tol": None, "random_state": 0} | params
    return SGDClassifier(**params).fit(*given)


@pytest.mark.parametrize(
    "strategy, rate",
    [(Averaging(3, rounds_per_epoch=2), "adaptive"), (BSP(3, rounds_per_epoch=2), "optimal")],
    ids=["averaging", "bsp"],
)
def test_it_changes_no_bit_of_the_result_nor_of_the_history(client, monkeypatch, sent, strategy, rate):
    # Problems that stop at different epochs, and a rate that goes down when they do not improve.
    X, y = lazy()
    y = y.map_blocks(lambda part: np.where(np.arange(len(part)) % 5 == 0, 2, part), dtype=int)
    params = {"strategy": strategy, "learning_rate": rate, "eta0": 0.5, "tol": 1e-2, "n_iter_no_change": 2}
    ahead = fitted((X, y), max_iter=40, **params)
    assert any(sent)
    monkeypatch.setattr(_dask, "_AHEAD_SECONDS", 0.0)
    sent.clear()
    alone = fitted((X, y), max_iter=40, **params)
    assert not any(sent)
    assert np.array_equal(ahead.coef_, alone.coef_) and np.array_equal(ahead.intercept_, alone.intercept_)
    same = ["round", "epoch", "loss", "objective", "rows", "learning_rate"]
    assert ahead.history_[same].equals(alone.history_[same])
    assert (ahead.provenance_["reason"], ahead.n_iter_) == (alone.provenance_["reason"], alone.n_iter_)


def held():
    """Chunks in memory, used as they are."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((6000, 20))
    y = np.where(X[:, 0] > 0, "yes", "no")
    return da.from_array(X, chunks=(1000, 20)), da.from_array(y, chunks=1000)


def test_so_are_those_over_chunks_that_threads_of_this_process_hold(client, monkeypatch, sent):
    tasks = []
    add = _dask.DaskRunner._add_task
    monkeypatch.setattr(_dask.DaskRunner, "_add_task", lambda self, *args: tasks.append(1) or add(self, *args))
    given, params = held(), {"strategy": Averaging(2), "max_iter": 6}
    at_once = fitted(given, **params)
    assert any(sent) and len(tasks) == 2 * 6
    # Elsewhere a task has a few blocks, since it may have to fetch them.
    sent.clear()
    tasks.clear()
    monkeypatch.setattr(_dask, "_one_process", lambda client: False)
    some = fitted(given, **params)
    assert not any(sent) and len(tasks) > 2 * 6
    assert np.array_equal(at_once.coef_, some.coef_)
    assert at_once.history_["loss"].equals(some.history_["loss"])


def test_a_chain_of_epochs_is_cut_now_and_then_and_the_last_is_not_sent_twice(client, sent):
    fitted(lazy(), max_iter=25)
    assert len(sent) == 25
    at_once = [n for n, ahead in enumerate(sent) if not ahead]
    assert max(np.diff([*at_once, 25])) <= _dask._AHEAD_CHAIN + 1


def test_times_are_those_at_which_replicas_worked(client):
    clf = fitted(lazy(), strategy=Averaging(2))
    spans = clf.replicas_.assign(end=lambda r: r["begin"] + r["seconds"])
    for _, replica in spans.groupby("replica"):
        assert (replica["begin"].to_numpy()[1:] >= replica["end"].to_numpy()[:-1] - 1e-3).all()


def test_slow_epochs_and_large_parameters_are_not_sent_ahead(client, monkeypatch, sent):
    with monkeypatch.context() as less:
        # Less than a single block takes.
        less.setattr(_dask, "_AHEAD_SECONDS", 0.02)
        fitted(lazy(delay=0.05), memory_budget=0, max_iter=4)
    assert not any(sent)
    monkeypatch.setattr(_dask, "_AHEAD_BYTES", 8)
    fitted(lazy())
    assert not any(sent)


class _Stop(Callback):
    def __init__(self, hook):
        self.hook = hook

    def _stop(self, event):
        if event.epoch == 5:
            raise StopTraining

    def on_round_end(self, event):
        if self.hook == "round":
            self._stop(event)

    def on_epoch_end(self, event):
        if self.hook == "epoch":
            self._stop(event)


@pytest.mark.parametrize("hook", ["round", "epoch"])
def test_a_listener_that_stops_the_fit_is_followed_by_no_epoch_and_no_block_stays(client, monkeypatch, sent, hook):
    X, y = lazy()
    before = set(_cache.tokens())
    stopped = fitted((X, y), callbacks=[_Stop(hook)])
    assert any(sent) and stopped.n_iter_ == 5 and stopped.provenance_["reason"] == "stopped"
    # The workers are in this process.
    assert not set(_cache.tokens()) - before
    monkeypatch.setattr(_dask, "_AHEAD_SECONDS", 0.0)
    assert np.array_equal(stopped.coef_, fitted((X, y), callbacks=[_Stop(hook)]).coef_)


class _Kill(Callback):
    """Ends the worker that holds what the last of some epochs agreed on, or any."""

    def __init__(self, client):
        self.client, self.killed = client, []

    def on_epoch_end(self, event):
        if event.epoch == 6:
            pids = self.client.run(os.getpid)
            self.killed += pids.values()
            for pid in pids.values():
                os.kill(pid, signal.SIGKILL)


def test_all_workers_are_killed_while_an_epoch_is_ahead(process_client, sent):
    client = process_client(2)
    X, y = lazy()
    whole = fitted((X, y))
    assert any(sent)
    kill = _Kill(client)
    again = fitted((X, y), callbacks=[kill])
    assert len(kill.killed) == 2
    assert np.array_equal(again.coef_, whole.coef_)
    assert again.history_["epoch"].tolist() == whole.history_["epoch"].tolist()


def test_an_error_of_an_epoch_that_is_ahead_ends_the_fit(client, monkeypatch):
    def spoilt(self, *args, **kwargs):
        raise RuntimeError("spoilt")

    class Spoil(Callback):
        def on_epoch_end(self, event):
            if event.epoch == 4:
                monkeypatch.setattr(LinearModel, "train", spoilt)

    with pytest.raises(RuntimeError, match="spoilt"):
        # More epochs than two chains have.
        fitted(lazy(), max_iter=300, callbacks=[Spoil()])
