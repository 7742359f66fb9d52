"""Blocks that no worker can hold: refused before anything is read, or named when they end a worker."""

import dask
import dask.array as da
import numpy as np
import pytest

from daskdml.data import WorkerMemory
from daskdml.linear_model import SGDClassifier, SGDRegressor

MB = 2**20


@pytest.fixture
def small_workers(client, monkeypatch):
    """The workers inside this process, as if each were one of its own with a limit."""
    addresses = list(client.nthreads())
    memory = WorkerMemory(
        dict.fromkeys(addresses, 700 * MB), dict.fromkeys(addresses, 250 * MB), dict.fromkeys(addresses, 1)
    )
    for user in ("data._dataset", "strategies._limits"):
        monkeypatch.setattr(f"daskdml.{user}.worker_memory", lambda client: memory)
    return client


def unreadable(n, chunk):
    def read(block):
        raise AssertionError("this was read")

    return da.zeros(n, chunks=chunk).map_blocks(read, dtype=float, meta=np.empty(0))


@pytest.mark.parametrize("estimator", [SGDClassifier, SGDRegressor])
def test_what_cannot_fit_is_refused_before_labels_are_read(small_workers, estimator):
    X = da.zeros((20_000_000, 5), chunks=(10_000_000, 5))
    with pytest.raises(ValueError, match=r"^block 0 needs .* but a worker has 700.00 MiB; rechunk X to at most \d+ ro"):
        estimator().fit(X, unreadable(20_000_000, 10_000_000))
    X = da.zeros((40_000_000, 5), chunks=(100_000, 5))
    with pytest.raises(ValueError, match=r"^block 0 of y needs .* rechunk y to at most \d+ rows a block"):
        estimator().fit(X, unreadable(40_000_000, 20_000_000))


def test_a_budget_that_workers_do_not_have_is_named(small_workers):
    X = da.zeros((200, 5), chunks=(100, 5))
    message = r"^memory_budget='900MB' is more than .* of its limit of 700.00 MiB.* memory_budget of at most \d+ bytes"
    with pytest.raises(ValueError, match=message) as error:
        SGDClassifier(memory_budget="900MB").fit(X, unreadable(200, 100))
    fits = int(str(error.value).split("at most ")[1].split()[0])
    y = da.arange(200, chunks=100) % 2
    # A little less, for the model, which is not known when the labels are not.
    SGDClassifier(memory_budget=fits - 1000, max_iter=1, tol=None).fit(X, y)
    with pytest.raises(ValueError, match="^memory_budget="):
        SGDClassifier(memory_budget=fits + 1).fit(X, y)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("budget", ["lots", "-3MB"])
def test_a_budget_that_is_none_is_refused_wherever_data_are(lazy, budget):
    X, y = np.ones((4, 2)), np.arange(4) % 2
    X, y = (da.from_array(X), da.from_array(y)) if lazy else (X, y)
    for estimator in (SGDClassifier, SGDRegressor):
        with pytest.raises(ValueError, match=rf"^memory_budget must .* got '{budget}'"):
            estimator(memory_budget=budget).fit(X, y)


def hoard(block, block_info=None):
    """Blocks of a length that is not known before they are made; one takes more memory than the worker has."""
    if block_info[None]["chunk-location"][0] == 3:
        kept = []
        while True:
            kept.append(np.random.default_rng(0).random(500_000))
    return block


def of_unknown_length(array):
    chunks = ((float("nan"),) * array.numblocks[0], *array.chunks[1:])
    return da.Array(array.dask, array.name, chunks, meta=array._meta)


@pytest.mark.slow
@pytest.mark.parametrize("counted", [True, False])
def test_a_block_that_ends_its_worker_is_named(process_client, counted):
    with dask.config.set({"distributed.scheduler.allowed-failures": 2}):
        process_client(2, memory_limit="500MB")
        X = da.ones((800, 5), chunks=(100, 5))
        y = da.arange(800, chunks=100) % 2
        if counted:
            y = of_unknown_length(y.map_blocks(hoard, dtype=int, meta=np.empty(0, int)))
        else:
            X = of_unknown_length(X.map_blocks(hoard, dtype=float, meta=np.empty((0, 5))))
        # Dask holds the end of a worker against all tasks that were there: the block may be one beside it.
        name = r"block \d of y, or another that was on the same worker" if counted else "block 3"
        with pytest.raises(RuntimeError, match=rf"^workers died \d times while making {name}.*rechunk or repart.*MiB"):
            SGDClassifier(max_iter=2).fit(X, y)


def test_counting_labels_does_not_wait_for_paused_workers(process_client, pause, monkeypatch):
    monkeypatch.setattr("daskdml.data._waiting.PATIENCE", 1.0)
    # It takes paused workers for none.
    monkeypatch.setattr("daskdml.linear_model._training.check_workers", lambda client: None)
    client = process_client(1)
    pause(client)
    X = da.ones((800, 5), chunks=(100, 5))
    with pytest.raises(RuntimeError, match="every worker has been paused by Dask for 1 s"):
        SGDClassifier(max_iter=2).fit(X, da.arange(800, chunks=100) % 2)
