"""What more workers would bring: where the answer is known, and beside what is then measured."""

import time
import types

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster

from daskdml.linear_model import SGDClassifier
from daskdml.models import LinearModel
from daskdml.monitor import estimate_scaling
from daskdml.strategies import Averaging

ROWS = 1000


def fitted(workers, law, *, rows=ROWS, rounds=1, noise=0.0, epochs=20, kind="Averaging"):
    """A fit of which everything is known: ``law(workers)`` is the seconds of an epoch beside 2 ms a row."""
    rng = np.random.default_rng(workers)
    n = epochs * rounds
    work = 0.002 * rows / workers / rounds
    history = pd.DataFrame(
        {
            "round": np.arange(1, n + 1),
            "epoch": np.repeat(np.arange(1, epochs + 1), rounds),
            "rows": rows // rounds,
            "seconds": (work + law(workers) / rounds) * (1 + noise * rng.standard_normal(n)),
            "compute_seconds": workers * work,
            "wait_seconds": 0.0,
        }
    )
    # What the first epoch costs more is no matter of scaling.
    history.loc[history["epoch"] == 1, "seconds"] += 5.0
    return types.SimpleNamespace(history_=history, n_replicas_=workers, strategy_=type(kind, (), {})())


LAWS = {
    "constant": lambda m: 0.1,
    "log": lambda m: 0.05 * np.log(m) + 0.02,
    "linear": lambda m: 0.01 * m + 0.02,
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("rounds", [1, 5])
def test_three_fits_tell_how_the_rest_grows(law, rounds):
    fits = [fitted(m, LAWS[law], rounds=rounds) for m in (1, 2, 4, 8)]
    found = estimate_scaling(fits, [1, 2, 4, 8, 16, 32, 64]).table
    for workers in found.index:
        expected = 0.002 * ROWS / workers + LAWS[law](workers)
        assert found["seconds"][workers] == pytest.approx(expected, rel=0.01), workers


def test_one_fit_leaves_it_open_and_says_so():
    table = estimate_scaling(fitted(4, LAWS["constant"]), [4, 64]).table
    assert table["low"][4] == pytest.approx(table["high"][4], rel=0.01)
    at_64 = 0.002 * ROWS / 64
    # The rest may stay as it is, or be sixteen times as much.
    assert table["low"][64] == pytest.approx(at_64 + 0.1, rel=0.01)
    assert table["high"][64] == pytest.approx(at_64 + 1.6, rel=0.01)
    assert table["low"][64] < table["seconds"][64] < table["high"][64]


def test_two_fits_bound_the_truth():
    for law in LAWS.values():
        table = estimate_scaling([fitted(m, law) for m in (2, 4)], [16]).table
        expected = 0.002 * ROWS / 16 + law(16)
        assert 0.99 * table["low"][16] <= expected <= 1.01 * table["high"][16]


def test_noise_widens_the_bounds():
    calm, loud = (
        estimate_scaling([fitted(m, LAWS["constant"], noise=noise) for m in (1, 2, 4)], [32]).table
        for noise in (0.0, 0.3)
    )
    width = [(t["high"] - t["low"])[32] for t in (calm, loud)]
    assert width[0] < 0.01 < width[1]


def test_where_it_stops_paying():
    found = estimate_scaling([fitted(m, LAWS["linear"]) for m in (1, 2, 4, 8)], [1, 2, 4, 8, 12, 14, 16, 32, 64])
    # 2 / m + 0.01 m is least at the root of 200; half is used while 0.01 m + 0.02 is below 2.03 / m - ... .
    assert found.fastest == 14
    assert found.fastest_range == (14, 14)
    efficiency = {m: 2.03 / m / (2 / m + LAWS["linear"](m)) for m in found.table.index}
    assert found.worthwhile == max(m for m, used in efficiency.items() if used >= 0.5)
    assert "beyond 14 workers (between 14 and 14) an epoch becomes longer" in found.sentence
    endless = estimate_scaling([fitted(m, lambda m: 0.0) for m in (1, 2, 4)])
    assert (endless.fastest, endless.worthwhile) == (64, 64) and "still becomes shorter" in endless.sentence


def test_more_rows_take_longer_in_proportion():
    fits = [fitted(m, LAWS["constant"]) for m in (1, 2, 4)]
    table = estimate_scaling(fits, [2], rows=10 * ROWS).table
    assert table["seconds"][2] == pytest.approx(0.002 * 10 * ROWS / 2 + 0.1, rel=0.01)
    # Fits of different sizes know the same.
    fits = [fitted(m, LAWS["constant"], rows=ROWS * m) for m in (1, 2, 4)]
    assert estimate_scaling(fits, [2], rows=10 * ROWS).table["seconds"][2] == pytest.approx(10.1, rel=0.01)


def test_waiting_for_the_slowest_is_shared_by_more_workers():
    fit = fitted(2, lambda m: 0.9)  # 1 s of work for each, and a slow replica that takes 1.9 s
    fit.replicas_ = pd.DataFrame(
        [
            {
                "round": r,
                "replica": k,
                "compute_seconds": s,
                "wait_seconds": 0.0,
                "gate_seconds": 1.9 - s,
                "sent_bytes": 0,
            }
            for r in range(1, 21)
            for k, s in enumerate((1.0, 1.9))
        ]
    )
    assert estimate_scaling(fit, [20]).table["seconds"][20] == pytest.approx(0.19, rel=0.01)


def test_it_is_shown_in_words_tables_and_a_picture():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    found = estimate_scaling([fitted(m, LAWS["linear"]) for m in (1, 2)])
    assert repr(found).startswith("<ScalingEstimate: Up to 16 workers (between 8 and 16) at least half")
    assert "<table" in found._repr_html_()
    assert found.measured.index.tolist() == [1, 2]
    np.testing.assert_allclose(found.measured["fitted"], found.measured["seconds"], rtol=0.01)
    _, ax = pyplot.subplots()
    assert found.plot(ax) is ax
    measured = next(line for line in ax.get_lines() if line.get_label() == "measured")
    np.testing.assert_allclose(measured.get_ydata(), found.measured["seconds"])
    pyplot.close("all")


def test_what_cannot_be_estimated_from_is_refused():
    one = fitted(1, LAWS["constant"])
    for workers in ([], [0], [1.5], ["a"]):
        with pytest.raises(ValueError, match="at least 1"):
            estimate_scaling(one, workers)
    with pytest.raises(ValueError, match="rows must be at least 1"):
        estimate_scaling(one, rows=0)
    with pytest.raises(ValueError, match="nothing to estimate from"):
        estimate_scaling([])
    with pytest.raises(TypeError, match="fit it first"):
        estimate_scaling(SGDClassifier())
    with pytest.raises(ValueError, match="estimate each strategy by itself"):
        estimate_scaling([one, fitted(2, LAWS["constant"], kind="SSP")])


def timed(workers, epochs=3):
    X, y = np.zeros((ROWS, 2)), np.arange(ROWS) % 2
    X[:, 0] = y
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=False, memory_limit=0, dashboard_address=None
        ) as cluster,
        Client(cluster),
    ):
        clf = SGDClassifier(max_iter=epochs, tol=None, random_state=0, strategy=Averaging(n_replicas=workers))
        return clf.fit(da.from_array(X, chunks=(125, 2)), da.from_array(y, chunks=125))


# What is measured is also what else the machine does meanwhile.
@pytest.mark.flaky(reruns=2)
def test_fits_on_one_and_two_workers_predict_four_and_eight(monkeypatch):
    timed(2)  # compiles
    train, agree = LinearModel.train, Averaging.agree

    def share(self, state, block, order, active):
        time.sleep(0.004 * len(order))
        return train(self, state, block, order, active)

    def alone(self, *args):
        # What all wait for, however many they are.
        time.sleep(0.4)
        return agree(self, *args)

    monkeypatch.setattr(LinearModel, "train", share)
    monkeypatch.setattr(Averaging, "agree", alone)
    fits = [timed(1), timed(2)]
    found = estimate_scaling(fits, [4, 8])
    assert found.measured.index.tolist() == [1, 2]
    one = found.measured["seconds"].iloc[0]
    for workers in (4, 8):
        history = timed(workers).history_
        measured = history.loc[history["epoch"] > 1, "seconds"].mean()
        assert found.table["seconds"][workers] == pytest.approx(measured, rel=0.2), workers
    # To divide by the number of workers would not do: the bound above would show it.
    assert one / workers < 0.75 * measured
