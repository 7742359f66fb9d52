"""Which blocks are made independently, and which inputs the others get."""

import collections
import pickle
import threading

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pytest

from daskdml.data import Target, as_dataset
from daskdml.data._graph import materialise, repeats
from tests.data.containers import DF, N, P, X, Y, dense


def chunks(rows=6):
    return da.from_array(X, chunks=(rows, P)).map_blocks(np.copy)


def resolved(data, client):
    made = []
    for recipe in data.recipes:
        # Through a task, as a fit does it: Dask must not look for keys in a recipe.
        made.append(client.submit(_resolve, [recipe], list(data.inputs(client, recipe.index))).result())
    return made


def _resolve(recipes, inputs):
    return recipes[0].resolve(inputs)


def assert_rows(data, client, wanted=X):
    np.testing.assert_allclose(np.concatenate([dense(b.X) for b in resolved(data, client)]), wanted, atol=1e-12)


def test_merging_whole_chunks_shares_nothing(client):
    data = as_dataset(chunks(3).rechunk((6, P)), target=None)
    assert data.self_contained
    assert_rows(data, client)


def test_rechunked_rows_come_from_the_cluster(client):
    data = as_dataset(chunks().rechunk((5, P)), Y, target=Target())
    assert not data.self_contained
    assert [len(r.given) for r in data.recipes] == [1] * 5
    assert_rows(data, client)


def test_only_the_part_that_shares_work_is_given(client):
    data = as_dataset(chunks(), da.from_array(Y, chunks=5).map_blocks(np.copy), target=Target())
    assert [len(r.given) for r in data.recipes] == [1] * 4
    made = resolved(data, client)
    np.testing.assert_array_equal(np.concatenate([b.y for b in made]), Y)


CALLS = collections.Counter()
ASKED = threading.Event()
ASKED.set()


def counted(block, block_info=None):
    """Found by name in the worker, which shares this process: a function inside a test would be copied there."""
    assert ASKED.wait(60)
    CALLS[block_info[0]["chunk-location"]] += 1
    return block


def test_shared_work_is_done_once_for_blocks_asked_for_together(client):
    CALLS.clear()
    lazy = da.from_array(X, chunks=(6, P)).map_blocks(counted, dtype=float, meta=np.empty((0, 0)))
    data = as_dataset(lazy.rechunk((5, P)), target=None)
    # What is computed and not wanted any more is forgotten: nothing is, before the last block was asked for.
    ASKED.clear()
    try:
        inputs = [data.inputs(client, i) for i in range(data.n_blocks)]
    finally:
        ASKED.set()
    made = [r.resolve(client.gather(list(inputs[r.index]))) for r in data.recipes]
    np.testing.assert_array_equal(np.concatenate([b.X for b in made]), X)
    assert len(CALLS) == 4
    assert set(CALLS.values()) == {1}


def test_a_mean_over_all_rows_is_computed_once_and_kept(client):
    CALLS.clear()
    lazy = da.from_array(X, chunks=(6, P)).map_blocks(counted, dtype=float, meta=np.empty((0, 0)))
    data = as_dataset(lazy - lazy.mean(axis=0), target=None)
    assert [len(r.given) for r in data.recipes] == [1] * 4
    for _ in range(2):
        assert_rows(data, client, X - X.mean(axis=0))
    # Each chunk once for the mean, and once in either walk.
    assert list(CALLS.values()) == [3] * 4


def assert_shuffled(client, method):
    with dask.config.set({"dataframe.shuffle.method": method}):
        frame = dd.from_pandas(DF.assign(y=Y), npartitions=4).shuffle("a")
        data = as_dataset(frame.drop(columns="y"), frame["y"], target=Target())
    assert not data.self_contained
    for _ in range(2):
        made = resolved(data, client)
        found = np.column_stack([np.concatenate([b.X for b in made]), np.concatenate([b.y for b in made])])
        wanted = np.column_stack([X, Y])
        np.testing.assert_array_equal(found[np.lexsort(found.T)], wanted[np.lexsort(wanted.T)])


def test_a_frame_shuffled_by_tasks(client):
    assert_shuffled(client, "tasks")


def test_a_frame_shuffled_by_the_workers_themselves(process_client):
    assert_shuffled(process_client(1), "p2p")


@pytest.mark.parametrize("change", [lambda X: X, lambda X: X[X.columns[:2]] if hasattr(X, "columns") else X[:, :2]])
@pytest.mark.parametrize("make", [chunks, lambda: dd.from_pandas(DF, npartitions=4)])
def test_persisted_chunks_are_used_where_they_are(client, make, change):
    kept = make().persist()
    lazy = change(kept)
    data = as_dataset(lazy, target=None, client=client)
    assert [len(r.given) for r in data.recipes] == [1] * 4
    assert_rows(data, client, change(DF).to_numpy() if hasattr(kept, "columns") else change(X))
    plain = not hasattr(kept, "columns") and lazy is kept
    assert data.cacheable != plain


def test_persisted_chunks_outlive_the_users_variable(client):
    data = as_dataset(chunks().persist(), target=None, client=client)
    assert_rows(data, client)


def test_large_rows_in_memory_are_sent_once(client):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50_000, 20))
    data = as_dataset(rows, np.zeros(50_000), target=Target(), client=client)
    assert data.n_blocks >= 2
    assert not data.self_contained
    assert not data.cacheable
    assert len(pickle.dumps(data.recipes)) < 20_000
    first, again = data.inputs(client, 0), data.inputs(client, 0)
    assert [f.key for f in first] == [f.key for f in again]
    assert_rows(data, client, rows)


def test_a_recipe_leaves_to_a_process(process_client):
    client = process_client(1)
    data = as_dataset(dd.from_pandas(DF, npartitions=2), Y, target=Target(np.arange(3)), client=client)
    made = resolved(data, client)
    np.testing.assert_array_equal(np.concatenate([b.X for b in made]), X)
    np.testing.assert_array_equal(np.concatenate([b.y for b in made]), Y)
    rows = as_dataset(X, Y, target=Target(), client=client, block_rows=10)
    assert sum(b.n_rows for b in resolved(rows, client)) == N


def test_the_work_of_planning_grows_with_the_blocks_alone(monkeypatch):
    from daskdml.data import _graph

    visited = collections.Counter()
    original = _graph.split

    def counting(graph, outputs, boundary):
        order, given = original(graph, outputs, boundary)
        visited["nodes"] += len(order) + len(given)
        return order, given

    monkeypatch.setattr(_graph, "split", counting)
    per_block = []
    for n in (100, 1000):
        visited.clear()
        lazy = da.random.default_rng(0).random((n, 2), chunks=(1, 2)) + 1
        assert as_dataset(lazy, da.zeros(n, chunks=1), target=Target()).n_blocks == n
        per_block.append(visited["nodes"] / n)
    assert per_block[1] == pytest.approx(per_block[0], rel=0.05)


def test_repetition_is_noticed_before_all_of_it_is_counted():
    lazy = chunks() - chunks().mean(axis=0)
    graph, (keys,) = materialise([lazy])
    assert repeats(graph, [(k,) for k in keys], set())
    graph, (keys,) = materialise([chunks()])
    assert not repeats(graph, [(k,) for k in keys], set())


def test_a_small_array_that_every_block_uses_is_part_of_each_recipe(client):
    X = da.random.default_rng(0).standard_normal((2000, 10), chunks=(500, 10))
    y = da.where(X @ np.arange(10.0) > 0, 1, 0)
    data = as_dataset(X, y, target=Target(np.array([0, 1])), client=client)
    assert data.self_contained
    assert [r.resolve().n_rows for r in data.recipes] == [500] * 4
