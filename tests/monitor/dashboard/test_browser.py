"""The page as a user sees it, in Chromium, during a fit with a straggler and a worker that is killed."""

import os
import signal
import threading

import dask
import dask.array as da
import numpy as np
import pytest

from daskdml import SSP
from daskdml.linear_model import SGDClassifier
from daskdml.monitor import Callback
from daskdml.monitor.dashboard import DashboardPlugin
from tests.monitor.dashboard.browser import CHROMIUM, DRIVER, browser, complaints, plotted, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's chromium and chromium-driver"),
]
# What bokeh says of a plot that has nothing to show yet.
EMPTY = "could not set initial ranges"
# Whatever is seen at any time of the fit; the rest has to be there at its end.
PASSING = {"daskdml_cache"}
# Long enough for a page that is brought up to date every two seconds, with :func:`lavish`.
EPOCHS = 12


def lavish():
    """Let the page take whatever time it needs: on a busy machine it would be up to date every twenty seconds only."""
    from daskdml.monitor.dashboard import _page

    _page._SHARE = 1.0


def block(seed, rows=2_000, columns=20):
    return np.random.default_rng(seed).standard_normal((rows, columns))


def data(n_blocks=18, rows=2_000, columns=20):
    """Blocks that are made in the tasks, so that a cache keeps them."""
    made = [da.from_delayed(dask.delayed(block)(seed), (rows, columns), float) for seed in range(n_blocks)]
    X = da.concatenate(made)
    return X, (X @ np.linspace(-1, 1, columns) > 0).astype(int)


def slow_down(straggler, killed):
    """Make this process take longer for every block, a straggler ever so much.

    Until ``killed`` exists all of them are slow, so that a fit is not over before the page has shown what it must.
    """
    import os
    import time

    from daskdml.models import LinearModel

    quick = LinearModel.train

    def train(self, *args, **kwargs):
        time.sleep((0.03 if straggler else 0.0) if os.path.exists(killed) else (0.3 if straggler else 0.1))
        return quick(self, *args, **kwargs)

    LinearModel.train = train


class Owners(Callback):
    """Which worker trains what a replica has, as far as it does so itself."""

    def __init__(self):
        self.of = {}

    def on_replica_round(self, event):
        if not event.reassigned:
            self.of[event.replica] = event.worker


def last(page, name, column, renderer=0):
    return page[name]["data"][renderer][column]


def pages_complaints(driver):
    return [entry["message"] for entry in complaints(driver) if EMPTY not in entry["message"]]


def test_every_plot_tells_of_a_fit_with_a_straggler_and_a_killed_worker(process_client, tmp_path):
    client = process_client(n_workers=3)
    base = client.dashboard_link.removesuffix("/status")
    straggler, victim, _ = sorted(client.nthreads())
    killed = tmp_path / "killed"
    for worker in client.nthreads():
        client.run(slow_down, worker == straggler, str(killed), workers=[worker])
    (pid,) = client.run(os.getpid, workers=[victim]).values()
    X, y = data()
    owners = Owners()
    clf = SGDClassifier(
        strategy=SSP(2, n_replicas=3), max_iter=EPOCHS, tol=None, random_state=0, memory_budget="600kB",
        early_stopping=True, n_iter_no_change=50, callbacks=[owners],
    )  # fmt: skip
    # The page before any fit: the scheduler has it once somebody has asked for it.
    client.register_plugin(DashboardPlugin())
    client.run_on_scheduler(lavish)
    fit = threading.Thread(target=clf.fit, args=(X, y))
    with browser() as driver:
        driver.get(f"{base}/daskdml")
        assert until(lambda: "No fit yet" in facts(driver))
        fit.start()
        try:
            assert until(lambda: len(last(plotted(driver), "daskdml_clocks", "clock")) == 3)
            # Before workers die, and replicas move; at the very beginning those are slow that still load the kernel.
            # Where others train all that a replica has, nothing tells whose it was.
            assert until(lambda: {owners.of.get(r, straggler) for r in stragglers(driver)} == {straggler})
            running = facts(driver)
            os.kill(pid, signal.SIGKILL)
        finally:
            killed.touch()
            fit.join()
        assert "running" in running
        assert until(lambda: "over, all epochs done" in facts(driver)), facts(driver)
        page = plotted(driver)
        first_view = pages_complaints(driver)
        # The page opened after the fit shows the same.
        driver.get(f"{base}/daskdml")
        assert until(lambda: len(plotted(driver)) == 12 and "over, all epochs done" in facts(driver))
        after = plotted(driver)
        assert first_view == pages_complaints(driver) == []
        driver.get(f"{base}/individual-daskdml-loss")
        assert until(lambda: plotted(driver).get("daskdml_loss"))
        assert plotted(driver)["daskdml_loss"] == after["daskdml_loss"]
        assert pages_complaints(driver) == []
    assert {name for name, plot in after.items() if not all(map(len, plot["data"][0].values()))} == set()
    equals_history(after, clf)
    # What is told of is within the axes of the page that was open all the while.
    assert page["daskdml_recoveries"]["end"] >= max(last(page, "daskdml_recoveries", "at"))
    assert {name: plot for name, plot in page.items() if name not in PASSING} == {
        name: plot for name, plot in after.items() if name not in PASSING
    }


def stragglers(driver):
    """The replicas that the page shows as slow."""
    return [replica for replica, slow in enumerate(last(plotted(driver), "daskdml_stragglers", "slow")) if slow]


def facts(driver):
    """The figures at the head of the page; empty until the page is there."""
    roots = "(window.Bokeh ? Bokeh.documents : []).flatMap((doc) => doc.roots())"
    return driver.execute_script(f"return {roots}.filter((r) => r.name == 'daskdml_facts').map((r) => r.text)[0] || ''")


def kept(values, most=512):
    """Of a curve's points every one, or every second, fourth, ... where there are too many, and the last."""
    step = 1
    while len(values[::step]) >= most:
        step *= 2
    return values[::step] + values[-1:] * ((len(values) - 1) % step > 0)


def equals_history(page, clf):
    history, replicas = clf.history_, clf.replicas_
    assert last(page, "daskdml_loss", "loss") == pytest.approx(kept(history["loss"].tolist()), rel=1e-9)
    scores = history["validation_score"].dropna().tolist()
    assert last(page, "daskdml_loss_epochs", "score", 1) == pytest.approx(scores, rel=1e-9) and len(scores) == EPOCHS
    lags = np.zeros(3, dtype=int)
    for counts in history["staleness_histogram"]:
        lags[: len(counts)] += counts
    assert last(page, "daskdml_staleness", "reads") == lags.tolist()
    assert [clock[-1] for clock in last(page, "daskdml_clocks", "clock")] == [len(history)] * 3
    moved = replicas["sent_bytes"].sum() + replicas["received_bytes"].sum()
    assert sum(last(page, "daskdml_hottest", "traffic")) == moved
    kinds = last(page, "daskdml_recoveries", "kind")
    assert "worker left" in kinds and "recovery" in kinds
    assert page["daskdml_recoveries"]["title"].endswith(f"reassigned: {(replicas['reassigned'] > 0).sum():,}")
    for name, column in (("compute", "compute_seconds"), ("gate", "gate_seconds")):
        parts = ["compute_seconds", "wait_seconds", "gate_seconds", "communicate_seconds"]
        spent = replicas.groupby("replica")[parts].sum()
        percent = 100 * spent[column] / spent.sum(axis=1)
        assert last(page, "daskdml_replicas", name) == pytest.approx(percent.tolist(), rel=1e-6)
