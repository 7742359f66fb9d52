"""Key ranges: what is cut comes together again, and each position has one owner."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskdml.server._tables import Partition, Table, Update, default_shards

sizes = st.lists(st.sampled_from([0, 1, 7, 1023, 1024, 4095, 5000, 20_001]), min_size=1, max_size=4)
partitions = st.builds(
    lambda sizes, shards: Partition(tuple(Table(f"t{i}", n, "float32") for i, n in enumerate(sizes)), shards),
    sizes,
    st.integers(1, 5),
)


def arrays_of(partition, seed=0):
    rng = np.random.default_rng(seed)
    return {t.name: rng.normal(size=t.size).astype(t.dtype) for t in partition.tables}


def some_keys(partition, data):
    keys = {}
    for table in partition.tables:
        fraction = data.draw(st.sampled_from([0.0, 0.001, 0.3, 1.0, None]))
        rng = np.random.default_rng(data.draw(st.integers(0, 99)))
        keys[table.name] = None if fraction is None else np.flatnonzero(rng.random(table.size) < fraction)
    return keys


@settings(max_examples=80, deadline=None)
@given(partitions)
def test_ranges_follow_one_another_and_cover_a_table(partition):
    for table in partition.tables:
        ranges = [partition.range(table.name, shard) for shard in range(partition.n_shards)]
        assert ranges[0][0] == 0 and ranges[-1][1] == table.size
        assert all(stop == start for (_, stop), (start, _) in zip(ranges, ranges[1:], strict=False))
        lengths = [stop - start for start, stop in ranges]
        if table.size < 1024 * partition.n_shards:
            assert lengths[0] == table.size
        else:
            assert max(lengths) - min(lengths) <= 1


@settings(max_examples=80, deadline=None)
@given(partitions)
def test_join_is_the_inverse_of_cut(partition):
    values = arrays_of(partition)
    parts = partition.cut(values)
    joined = partition.join(parts)
    assert joined.keys() == values.keys()
    for name in values:
        np.testing.assert_array_equal(joined[name], values[name])
        assert all(part[name].base is values[name] or not len(part[name]) for part in parts)


@settings(max_examples=80, deadline=None)
@given(partitions, st.data())
def test_updates_applied_in_parts_are_the_updates_applied_whole(partition, data):
    values = arrays_of(partition)
    updates = {
        name: Update(np.arange(len(values[name]) if keys is None else len(keys), dtype="float32"), keys)
        for name, keys in some_keys(partition, data).items()
    }
    expected = {name: array.copy() for name, array in values.items()}
    for name, update in updates.items():
        expected[name][slice(None) if update.keys is None else update.keys] += update.values
    parts = [{name: array.copy() for name, array in part.items()} for part in partition.cut(values)]
    for part, cut in zip(parts, partition.cut_updates(updates), strict=True):
        for name, update in cut.items():
            assert len(update.values)
            part[name][slice(None) if update.keys is None else update.keys] += update.values
    for name, array in partition.join(parts).items():
        np.testing.assert_array_equal(array, expected[name])


@settings(max_examples=80, deadline=None)
@given(partitions, st.data())
def test_what_is_read_by_keys_comes_in_their_order(partition, data):
    values, keys = arrays_of(partition), some_keys(partition, data)
    parts = [
        {name: part[name] if wanted is None else part[name][wanted] for name, wanted in cut.items()}
        for part, cut in zip(partition.cut(values), partition.cut_keys(keys), strict=True)
    ]
    joined = partition.join(parts)
    assert joined.keys() == keys.keys()
    for name, wanted in keys.items():
        np.testing.assert_array_equal(joined[name], values[name] if wanted is None else values[name][wanted])


def test_a_dense_update_is_cut_into_views():
    partition = Partition((Table("w", 4096, "float32"),), 2)
    values = np.zeros(4096, "float32")
    assert all(cut["w"].values.base is values for cut in partition.cut_updates({"w": Update(values)}))


def test_what_is_not_there_is_named():
    partition = Partition((Table("w", 4, "float32"),), 1)
    with pytest.raises(KeyError, match="no table 'v'; there are 'w'"):
        partition.cut_updates({"v": Update(np.zeros(4))})
    with pytest.raises(ValueError, match="key 4 is outside 0..3"):
        partition.cut_keys({"w": np.array([4])})
    with pytest.raises(ValueError, match="sorted and unique"):
        partition.cut_keys({"w": np.array([1, 1])})
    with pytest.raises(ValueError, match="array of integers"):
        partition.cut_keys({"w": np.array([True, False])})
    with pytest.raises(ValueError, match=r"shape \(3,\) for 4 positions"):
        partition.cut({"w": np.zeros(3)})
    with pytest.raises(ValueError, match="no shard 1"):
        partition.range("w", 1)
    with pytest.raises(ValueError, match="2 parts of 1 shards"):
        partition.join([{}, {}])


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="'add', 'sum' or 'max', not 'min'"):
        Table("w", 1, "float32", "min")
    with pytest.raises(ValueError, match="negative"):
        Table("w", -1, "float32")
    with pytest.raises(ValueError, match="at least one shard"):
        Partition((), 0)
    with pytest.raises(ValueError, match="same name"):
        Partition((Table("w", 1, "float32"), Table("w", 2, "float32")), 1)


def test_a_partition_travels():
    partition = Partition((Table("w", 4096, "float32"),), 2)
    partition.range("w", 0)
    assert pickle.loads(pickle.dumps(partition)) == partition


@pytest.mark.parametrize(
    ("n_bytes", "n_workers", "shards"),
    [(0, 4, 1), (4 << 20, 4, 1), (12 << 20, 4, 3), (800 << 20, 4, 4), (2 << 30, 4, 8), (100, 0, 1)],
)
def test_number_of_shards(n_bytes, n_workers, shards):
    assert default_shards(n_bytes, n_workers) == shards


def test_bytes_of_an_update():
    assert Update(np.zeros(10, "float32")).nbytes == 40
    assert Update(np.zeros(10, "float32"), np.arange(10)).nbytes == 120
