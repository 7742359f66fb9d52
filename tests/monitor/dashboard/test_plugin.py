"""The page of a real scheduler: what fits bring there, who is told apart, and what happens where there is none."""

import asyncio
import logging
import re
import subprocess
import sys
import threading
import time
import urllib.request
from urllib.parse import urljoin

import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster

from daskdml import SSP, Averaging
from daskdml.linear_model import SGDClassifier
from daskdml.monitor import Callback
from daskdml.monitor.dashboard import DashboardPlugin, _sender
from daskdml.monitor.dashboard._messages import FORMAT, described, packed
from daskdml.monitor.dashboard._plots import PLOTS
from tests.monitor.dashboard.browser import until
from tests.monitor.events import info, replica_round

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4_000, 8))
Y = (X @ np.linspace(-1, 1, 8) > 0).astype(np.int64)


def fitted(client, strategy=None, **params):
    options = {"max_iter": 3, "tol": None, "random_state": 0}
    blocks = da.from_array(X, chunks=(500, 8)), da.from_array(Y, chunks=500)
    with client.as_current():
        return SGDClassifier(strategy=strategy or Averaging(2), **options | params).fit(*blocks)


@pytest.fixture
def cluster():
    with started() as cluster:
        yield cluster


def started(**options):
    """A cluster of its own, since the page stays with the scheduler."""
    places = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
    return LocalCluster(n_workers=2, threads_per_worker=1, processes=False, **places | options)


def stored(cluster):
    plugin = cluster.scheduler.plugins.get(DashboardPlugin.name)
    return [] if plugin is None else plugin.store.fits


def over(cluster, count=1):
    """The fits of the page, once so many have ended."""
    assert until(lambda: sum(not fit.running for fit in stored(cluster)) >= count)
    return stored(cluster)


def got(cluster, path):
    address = urljoin(f"http://127.0.0.1:{cluster.scheduler.http_server.port}/", path)
    with urllib.request.urlopen(address, timeout=20) as answer:
        return answer.read().decode()


@pytest.mark.parametrize("strategy", [Averaging(3, rounds_per_epoch=4), SSP(1, n_replicas=2)], ids=str)
def test_the_page_knows_what_the_history_says(cluster, strategy):
    with Client(cluster, set_as_default=False) as client:
        clf = fitted(client, strategy, early_stopping=True, n_iter_no_change=50)
        (fit,) = over(cluster)
    history, replicas = clf.history_, clf.replicas_
    assert (fit.state, fit.totals["rounds"], fit.totals["rows"]) == ("max_iter", len(history), history["rows"].sum())
    assert fit.totals["bytes"] == history["bytes"].sum()
    assert fit.loss.columns()[2].tolist() == history["loss"].tolist()
    assert fit.validation.columns()[2].tolist() == history["validation_score"].dropna().tolist()
    counted = np.zeros(10)
    for counts in history["staleness_histogram"]:
        counted[: len(counts)] += counts
    assert [fit.lags[lag] for lag in range(10)] == counted.tolist()
    assert {replica: lane.rows for replica, lane in fit.lanes.items()} == dict(
        replicas.groupby("replica")["rows"].sum()
    )
    for replica, lane in fit.lanes.items():
        mine = replicas[replicas["replica"] == replica]
        assert lane.compute == pytest.approx(mine["compute_seconds"].sum()) and lane.clock == len(history)
    assert sum(fit.traffic.values()) == replicas[["sent_bytes", "received_bytes"]].to_numpy().sum()
    assert fit.dropped == 0 and fit.threads == 2


def test_fits_of_two_clients_at_once_are_told_apart(cluster):
    with (
        # Two threads that each make a client the current one leave this setting to the process: Dask's own doing.
        dask.config.set(scheduler=None),
        Client(cluster, set_as_default=False) as one,
        Client(cluster, set_as_default=False) as two,
    ):
        fits = [
            threading.Thread(target=fitted, args=(client,), kwargs={"alpha": alpha, "max_iter": epochs})
            for client, alpha, epochs in ((one, 1e-4, 4), (two, 1e-1, 6))
        ]
        for thread in fits:
            thread.start()
        for thread in fits:
            thread.join()
        found = over(cluster, 2)
        assert len({fit.id for fit in found}) == 2
        assert {(fit.client, fit.totals["rounds"]) for fit in found} == {(one.id, 4), (two.id, 6)}
        assert all(fit.totals["rows"] == fit.totals["rounds"] * len(X) for fit in found)


def test_the_pages_are_served_and_listed(cluster):
    assert "daskdml" not in got(cluster, "status")
    with Client(cluster, set_as_default=False) as client:
        fitted(client)
        over(cluster)
    assert 'href="daskdml"' in got(cluster, "status") and 'href="individual-daskdml-loss"' in got(cluster, "workers")
    page = got(cluster, "daskdml")
    # All plots, the choice of a fit, and its figures.
    assert page.count("data-root-id") == len(PLOTS) + 2
    assert "http://" not in page.replace("http://www.w3.org", "") and "cdn" not in page
    for name in PLOTS:
        assert f"individual-daskdml-{name}" in got(cluster, "individual-plots.json")
        assert got(cluster, f"individual-daskdml-{name}").count("data-root-id") == 1


def test_behind_a_prefix_the_page_is_where_the_dashboard_is():
    with started(scheduler_kwargs={"http_prefix": "/behind/proxy"}) as cluster:
        with Client(cluster, set_as_default=False) as client:
            fitted(client)
            over(cluster)
        page = got(cluster, "behind/proxy/daskdml")
        assert "data-root-id" in page and 'href="daskdml"' in got(cluster, "behind/proxy/status")
        scripts = re.findall(r'src="([^"]*js/bokeh[^"]*)"', page)
        assert scripts
        for script in scripts:
            assert "Bokeh" in got(cluster, urljoin("/behind/proxy/daskdml", script))


def test_metrics_stand_beside_dasks_with_bounded_labels(cluster):
    pytest.importorskip("prometheus_client")
    with Client(cluster, set_as_default=False) as client:
        for _ in range(12):
            clf = fitted(client, max_iter=1)
        until(lambda: len(stored(cluster)) == 10 and not any(fit.running for fit in stored(cluster)))
    text = got(cluster, "metrics")
    assert "dask_scheduler_workers" in text and 'daskdml_fits{state="over"} 10.0' in text
    rows = [line for line in text.splitlines() if line.startswith("daskdml_rows_total{")]
    assert len(rows) == 10 and all(f" {float(len(X))}" in line and 'estimator="SGDClassifier"' in line for line in rows)
    loss = [float(line.split()[-1]) for line in text.splitlines() if line.startswith("daskdml_loss{")]
    assert loss == [clf.history_["loss"].iloc[-1]] * 10


def test_switched_off_nothing_is_registered(cluster):
    with dask.config.set({"daskdml.dashboard": False}), Client(cluster, set_as_default=False) as client:
        fitted(client)
        time.sleep(0.2)
    assert DashboardPlugin.name not in cluster.scheduler.plugins


def test_a_scheduler_without_a_dashboard_trains_just_as_well():
    with started(dashboard_address=None) as cluster, Client(cluster, set_as_default=False) as client:
        clf = fitted(client)
        (fit,) = over(cluster)
        assert fit.totals["rounds"] == len(clf.history_) == 3


def test_the_result_is_the_same_with_the_page_and_without(cluster):
    with Client(cluster, set_as_default=False) as client:
        shown = fitted(client, "bsp")
        with dask.config.set({"daskdml.dashboard": False}):
            unseen = fitted(client, "bsp")
        over(cluster)
    assert (shown.coef_ == unseen.coef_).all() and (shown.history_["loss"] == unseen.history_["loss"]).all()


def test_a_fit_that_fails_says_why(cluster):
    class Breaks(Callback):
        def on_round_end(self, event):
            raise RuntimeError("<no> disk")

    with Client(cluster, set_as_default=False) as client:
        with pytest.raises(RuntimeError, match="disk"):
            fitted(client, callbacks=[Breaks()])
        (fit,) = over(cluster)
    assert (fit.state, fit.error) == ("failed", "RuntimeError: <no> disk")


def test_a_client_that_goes_away_leaves_no_running_fit(cluster):
    with Client(cluster, set_as_default=False) as client:
        sent = {"format": FORMAT, "fit": "f", "client": client.id, "facts": described(info()), "events": []}
        client.sync(client.register_plugin, DashboardPlugin())
        client.sync(client.scheduler.daskdml_fit, message=sent)
        assert stored(cluster)[0].running
    assert until(lambda: not stored(cluster)[0].running)


def test_a_flood_of_events_leaves_the_scheduler_responsive(cluster):
    line = packed("replica", 1.0, replica_round(0, 1, shard_bytes=(1,) * 8))
    with Client(cluster, set_as_default=False) as client:
        client.register_plugin(DashboardPlugin())
        sent = {"format": FORMAT, "fit": "f", "client": client.id, "facts": described(info()), "events": [line] * 500}

        async def flood():
            for _ in range(200):
                await client.scheduler.daskdml_fit(message=sent)

        flooding = client.loop.asyncio_loop
        done = asyncio.run_coroutine_threadsafe(flood(), flooding)
        waits = []
        while not done.done():
            began = time.perf_counter()
            got(cluster, "health")
            waits.append(time.perf_counter() - began)
        done.result()
        (fit,) = stored(cluster)
        assert fit.lanes[0].rows == 100_000 * 25 and len(fit.lanes[0].track) <= 40
        # Others are served all the while: a scheduler that is kept busy for the whole flood answers once, at its end.
        # The machine may stop it now and then, which no single wait can be held against; a fast one is through in
        # a second.
        assert len(waits) >= 5 and np.median(waits) < 0.5


def test_a_scheduler_whose_daskdml_has_no_page_is_named_once_and_the_fit_goes_on(tmp_path, caplog):
    code = (
        "import sys; sys.modules['daskdml.monitor.dashboard'] = None\n"
        "from distributed.cli.dask_scheduler import main\n"
        f"main(['--host', '127.0.0.1', '--port', '0', '--no-dashboard', '--scheduler-file', {str(tmp_path / 's')!r}])"
    )
    scheduler = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, cwd=tmp_path)
    worker = None
    try:
        assert until((tmp_path / "s").exists)
        where = ["--scheduler-file", str(tmp_path / "s"), "--local-directory", str(tmp_path)]
        where += ["--no-dashboard", "--no-nanny", "--nthreads", "1"]
        command = [sys.executable, "-m", "distributed.cli.dask_worker", *where]
        worker = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=tmp_path)
        with caplog.at_level(logging.WARNING, "daskdml"), Client(scheduler_file=str(tmp_path / "s")) as client:
            lines = []
            for _ in range(2):
                assert len(fitted(client).history_) == 3
                lines = until(lambda: [r.getMessage() for r in caplog.records if "dashboard" in r.getMessage()])
        assert len(lines) == 1
        assert client.scheduler_info is not None and "daskdml" in lines[0] and "training goes on" in lines[0]
    finally:
        for process in (worker, scheduler):
            if process is not None:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    # Dask's worker waits for ever where it is told to end while its connection does.
                    process.kill()
                    process.wait(10)


class Stuck:
    """A client whose scheduler never answers: what its loop is given is not run."""

    id = "stuck"

    class loop:
        @staticmethod
        def add_callback(function):
            pass


def test_a_scheduler_that_does_not_answer_costs_neither_time_nor_memory():
    sender = _sender.Sender(Stuck(), info(), every=0.5, waiting=1_000)
    event = replica_round()
    began = time.perf_counter()
    for _ in range(100_000):
        sender.take("replica", event)
    assert time.perf_counter() - began < 2.0
    assert len(sender._events) == 1_000 and sender.dropped == 99_000
