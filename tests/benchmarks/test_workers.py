"""The sides of the benchmark of workers see the same rows, and the plain loop learns from them."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import sparse

from benchmarks import workers
from benchmarks._parts import COMPUTING, DRIVER, PARTS, parts_cpu
from benchmarks.workers import (
    LOOPS,
    ONE,
    READ,
    ROWS,
    SKLEARN,
    THREADS,
    TWO,
    Rows,
    loop_seconds,
    read_seconds,
    rows_seconds,
    text,
)
from daskdml.cluster import local


@pytest.mark.parametrize("is_sparse", [False, True], ids=["dense", "sparse"])
def test_blocks_on_workers_are_the_rows_here(is_sparse, tmp_path):
    rows = Rows(160, is_sparse, str(tmp_path))
    X, y = rows.here()
    lazy_X, lazy_y = rows.lazy()
    blocks = [lazy_X.blocks[k].compute(scheduler="synchronous") for k in range(workers.BLOCKS)]
    made = sparse.vstack(blocks).toarray() if is_sparse else np.concatenate(blocks)
    np.testing.assert_array_equal(made, X.toarray() if is_sparse else X)
    np.testing.assert_array_equal(lazy_y.compute(scheduler="synchronous"), y)


@pytest.mark.parametrize("loss", LOOPS)
def test_the_plain_loop_learns(loss, tmp_path):
    X, y = Rows(16_000, False, str(tmp_path)).here()
    w = np.zeros(X.shape[1], np.float32)
    order = np.arange(len(y), dtype=np.int32)
    LOOPS[loss](X, np.where(y > 0, 1, -1).astype(np.float32), order, w, np.float32(0.01), np.float32(1))
    assert ((X @ w > 0) == y).mean() > 0.9


def test_threads_share_the_work(tmp_path):
    X, y = Rows(1600, False, str(tmp_path)).here()
    with ThreadPoolExecutor(2) as pool:
        assert loop_seconds(pool, 2, X, y, "log_loss", True) > 0
        assert read_seconds(pool, 2, X) > 0
        assert read_seconds(pool, 2, sparse.csr_matrix(X)) > 0


def test_what_is_wanted_is_said_beside_what_was_seen():
    seconds = {ONE: 2.0, TWO: 1.0, THREADS: 1.1, SKLEARN: 9.0, READ.format(1): 0.2, READ.format(2): 0.1}
    seconds |= {ROWS.format(1): 1.5, ROWS.format(2): 0.5}
    case = {
        "case": "CSR, log_loss, shuffled",
        "rows": 10,
        "nbytes": 80,
        "seconds": {k: [v] for k, v in seconds.items()},
        "cpu": {side: {part: [0.1] for part in PARTS} | {COMPUTING: [1.5]} for side in (ONE, TWO, THREADS)},
    }
    told = text({"cases": [case]})
    assert "two workers are 2.00 times as fast as one" in told
    assert "rows in that order 3.00 times; one worker is at 75% of what one thread reads so" in told
    assert "9.0 times the speed; wanted 4" in told
    # Of 2 processors in 1 s, tasks had 1.5 and four others 0.1 each.
    assert "| 2000.0 | 100.0 (5%) |" in told
    assert "| 1500.0 (75%) | 100.0 (5%) | 100.0 (5%) | 1.00 |" in told


def test_the_cpu_time_of_an_epoch_is_told_apart():
    def busy(seconds):
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    with local(1, dashboard_address="127.0.0.1:0", set_as_default=False) as client:
        before = parts_cpu(client)
        client.submit(busy, 0.3, pure=False).result()
        between = parts_cpu(client)
        busy(0.3)
        after = parts_cpu(client)
    assert 0.25 < between[COMPUTING] - before[COMPUTING] < 0.6
    assert after[COMPUTING] - between[COMPUTING] < 0.05
    assert 0.25 < after[DRIVER] - between[DRIVER] < 0.6
    assert all(after[part] >= before[part] - 0.05 for part in PARTS)


@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_each_row_is_read_once(monkeypatch, is_sparse, shuffle, tmp_path):
    X, y = Rows(320, is_sparse, str(tmp_path)).here()
    seen = []
    for name in ("read_rows", "read_dense_rows"):
        monkeypatch.setattr(workers, name, lambda rows, y, order: seen.append(order))
    with ThreadPoolExecutor(2) as pool:
        rows_seconds(pool, 2, X, y, shuffle)
    assert sorted(np.concatenate(seen).tolist()) == list(range(320))
    assert all((np.diff(order) > 0).all() != shuffle for order in seen)
