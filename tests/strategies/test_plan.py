"""Who visits which rows: properties over random data sets, without a cluster."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskdml.monitor import StoppingRule
from daskdml.strategies import Holdout, Schedule, mixed_shares, plan_epoch, shares

plans = st.fixed_dictionaries(
    {
        "lengths": st.lists(st.integers(0, 40), min_size=1, max_size=9),
        "n_replicas": st.integers(1, 7),
        "rounds": st.integers(1, 5),
        "seed": st.integers(0, 2**31 - 1),
        "shuffle": st.booleans(),
        "held": st.sampled_from([0.0, 0.3]),
        "mixed": st.booleans(),
    }
)


def visited(lengths, n_replicas, rounds, seed, shuffle, held, epoch=1, mixed=False):
    holdout = Holdout(held, seed) if held else None
    dealt = mixed_shares(len(lengths), n_replicas, 16) if mixed else shares(len(lengths), n_replicas, seed, shuffle)
    rows = [[] for _ in range(n_replicas)]
    for works in plan_epoch(dealt, rounds, epoch, seed, shuffle, holdout):
        for work in works:
            for piece in work.pieces:
                rows[work.replica] += [(piece.block, int(i)) for i in work.order(piece, lengths[piece.block])]
    return rows


@settings(max_examples=150, deadline=None)
@given(plans)
def test_every_row_is_visited_once(plan):
    everything = [row for rows in visited(**plan) for row in rows]
    expected = []
    for block, n in enumerate(plan["lengths"]):
        held = Holdout(plan["held"], plan["seed"]).rows(block, n)
        assert held.sum() == round(plan["held"] * n)
        expected += [(block, i) for i in range(n) if not held[i]]
    assert sorted(everything) == expected


@settings(max_examples=50, deadline=None)
@given(plans)
def test_the_plan_depends_on_data_and_seed_only(plan):
    assert visited(**plan) == visited(**plan)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 99), st.booleans())
def test_shares_are_equal(n_blocks, n_replicas, seed, shuffle):
    dealt = shares(n_blocks, n_replicas, seed, shuffle)
    assert [sum(p.size for p in pieces) for pieces in dealt] == [Fraction(n_blocks, n_replicas)] * n_replicas


def test_epochs_differ_when_shuffled_and_only_then():
    plan = {"lengths": [50, 50], "n_replicas": 2, "rounds": 1, "seed": 7, "held": 0.0}
    assert visited(**plan, shuffle=True, epoch=1) != visited(**plan, shuffle=True, epoch=2)
    in_order = visited(**plan, shuffle=False, epoch=1)
    assert in_order == visited(**plan, shuffle=False, epoch=2)
    assert in_order[0] == [(0, i) for i in range(50)]


def test_labels_sorted_by_block_reach_every_replica():
    """Blocks are dealt in a seeded order, so neighbours (a day, a class) are not one replica's alone."""
    dealt = shares(40, 4, 0, True)
    means = [np.mean([p.block for p in pieces]) for pieces in dealt]
    assert max(means) - min(means) < 15


@pytest.mark.parametrize(("model_bytes", "pieces"), [(800, 32), (2**18, 16), (2**23, 1)])
def test_pieces_of_mixed_blocks_are_no_smaller_than_the_parameters(model_bytes, pieces):
    schedule = Schedule(
        8, 2, 1, 0, True, StoppingRule(n_problems=1, tol=None, n_iter_no_change=5), model_bytes=model_bytes
    )
    assert schedule.mixing(8 * 2**22) == pieces
    assert schedule.mixing(2**30) == 0
