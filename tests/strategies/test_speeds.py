"""Shares by measured speed: decided by events; then on two workers of which one sleeps."""

import time
from dataclasses import replace
from fractions import Fraction
from functools import partial

import dask.array as da
import numpy as np
import pytest
from distributed import get_worker
from hypothesis import given, settings
from hypothesis import strategies as st

from daskdml import ASP, SSP
from daskdml.linear_model import SGDClassifier, _classifier
from daskdml.models import LinearModel, Totals
from daskdml.server import Ticket
from daskdml.strategies import Holdout, mixed_shares, plan_epoch, shares
from daskdml.strategies._replica import EpochPlan
from daskdml.strategies._speeds import Speeds, new_weights, weighted
from daskdml.strategies._work import Report

lanes = st.integers(2, 6)


def report(rows, seconds, reassigned=0):
    return Report(Totals(rows, np.zeros(1), np.zeros(1)), seconds, reassigned=reassigned)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.lists(st.integers(0, 40), min_size=1, max_size=9), st.integers(1, 5), st.booleans())
def test_every_row_is_visited_once_whatever_the_weights(data, lengths, rounds, mixed):
    n = data.draw(lanes)
    weights = tuple(data.draw(st.lists(st.integers(1, 200), min_size=n, max_size=n)))
    dealt = mixed_shares(len(lengths), n, 16) if mixed else shares(len(lengths), n, 3, True)
    moved = weighted(dealt, weights)
    sizes = [sum((piece.size for piece in pieces), Fraction(0)) for pieces in moved]
    assert sizes == [Fraction(len(lengths) * weight, sum(weights)) for weight in weights]
    rows = [
        (piece.block, int(i))
        for works in plan_epoch(moved, rounds, 2, 3, True, Holdout(0.3, 3))
        for work in works
        for piece in work.pieces
        for i in work.order(piece, lengths[piece.block])
    ]
    held = [Holdout(0.3, 3).rows(block, n_rows) for block, n_rows in enumerate(lengths)]
    assert sorted(rows) == [(b, i) for b, out in enumerate(held) for i in range(len(out)) if not out[i]]


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(1, 30))
def test_no_more_rows_move_than_must(data, n_blocks):
    n = data.draw(lanes)
    weights = tuple(data.draw(st.lists(st.integers(1, 200), min_size=n, max_size=n)))
    dealt = shares(n_blocks, n, 3, True)
    gained = Fraction(0)
    for before, after in zip(dealt, weighted(dealt, weights), strict=True):
        had = {piece.block: piece for piece in before}
        for piece in after:
            own = had.get(piece.block)
            inside = own is not None and own.start <= piece.start and piece.stop <= own.stop
            gained += 0 if inside else piece.size
    wanted = [Fraction(n_blocks * weight, sum(weights)) - Fraction(n_blocks, n) for weight in weights]
    assert gained <= sum(max(more, Fraction(0)) for more in wanted)


@settings(max_examples=100, deadline=None)
@given(lanes, st.data())
def test_replicas_that_are_about_equally_fast_keep_equal_shares(n, data):
    speeds = [data.draw(st.lists(st.floats(1.0, 1.5), min_size=n, max_size=n)) for _ in range(2)]
    assert new_weights((), *speeds) == ()


@settings(max_examples=100, deadline=None)
@given(lanes, st.data())
def test_weights_follow_the_speeds_and_then_stay(n, data):
    speeds = data.draw(st.lists(st.floats(1.0, 30.0), min_size=n, max_size=n))
    weights = new_weights((), speeds, speeds)
    assert new_weights(weights, speeds, speeds) == weights
    if weights:
        clocks = [weight * seconds for weight, seconds in zip(weights, speeds, strict=True)]
        assert max(clocks) <= 1.5 * min(clocks)


def test_what_was_slow_in_one_epoch_only_keeps_its_share():
    assert new_weights((), [1.0, 1.0], [9.0, 1.0]) == ()
    assert new_weights((), [9.0, 1.0], [1.0, 1.0]) == ()
    assert new_weights((), [9.0, 1.0], [1.0, 9.0]) == ()
    assert new_weights((), None, [9.0, 1.0]) == ()
    assert new_weights((), [9.0, 1.0], [9.0, 1.0]) == (6, 58)


def test_equal_again_is_where_it_began():
    assert new_weights((6, 58), [1.0, 1.1], [1.1, 1.0]) == ()


def test_clocks_that_others_trained_and_short_delays_are_no_speed():
    speeds = Speeds()
    for clock in range(5):
        speeds.note(Ticket(2, clock, 0), report(10, 20.0))
        speeds.note(Ticket(2, clock, 1), report(10, 10.0))
    speeds.note(Ticket(2, 5, 1), report(10, 500.0))
    for clock in range(9):
        speeds.note(Ticket(2, clock, 0), report(10, 0.1, reassigned=1))
    assert speeds.of(2, 2) == [2.0, 1.0]
    assert speeds.of(1, 2) is None and speeds.of(2, 3) is None
    speeds.forget_before(3)
    assert speeds.of(2, 2) is None


def test_a_report_that_comes_twice_is_one_clock():
    speeds = Speeds()
    for clock in (0, 0, 1):
        assert speeds.of(1, 1) is None
        speeds.note(Ticket(1, clock, 0), report(10, 10.0))
    assert speeds.of(1, 1) == [1.0]


def test_waiting_for_blocks_counts_from_the_second_epoch_on():
    speeds = Speeds()
    for epoch in (1, 2):
        for clock in range(2):
            speeds.note(Ticket(epoch, clock, 0), replace(report(10, 10.0), wait_seconds=10.0))
    assert (speeds.of(1, 1), speeds.of(2, 1)) == ([1.0], [2.0])


def test_a_plan_survives_a_checkpoint_also_of_equal_shares_only():
    plan = EpochPlan(3, 40, 20, 0, (6, 58))
    assert EpochPlan.of(plan.to_payload()) == plan
    assert EpochPlan.of([3, 40, 20, 0]) == EpochPlan(3, 40, 20, 0)
    assert plan.share(1, 2) == 58 / 64 and EpochPlan(3, 40, 20, 0).share(1, 4) == 0.25


class Sleepy(LinearModel):
    """On all workers but one, more seconds a row."""

    slower = 8

    def train(self, state, block, order, active):
        time.sleep(len(order) * 6e-5 * (1 if get_worker().name == 0 else self.slower))
        return super().train(state, block, order, active)


class Sleepier(Sleepy):
    slower = 24


class Even(Sleepy):
    slower = 1


@pytest.fixture
def fit(monkeypatch, client):
    X = np.random.default_rng(0).standard_normal((6400, 4))
    data = da.from_array(X, chunks=(400, 4)), da.from_array((X[:, 0] > 0).astype(int), chunks=400)

    def fit(model, strategy, resume=False, max_iter=7, **params):
        monkeypatch.setattr(_classifier, "LinearModel", model)
        given = {"max_iter": max_iter, "tol": None, "random_state": 0, "strategy": strategy} | params
        return SGDClassifier("log_loss", **given).fit(*data, resume=resume)

    return fit


def shares_of(clf):
    """By epoch, each replica's."""
    found = clf.replicas_.groupby(["epoch", "replica"])["share"]
    assert (found.nunique() == 1).all()
    return found.first().unstack()


# What is measured is also what else the machine does meanwhile.
timed = pytest.mark.flaky(reruns=2)


@timed
@pytest.mark.parametrize("make", [partial(SSP, 2), ASP])
def test_a_fast_worker_gets_more_rows_and_each_is_visited_once(fit, make):
    clf = fit(Sleepy, make(n_replicas=2))
    found = shares_of(clf)
    assert (found.loc[:3] == 0.5).all(axis=None)
    # 8/9 by the sleeps alone; what a clock takes besides brings it nearer to a half.
    assert (found.loc[4:].max(axis=1) > 0.75).all()
    # Once they fit they stay, but for one correction where the machine itself was slower for a while.
    assert len(found.loc[4:].drop_duplicates()) <= 2
    assert clf.history_.groupby("epoch")["rows"].sum().tolist() == [6400] * 7
    assert clf.history_.groupby("epoch")["largest_share"].max().tolist() == found.max(axis=1).tolist()
    rows = clf.replicas_.groupby(["epoch", "replica"])["rows"].sum().unstack() / 6400
    assert np.allclose(rows, found, atol=0.01)
    helped = clf.replicas_.groupby("epoch")["reassigned"].sum()
    assert helped.loc[5:].max() <= helped.loc[2:3].min()


@timed
def test_a_worker_that_others_outrun_on_its_own_clocks_gets_fewer_rows(fit):
    # Hardly any clock of its own is its worker's: before it is done others have repeated it.
    found = shares_of(fit(Sleepier, SSP(2, n_replicas=2)))
    assert found.loc[7].max() > 0.85


@timed
@pytest.mark.parametrize(
    ("model", "strategy"),
    [(Even, SSP(2, n_replicas=2)), (Sleepy, SSP(0, n_replicas=2)), (Sleepy, ASP(2, reassign=False))],
)
def test_shares_stay_equal(fit, model, strategy):
    clf = fit(model, strategy)
    assert (shares_of(clf) == 0.5).all(axis=None)
    assert (clf.history_["largest_share"] == 0.5).all()


@timed
def test_a_resumed_fit_has_the_shares_that_were_saved(fit, tmp_path):
    where = {"checkpoint": str(tmp_path), "checkpoint_every": "1 round"}
    first = shares_of(fit(Sleepy, SSP(2, n_replicas=2), max_iter=6, **where))
    # Nothing was measured yet in this process.
    again = fit(Sleepy, SSP(2, n_replicas=2), resume=True, max_iter=8, **where)
    found = shares_of(again)
    assert found.index.tolist() == [7, 8]
    assert (found == first.loc[6]).all(axis=None) and found.max(axis=None) > 0.75
    assert again.history_.groupby("epoch")["rows"].sum().tolist() == [6400] * 8
