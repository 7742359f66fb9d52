"""What only a card can show. Skipped without one; `make test-gpu` runs them."""

import os
import signal
import time

import dask.array as da
import numpy as np
import pytest
import scipy.sparse as sp
from distributed import Client, LocalCluster
from sklearn.linear_model import LogisticRegression

from daskdml import SSP, FullBatch
from daskdml.cluster import local
from daskdml.data import Block
from daskdml.linear_model import SGDClassifier, SGDRegressor
from daskdml.models import LinearModel
from daskdml.monitor import Callback
from daskdml.numerics import KINKED, LOSSES, BatchOrder, Settings, card

pytestmark = pytest.mark.gpu

CLASSES = [name for name, loss in LOSSES.items() if not loss.regression]
SMOOTH = [name for name in CLASSES if LOSSES[name].number not in KINKED]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20_000, 50)).astype("f4")
    return X, (X[:, :3].argmax(axis=1) + (rng.random(20_000) < 0.1)) % 3


def fitted(data, device, cls=SGDClassifier, **params):
    given = {"batch_size": 256, "max_iter": 3, "tol": None, "random_state": 0, "learning_rate": "adagrad"} | params
    return cls(device=device, **given).fit(*data)


def some(X, sparse):
    """The rows, or of them the larger values only."""
    return sp.csr_array(np.where(np.abs(X) > 1, X, 0)) if sparse else X


def apart(a, b):
    return np.abs(a.coef_ - b.coef_).max() / np.abs(b.coef_).max()


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("loss", CLASSES)
def test_every_loss_gives_the_cpus_numbers(data, loss, sparse):
    X = some(data[0], sparse)
    there, here = (fitted((X, data[1]), device, loss=loss) for device in ("cuda", "cpu"))
    assert there.history_["gpu_replicas"].tolist() == [1, 1, 1]
    assert apart(there, here) < 1e-4
    assert np.allclose(there.history_["objective"], here.history_["objective"], rtol=1e-4)


@pytest.mark.parametrize("params", [{"penalty": "l1"}, {"penalty": "elasticnet"}, {"average": 1000}], ids=str)
def test_penalties_and_means(data, params):
    params = {"learning_rate": "constant", "eta0": 0.01, "loss": "log_loss"} | params
    assert apart(fitted(data, "cuda", **params), fitted(data, "cpu", **params)) < 1e-4


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("batch", [300, 20_000])
def test_the_same_bits_again(data, batch, sparse):
    X = some(data[0], sparse)
    first, second = (fitted((X, data[1]), "cuda", batch_size=batch).coef_ for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("d", [33, 300, 3000])
@pytest.mark.parametrize("batch", [100, 50_000])
def test_one_problem_of_short_and_long_rows_in_short_and_long_batches(batch, d):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60_001, d), dtype="f4")[: 60_001 if d < 3000 else 6_001]
    given = X, X[:, 0] + rng.standard_normal(len(X), dtype="f4") > 0
    params = {"batch_size": batch, "loss": "log_loss", "max_iter": 2}
    there, again, here = (fitted(given, device, **params) for device in ("cuda", "cuda", "cpu"))
    assert np.array_equal(there.coef_, again.coef_)
    assert apart(there, here) < 1e-4
    assert np.allclose(there.history_["objective"], here.history_["objective"], rtol=1e-5)


def test_a_regression(data):
    given = data[0], data[0][:, 0] * 2 + 1
    assert apart(fitted(given, "cuda", SGDRegressor), fitted(given, "cpu", SGDRegressor)) < 1e-4


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
@pytest.mark.parametrize("loss", SMOOTH)
def test_full_batch_descents_end_where_those_of_the_cpu_do(data, loss, solver, sparse):
    params = {"loss": loss, "strategy": FullBatch(solver=solver, gtol=1e-7), "batch_size": "auto", "max_iter": 300}
    given = some(data[0].astype(float), sparse), data[1]
    there, here = (fitted(given, device, class_weight="balanced", **params) for device in ("cuda", "cpu"))
    assert set(there.history_["gpu_replicas"]) == {1}
    assert apart(there, here) < 1e-5
    assert there.history_["objective"].iloc[-1] == pytest.approx(here.history_["objective"].iloc[-1], rel=1e-9)
    assert abs(there.n_iter_ - here.n_iter_) <= 3


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
def test_a_full_batch_descent_reaches_scikit_learns_optimum(data, solver, dtype):
    X, y = data[0].astype(dtype), data[1] > 0
    gtol = 1e-4 if dtype == "f4" else 1e-8
    params = {"loss": "log_loss", "alpha": 1e-3, "strategy": FullBatch(solver=solver, gtol=gtol), "batch_size": "auto"}
    there, again = (fitted((X, y), "cuda", max_iter=300, **params) for _ in range(2))
    assert np.array_equal(there.coef_, again.coef_)
    plain = LogisticRegression(C=1 / (1e-3 * len(y)), tol=1e-12, solver="newton-cholesky").fit(X.astype(float), y)
    assert apart(there, plain) < (1e-3 if dtype == "f4" else 1e-5)


@pytest.mark.parametrize("params", [{"curved": True}, {"curved": True, "rows": 4}, {"scaled": True}], ids=str)
@pytest.mark.parametrize("mode", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("d", [33, 130, 300])
def test_sums_of_a_full_batch_pass_are_those_of_the_cpu(d, sparse, dtype, mode, params):
    rng = np.random.default_rng(0)
    n, k = 20_001, 3 if mode > 1 else 1
    X, y = rng.standard_normal((n, d)).astype(dtype), rng.integers(0, max(2, k), n).astype(dtype)
    settings = Settings(LOSSES["multinomial" if mode == 3 else "log_loss"].number, mode)
    model = LinearModel(settings, k, d, np.dtype(dtype), np.full(k, 1.5), np.ones(k))
    state = model.unflat(0.1 * rng.standard_normal(model.flat(model.init()).shape), model.init())
    block = Block(0, some(X, sparse), y, rng.random(n).astype(dtype))
    rows, on, found = params.get("rows"), np.ones(model.n_problems, dtype=bool), []
    for where in (block, card().put(block), card().put(block)):
        sums = model.zero_sums(state, params.get("curved", False), params.get("scaled", False))
        sample = None if rows is None else model.sample(None, rows, 3)
        for order in (BatchOrder(n, None)[:9_000], np.arange(9_000, n, dtype=np.int32)):
            model.add_sums(state, where, order, on, sums, sample)
        found.append(sums)
    for name, here, there, again in zip(found[0]._fields, *found, strict=True):
        assert np.array_equal(there, again), name
        # Of some rows, one that is kept by one side only, for its chance is rounded, may add a thousandth.
        near = 2e-3 if name == "hessian" and rows else 1e-5 if dtype == "f4" else 1e-11
        if here.size:
            assert np.abs(there - here).max() <= near * np.abs(here).max(), name


@pytest.fixture(scope="module")
def workers():
    with local(gpus=True, dashboard_address="127.0.0.1:0") as client:
        yield client


@pytest.mark.parametrize("strategy", ["averaging", "bsp", "full_batch"])
@pytest.mark.parametrize("memory", [None, "1MB", 0])
def test_blocks_that_stay_and_blocks_that_stream_give_the_same_bits(data, workers, strategy, memory):
    lazy = da.from_array(data[0], chunks=(2_000, 50)), da.from_array(data[1], chunks=2_000)
    given = {"strategy": strategy, "batch_size": 256 if strategy == "averaging" else "auto", "loss": "log_loss"}
    clf = fitted(lazy, "cuda", device_memory=memory, **given)
    assert np.array_equal(clf.coef_, fitted(lazy, "cuda", **given).coef_)
    assert (clf.history_["blocks_from_device"].sum() > 0) == (memory != 0)


def test_arrays_of_cupy_stay_where_they_are(data, workers):
    cupy = pytest.importorskip("cupy")
    lazy = da.from_array(data[0], chunks=(2_000, 50)), da.from_array(data[1], chunks=2_000)
    there = lazy[0].map_blocks(cupy.asarray, meta=cupy.empty((0, 0), "f4"))
    expected = fitted(lazy, "cuda")
    clf = fitted((there, lazy[1]), "cuda")
    assert np.array_equal(clf.coef_, expected.coef_)
    # Scores are made on the card, in its own order of sums.
    assert np.mean(np.asarray(clf.predict(there)) == expected.predict(data[0])) > 0.999
    assert apart(fitted((there, lazy[1]), "cpu"), expected) < 1e-4


class _Kill(Callback):
    """Ends a worker process in the third clock."""

    def __init__(self, client):
        self.client = client
        self.killed = None

    def on_round_end(self, event):
        if event.round == 3 and self.killed is None:
            address, self.killed = next(iter(self.client.run(os.getpid).items()))
            os.kill(self.killed, signal.SIGKILL)


def test_ssp_goes_on_when_one_of_two_workers_on_one_card_is_killed(data):
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        with Client(cluster) as client:
            client.wait_for_workers(2)
            lazy = da.from_array(data[0], chunks=(1_000, 50)), da.from_array(data[1], chunks=1_000)
            given = {"strategy": SSP(2, n_replicas=2), "max_iter": 8, "loss": "log_loss"}
            kill = _Kill(client)
            clf = fitted(lazy, "cuda", callbacks=[kill], **given)
            undisturbed = fitted(lazy, "cuda", **given)
    assert kill.killed is not None
    assert clf.history_["gpu_replicas"].max() == 2
    assert clf.score(*data) == pytest.approx(undisturbed.score(*data), abs=0.02)


def test_a_block_comes_while_a_kernel_runs(data):
    """Moving from another thread does not wait for the kernel: both together take less than one after the other."""
    from concurrent.futures import ThreadPoolExecutor

    from daskdml.numerics import init_state, row_order

    X = np.random.default_rng(0).standard_normal((2_000_000, 50), dtype="f4")
    block, here = Block(0, X, np.zeros(len(X), "f4")), card()
    there, settings = here.put(block), Settings(LOSSES["log_loss"].number, 1)
    state, order = init_state(1, 50, np.dtype("f4"), settings), row_order(len(X), 0)
    sides, active = (np.ones(1), np.ones(1)), np.ones(1, dtype=bool)

    def train():
        here.train(there, order, state, settings, sides, active, 256)

    def seconds(*work):
        start = time.perf_counter()
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(part) for part in work]:
                done.result()
        return time.perf_counter() - start

    seconds(train)
    alone = seconds(train), seconds(lambda: here.put(block))
    assert seconds(train, lambda: here.put(block)) < 0.9 * sum(alone)
