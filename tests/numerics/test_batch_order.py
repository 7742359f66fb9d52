"""The order of what visits rows in batches: a permutation, the same in parts, that mixes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskdml.numerics import BatchOrder
from daskdml.numerics._shuffle import fill_batch_order
from daskdml.strategies._plan import Holdout, Piece, Work

seeds = st.integers(0, 2**32 - 1)


@settings(deadline=None)
@given(st.integers(1, 3000), seeds)
def test_every_row_stands_at_one_place(n, seed):
    assert sorted(np.asarray(BatchOrder(n, seed))) == list(range(n))


@settings(deadline=None)
@given(st.data(), st.integers(0, 300), seeds)
def test_a_part_is_what_stands_there(data, n, seed):
    start, stop = (data.draw(st.integers(0, n)) for _ in range(2))
    whole = BatchOrder(n, seed)
    part = whole[start:stop]
    assert len(part) == max(0, stop - start)
    assert np.array_equal(part, np.asarray(whole)[start:stop])
    assert np.array_equal(part[1:], np.asarray(part)[1:])


@settings(deadline=None)
@given(st.data(), st.integers(1, 3000))
def test_without_a_seed_rows_stand_as_they_are_for_whoever_finds_their_places(data, n):
    order = BatchOrder(n, None)
    found = np.empty(n, dtype=np.int32)
    fill_batch_order(found, 0, n, order.bits, order.keys)
    assert np.array_equal(order, np.arange(n)) and np.array_equal(found, np.arange(n))
    start, stop = sorted(data.draw(st.integers(0, n)) for _ in range(2))
    assert np.array_equal(order[start:stop], np.arange(start, stop))


def test_seeds_give_orders_of_their_own():
    orders = [np.asarray(BatchOrder(1000, seed)) for seed in range(50)]
    same = [np.mean(a == b) for i, a in enumerate(orders) for b in orders[:i]]
    assert max(same) < 0.01


@pytest.mark.parametrize("n", [200, 1000])
def test_rows_stand_anywhere_equally_often(n):
    """Chi square of places, and of the distances of rows that follow each other, over the degrees of freedom."""
    orders = np.stack([np.asarray(BatchOrder(n, seed)) for seed in range(4000)])
    expected = len(orders) / 20
    for row in (0, 1, n // 2, n - 1):
        places = np.bincount((orders == row).argmax(axis=1) * 20 // n, minlength=20)
        assert ((places - expected) ** 2 / expected).sum() / 19 < 2.5
    gaps = np.bincount(((orders[:, 1] - orders[:, 0]) % n) * 20 // n, minlength=20)
    assert ((gaps - expected) ** 2 / expected).sum() / 19 < 2.5


@pytest.mark.parametrize("of", [lambda o, n: o < n // 2, lambda o, n: o % 2, lambda o, n: o // 16 % 2], ids="hot")
def test_batches_of_sorted_rows_have_their_share_of_each_kind(of):
    n, batch = 2**17 + 3, 512
    shares = []
    for seed in range(8):
        order = np.asarray(BatchOrder(n, seed))[: n // batch * batch]
        shares.append(of(order, n).reshape(-1, batch).sum(axis=1))
    # The variance of a draw without a pattern is a quarter of the batch.
    assert np.var(shares) == pytest.approx(batch / 4, rel=0.1)
    assert np.mean(shares) == pytest.approx(batch / 2, rel=0.01)


def test_work_in_batches_leaves_out_what_is_held():
    piece = Piece(0)
    work = Work(0, 1, (piece,), 3, True, Holdout(0.3, 3))
    held = work.holdout.rows(0, 100)
    order = work.order(piece, 100, batched=True)
    assert sorted(order) == sorted(np.flatnonzero(~held))
    assert isinstance(Work(0, 1, (piece,), 3, True).order(piece, 100, batched=True), BatchOrder)
    assert np.array_equal(Work(0, 1, (piece,), 3, False).order(piece, 9, batched=True), np.arange(9))
