"""Compression: what is not sent is not lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskdml.server._compression import COMPRESSIONS, Compression, Float16, TopK, as_compression, flush, withdraw
from daskdml.server._tables import Partition, Table, Update

SIZE = 5000
EACH = [Float16(), TopK(0.01), TopK(1.0)]


def table(dtype="float32", op="add", size=SIZE):
    return Table("w", size, dtype, op)


def dense(update, dtype="float64"):
    whole = np.zeros(SIZE, dtype)
    whole[slice(None) if update.keys is None else update.keys] = update.values
    return whole


def random_update(seed, scale=1.0, dtype="float32"):
    return {"w": Update((scale * np.random.default_rng(seed).normal(size=SIZE)).astype(dtype))}


@pytest.mark.parametrize("compression", EACH, ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=20, deadline=None)
@given(scales=st.lists(st.sampled_from([0.0, 1e-12, 1e-7, 1e-3, 1.0, 1e4, 1e6]), min_size=1, max_size=5))
def test_sent_and_residual_are_update_and_previous_residual(compression, dtype, scales):
    residual = {}
    for seed, scale in enumerate(scales):
        updates, before = random_update(seed, scale, dtype), {name: rest.copy() for name, rest in residual.items()}
        given_bits = updates["w"].values.tobytes()
        whole = updates["w"].values + before["w"] if before else updates["w"].values
        sent, after = compression.compress(updates, residual, [table(dtype)])
        # A value beyond float16 leaves a difference that is rounded like any other; all else is exact.
        limit = np.where(np.abs(whole) > 65504, np.spacing(np.abs(whole)), 0)
        assert np.all(np.abs(dense(sent["w"], dtype) + after["w"] - whole) <= limit)
        assert after["w"].dtype == dtype and np.all(np.isfinite(sent["w"].values))
        # Nothing that was passed in has changed.
        assert updates["w"].values.tobytes() == given_bits
        assert all(np.array_equal(residual[name], before[name]) for name in before)
        residual = after


@pytest.mark.parametrize("compression", EACH, ids=repr)
def test_all_that_is_sent_and_flushed_is_all_there_was(compression):
    total, received, residual = np.zeros(SIZE), np.zeros(SIZE), None
    for seed in range(30):
        updates = random_update(seed)
        total += updates["w"].values
        sent, residual = compression.compress(updates, residual, [table()])
        received += dense(sent["w"])
    for update in flush(residual).values():
        received += dense(update)
    np.testing.assert_allclose(received, total, atol=2e-5)


def test_flush_of_nothing():
    assert flush(None) == {} == flush({"w": np.zeros(3)})


@pytest.mark.parametrize("fraction", [0.0002, 0.01, 0.5, 1.0])
def test_top_k_sends_the_largest(fraction):
    updates = random_update(0)
    sent, residual = TopK(fraction).compress(updates, None, [table()])
    keys = sent["w"].keys
    assert len(keys) == round(fraction * SIZE) and np.all(np.diff(keys) > 0)
    assert np.min(np.abs(sent["w"].values)) >= np.max(np.abs(residual["w"]))
    assert np.all(residual["w"][keys] == 0)


def test_top_k_sends_what_has_gathered():
    update = {"w": Update(np.concatenate([[1.0], np.full(SIZE - 1, 0.01)]).astype("float32"))}
    residual, times = None, np.zeros(SIZE)
    for _ in range(300):
        sent, residual = TopK(0.05).compress(update, residual, [table()])
        times[sent["w"].keys] += 1
    assert times[0] == 300 and np.all(times > 0)


def test_half_the_bytes():
    updates = random_update(0)
    sent, residual = Float16().compress(updates, None, [table()])
    assert sent["w"].nbytes == updates["w"].nbytes // 2 and sent["w"].keys is None
    assert np.max(np.abs(residual["w"])) < 2e-3


def test_what_is_beyond_half_precision_comes_later():
    residual, received = None, np.zeros(SIZE)
    update = {"w": Update(np.full(SIZE, -150_000, "float32"))}
    for _ in range(4):
        sent, residual = Float16().compress(update, residual, [table()])
        received += dense(sent["w"])
        update = {"w": Update(np.zeros(SIZE, "float32"))}
    np.testing.assert_array_equal(received, -150_000)
    assert not residual["w"].any()


@pytest.mark.parametrize("compression", EACH, ids=repr)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_divergence_is_not_hidden(compression, bad):
    updates = random_update(0)
    updates["w"].values[17] = bad
    sent, residual = compression.compress(updates, None, [table()])
    assert np.array_equal(dense(sent["w"])[17], bad, equal_nan=True)
    assert np.all(np.isfinite(residual["w"])) and residual["w"][17] == 0


@pytest.mark.parametrize("compression", EACH, ids=repr)
def test_what_gains_nothing_is_sent_as_it_is(compression):
    small, whole = np.ones(4096, "float32"), np.ones(SIZE)
    keys = np.arange(0, SIZE, 2)
    for spec, update in [
        (table(size=4096), Update(small)),
        (table(op="max"), Update(whole)),
        (table(op="sum"), Update(whole)),
        (table(dtype="int64"), Update(whole.astype("int64"))),
        (table(), Update(np.ones(len(keys)), keys)),
        (Table("v", SIZE, "float32"), Update(whole)),
    ]:
        sent, residual = compression.compress({"w": update}, None, [spec])
        assert sent == {"w": update} and residual == {}


@pytest.mark.parametrize("compression", EACH, ids=repr)
def test_the_residual_of_a_table_without_an_update_waits(compression):
    _, residual = compression.compress(random_update(0), None, [table()])
    sent, later = compression.compress({}, residual, [table()])
    assert sent == {} and np.array_equal(later["w"], residual["w"])


def test_names_and_objects():
    assert as_compression(None) is None
    assert as_compression("float16") == Float16() and as_compression("topk") == TopK(0.01)
    assert as_compression(TopK(0.1)) == TopK(0.1)
    assert all(isinstance(cls(), Compression) for cls in COMPRESSIONS.values())
    with pytest.raises(ValueError, match="no compression 'zip'; there are 'float16', 'topk'"):
        as_compression("zip")
    with pytest.raises(TypeError, match="16 is not a compression"):
        as_compression(16)
    with pytest.raises(ValueError, match="fraction=0 is outside"):
        TopK(0)


@pytest.mark.parametrize("compression", EACH, ids=repr)
def test_of_an_update_that_a_shard_did_not_take_nothing_is_sent_and_nothing_before_it_is_lost(compression):
    partition = Partition((table("float64"),), 2)
    edge = partition.range("w", 1)[0]
    wanted, received, residual = np.zeros(SIZE), np.zeros(SIZE), {}
    flying = None
    for seed in range(20):
        updates = random_update(seed, dtype="float64")
        sent, residual = compression.compress(updates, residual, partition.tables)
        taken = [seed % 3 != 0, seed % 4 != 0]
        mask = np.arange(SIZE) < edge
        counts = np.where(mask, taken[0], taken[1])
        received += dense(sent["w"]) * counts
        wanted += updates["w"].values * counts
        if flying is not None:
            # The answer comes when the next update has been compressed already.
            before, went, answers = flying
            for shard in [shard for shard, took in enumerate(answers) if not took]:
                withdraw(residual, before, went, partition, shard)
        flying = updates, sent, taken
    before, went, answers = flying
    for shard in [shard for shard, took in enumerate(answers) if not took]:
        withdraw(residual, before, went, partition, shard)
    rest = flush(residual)
    received += dense(rest["w"]) if rest else 0
    np.testing.assert_allclose(received, wanted, atol=1e-9)
