"""Many rounds in one task: the same bits as rounds in tasks of their own, whatever goes wrong on the way."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest

from daskdml import BSP, Averaging, FullBatch
from daskdml.linear_model import SGDClassifier
from daskdml.monitor import Callback, StopTraining
from daskdml.strategies import _chain, _dask, _limits, _post
from daskdml.strategies._plan import Work


def rows(n=4000, chunks=500):
    rng = np.random.default_rng(0)
    X = da.random.default_rng(1).standard_normal((n, 5), chunks=(chunks, 5))
    y = (X[:, 0] + 0.5 * da.from_array(rng.standard_normal(n), chunks=chunks) > 0).astype(int)
    return X, y


def fitted(strategy, max_iter=30, callbacks=None, **params):
    params = {"tol": None, "random_state": 0} | params
    return SGDClassifier(strategy=strategy, max_iter=max_iter, callbacks=callbacks, **params).fit(*rows())


@pytest.fixture
def chained(monkeypatch):
    """How many rounds each chain of a fit has, as they are sent; there are some on a busy machine, too."""
    monkeypatch.setattr(_chain, "_EPOCH_SECONDS", 1.0)
    monkeypatch.setattr(_chain, "_CHAIN_SECONDS", 1.5)
    monkeypatch.setattr(_chain, "_KEPT_SECONDS", 1.5)
    sizes = []
    send = _dask.DaskRunner._send_chain

    def watched(self, *args, **kwargs):
        sent = send(self, *args, **kwargs)
        sizes.extend([len(self._chains[-1].rounds)] if sent else [])
        return sent

    monkeypatch.setattr(_dask.DaskRunner, "_send_chain", watched)
    return sizes


@pytest.fixture(params=["come", "stay"])
def parameters(request, monkeypatch):
    """Whether parameters come to the driver after each epoch of a chain, as small ones do, or stay on the cluster."""
    if request.param == "stay":
        monkeypatch.setattr(_dask, "_EACH_BYTES", 0)
    return request.param


def unchained(monkeypatch, *args, **kwargs):
    with monkeypatch.context() as patched:
        patched.setattr(_chain, "epochs_at_once", lambda *about: 0)
        return fitted(*args, **kwargs)


def same(a, b):
    np.testing.assert_array_equal(a.coef_, b.coef_)
    np.testing.assert_array_equal(a.intercept_, b.intercept_)
    assert a.n_iter_ == b.n_iter_
    for name in ("loss", "objective", "rows", "round"):
        assert a.history_[name].tolist() == b.history_[name].tolist()


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(
    "strategy",
    [
        Averaging(n_replicas=1),
        Averaging(n_replicas=2),
        Averaging(n_replicas=2, outer_momentum=0.5),
        Averaging(n_replicas=2, rounds_per_epoch=3, outer_momentum=0.5),
        BSP(n_replicas=2, rounds_per_epoch=4),
    ],
    ids=repr,
)
def test_a_chain_gives_the_bits_of_rounds_by_themselves(client, monkeypatch, chained, strategy, shuffle, parameters):
    one = unchained(monkeypatch, strategy, shuffle=shuffle)
    assert not chained
    same(fitted(strategy, shuffle=shuffle), one)
    # Of an epoch of several rounds there is no chain whose parameters stay.
    several = strategy.rounds(1, 1) > 1
    assert not chained if parameters == "stay" and several else max(chained) > 1
    assert not _post._boxes


def test_a_fit_that_converges_within_a_chain_ends_where_it_would(client, monkeypatch, chained, parameters):
    given = {"max_iter": 500, "tol": 1e-3, "n_iter_no_change": 2}
    one = unchained(monkeypatch, Averaging(n_replicas=2), **given)
    assert 4 < one.n_iter_ < 500
    same(fitted(Averaging(n_replicas=2), **given), one)
    assert chained


def test_a_rate_that_is_reduced_within_a_chain_is_so_from_the_next_epoch_on(client, monkeypatch, chained, parameters):
    given = {"max_iter": 40, "tol": 1e-3, "learning_rate": "adaptive", "eta0": 0.1, "n_iter_no_change": 2}
    one = unchained(monkeypatch, Averaging(n_replicas=2), **given)
    assert len(set(one.history_["learning_rate"].tolist())) > 1
    same(fitted(Averaging(n_replicas=2), **given), one)
    assert chained


def test_a_listener_ends_a_fit_within_a_chain(client, chained, parameters):
    class Enough(Callback):
        def on_round_end(self, event):
            if event.round == 9:
                raise StopTraining

    model = fitted(Averaging(n_replicas=2), callbacks=[Enough()])
    assert model.history_["round"].tolist()[-1] == 9
    assert chained
    same(model, fitted(Averaging(n_replicas=2), max_iter=9))


def test_the_seconds_of_epochs_are_those_of_the_fit(client, chained, parameters):
    start = time.perf_counter()
    model = fitted(Averaging(n_replicas=2), max_iter=60)
    seconds = time.perf_counter() - start
    assert 0.3 * seconds < sum(model.history_["seconds"].tolist()) <= seconds
    assert min(model.history_["seconds"].tolist()) > 0
    assert chained


def test_where_nothing_arrives_a_fit_goes_on_in_tasks_of_their_own(client, monkeypatch, chained, parameters):
    one = unchained(monkeypatch, Averaging(n_replicas=2))
    monkeypatch.setattr(_post, "_deliver", lambda *letter: None)
    start = time.perf_counter()
    same(fitted(Averaging(n_replicas=2)), one)
    # A second is waited for, once; the second chain was sent by then.
    assert len(chained) <= 2
    assert time.perf_counter() - start < 20


def test_fits_that_are_in_each_others_way_both_end(client, monkeypatch, chained, parameters):
    one = unchained(monkeypatch, Averaging(n_replicas=2), max_iter=60)
    found = []
    fits = [
        threading.Thread(target=lambda: found.append(fitted(Averaging(n_replicas=2), max_iter=60))) for _ in range(3)
    ]
    for fit in fits:
        fit.start()
    for fit in fits:
        fit.join(60)
    assert len(found) == 3 and chained
    for model in found:
        same(model, one)


@pytest.mark.alone
@pytest.mark.parametrize("n", [1, 2])
def test_workers_that_die_in_a_chain_cost_no_bit(process_client, monkeypatch, chained, parameters, n):
    client = process_client(2, threads_per_worker=1)
    one = unchained(monkeypatch, Averaging(n_replicas=2), max_iter=120)
    victims = list(client.run(os.getpid).values())[:n]

    class Killer(Callback):
        def on_epoch_end(self, event):
            if event.epoch == 40:
                for victim in victims:
                    os.kill(victim, signal.SIGKILL)

    same(fitted(Averaging(n_replicas=2), max_iter=120, callbacks=[Killer()]), one)
    assert len(chained) > 1


@pytest.mark.alone
def test_letters_leave_no_line_each_in_the_logs_of_workers(process_client, chained):
    client = process_client(2, threads_per_worker=1)
    fitted(Averaging(n_replicas=2), max_iter=80)
    assert sum(chained) > 40
    lines = [line for log in client.get_worker_logs().values() for _, line in log]
    # What a fit has to run on workers once, and the first letter to each; there are twice forty letters.
    assert 2 <= sum("out-of-band" in line for line in lines) < 40
    assert sum("_open" in line for line in lines) == 2


def letters(dask_worker):
    """Where this worker leaves letters for others, and those that lie here."""
    return list(_post._directories.values()), list(Path(dask_worker.local_directory).glob("*letter*"))


def mislead(directory):
    for address in _post._directories:
        _post._directories[address] = directory


@pytest.mark.alone
def test_workers_of_one_machine_leave_each_other_files(process_client, monkeypatch, chained, parameters):
    client = process_client(2, threads_per_worker=1)
    one = unchained(monkeypatch, Averaging(n_replicas=2), max_iter=80)
    same(fitted(Averaging(n_replicas=2), max_iter=80), one)
    assert sum(chained) > 40
    directories = set(client.run(lambda dask_worker: dask_worker.local_directory).values())
    found = client.run(letters).values()
    assert {directory for known, _ in found for directory in known} == directories
    assert not [letter for _, left in found for letter in left]
    # One whose directory is gone is sent messages.
    client.run(mislead, "/nowhere")
    del chained[:]
    same(fitted(Averaging(n_replicas=2), max_iter=80), one)
    assert sum(chained) > 40


def test_a_directory_that_cannot_be_read_is_a_letter_that_does_not_come(tmp_path, monkeypatch):
    monkeypatch.setattr(_post, "_PATIENCE", 0.05)
    monkeypatch.setitem(_post._directories, "tcp://other", str(tmp_path))
    (tmp_path / "file").touch()
    post = _post.Post(_post.Address("unreadable", 1, ("tcp://here", "tcp://other")), 0)
    post._worker = SimpleNamespace(local_directory=str(tmp_path / "file"))
    assert post.wait(0) is None
    _post.forget_chains("unreadable")


def test_a_letter_in_a_file_is_what_was_written():
    arrays = [np.arange(7, dtype="f4"), np.ones((3, 5), order="F"), np.zeros(0), np.arange(3)[::2]]
    written = b"".join(_post._written(("fit", 1, arrays)))
    fit, number, found = _post._letter(np.frombuffer(bytearray(written), np.uint8))
    assert (fit, number) == ("fit", 1)
    for array, other in zip(arrays, found, strict=True):
        np.testing.assert_array_equal(array, other)
        assert array.dtype == other.dtype
    # Replicas go on from them.
    found[0][:] = 1


def test_letters_that_nobody_reads_are_removed(tmp_path):
    worker = SimpleNamespace(local_directory=str(tmp_path))
    for name in ("daskdml-letter-mine-1-2-0", "daskdml-letter-mine-1-3-0.part", "daskdml-letter-other-1-2-0"):
        (tmp_path / name).touch()
    _post.forget_chains("mine", worker)
    assert [path.name for path in tmp_path.iterdir()] == ["daskdml-letter-other-1-2-0"]


def test_replicas_without_a_thread_or_work_of_their_own_are_in_no_chain():
    def works(*replicas):
        return [Work(replica, 1, (), 0, False) for replica in replicas]

    homes, threads = {0: "a", 1: "b", 2: "b"}, {"a": 1, "b": 1}
    assert _chain.can_chain([works(0, 1), works(0, 1)], homes, threads)
    assert not _chain.can_chain([works(0, 1), works(0)], homes, threads)
    assert not _chain.can_chain([works(1)], homes, threads)
    assert not _chain.can_chain([works(0, 1, 2)], homes, threads)
    assert _chain.can_chain([works(0, 1, 2)], homes, threads | {"b": 2})
    assert not _chain.can_chain([works(0, 1)], homes, {"a": 1})


def test_parameters_that_stay_are_fetched_once(client, monkeypatch, chained):
    monkeypatch.setattr(_dask, "_EACH_BYTES", 0)
    fetched, kept = [], _dask.DaskRunner._kept

    def watched(self, *args):
        fetched.append(args)
        return kept(self, *args)

    monkeypatch.setattr(_dask.DaskRunner, "_kept", watched)
    fitted(Averaging(n_replicas=2), max_iter=60)
    # Chains begin anew from the driver's copy after eight.
    assert len(chained) >= 1 and len(fetched) <= 1 + len(chained) / 8


def test_parameters_stay_only_where_there_is_memory_for_them(client, monkeypatch, chained):
    one = unchained(monkeypatch, Averaging(n_replicas=2))
    monkeypatch.setattr(_dask, "_EACH_BYTES", 0)
    wanted, plan_memory = [], _limits.plan_memory

    def without_room(*args, beside, **kwargs):
        wanted.append(beside)
        return replace(plan_memory(*args, beside=beside, **kwargs), has_beside=False)

    monkeypatch.setattr(_limits, "plan_memory", without_room)
    same(fitted(Averaging(n_replicas=2)), one)
    assert not chained and wanted == [_chain.memory_wanted(100)] and wanted[0] > 2**26
    # Nothing is wanted for what can have no such chains.
    monkeypatch.setattr(_dask, "_EACH_BYTES", 2**18)
    fitted(Averaging(n_replicas=2), max_iter=2)
    fitted(Averaging(n_replicas=2, rounds_per_epoch=3), max_iter=2)
    fitted(FullBatch(n_replicas=2), max_iter=2, loss="log_loss")
    monkeypatch.setattr(_dask, "_EACH_BYTES", 0)
    fitted(Averaging(n_replicas=5), max_iter=2)
    assert wanted[1:] == [0, 0, 0, 0] and _chain.memory_wanted(2**24) == 0


@pytest.mark.alone
def test_epochs_whose_parameters_are_lost_are_trained_again(process_client, monkeypatch, chained):
    """All that the last chain ended with is lost before anybody wants it: the bits are those of a quiet fit."""
    client = process_client(2, threads_per_worker=1)
    one = unchained(monkeypatch, Averaging(n_replicas=2))
    monkeypatch.setattr(_dask, "_EACH_BYTES", 0)
    victims, heard = list(client.run(os.getpid).values()), []
    whole = _dask.Away.whole

    def lose(self):
        while victims:
            os.kill(victims.pop(), signal.SIGKILL)
        return whole(self)

    monkeypatch.setattr(_dask.Away, "whole", lose)

    class Hears(Callback):
        def on_recovery(self, event):
            heard.append(event.what)

    model = fitted(Averaging(n_replicas=2), callbacks=[Hears()])
    same(model, one)
    assert chained and not victims
    assert any("trained again" in what for what in heard)


def test_a_checkpoint_within_a_chain_is_gone_on_from(client, monkeypatch, chained, parameters, tmp_path):
    one = unchained(monkeypatch, Averaging(n_replicas=2))
    given = {"checkpoint": tmp_path, "checkpoint_every": "3 rounds"}

    class Enough(Callback):
        def on_epoch_end(self, event):
            if event.epoch == 11:
                raise StopTraining

    fitted(Averaging(n_replicas=2), callbacks=[Enough()], **given)
    # What is saved would have to be fetched after each epoch: parameters do not stay then.
    assert bool(chained) == (parameters == "come")
    model = SGDClassifier(strategy=Averaging(n_replicas=2), max_iter=30, tol=None, random_state=0, **given)
    model.fit(*rows(), resume=True)
    np.testing.assert_array_equal(model.coef_, one.coef_)
    assert model.n_iter_ == one.n_iter_


@pytest.mark.parametrize(
    "seconds, rounds, epochs", [(0.7, 1, 0), (0.5, 1, 0), (0.5, 4, 1), (0.09, 1, 5), (1e-4, 20, 3)]
)
def test_a_chain_is_short(seconds, rounds, epochs):
    assert _chain.epochs_at_once(seconds, rounds) == epochs


def test_a_chain_keeps_no_more_of_large_parameters_than_a_few():
    assert _chain.epochs_at_once(1e-3, 1, 2**10) == 64
    assert _chain.epochs_at_once(1e-3, 1, 2**22) == 4
    # Of one alone nothing would be gained.
    assert _chain.epochs_at_once(1e-3, 1, 2**24) == _chain.epochs_at_once(1e-3, 1, 2**30) == 0
