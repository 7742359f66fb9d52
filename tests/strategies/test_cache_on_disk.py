"""Which fits keep blocks, in memory or in files: those that read them again."""

import dask.array as da
import numpy as np
import pytest

from daskdml import BSP, Averaging
from daskdml.linear_model import SGDClassifier


def kept_by(client, **params):
    """How many bytes of blocks the workers had at most in memory, and in files, during a fit."""
    X = da.random.default_rng(0).random((400, 3), chunks=(50, 3))
    y = da.from_array(np.arange(400) % 2, chunks=50)
    fitted = SGDClassifier(**{"loss": "log_loss", "tol": None, "random_state": 0} | params).fit(X, y)
    return fitted.replicas_["cache_memory_bytes"].max(), fitted.replicas_["cache_disk_bytes"].max()


@pytest.mark.parametrize("strategy", [Averaging(2), Averaging(2, outer_momentum=0.5)], ids=["plain", "with momentum"])
@pytest.mark.parametrize("memory", [None, 0])
def test_one_pass_keeps_nothing(client, strategy, memory):
    assert kept_by(client, strategy=strategy, max_iter=1, memory_budget=memory) == (0, 0)


@pytest.mark.parametrize(
    "params",
    [
        {"max_iter": 2},
        {"max_iter": 1, "early_stopping": True},
        {"max_iter": 1, "strategy": Averaging(2, rounds_per_epoch=3)},
        {"max_iter": 1, "strategy": BSP(2)},
        {"max_iter": 1, "strategy": "ssp"},
        {"max_iter": 2, "strategy": "full_batch"},
    ],
    ids=["two", "then scores rows", "in rounds", "bsp", "ssp", "full batch"],
)
def test_what_reads_blocks_again_keeps_them(client, params):
    in_memory, in_files = kept_by(client, memory_budget=0, **params)
    assert in_memory == 0 and in_files > 0
    in_memory, in_files = kept_by(client, **params)
    assert in_memory > 0 and in_files == 0


def test_parts_of_a_stream_are_not_kept(client):
    clf = SGDClassifier("log_loss", memory_budget=0, random_state=0)
    for part in range(2):
        X = da.random.default_rng(part).random((400, 3), chunks=(50, 3))
        clf.partial_fit(X, da.from_array(np.arange(400) % 2, chunks=50), classes=[0, 1])
        assert clf.replicas_["cache_disk_bytes"].max() == 0
