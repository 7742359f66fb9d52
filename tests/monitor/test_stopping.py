"""The stopping rule against a transcription of scikit-learn's loop, one number at a time."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskdml.monitor import StoppingRule


def scalar_rule(values, tol, patience, higher, adaptive, eta):
    """What scikit-learn's SGD does for one problem: epoch of the stop (or None), and the final rate."""
    tol = -math.inf if tol is None else tol
    best_score, best_objective, stalled = -math.inf, math.inf, 0
    for epoch, value in enumerate(values):
        if higher:
            stalled = stalled + 1 if tol > -math.inf and value < best_score + tol else 0
            best_score = max(best_score, value)
        else:
            stalled = stalled + 1 if tol > -math.inf and value > best_objective - tol else 0
            best_objective = min(best_objective, value)
        if stalled >= patience:
            if adaptive and eta > 1e-6:
                eta, stalled = eta / 5, 0
            else:
                return epoch, eta
    return None, eta


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.lists(st.sampled_from([0.1, 0.2, 0.2001, 0.3, 0.5]), min_size=3, max_size=3), max_size=25),
    tol=st.sampled_from([None, -math.inf, -0.05, 0.0, 1e-3, 0.1]),
    patience=st.integers(1, 4),
    higher=st.booleans(),
    adaptive=st.booleans(),
    eta=st.sampled_from([0.1, 4e-6, 1e-6]),
)
def test_each_problem_stops_where_scikit_learn_would(values, tol, patience, higher, adaptive, eta):
    rule = StoppingRule(3, tol=tol, n_iter_no_change=patience, adaptive=adaptive)
    rates, stopped_at = np.full(3, eta), [None] * 3
    for epoch, of_problems in enumerate(values):
        decision = rule.update(np.array(of_problems), higher, learning_rate=rates)
        assert not (decision.stop & decision.reduce_rate).any()
        rates = np.where(decision.reduce_rate, rates / 5, rates)
        stopped_at = [
            epoch if was is None and stop else was for was, stop in zip(stopped_at, decision.stop, strict=True)
        ]
    for problem in range(3):
        of_problem = [epoch[problem] for epoch in values]
        assert (stopped_at[problem], rates[problem]) == scalar_rule(of_problem, tol, patience, higher, adaptive, eta)


def test_equal_objectives_do_not_stall_without_tolerance():
    rule = StoppingRule(1, tol=0.0, n_iter_no_change=1)
    assert [rule.update(0.5).stop[0] for _ in range(3)] == [False, False, False]


def test_a_tiny_gain_stalls_but_moves_the_best():
    rule = StoppingRule(1, tol=0.1, n_iter_no_change=3)
    for objective in (1.0, 0.95, 0.92):
        rule.update(objective)
    assert rule.stalled[0] == 2
    assert rule.best[0] == 0.92


def test_a_stopped_problem_stays_stopped():
    rule = StoppingRule(2, tol=1e-3, n_iter_no_change=1)
    rule.update([1.0, 1.0])
    assert rule.update([1.0, 0.5]).stop.tolist() == [True, False]
    assert rule.update([0.0, 0.2]).stop.tolist() == [True, False]


def test_a_decision_is_not_changed_by_the_next_one():
    rule = StoppingRule(1, n_iter_no_change=1)
    first = rule.update(1.0)
    rule.update(1.0)
    assert first.stop.tolist() == [False]


def test_an_adaptive_rule_asks_for_the_rate():
    with pytest.raises(ValueError, match="learning_rate"):
        StoppingRule(1, adaptive=True).update(1.0)


@pytest.mark.parametrize(("wrong", "name"), [({"n_problems": 0}, "n_problems"), ({"n_iter_no_change": 0}, "n_iter_no")])
def test_wrong_numbers_are_named(wrong, name):
    with pytest.raises(ValueError, match=name):
        StoppingRule(**{"n_problems": 1} | wrong)
