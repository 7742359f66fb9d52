"""A fit that was interrupted and goes on gives the bits of one that was not."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid

import dask.array as da
import fsspec
import numpy as np
import pytest

from daskdml import BSP, Averaging
from daskdml.checkpoint import CheckpointError, CheckpointStore
from daskdml.linear_model import SGDClassifier, SGDRegressor
from daskdml.monitor import Callback, StopTraining

STRATEGIES = [
    Averaging(rounds_per_epoch=3),
    Averaging(rounds_per_epoch=3, outer_lr=0.7, outer_momentum=0.5),
    BSP(rounds_per_epoch=4),
]
N, D = 1200, 5
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, D))
Y = X @ RNG.standard_normal(D) + 0.3 * RNG.standard_normal(N)
# What is not the same when a fit is resumed: its clock, and that the new process has cached no blocks.
UNEQUAL = ["seconds", "compute_seconds", "load_seconds", "wait_seconds", "gate_seconds"]
CACHED = ["blocks_from_recipe", "blocks_from_memory", "blocks_from_disk"]


class Die(Callback):
    """As if the process had ended in this round, before anything of it was saved."""

    def __init__(self, round_):
        self.round_ = round_

    def on_round_end(self, event):
        if event.round == self.round_:
            raise ConnectionError("interrupted")


class Stop(Die):
    def on_round_end(self, event):
        if event.round == self.round_:
            raise StopTraining


class Count(Callback):
    def __init__(self):
        self.rounds = 0

    def on_round_end(self, event):
        self.rounds += 1


def in_memory():
    return X, (Y > 0).astype(int)


def in_blocks():
    return tuple(da.from_array(a, chunks=(150, *a.shape[1:])) for a in in_memory())


def classifier(**params):
    params = {"loss": "log_loss", "max_iter": 3, "tol": None, "random_state": 0, "checkpoint_every": "1 round"} | params
    return SGDClassifier(**params)


def interrupted(place, data, at, make=classifier, **params):
    with pytest.raises(ConnectionError):
        make(checkpoint=place, **params, callbacks=[Die(at)]).fit(*data)


def assert_same_fit(a, b):
    assert (a.coef_ == b.coef_).all() and (a.intercept_ == b.intercept_).all()
    assert a.n_iter_ == b.n_iter_ and a.t_ == b.t_ and a.n_replicas_ == b.n_replicas_
    drop = [*UNEQUAL, *CACHED]
    assert a.history_.drop(columns=drop, errors="ignore").equals(b.history_.drop(columns=drop, errors="ignore"))


def assert_goes_on(place, data, at, make=classifier, **params):
    """Interrupted in round ``at``: the rounds from there on are run, no others, and the result is that of one fit."""
    interrupted(place, data, at, make, **params)
    count = Count()
    again = make(checkpoint=place, callbacks=[count], **params).fit(*data, resume=True)
    assert_same_fit(make(**params).fit(*data), again)
    assert count.rounds == len(again.history_) - (at - 1)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
@pytest.mark.parametrize("at", [2, 4, 5, 9])
def test_in_this_process(strategy, at, tmp_path):
    assert_goes_on(tmp_path, in_memory(), at, strategy=strategy)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
@pytest.mark.parametrize("at", [2, 4, 5, 9])
def test_on_a_cluster(strategy, at, client, tmp_path):
    assert_goes_on(tmp_path, in_blocks(), at, strategy=strategy)


def test_on_the_embedded_cluster(tmp_path):
    assert_goes_on(tmp_path, in_blocks(), 5, strategy=STRATEGIES[1])


@pytest.mark.parametrize(
    "params",
    [
        {"learning_rate": "adagrad", "penalty": "elasticnet"},
        {"learning_rate": "normalized", "strategy": Averaging(rounds_per_epoch=3, weighting="adaptive")},
        {"average": 100, "penalty": "l1"},
        # Problems stop one after another, and rates are reduced.
        {"learning_rate": "adaptive", "tol": 1e-2, "eta0": 0.1, "n_iter_no_change": 1, "max_iter": 20},
        {"early_stopping": True, "tol": 1e-3, "max_iter": 20, "n_iter_no_change": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("data", [in_memory, in_blocks])
def test_all_that_an_optimizer_and_a_stopping_rule_remember(params, data, client, tmp_path):
    features, _ = data()
    codes = np.digitize(Y, [-0.7, 0.7])
    y = codes if data is in_memory else da.from_array(codes, chunks=150)
    params = {"strategy": Averaging(rounds_per_epoch=3)} | params
    assert_goes_on(tmp_path, (features, y), 5, **params)


def test_regression(client, tmp_path):
    data = da.from_array(X, chunks=(150, D)), da.from_array(Y, chunks=150)

    def make(**params):
        return SGDRegressor(random_state=0, checkpoint_every="1 round", max_iter=4, tol=None, **params)

    assert_goes_on(tmp_path, data, 3, make)


@pytest.mark.parametrize("random_state", [None, "generator"])
@pytest.mark.parametrize("data", [in_memory, in_blocks])
def test_the_seed_of_the_first_run_is_kept(random_state, data, client, tmp_path):
    def make(seed=7, **params):
        np.random.seed(seed)
        chosen = None if random_state is None else np.random.RandomState(seed)
        return classifier(**{"random_state": chosen, "early_stopping": True, "tol": 0.0} | params)

    whole = make().fit(*data())
    interrupted(tmp_path, data(), 3, make)
    again = make(seed=8, checkpoint=tmp_path).fit(*data(), resume=True)
    assert_same_fit(whole, again)


@pytest.mark.parametrize("data", [in_memory, in_blocks])
def test_the_number_of_replicas_is_that_of_the_checkpoint(data, client, tmp_path):
    from distributed import Client, LocalCluster

    whole = classifier().fit(*data())
    interrupted(tmp_path, data(), 2)
    with (
        LocalCluster(
            n_workers=3, threads_per_worker=1, processes=False, memory_limit=0, dashboard_address="127.0.0.1:0"
        ) as other,
        Client(other),
    ):
        assert classifier(max_iter=1).fit(*data()).n_replicas_ == 3
        again = classifier(checkpoint=tmp_path).fit(*data(), resume=True)
    assert again.n_replicas_ == 2
    assert_same_fit(whole, again)


def test_a_fit_without_a_cluster_goes_on_without_one(cluster, tmp_path):
    from distributed import Client

    whole = classifier().fit(*in_memory())
    interrupted(tmp_path, in_memory(), 2)
    with Client(cluster):
        assert_same_fit(whole, classifier(checkpoint=tmp_path).fit(*in_memory(), resume=True))


def test_a_fit_on_a_cluster_goes_on_without_a_client(cluster, tmp_path):
    from distributed import Client

    with Client(cluster):
        whole = classifier().fit(*in_memory())
        interrupted(tmp_path, in_memory(), 2)
    assert_same_fit(whole, classifier(checkpoint=tmp_path).fit(*in_memory(), resume=True))


@pytest.mark.parametrize("at", [2, 3, 4])
def test_what_a_callback_stopped_can_go_on(at, tmp_path):
    """Also where it was stopped in the last round of an epoch, before the rule had seen that epoch."""
    params = {"strategy": STRATEGIES[0], "tol": 1e-3, "max_iter": 6}
    stopped = classifier(checkpoint=tmp_path, checkpoint_every="1h", callbacks=[Stop(at)], **params).fit(*in_memory())
    assert len(stopped.history_) == at
    again = classifier(checkpoint=tmp_path, **params).fit(*in_memory(), resume=True)
    assert_same_fit(classifier(**params).fit(*in_memory()), again)


@pytest.mark.parametrize("params", [{}, {"tol": 1e-2, "max_iter": 50}], ids=["max_iter", "converged"])
def test_a_finished_fit_is_there_at_once(params, tmp_path):
    whole = classifier(checkpoint=tmp_path, checkpoint_every=60, **params).fit(*in_memory())
    assert CheckpointStore(tmp_path).latest()["finished"] == ("converged" if params else "max_iter")
    before = sorted(os.listdir(tmp_path))
    count = Count()
    again = classifier(checkpoint=tmp_path, callbacks=[count], **params).fit(*in_memory(), resume=True)
    assert count.rounds == 0 and sorted(os.listdir(tmp_path)) == before
    assert again.history_.equals(whole.history_)
    assert_same_fit(whole, again)


def test_training_longer_is_training_on(client, tmp_path):
    short = classifier(checkpoint=tmp_path, max_iter=2).fit(*in_blocks())
    longer = classifier(checkpoint=tmp_path, max_iter=4, verbose=1).fit(*in_blocks(), resume=True)
    assert short.n_iter_ == 2
    assert_same_fit(classifier(max_iter=4).fit(*in_blocks()), longer)
    with pytest.raises(CheckpointError, match="is in epoch 4 already and max_iter=3: raise max_iter"):
        classifier(checkpoint=tmp_path, max_iter=3).fit(*in_blocks(), resume=True)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"alpha": 0.5}, "alpha was 0.0001 and is 0.5"),
        ({"random_state": 1}, "random_state was 0 and is 1"),
        ({"random_state": None}, "random_state was 0 and is no number"),
        ({"strategy": BSP()}, r"strategy was Averaging\(.*\) and is BSP\(rounds_per_epoch=None\)"),
        ({"strategy": Averaging(rounds_per_epoch=2)}, "rounds_per_epoch=2"),
        ({"strategy": Averaging(5)}, "n_replicas was 2 and is 5"),
        ({"class_weight": {0: 2.0, 1: 1.0}}, r"class_weight was None and is \{0: 2.0, 1: 1.0\}"),
        ({"X": lambda x: x[:, :3]}, "n_features was 5 and is 3"),
        ({"X": lambda x: x.astype(np.float32)}, "dtype was float64 and is float32"),
        ({"X": lambda x: x.rechunk((100, D))}, "n_blocks was 8 and is 12"),
        ({"X": lambda x: x.compute(), "y": lambda y: y.compute()}, "n_blocks was 8 and is"),
        ({"y": lambda y: y * 2}, r"classes was \[0, 1\] and is \[0, 2\]"),
        ({"y": lambda y: y * (da.arange(N, chunks=150) > 9)}, "rows of each class"),
        ({"coef_init": np.ones((1, D))}, "coef_init was None and is"),
        ({"sample_weight": np.ones(N)}, "sample_weight was False and is True"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_a_checkpoint_of_another_fit_is_refused(change, difference, client, tmp_path):
    features, y = in_blocks()
    interrupted(tmp_path, (features, y), 2)
    before = sorted(os.listdir(tmp_path))
    features, y = change.pop("X", lambda x: x)(features), change.pop("y", lambda y: y)(y)
    given = {name: change.pop(name) for name in ("coef_init", "sample_weight") if name in change}
    with pytest.raises(CheckpointError, match=f"is of another fit: .*{difference}"):
        classifier(checkpoint=tmp_path, **change).fit(features, y, **given, resume=True)
    assert sorted(os.listdir(tmp_path)) == before


def test_other_rows_of_unknown_number_are_noticed_after_an_epoch(client, tmp_path):
    def data(n):
        chosen = da.arange(N, chunks=150) < n
        return da.from_array(X, chunks=(150, D))[chosen], da.from_array(Y, chunks=150)[chosen]

    SGDRegressor(checkpoint=tmp_path, max_iter=2, tol=None, random_state=0).fit(*data(1000))
    with pytest.raises(CheckpointError, match="it had 1000 rows to train on, and these data have 900"):
        SGDRegressor(checkpoint=tmp_path, max_iter=4, tol=None, random_state=0).fit(*data(900), resume=True)


def test_a_torn_checkpoint_costs_the_rounds_since_the_one_before(tmp_path, caplog):
    strategy = STRATEGIES[0]
    interrupted(tmp_path, in_memory(), 6, strategy=strategy)
    newest = tmp_path / max(os.listdir(tmp_path))
    newest.write_bytes(newest.read_bytes()[:-100])
    count = Count()
    with caplog.at_level(logging.WARNING, "daskdml"):
        again = classifier(checkpoint=tmp_path, callbacks=[count], strategy=strategy).fit(*in_memory(), resume=True)
    assert f"{newest.name} in {tmp_path} is damaged" in caplog.text
    assert count.rounds == 9 - 4
    assert_same_fit(classifier(strategy=strategy).fit(*in_memory()), again)


def test_in_memory_of_fsspec(client):
    place = f"memory://{uuid.uuid4().hex}/run"
    assert_goes_on(place, in_blocks(), 3)
    fs, folder = fsspec.core.url_to_fs(place)
    fs.rm(folder, recursive=True)


def test_nothing_to_resume(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "daskdml"):
        fresh = classifier(checkpoint=tmp_path / "new").fit(*in_memory(), resume=True)
    assert "there is no checkpoint in" in caplog.text and "starts from the beginning" in caplog.text
    assert_same_fit(classifier().fit(*in_memory()), fresh)
    with pytest.raises(ValueError, match="resume=True goes on from a checkpoint, and checkpoint=None"):
        classifier().fit(*in_memory(), resume=True)


def test_a_fit_that_resumes_nothing_replaces_what_was_there(tmp_path):
    classifier(checkpoint=tmp_path, alpha=0.1).fit(*in_memory())
    interrupted(tmp_path, in_memory(), 3)
    assert len(os.listdir(tmp_path)) == 2
    assert_same_fit(classifier().fit(*in_memory()), classifier(checkpoint=tmp_path).fit(*in_memory(), resume=True))


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_fit(tmp_path, caplog, monkeypatch):
    def full(self, payload):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(CheckpointStore, "save", full)
    with caplog.at_level(logging.WARNING, "daskdml"):
        fitted = classifier(checkpoint=tmp_path).fit(*in_memory())
    assert "no checkpoint could be written" in caplog.text and "No space left" in caplog.text
    assert_same_fit(classifier().fit(*in_memory()), fitted)


def test_a_cadence_in_time_saves_seldom(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(CheckpointStore, "save", lambda self, payload: saved.append(payload["finished"]))
    classifier(checkpoint=tmp_path, checkpoint_every="1h", max_iter=5).fit(*in_memory())
    assert saved == ["max_iter"]
    with pytest.raises(ValueError, match="checkpoint_every='often' is no interval"):
        classifier(checkpoint=tmp_path, checkpoint_every="often").fit(*in_memory())


def test_a_fitted_estimator_with_a_path_is_saved(tmp_path):
    from daskdml.io import load_model, save_model

    fitted = classifier(checkpoint=tmp_path / "c").fit(*in_memory())
    save_model(fitted, tmp_path / "m.skops")
    loaded = load_model(tmp_path / "m.skops")
    assert loaded.checkpoint == str(tmp_path / "c") and (loaded.coef_ == fitted.coef_).all()


DRIVER = """
import sys, time
import dask.array as da, numpy as np
from daskdml import SSP, Averaging
from daskdml.linear_model import SGDClassifier
from daskdml.monitor import Callback

STRATEGIES = {
    "averaging": Averaging(3, rounds_per_epoch=4, outer_lr=0.9, outer_momentum=0.3),
    "ssp": SSP(1, n_replicas=3, clock_rows=1000),
}

class Count(Callback):
    rounds = 0
    def on_round_end(self, event):
        self.rounds += 1

def make(delay, block_info=None):
    time.sleep(delay)
    return np.random.default_rng(block_info[None]["chunk-location"][0]).standard_normal((1000, 8))

def label(x):
    # Not separable: the loss has a bottom.
    return (x.sum(axis=1) + 3 * np.sin(1e4 * x[:, 0]) > 0).astype(int)

def data(delay=0.0):
    X = da.map_blocks(make, delay, chunks=((1000,) * 12, (8,)), dtype=float, meta=np.empty((0, 8)))
    return X, X.map_blocks(label, drop_axis=1, dtype=int, meta=np.empty(0, dtype=int))

def fit(delay, resume, strategy, **params):
    X, y = data(delay)
    if strategy == "ssp":
        # Near the bottom after a few epochs: how far each of two fits has come down does not matter then.
        params["learning_rate"] = "adagrad"
    strategy = STRATEGIES[strategy]
    clf = SGDClassifier("log_loss", max_iter=5, tol=None, random_state=0, strategy=strategy, memory_budget=0, **params)
    return clf.fit(X, y, resume=resume)

if __name__ == "__main__":
    place, out, delay, resume, strategy = sys.argv[1:]
    count = Count()
    params = {"checkpoint": place, "checkpoint_every": "1 round", "callbacks": [count]}
    clf = fit(float(delay), resume == "resume", strategy, **params)
    np.savez(out, coef=clf.coef_, intercept=clf.intercept_, loss=clf.history_["loss"], rounds=count.rounds)
"""


def models(again, whole):
    return (again["coef"], again["intercept"]), (whole.coef_, whole.intercept_)


def driver(tmp_path, *arguments):
    # What a killed process leaves of its embedded cluster is not to be found by others.
    environment = os.environ | {"TMPDIR": str(tmp_path), "DASK_TEMPORARY_DIRECTORY": str(tmp_path)}
    return subprocess.Popen([sys.executable, str(tmp_path / "driver.py"), *map(str, arguments)], env=environment)


@pytest.mark.parametrize("strategy", ["averaging", "ssp"])
def test_the_driver_is_killed_and_another_process_goes_on(tmp_path, strategy):
    (tmp_path / "driver.py").write_text(textwrap.dedent(DRIVER))
    place, out = tmp_path / "checkpoints", tmp_path / "out.npz"
    first = driver(tmp_path, place, out, 0.03, "anew", strategy)
    try:
        deadline = time.monotonic() + 120
        # Past the first epoch, in the middle of the second or later.
        while not place.is_dir() or max(os.listdir(place), default="") < "checkpoint-00000006.ckpt":
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert not out.exists()
    assert driver(tmp_path, place, out, 0.0, "resume", strategy).wait(120) == 0
    again = np.load(out)
    sys.path.insert(0, str(tmp_path))
    try:
        import driver as module

        whole = module.fit(0.0, False, strategy)
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("driver", None)
    assert again["rounds"] < 20 - 5
    if strategy == "ssp":
        X, y = (np.asarray(a) for a in module.data())
        losses = [np.logaddexp(0, (1 - 2 * y) * (X @ c[0] + b)).mean() for c, b in models(again, whole)]
        assert losses[0] < 1.01 * losses[1] < 1.01 * np.log(2) * 0.9
        return
    assert (again["coef"] == whole.coef_).all() and (again["intercept"] == whole.intercept_).all()
    assert (again["loss"] == whole.history_["loss"]).all()
