"""What Dask does beside tasks in clusters of ours: no profiler where it stops Python, and less else."""

import os
import signal
import time

import dask
import pytest
from distributed import Client, LocalCluster

from daskdml import cluster

NOWHERE = {"dashboard_address": "127.0.0.1:0"}


@pytest.fixture(params=[True, False], ids=["a Python that is safe", "one that is not"])
def safe(request, monkeypatch):
    """As if this Python were the one or the other; the profiler is on, as Dask has it."""
    monkeypatch.setattr(cluster, "_STACKS_ARE_SAFE", request.param)
    monkeypatch.setattr(cluster, "_SETTINGS", {} if request.param else {cluster._PROFILER: False})
    monkeypatch.setattr(cluster, "_warned_of", set())
    with dask.config.set({cluster._PROFILER: True}):
        yield request.param


def profiled(client):
    """Whether the workers watch their tasks."""
    return set(client.run(lambda dask_worker: "profile" in dask_worker.periodic_callbacks).values())


def test_the_embedded_cluster_has_it_where_it_does_no_harm(safe, recwarn):
    client = cluster.embedded()
    assert profiled(client) == {safe}
    cluster.check_workers(client)
    assert not list(recwarn)
    # The setting is that cluster's, not the process's.
    assert dask.config.get(cluster._PROFILER)


def test_a_local_cluster_has_it_where_it_does_no_harm_also_in_workers_that_are_started_again(safe):
    with cluster.local(1, **NOWHERE) as client:
        assert profiled(client) == {safe}
        (first,) = client.run(os.getpid).values()
        os.kill(first, signal.SIGKILL)
        end = time.monotonic() + 60
        while list(client.run(os.getpid, on_error="ignore").values()) in ([], [first]):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert profiled(client) == {safe}
        assert set(client.run(dask.config.get, "distributed.worker.memory.pause").values()) == {False}
        assert dask.config.get(cluster._PROFILER)


@pytest.mark.parametrize("on", [True, False])
def test_another_cluster_is_warned_of_once(safe, on, recwarn):
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, **NOWHERE}
    with dask.config.set({cluster._PROFILER: on}), LocalCluster(**options) as made, Client(made) as client:
        for _ in range(2):
            cluster.check_workers(client)
    said = [str(warning.message) for warning in recwarn if warning.category is RuntimeWarning]
    assert len(said) == (on and not safe)
    assert all("can bring a process to a standstill" in text for text in said)


def test_workers_and_scheduler_of_a_local_cluster_look_at_themselves_less_often():
    def every(dask_worker=None, dask_scheduler=None):
        callbacks = (dask_worker or dask_scheduler).periodic_callbacks
        return callbacks["tick"].callback_time, callbacks["monitor"].callback_time

    before = dask.config.get("distributed.admin.tick.interval")
    with cluster.local(1, **NOWHERE) as client:
        assert set(client.run(every).values()) == {(100, 1000)} == {client.run_on_scheduler(every)}
    own = {"distributed.admin.tick.interval": "40ms"}
    with cluster.local(1, config=own, **NOWHERE) as client:
        assert set(client.run(every).values()) == {(40, 1000)}
    assert dask.config.get("distributed.admin.tick.interval") == before
