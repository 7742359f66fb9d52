"""Who gets how much memory: arithmetic, without a cluster."""

import dask.array as da
import numpy as np
import pytest

from daskdml.data import Block, Schema, as_dataset, plan_memory, worker_memory

MB = 2**20
SCHEMA = Schema(100, np.dtype("float32"))


def test_the_cache_gets_what_is_left_under_half_of_the_limit():
    plan = plan_memory(SCHEMA, 10_000, 0, [700 * MB], 250 * MB)
    assert plan.need_bytes == 3 * 10_000 * 102 * 4
    assert plan.cache_bytes == 350 * MB - 250 * MB - plan.need_bytes
    assert plan.cache_bytes + plan.need_bytes + 250 * MB <= 0.6 * 700 * MB


def test_the_smallest_worker_decides():
    limits, sizes = {"a": 2000 * MB, "b": 800 * MB}, {"a": 200 * MB, "b": 200 * MB}
    plan = plan_memory(SCHEMA, 1000, 0, limits, sizes, threads={"a": 1, "b": 1})
    assert plan.limit_bytes == 800 * MB
    assert plan.cache_bytes < 200 * MB


def test_more_replicas_in_a_process_leave_less():
    one, four = (plan_memory(SCHEMA, 10_000, MB, [2000 * MB], 200 * MB, threads=k) for k in (1, 4))
    assert four.need_bytes == 4 * one.need_bytes
    assert four.cache_bytes < one.cache_bytes
    assert four.max_block_bytes < one.max_block_bytes // 3


def test_a_block_that_does_not_fit_is_refused_with_a_size_that_does():
    with pytest.raises(ValueError, match="block 17 needs .* but a worker has 700.00 MiB; rechunk X to") as error:
        plan_memory(SCHEMA, 10**6, 0, [700 * MB], 250 * MB, largest=17)
    rows = int(str(error.value).split("at most ")[1].split()[0])
    assert plan_memory(SCHEMA, rows, 0, [700 * MB], 250 * MB).max_block_bytes >= rows * 102 * 4
    with pytest.raises(ValueError, match="rechunk X"):
        plan_memory(SCHEMA, rows + 1, 0, [700 * MB], 250 * MB)


def test_a_row_that_does_not_fit():
    with pytest.raises(ValueError, match="a single row does not fit"):
        plan_memory(Schema(10**9, np.dtype("float64")), 1, 0, [700 * MB], 250 * MB)


def test_a_model_that_does_not_fit():
    with pytest.raises(ValueError, match="give workers more memory, or fewer threads"):
        plan_memory(SCHEMA, None, 300 * MB, [700 * MB], 250 * MB)
    with pytest.raises(ValueError, match="memory_budget='600MiB' is more than"):
        plan_memory(SCHEMA, None, 0, [700 * MB], 250 * MB, budget="600MiB")


def test_a_budget_is_honoured_or_refused():
    assert plan_memory(SCHEMA, 100, 0, [700 * MB], 250 * MB, budget="50MiB").cache_bytes == 50 * MB
    assert plan_memory(SCHEMA, 100, 0, [700 * MB], 250 * MB, budget=0).cache_bytes == 0
    assert plan_memory(SCHEMA, 100, 0, [None], budget=123).cache_bytes == 123
    with pytest.raises(ValueError, match="memory_budget must not be negative"):
        plan_memory(SCHEMA, 100, 0, [None], budget=-1)


def test_what_is_wanted_beside_is_the_caches_where_there_is_room():
    without, some, much = (
        plan_memory(SCHEMA, 100, 0, [700 * MB, 800 * MB], 250 * MB, beside=n * MB) for n in (0, 60, 600)
    )
    assert some.has_beside and some.cache_bytes == without.cache_bytes - 60 * MB
    assert not much.has_beside and much.cache_bytes == without.cache_bytes
    # A budget that was given is kept to, and what it leaves counts.
    assert plan_memory(SCHEMA, 100, 0, [700 * MB], 250 * MB, budget="20MiB", beside=60 * MB).has_beside
    given = plan_memory(SCHEMA, 100, 0, [700 * MB], 250 * MB, budget="90MiB", beside=60 * MB)
    assert not given.has_beside and given.cache_bytes == 90 * MB


def test_without_limits_there_is_room_for_all_that_is_wanted():
    assert plan_memory(SCHEMA, 100, 0, [None, 0], beside=600 * MB).has_beside


def test_unknown_rows_are_checked_when_a_block_is_made():
    plan = plan_memory(SCHEMA, None, 0, [700 * MB], 250 * MB)
    assert plan.need_bytes is None
    rows = plan.max_block_bytes // 400
    plan.check(Block(0, np.empty((rows, 100), np.float32)))
    with pytest.raises(ValueError, match=f"block 3 needs .* rechunk X to at most {rows} rows a block"):
        plan.check(Block(3, np.empty((rows + 1, 100), np.float32)))


def test_without_limits_nothing_is_refused():
    plan = plan_memory(SCHEMA, 10**9, 0, [None, 0])
    assert plan.max_block_bytes is None
    plan.check(Block(0, np.empty((10, 100), np.float32)))


def test_a_cluster_without_workers():
    with pytest.raises(ValueError, match="the cluster has no workers"):
        plan_memory(SCHEMA, 1, 0, {})


def test_workers_tell_their_limits_sizes_and_threads(client):
    memory = worker_memory(client)
    assert set(memory.limits.values()) == {None}
    assert list(memory.threads.values()) == [1, 1]
    # Both live in this process, whose size is counted once.
    assert 50 * MB < sum(memory.baselines.values()) < 64 * 2**30
    assert memory.limits.keys() == memory.baselines.keys() == memory.threads.keys()


def test_joining_column_chunks_is_checked_against_the_workers(process_client):
    client = process_client(1, memory_limit="400MB")
    wide = da.ones((2_400_000, 20), chunks=(1_200_000, 10))
    with pytest.raises(ValueError, match="block 0 needs 366.21 MiB but a worker has 381.47 MiB; joining its column"):
        as_dataset(wide, target=None, client=client)
    assert as_dataset(wide.rechunk((20_000, 10)), target=None, client=client).n_blocks == 120
