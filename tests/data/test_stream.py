"""Walking blocks: in order, one ahead, errors where they are due, no thread left."""

import gc
import threading
import weakref
from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest

from daskdml.data import Block, CacheSpec, MemoryPlan, Target, as_dataset, cache_usage, release_cache, stream
from daskdml.data import _stream as stream_module
from tests.data.containers import P, X, Y


class Recorded:
    """Recipes that note when they run, and how many of their blocks exist."""

    def __init__(self, n, fail_at=None):
        self.made = []
        self.changed = threading.Condition()
        self.fail_at = fail_at
        self.recipes = [One(self, i) for i in range(n)]

    def wait_for(self, n):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.made) >= n, timeout=30)


class One:
    def __init__(self, all_of_them, index):
        self.all, self.index, self.rows = all_of_them, index, 1

    def resolve(self, inputs=()):
        if self.index == self.all.fail_at:
            raise ValueError(f"block {self.index} is bad")
        with self.all.changed:
            self.all.made.append(self.index)
            self.all.changed.notify_all()
        return Block(self.index, np.full((1, 1), float(self.index)))


def prefetching():
    return [t for t in threading.enumerate() if t.name == "daskdml-prefetch"]


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_blocks_come_in_order(prefetch):
    data = Recorded(7)
    with stream(data, prefetch=prefetch) as blocks:
        found = [(b.index, load.source, load.nbytes) for b, load in blocks]
    assert found == [(i, "recipe", 8) for i in range(7)]
    assert not prefetching()


def test_the_next_block_is_made_while_the_present_one_is_used_and_no_more():
    data = Recorded(5)
    with stream(data) as blocks:
        data.wait_for(1)
        for n, _ in enumerate(blocks, start=1):
            data.wait_for(min(n + 1, 5))
            assert len(data.made) <= n + 1


def test_without_prefetch_nothing_is_made_ahead_and_there_is_no_thread():
    data = Recorded(3)
    with stream(data, prefetch=0) as blocks:
        for n, _ in enumerate(blocks, start=1):
            assert len(data.made) == n
            assert not prefetching()


@pytest.mark.parametrize("prefetch", [0, 1])
def test_an_error_is_raised_where_the_block_is_due(prefetch):
    seen = []
    with pytest.raises(ValueError, match="block 2 is bad"), stream(Recorded(5, fail_at=2), prefetch=prefetch) as blocks:
        for block, _ in blocks:
            seen.append(block.index)
    assert seen == [0, 1]
    assert not prefetching()


def test_leaving_early_ends_the_thread():
    data = Recorded(100)
    with stream(data) as blocks:
        next(blocks)
    assert not prefetching()
    assert len(data.made) <= 3
    with pytest.raises(RuntimeError, match="the caller's"), stream(Recorded(100)) as blocks:
        next(blocks)
        raise RuntimeError("the caller's own")
    assert not prefetching()
    assert next(blocks, None) is None


def test_inputs_are_used_and_let_go(client):
    data = as_dataset(da.from_array(X, chunks=(6, P)).map_blocks(np.copy).rechunk((5, P)), Y, target=Target())
    inputs = {i: tuple(client.gather(list(data.inputs(client, i)))) for i in range(data.n_blocks)}
    with stream(data, inputs) as blocks:
        np.testing.assert_array_equal(np.concatenate([b.X for b, _ in blocks]), X)
    with pytest.raises(ValueError, match="block 0 needs 1 inputs but got 0"), stream(data) as blocks:
        next(blocks)


def test_a_cached_block_needs_no_inputs(client):
    data = as_dataset(da.from_array(X, chunks=(6, P)).map_blocks(np.copy).rechunk((5, P)), target=None)
    inputs = {i: tuple(client.gather(list(data.inputs(client, i)))) for i in range(data.n_blocks)}
    spec = CacheSpec(data.token, 10**6)
    for given in (inputs, None):
        with stream(data, given, cache=spec) as blocks:
            np.testing.assert_array_equal(np.concatenate([b.X for b, _ in blocks]), X)
    assert cache_usage(data.token)["memory_blocks"] == data.n_blocks
    release_cache(data.token)


def test_a_block_that_turns_out_too_large_is_refused():
    plan = MemoryPlan(cache_bytes=0, max_block_bytes=300, need_bytes=None, limit_bytes=4096, row_bytes=40)
    unknown = da.from_array(X, chunks=(12, P)).map_blocks(np.copy)
    with pytest.raises(ValueError, match=r"block 0 needs .* but a worker has 4.00 kiB; rechunk X to at most \d+ rows"):
        with stream(as_dataset(unknown, target=None), plan=plan) as blocks:
            next(blocks)


def test_no_memory_left_names_the_block():
    class Greedy(One):
        def resolve(self, inputs=()):
            raise MemoryError("cannot allocate")

    with pytest.raises(MemoryError, match="block 3 does not fit in memory .*rechunk X"):
        with stream([Greedy(None, 3)]) as blocks:
            next(blocks)


def test_prefetch_must_not_be_negative():
    with pytest.raises(ValueError, match="prefetch must be at least 0, got -1"):
        stream([], prefetch=-1)


@pytest.mark.parametrize("limit", [0, 10**9])
def test_a_stream_that_is_over_holds_no_memory(limit, tmp_path, monkeypatch):
    worker = SimpleNamespace(local_directory=tmp_path, memory_manager=SimpleNamespace(memory_limit=limit))
    monkeypatch.setattr(stream_module, "_worker", lambda: worker)
    monkeypatch.setattr(stream_module, "settle", lambda worker: None)
    gc.disable()
    try:
        walk = stream(Recorded(3))
        with walk as blocks:
            assert len([b.index for b, _ in blocks]) == 3
        over = weakref.ref(walk)
        # Also without looking for cycles: of gigabytes a few are left for long enough.
        del walk, blocks
        assert over() is None
    finally:
        gc.enable()
