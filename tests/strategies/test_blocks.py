"""What a long-running replica keeps of blocks that no cache has."""

import numpy as np
import pytest

from daskdml.data import Block, CacheSpec, HeldSpec, MemoryPlan, release_cache
from daskdml.strategies import _blocks
from daskdml.strategies._blocks import BlockReader
from daskdml.strategies._work import Blocks

NBYTES = 80


class Counted:
    rows = 10

    def __init__(self, index, made):
        self.index, self.made = index, made

    def resolve(self, inputs=()):
        self.made.append(self.index)
        return Block(self.index, np.full((10, 1), float(self.index)))


def read(monkeypatch, cache, cache_bytes, passes=2, kept=0):
    """The blocks that are made in some passes over four."""
    monkeypatch.setattr(_blocks, "_KEPT_BYTES", kept)
    made = []
    plan = MemoryPlan(cache_bytes, None, None, None, 8)
    reader = BlockReader(Blocks({i: Counted(i, made) for i in range(4)}, cache=cache, plan=plan))
    for _ in range(passes):
        for index in range(4):
            assert reader.get(index).X[0, 0] == index
    reader.close()
    return made


@pytest.mark.parametrize("cache", [None, HeldSpec("held")])
def test_with_memory_planned_for_a_cache_each_is_made_once(monkeypatch, cache):
    assert read(monkeypatch, cache, 4 * NBYTES) == [0, 1, 2, 3]
    # One less, and of blocks that come round each is gone just before its turn.
    assert read(monkeypatch, cache, 3 * NBYTES) == [0, 1, 2, 3] * 2
    assert read(monkeypatch, cache, 0) == [0, 1, 2, 3] * 2
    assert read(monkeypatch, cache, 0, kept=4 * NBYTES) == [0, 1, 2, 3]
    release_cache("held")


def test_what_is_in_a_cache_is_not_kept_twice(monkeypatch):
    cache = CacheSpec("cached", memory_bytes=0, disk_bytes=0)
    assert read(monkeypatch, cache, 4 * NBYTES) == [0, 1, 2, 3] * 2
    release_cache("cached")
