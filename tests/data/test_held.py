"""What is known of chunks that Dask holds in memory: used again for as long as they are there, and no longer."""

import dask.array as da
import numpy as np
import pytest
import scipy.sparse as sp

from daskdml.data import Block, HeldSpec, Target, as_dataset, release_abandoned, release_cache, stream
from daskdml.data import _recipe as recipes
from daskdml.data._held import HeldBlocks

Y = np.zeros(3, "f4")


@pytest.mark.parametrize("make", [lambda: np.ones((3, 20), "f4"), lambda: sp.csr_array(np.ones((3, 20), "f4"))])
def test_a_block_is_known_for_as_long_as_its_chunk_is_there(make):
    held, spec = HeldBlocks(), HeldSpec("t", lease="fit")
    chunk = make()
    held.remember(spec, Block(4, chunk, Y))
    found = held.get(spec, 4)
    assert found.X is chunk and found.y is Y and found.index == 4
    assert held.get(spec, 5) is None and held.get(HeldSpec("other"), 4) is None
    del chunk, found
    assert held.get(spec, 4) is None
    # Of a copy that was made for the block nothing is left at once.
    held.remember(spec, Block(1, make(), Y))
    assert held.get(spec, 1) is None


def test_nothing_is_known_after_the_end_of_a_fit_or_of_its_client():
    held, chunk = HeldBlocks(), np.ones((3, 20), "f4")
    spec = HeldSpec("t", lease="Client-1/fit")
    held.remember(spec, Block(4, chunk, Y))
    held.release("t", spec.lease)
    assert held.get(spec, 4) is None
    # A task that is late.
    held.remember(spec, Block(4, chunk, Y))
    assert held.get(spec, 4) is None
    other = HeldSpec("t", lease="Client-2/fit")
    held.remember(other, Block(4, chunk, Y))
    held.release_abandoned(["Client-2"])
    assert held.get(other, 4) is not None
    held.release_abandoned(["Client-1"])
    assert held.get(other, 4) is None


def test_codes_that_are_large_beside_their_chunk_are_made_each_time():
    held, spec, narrow = HeldBlocks(), HeldSpec("t"), np.ones((3, 2), "f4")
    held.remember(spec, Block(0, narrow, Y))
    assert held.get(spec, 0) is None


def test_chunks_are_checked_once_in_all_passes(monkeypatch):
    checked = []
    check = recipes.check_finite
    monkeypatch.setattr(recipes, "check_finite", lambda values, *rest: checked.append(1) or check(values, *rest))
    X = np.arange(200, dtype="f4").reshape(10, 20)
    labels = np.array(list("ab") * 5)
    data = as_dataset(
        da.from_array(X, chunks=(5, 20)),
        da.from_array(labels, chunks=5),
        target=Target(np.array(["a", "b"])),
    )
    spec = HeldSpec(data.token, "Client-1/fit")
    seen = []
    for _ in range(3):
        with stream(data, cache=spec) as blocks:
            seen.append([(block.X.sum(), block.y.tolist(), load.source) for block, load in blocks])
    assert [source for one in seen for *_, source in one] == ["recipe"] * 2 + ["memory"] * 4
    assert [one[:2] for one in seen[0]] == [one[:2] for one in seen[1]] == [one[:2] for one in seen[2]]
    assert len(checked) == 2
    release_cache(data.token, spec.lease)
    release_abandoned([])
    with stream(data, cache=spec) as blocks:
        assert [load.source for _, load in blocks] == ["recipe"] * 2
