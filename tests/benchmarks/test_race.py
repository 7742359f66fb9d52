"""The race between daskdml and its peers judges all by the same, right objective."""

import itertools
import time

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import approx_fprime
from sklearn.linear_model import LogisticRegression

from benchmarks.peers import side_named
from benchmarks.race import _decoding
from benchmarks.race._child import ChildError, Run, child
from benchmarks.race._objective import Objective, optimum
from benchmarks.race._problem import Problem, write
from benchmarks.race._side import growing
from benchmarks.race._tune import winners

IN_PROCESS = ("daskdml, 1 replica", "scikit-learn, SGDClassifier", "scikit-learn, LogisticRegression")


def rows(n_classes, is_sparse):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 5)).astype(np.float32)
    y = (X @ rng.standard_normal((5, n_classes)) + rng.gumbel(size=(400, n_classes))).argmax(axis=1)
    return (sparse.csr_matrix(np.where(X > 0.5, X, 0)) if is_sparse else X), y


@pytest.fixture(params=[(2, False), (2, True), (3, False)], ids=["dense", "sparse", "three classes"])
def problem(request, tmp_path):
    X, y = rows(*request.param)
    return write("small", str(tmp_path / "rows"), X, y, request.param[0])


def dense(X):
    return X.toarray() if sparse.issparse(X) else X


def test_arrays_and_files_hold_the_same_rows(problem):
    (X, y), (other_X, other_y) = problem.rows(), problem.read()
    np.testing.assert_array_equal(dense(X), dense(other_X))
    np.testing.assert_array_equal(y, other_y)
    low, high = problem.bounds[3]
    part_X, part_y = problem.rows(low, high)
    np.testing.assert_array_equal(dense(part_X), dense(X)[low:high])
    np.testing.assert_array_equal(part_y, problem.read([problem.parts[3]])[1])
    np.testing.assert_array_equal(part_y, problem.labels(problem.parts[3]))


def test_decoding_alone_reads_every_row_twice(problem, monkeypatch):
    read = []
    for of, name in ((Problem, "read"), (_decoding, "parquet_rows")):
        monkeypatch.setattr(of, name, _noting(read, getattr(of, name)))
    assert all(0 < seconds < 60 for seconds in _decoding.decoding_seconds(problem))
    assert sum(read) == 2 * problem.n_rows


def _noting(read, function):
    def noted(*args):
        found = function(*args)
        read.append((found[0] if isinstance(found, tuple) else found).shape[0])
        return found

    return noted


def test_gradient_and_curvature_are_those_of_the_value(problem):
    objective = Objective(problem)
    theta = np.random.default_rng(1).standard_normal(objective.k * (objective.d + 1))
    value, gradient = objective.with_gradient(theta)
    both = theta.reshape(objective.k, -1)
    assert objective.value(both[:, :-1], both[:, -1]) == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(approx_fprime(theta, lambda t: objective.with_gradient(t)[0]), gradient, atol=1e-5)
    ahead, behind = (objective.with_gradient(theta + step * gradient)[1] for step in (1e-5, -1e-5))
    np.testing.assert_allclose(objective.curvature(theta, gradient), (ahead - behind) / 2e-5, atol=1e-6)


def test_the_optimum_is_scikit_learns(problem):
    objective = Objective(problem)
    value, norm = optimum(objective)
    X, y = problem.rows()
    clf = LogisticRegression(C=1 / (problem.alpha * len(y)), tol=1e-10, max_iter=10_000).fit(X.astype(float), y)
    assert norm <= 1e-8
    assert value == pytest.approx(objective.value(clf.coef_, clf.intercept_), rel=1e-7)


@pytest.mark.parametrize("name", IN_PROCESS)
def test_sides_come_near_the_optimum(name, tmp_path):
    X, y = rows(2, False)
    problem = write("small", str(tmp_path / "rows"), X, y, 2)
    objective = Objective(problem)
    goal = optimum(objective)[0] * 1.02
    for start in ("memory", "files"):
        side = side_named(name)(problem, start, str(tmp_path))
        side.prepare()
        steps = side.steps(side.grid(problem)[0])
        assert any(
            objective.value(step.coef, step.intercept) <= goal for step, _ in zip(steps, range(200), strict=False)
        )


@pytest.mark.parametrize("config", [{"how": "--sgd", "learning_rate": 0.1}, {"learning_rate": 0.5, "l2": 0.0}])
def test_vowpal_wabbit_learns_the_same_from_memory_as_from_files(config, tmp_path):
    pytest.importorskip("vowpalwabbit")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((500, 4)).astype(np.float32)
    problem = write("rows", str(tmp_path), X, (X @ [1, -2, 3, 0] + rng.standard_normal(500) > 0).astype(int), 2)
    ways = []
    for start in ("memory", "files"):
        side = side_named("Vowpal Wabbit, Python API")(problem, start, str(tmp_path))
        side.prepare()
        ways.append([(step.coef, step.intercept) for step in itertools.islice(side.steps(config), 3)])
    for (a, b), (c, d) in zip(*ways, strict=True):
        # Values are written to text, and penalties of files are applied between passes.
        np.testing.assert_allclose(a, c, rtol=0.02, atol=0.01)
        np.testing.assert_allclose(b, d, rtol=0.02, atol=0.01)


def test_fits_grow():
    assert [n for n, _ in zip(growing(), range(8), strict=False)] == [1, 2, 3, 4, 6, 8, 12, 16]


def test_each_target_has_the_configuration_that_was_there_first():
    early = Run({"rate": 1}, [(1, 1.0, 1.01), (2, 2.0, 1.006)])
    late = Run({"rate": 2}, [(1, 1.5, 1.5), (2, 3.0, 1.004)])
    found = winners([early, late], 1.0)
    assert found["0.02"] == {"rate": 1}
    assert found["0.005"] == {"rate": 2}
    # Nobody was there: the nearest.
    assert found["0.0001"] == {"rate": 2}


@pytest.mark.slow
def test_a_side_trains_in_a_process_of_its_own_until_it_is_enough(tmp_path):
    X, y = rows(2, False)
    problem = write("small", str(tmp_path / "rows"), X, y, 2)
    objective, until = Objective(problem), time.monotonic() + 120
    name = "scikit-learn, LogisticRegression"
    with child(name, (problem, problem), "files", str(tmp_path), objective.value, until) as process:
        run = process.train({"solver": "lbfgs"}, 60, until, lambda run: run.steps[-1][0] >= 4)
        assert run.ended == "reached"
        assert [passes for passes, _, _ in run.steps] == [1, 2, 3, 4]
        assert sum(process.quit(until).values()) > 1e7


@pytest.mark.slow
def test_a_side_that_fails_says_why(tmp_path):
    X, y = rows(2, False)
    problem = write("small", str(tmp_path / "rows"), X, y, 2)
    gone = Problem(**(vars(problem) | {"folder": str(tmp_path / "nowhere")}))
    with pytest.raises(ChildError, match="FileNotFoundError"):
        with child(IN_PROCESS[0], (problem, gone), "memory", str(tmp_path), lambda W, b: 0.0, time.monotonic() + 120):
            pass
