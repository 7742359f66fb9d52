"""The guarantees of BSP and parameter averaging, run step by step without a cluster."""

import itertools
from functools import reduce

import numpy as np
import pytest
from sklearn.base import clone

from daskdml import BSP, SSP, Averaging
from daskdml.data import Block
from daskdml.models import LinearModel
from daskdml.numerics import BINARY, LOSSES, SCHEDULES, Settings
from daskdml.strategies import Agreed, InMemory, LocalRunner, Piece, Work, plan_epoch, shares

N, D = 240, 5
ON = np.ones(1, dtype=bool)


def block(n=N, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, D))
    return Block(0, X, (X @ rng.standard_normal(D) + 0.3 * rng.standard_normal(n) > 0).astype(float))


def model(schedule="constant", alpha=0.01):
    settings = Settings(LOSSES["log_loss"].number, BINARY, alpha=alpha, schedule=SCHEDULES[schedule], eta0=0.2)
    return LinearModel(settings, 1, D, np.dtype(float), np.ones(1), np.ones(1))


def epoch(strategy, n_replicas, rounds, m=None, rows=None, shuffle=False, agreed=None):
    m, rows = m or model(), rows or block()
    runner = LocalRunner(strategy, m, InMemory(rows))
    works = plan_epoch(shares(1, n_replicas, 0, shuffle), rounds, 1, 0, shuffle)
    return runner.epoch(agreed or Agreed(m.init()), works, ON, lambda report, fetch: None)[0]


def in_order(rows):
    return np.arange(rows.n_rows, dtype=np.int32)


@pytest.mark.parametrize("schedule", ["constant", "optimal", "adagrad", "normalized"])
def test_one_replica_is_plain_sgd_exactly(schedule):
    m, rows = model(schedule), block()
    state = m.init()
    m.train(state, rows, in_order(rows), ON)
    agreed = epoch(Averaging(), 1, 1, m, rows)
    assert all((a == b).all() for a, b in zip(agreed.state, state, strict=True))
    # More rounds only write the weights' common factor back more often.
    agreed = epoch(Averaging(), 1, 4, m, rows)
    np.testing.assert_allclose(agreed.state.coef, state.coef, rtol=1e-12)


def test_averaging_is_the_mean_of_plain_sgd_on_the_parts():
    m, rows = model(), block()
    coefs = []
    for part in np.split(in_order(rows), 4):
        state = m.init()
        m.train(state, rows, part, ON)
        coefs.append(state.coef[0])
    np.testing.assert_allclose(epoch(Averaging(), 4, 1).state.coef[0], np.mean(coefs, axis=0), atol=1e-15)


def test_weights_of_unequal_parts_sum_to_one():
    m, rows, strategy = model(), block(), Averaging()
    agreed = Agreed(m.init())
    from fractions import Fraction as F

    edges = [F(0), F(1, 10), F(1, 2), F(1, 2), F(1)]
    partials, states = [], []
    for replica, (a, b) in enumerate(itertools.pairwise(edges)):
        work = Work(replica, 1, (Piece(0, a, b),), 0, False)
        partials.append(strategy.work(m, agreed, work, ON, InMemory(rows)))
        states.append((b - a, partials[-1].value.state.coef[0]))
    assert sum(w for w, _ in states) == 1
    merged = reduce(lambda a, b: strategy.combine(m, a, b), partials)
    expected = sum(float(w) * coef for w, coef in states)
    np.testing.assert_allclose(strategy.agree(m, agreed, merged, ON).state.coef[0], expected, atol=1e-14)
    assert merged.value.weight == rows.n_rows


def test_averaging_identical_replicas_changes_nothing():
    m, rows, strategy = model("adagrad"), block(), Averaging(weighting="adaptive")
    agreed = Agreed(m.init())
    work = Work(0, 1, (Piece(0),), 0, False)
    one = strategy.work(m, agreed, work, ON, InMemory(rows))
    merged = reduce(lambda a, b: strategy.combine(m, a, b), [one] * 5)
    assert all((a == b).all() for a, b in zip(merged.value.state, one.value.state, strict=True))


def test_one_local_step_is_minibatch_sgd():
    """H = 1: every replica takes one row between synchronisations."""
    rows, m = block(6), model(alpha=0.0)
    averaged = epoch(Averaging(), 3, 2, m, rows)
    # The batches are rows (0, 2, 4) and (1, 3, 5): each replica's first, then each one's second.
    w, b = np.zeros(D), 0.0
    for batch in ([0, 2, 4], [1, 3, 5]):
        slope = 1 / (1 + np.exp(-(rows.X[batch] @ w + b))) - rows.y[batch]
        w, b = w - 0.2 * slope @ rows.X[batch] / 3, b - 0.2 * slope.mean()
    np.testing.assert_allclose(averaged.state.coef[0], w, atol=1e-14)
    np.testing.assert_allclose(averaged.state.intercept, b, atol=1e-14)


@pytest.mark.parametrize("schedule", ["constant", "optimal", "adagrad", "normalized"])
@pytest.mark.parametrize("n_replicas", [2, 3, 8])
def test_a_bsp_round_is_the_serial_step_on_the_union(schedule, n_replicas):
    m, rows = model(schedule), block()
    state = m.init()
    gradient = m.zero_gradient(state)
    m.add_gradient(state, rows, in_order(rows), ON, gradient)
    m.step(state, gradient, ON)
    agreed = epoch(BSP(), n_replicas, 1, m, rows)
    np.testing.assert_allclose(agreed.state.coef, state.coef, atol=1e-13)
    np.testing.assert_allclose(agreed.state.intercept, state.intercept, atol=1e-13)


def test_replicas_combine_alike_in_any_order_of_arrival():
    m, rows, strategy = model(), block(), BSP()
    agreed = Agreed(m.init())
    works = plan_epoch(shares(1, 4, 0, False), 1, 1, 0, False)[0]
    partials = {w.replica: strategy.work(m, agreed, w, ON, InMemory(rows)) for w in reversed(works)}
    merged = reduce(lambda a, b: strategy.combine(m, a, b), [partials[r] for r in range(4)])
    again = epoch(strategy, 4, 1, m, rows)
    assert (strategy.agree(m, agreed, merged, ON).state.coef == again.state.coef).all()


@pytest.mark.parametrize("strategy", [BSP(), Averaging(), Averaging(outer_lr=0.7, outer_momentum=0.5)])
def test_steps_leave_their_arguments_alone(strategy):
    """A task may run twice: what it was given must still be there."""
    m, rows = model("adagrad"), block()
    agreed = epoch(strategy, 2, 2, m, rows)
    before = [a.copy() for a in agreed.state]
    epoch(strategy, 3, 2, m, rows, agreed=agreed)
    assert all((a == b).all() for a, b in zip(agreed.state, before, strict=True))


def test_outer_rate_one_is_exact_averaging():
    plain = epoch(Averaging(), 3, 4)
    outer = epoch(Averaging(outer_lr=1.0, outer_momentum=0.0), 3, 4)
    assert (plain.state.coef == outer.state.coef).all()


def test_outer_momentum_is_its_recurrence():
    """v <- mu v + (mean - w); w <- w + lr v."""
    m, rows = model(), block()
    w, v = m.init(), 0.0
    agreed = Agreed(m.init())
    for _ in range(3):
        mean = epoch(Averaging(), 2, 1, m, rows, agreed=Agreed(w)).state
        v = 0.5 * v + (mean.coef - w.coef)
        w = mean._replace(coef=w.coef + 0.8 * v, intercept=mean.intercept)
        agreed = epoch(Averaging(outer_lr=0.8, outer_momentum=0.5), 2, 1, m, rows, agreed=agreed)
        w = w._replace(intercept=agreed.state.intercept)
        np.testing.assert_allclose(agreed.state.coef, w.coef, atol=1e-12)


def test_adaptive_weights_keep_what_one_replica_alone_has_seen():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((100, D))
    X[:50, 0] = 0
    rows = Block(0, X, (X[:, 0] + X[:, 1] > 0).astype(float))
    m = model("adagrad", alpha=0.0)
    alone = m.init()
    m.train(alone, rows, np.arange(50, 100, dtype=np.int32), ON)
    adaptive = epoch(Averaging(weighting="adaptive"), 2, 1, m, rows).state
    diluted = epoch(Averaging(), 2, 1, m, rows).state
    assert adaptive.coef[0, 0] == pytest.approx(alone.coef[0, 0])
    assert diluted.coef[0, 0] == pytest.approx(alone.coef[0, 0] / 2)


@pytest.mark.parametrize(
    "strategy, complaint",
    [
        (Averaging(n_replicas=0), "n_replicas must be an integer of at least 1, got 0"),
        (Averaging(n_replicas=2.0), "n_replicas"),
        (Averaging(rounds_per_epoch=0), "rounds_per_epoch"),
        (Averaging(weighting="loss"), "weighting must be 'rows' or 'adaptive'"),
        (Averaging(weighting="adaptive"), "learning_rate='adagrad'"),
        (Averaging(outer_lr=0), "outer_lr must be above 0"),
        (Averaging(outer_momentum=1), r"outer_momentum must be in \[0, 1\)"),
        (BSP(rounds_per_epoch=-1), "rounds_per_epoch"),
    ],
)
def test_wrong_parameters_are_named(strategy, complaint):
    with pytest.raises(ValueError, match=complaint):
        strategy.check(model())


def test_strategies_have_parameters():
    assert Averaging(3).set_params(rounds_per_epoch=2).get_params()["rounds_per_epoch"] == 2
    assert repr(BSP(n_replicas=4)) == "BSP(n_replicas=4)"
    assert repr(SSP(1, shards=2)) == "SSP(shards=2, staleness=1)"


class _Rate:
    """An optimizer of the user's own, with parameters."""

    def __init__(self, rate):
        self.rate = rate

    def get_params(self, deep=True):
        return {"rate": self.rate}

    def set_params(self, **params):
        vars(self).update(params)
        return self


def test_their_parameters_are_as_scikit_learn_has_them():
    strategy = clone(SSP(1, optimizer=_Rate(0.5)))
    assert strategy.get_params()["optimizer__rate"] == 0.5 and "optimizer__rate" not in strategy.get_params(deep=False)
    strategy.set_params(optimizer__rate=0.1, staleness=2)
    assert (strategy.optimizer.rate, strategy.staleness) == (0.1, 2)
    names = list(strategy.get_params(deep=False))
    assert names == sorted(names)
    with pytest.raises(ValueError, match="Invalid parameter 'nonsense' for estimator SSP"):
        strategy.set_params(nonsense=1)
