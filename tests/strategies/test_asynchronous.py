"""SSP, ESSP and ASP on clusters: what they guarantee, as a user sees it and as a trace shows it."""

import os
import signal
import threading
import time

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from daskdml import ASP, ESSP, SSP, Averaging
from daskdml.checkpoint import CheckpointError
from daskdml.data import Block
from daskdml.linear_model import SGDClassifier, SGDRegressor
from daskdml.models import Layout, LinearModel
from daskdml.monitor import Callback, StopTraining
from daskdml.numerics import BINARY, LOSSES, SCHEDULES, Settings
from daskdml.server import Partition, Table, TraceError, check_trace, replay
from daskdml.strategies import Piece, Work, plan_epoch, shares
from daskdml.strategies._replica import learn

N, D, BLOCKS = 8000, 12, 8
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, D))
Y = (X @ RNG.standard_normal(D) + 2.5 * RNG.standard_normal(N) > 0).astype(int)
# The labels are noisy: nobody gets them all right.
BEST = LogisticRegression().fit(X, Y).score(X, Y)
CLOCK = {"n_replicas": 4, "clock_rows": 250}
WAITLESS = [SSP(0, **CLOCK), SSP(2, **CLOCK), SSP(1, splits=2, **CLOCK), ESSP(2, **CLOCK), ASP(**CLOCK)]


def lazy(n_blocks=BLOCKS):
    return da.from_array(X, chunks=(N // n_blocks, D)), da.from_array(Y, chunks=N // n_blocks)


def estimator(strategy, epochs=2, **params):
    defaults = {"loss": "log_loss", "learning_rate": "adagrad", "tol": None, "random_state": 0}
    return SGDClassifier(max_iter=epochs, strategy=strategy, **(defaults | params))


def fitted(strategy, epochs=2, **params):
    return estimator(strategy, epochs, **params).fit(*lazy())


def loss_of(clf):
    return log_loss(Y, clf.predict_proba(X))


@pytest.mark.parametrize("strategy", WAITLESS, ids=repr)
def test_it_learns_what_averaging_learns(client, strategy):
    wanted = loss_of(fitted(Averaging(n_replicas=4, rounds_per_epoch=8), 4))
    clf = fitted(strategy, 4)
    assert loss_of(clf) < 1.1 * wanted
    assert clf.n_iter_ == 4
    assert clf.history_["rows"].sum() == 4 * N


@pytest.mark.parametrize("strategy", WAITLESS, ids=repr)
def test_its_trace_keeps_every_invariant(client, strategy):
    clf = fitted(strategy.set_params(trace=True, shards=2), 2)
    told = check_trace(clf.trace_, strategy)
    strategy.set_params(trace=False, shards=None)
    if strategy.staleness is not None:
        assert told["staleness_max"] <= strategy.staleness
    assert told["applied"] == 2 * 8 * 4 * strategy.splits


def test_a_trace_that_breaks_the_bound_is_found(client):
    clf = fitted(ASP(trace=True, **CLOCK), 2)
    if clf.history_["staleness_max"].max() > 0:
        with pytest.raises(TraceError):
            check_trace(clf.trace_, SSP(0))


def test_staleness_0_is_averaging_on_the_same_schedule(client):
    params = {"learning_rate": "constant", "eta0": 0.05, "shuffle": False}
    a = fitted(SSP(0, **CLOCK), 3, **params)
    b = fitted(Averaging(n_replicas=4, rounds_per_epoch=8), 3, **params)
    np.testing.assert_allclose(a.coef_, b.coef_, rtol=1e-10)
    np.testing.assert_allclose(a.history_["loss"], b.history_["loss"], rtol=1e-10)


def test_staleness_0_is_bit_identical(client):
    a, b = fitted(SSP(0, splits=2, **CLOCK), 3), fitted(SSP(0, splits=2, shards=2, **CLOCK), 3)
    assert (a.coef_ == b.coef_).all()


# Chunks that were made in this process, where the workers are.
MADE = []


def counted(chunk):
    MADE.append(len(chunk))
    return chunk


def test_blocks_that_share_work_are_made_in_the_first_epoch_only(client):
    MADE.clear()
    rows, labels = lazy()
    rows = da.map_blocks(counted, rows, dtype=float, meta=np.ones((0, 0)))
    order = np.random.default_rng(1).permutation(N)
    by_epoch = []

    class Count(Callback):
        def on_epoch_end(self, epoch):
            by_epoch.append(len(MADE))

    # One replica, which begins an epoch when it is through with the one before.
    clf = estimator(SSP(3, 1, clock_rows=500), 4, callbacks=[Count()])
    clf.fit(rows[order], labels[order])
    assert by_epoch[0] > 0 and by_epoch[-1] == by_epoch[0]
    assert clf.history_.query("epoch > 1")["blocks_from_memory"].sum() > 0


@pytest.mark.parametrize("known, clocks", [(True, 48), (False, 80)])
def test_small_blocks_share_a_clock_where_it_is_known_before_that_they_are_small(client, known, clocks):
    X, y = lazy(160)
    if not known:
        X, y = X[X[:, 0] < 100], y[X[:, 0] < 100]
    clf = estimator(SSP(3, 2), 1).fit(X, y)
    assert clf.history_["round"].nunique() == clocks
    assert clf.history_["rows"].sum() == N


def test_clocks_do_not_get_shorter_than_messages_for_data_that_were_slow_to_read(client):
    def slow(block):
        time.sleep(0.1)
        return block

    X, y = lazy()
    clf = estimator(SSP(3, 2), 4).fit(da.map_blocks(slow, X, dtype=float), y)
    # The fewest there may be: what takes time is reading, once, and messages.
    assert clf.history_.query("epoch == 2")["round"].nunique() == 48


@pytest.mark.parametrize("optimizer", ["adagrad", "adam", "momentum", "ftrl"])
def test_an_optimizer_of_the_server_learns(client, optimizer):
    clf = fitted(SSP(1, optimizer=optimizer, **CLOCK), 8, learning_rate="constant", eta0=0.1)
    assert clf.score(X, Y) > BEST - 0.03


@pytest.mark.parametrize("compression", ["float16", "topk"])
def test_compressed_updates_learn(client, compression):
    n = 1600
    noise = 0.01 * np.random.default_rng(1).standard_normal((n, 5000), dtype="f4")
    wide, labels = np.hstack([X[:n].astype("f4"), noise]), Y[:n]
    data = da.from_array(wide, chunks=(n // BLOCKS, wide.shape[1])), da.from_array(labels, chunks=n // BLOCKS)
    sent = {}
    for kind in (None, compression):
        clf = SGDClassifier(
            loss="log_loss",
            learning_rate="constant",
            eta0=0.05,
            max_iter=5,
            tol=None,
            random_state=0,
            strategy=SSP(1, compression=kind, n_replicas=4, clock_rows=50),
        ).fit(*data)
        assert clf.score(wide, labels) > BEST - 0.05
        sent[kind] = clf.history_["sent_bytes"].sum()
    assert sent[compression] < 0.6 * sent[None]


def test_of_sparse_data_only_what_changed_is_sent(client):
    features = sparse.random(N, 20_000, density=2e-4, format="csr", random_state=RNG, dtype=np.float32)
    parts = [features[at : at + N // BLOCKS] for at in range(0, N, N // BLOCKS)]
    blocks = da.concatenate([da.from_array(part, chunks=part.shape, asarray=False) for part in parts])
    params = {"loss": "log_loss", "learning_rate": "constant", "eta0": 0.1, "alpha": 0.0, "tol": None}
    clf = SGDClassifier(max_iter=1, random_state=0, strategy=SSP(1, **CLOCK), **params).fit(blocks, lazy()[1])
    whole = 4 * 8 * features.shape[1] * clf.coef_.itemsize
    # About 1000 of the 20000 weights in a clock of 250 rows, each with its key.
    assert clf.history_["sent_bytes"].sum() < 0.25 * whole
    assert np.count_nonzero(clf.coef_) > 10_000


@pytest.mark.parametrize("n_shards", [1, 3])
def test_a_recorded_run_is_replayed_bit_for_bit(client, n_shards):
    strategy = SSP(2, trace=True, shards=n_shards, **CLOCK)
    clf = fitted(strategy, 1, learning_rate="constant", eta0=0.05, shuffle=False)
    settings = Settings(
        LOSSES["log_loss"].number, BINARY, alpha=1e-4, schedule=SCHEDULES["constant"], eta0=0.05, power_t=0.5
    )
    model = LinearModel(settings, 1, D, np.dtype(float), np.ones(1), np.ones(1))
    layout = Layout(model)
    works = plan_epoch(shares(BLOCKS, 4, 0, False), 8, 1, 0, False)
    rows = N // BLOCKS

    def visit(work: Work):
        for piece in work.pieces:
            part = slice(piece.block * rows, (piece.block + 1) * rows)
            block = Block(piece.block, X[part], np.where(Y[part] > 0, 1.0, -1.0))
            yield block, piece, work.order(piece, rows)

    def train(ticket, values):
        work = works[ticket.clock][ticket.lane]
        return learn(model, layout, work, values, np.ones(1, dtype=bool), 1 / 4, visit, strategy)[0]

    tables = tuple(Table(f.name, f.size, f.dtype.name) for f in layout.fields)
    final = replay(clf.trace_, Partition(tables, n_shards), layout.flat(model.init()), train, staleness=2)
    assert isinstance(works[0][0].pieces[0], Piece)
    assert (layout.state(final).coef == clf.coef_).all()
    assert (layout.state(final).intercept == clf.intercept_).all()


def test_it_stops_when_nothing_improves(client):
    clf = fitted(SSP(1, **CLOCK), 50, tol=0.05, n_iter_no_change=2)
    assert clf.n_iter_ < 50


def test_early_stopping_and_a_regression(client):
    target = X @ np.arange(D)
    reg = SGDRegressor(
        learning_rate="adagrad",
        early_stopping=True,
        max_iter=30,
        random_state=0,
        strategy=SSP(1, **CLOCK),
    ).fit(lazy()[0], da.from_array(target, chunks=N // BLOCKS))
    assert reg.score(X, target) > 0.9
    assert reg.history_["validation_score"].notna().sum() == reg.n_iter_


def test_a_listener_ends_it(client):
    class Enough(Callback):
        def on_round_end(self, event):
            if event.round == 3:
                raise StopTraining

    clf = fitted(SSP(1, **CLOCK), 10, callbacks=[Enough()])
    assert len(clf.history_) == 3


def test_one_replica_in_process_is_plain_sgd():
    params = {"loss": "log_loss", "max_iter": 3, "tol": None, "random_state": 0}
    a = SGDClassifier(strategy="ssp", **params).fit(X, Y)
    b = SGDClassifier(**params).fit(X, Y)
    assert (a.coef_ == b.coef_).all()


def test_an_error_in_the_data_is_raised(client):
    bad = X.copy()
    bad[N // 2, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        SGDClassifier(strategy=SSP(1, **CLOCK)).fit(da.from_array(bad, chunks=(N // BLOCKS, D)), lazy()[1])


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (SSP(-1), "staleness must be"),
        (SSP(1, splits=0), "splits"),
        (SSP(1, clock_rows=10, clock_blocks=1), "not both"),
        (SSP(1, backups=3), "backups"),
        (SSP(1, compression="zip"), "zip"),
        (SSP(1, optimizer="sgdd"), "sgdd"),
        (SSP(1, optimizer="adam", n_replicas=2), "plain gradients"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_parameters_are_honoured_or_refused(client, strategy, message):
    with pytest.raises(ValueError, match=message):
        fitted(strategy, learning_rate="adagrad")


class _Kill(Callback):
    """Kill the worker that holds something of the server, once a few clocks are over."""

    def __init__(self, client):
        self.client, self.done = client, threading.Event()

    def on_round_end(self, event):
        if event.round == 4:
            held = self.client.run(lambda dask_worker: (len(dask_worker.state.actors), os.getpid()))
            address = max(held, key=lambda found: held[found][0])
            os.kill(held[address][1], signal.SIGKILL)
            # The replicas go on meanwhile; the epochs that are left open only when this returns.
            end = time.monotonic() + 30
            while address in self.client.nthreads() and time.monotonic() < end:
                time.sleep(0.01)
            self.done.set()


@pytest.mark.parametrize("strategy", [SSP(2, **CLOCK), ASP(**CLOCK)], ids=repr)
def test_a_killed_worker_costs_no_update(process_client, strategy):
    client = process_client(3)
    client.wait_for_workers(3)
    kill = _Kill(client)
    clf = fitted(strategy.set_params(trace=True), 4, callbacks=[kill])
    assert kill.done.is_set()
    told = check_trace(clf.trace_, strategy)
    assert told["applied"] == 4 * 8 * 4
    assert clf.history_["recoveries"].sum() >= 1
    assert loss_of(clf) < 1.1 * loss_of(fitted(strategy.set_params(trace=False), 4))


class Die(Callback):
    def __init__(self, at, error=ConnectionError):
        self.at, self.error = at, error

    def on_round_end(self, event):
        if event.round == self.at:
            raise self.error


@pytest.mark.parametrize("strategy", [SSP(2, **CLOCK), ESSP(1, splits=2, **CLOCK), ASP(**CLOCK)], ids=repr)
@pytest.mark.parametrize("at", [11, 16])
def test_resumed_after_an_interruption(client, tmp_path, strategy, at):
    strategy = strategy.set_params(trace=True)
    params = {"checkpoint": tmp_path, "checkpoint_every": "2 rounds"}
    with pytest.raises(ConnectionError):
        fitted(strategy, 3, callbacks=[Die(at)], **params)
    clf = estimator(strategy, 3, **params).fit(*lazy(), resume=True)
    told = check_trace(clf.trace_, strategy)
    strategy.set_params(trace=False)
    assert told["applied"] == 3 * 8 * 4 * strategy.splits
    assert clf.n_iter_ == 3
    assert len(clf.history_) == 24
    assert loss_of(clf) < 1.1 * loss_of(fitted(strategy, 3))


@pytest.mark.parametrize("staleness", [0, 2])
def test_a_finished_fit_goes_on_under_a_larger_max_iter(client, tmp_path, staleness):
    strategy = SSP(staleness, **CLOCK)
    first = fitted(strategy, 2, checkpoint=tmp_path)
    again = estimator(strategy, 2, checkpoint=tmp_path).fit(*lazy(), resume=True)
    assert (first.coef_ == again.coef_).all() and again.n_iter_ == 2
    longer = estimator(strategy, 4, checkpoint=tmp_path).fit(*lazy(), resume=True)
    assert longer.n_iter_ == 4 and len(longer.history_) == 32
    if staleness == 0:
        assert (longer.coef_ == fitted(strategy, 4).coef_).all()
    with pytest.raises(CheckpointError, match="in epoch 4 already and max_iter=3"):
        estimator(strategy, 3, checkpoint=tmp_path).fit(*lazy(), resume=True)


@pytest.mark.parametrize("at", [3, 8, 16])
def test_what_a_listener_stopped_goes_on(client, tmp_path, at):
    stopped = fitted(SSP(2, **CLOCK), 4, checkpoint=tmp_path, callbacks=[Die(at, StopTraining)])
    assert len(stopped.history_) == at
    clf = estimator(SSP(2, **CLOCK), 4, checkpoint=tmp_path).fit(*lazy(), resume=True)
    assert clf.n_iter_ == 4 and len(clf.history_) == 32


@pytest.mark.parametrize("strategy", [SSP(1, **CLOCK), SSP(1, n_replicas=4, clock_blocks=2)], ids=repr)
def test_a_validation_score_outlives_an_interruption(client, tmp_path, strategy):
    params = {"checkpoint": tmp_path, "checkpoint_every": "1 round", "early_stopping": True}
    rounds = len(fitted(strategy, 1, early_stopping=True).history_)
    with pytest.raises(ConnectionError):
        fitted(strategy, 3, callbacks=[Die(2 * rounds)], **params)
    clf = estimator(strategy, 3, **params).fit(*lazy(), resume=True)
    assert clf.n_iter_ == 3 and clf.history_["validation_score"].notna().sum() == 3


def test_other_rows_than_the_first_fit_had_are_noticed(client, tmp_path):
    fitted(SSP(1, **CLOCK), 1, checkpoint=tmp_path)
    frame = dd.from_dask_array(da.hstack([lazy()[0], lazy()[1][:, None]]))
    shorter = frame[frame[0] < 1]
    with pytest.raises(CheckpointError, match="is of another fit"):
        estimator(SSP(1, **CLOCK), 2, checkpoint=tmp_path).fit(
            shorter.values[:, :-1], shorter.values[:, -1], resume=True
        )


def test_staleness_0_does_not_depend_on_what_was_measured(client):
    fits = [fitted(SSP(0, n_replicas=4), 3) for _ in range(3)]
    assert all((fit.coef_ == fits[0].coef_).all() for fit in fits)


@pytest.mark.parametrize(
    "seen", [None, ["a task that ends this moment"], []], ids=["as it is", "all look busy", "none does"]
)
def test_a_long_task_of_the_users_holds_nothing_up(client, monkeypatch, seen):
    # Where the servers begin is decided by who is at work, which is known only of the moment before.
    processing, wrong = client.processing, [] if seen is None else [seen]
    monkeypatch.setattr(
        client, "processing", lambda: dict.fromkeys(client.nthreads(), wrong.pop()) if wrong else processing()
    )
    sleeping = client.submit(time.sleep, 8, workers=[min(client.nthreads())], pure=False)
    start = time.perf_counter()
    fitted(SSP(2, **CLOCK), 1)
    assert time.perf_counter() - start < 6
    assert not wrong
    sleeping.result()
