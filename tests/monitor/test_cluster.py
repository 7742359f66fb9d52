import os
import subprocess
import sys
import textwrap
import threading
import urllib.request

import psutil
import pytest
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, worker_client

from daskdml.cluster import close_embedded, current_client, embedded, local, worker_info
from daskdml.data import worker_memory


@pytest.fixture
def own_embedded():
    """The embedded cluster, closed when the test is over."""
    yield embedded()
    close_embedded()


def listening(pid=None):
    connections = psutil.Process(pid).net_connections(kind="inet")
    return {(c.laddr.ip, c.laddr.port) for c in connections if c.status == psutil.CONN_LISTEN}


def run(code):
    """Run a program that uses daskdml.cluster in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-W", "default", "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
    )


def test_embedded_is_started_once_with_a_worker_for_each_core(own_embedded):
    assert embedded() is own_embedded
    workers = worker_info(own_embedded).values()
    assert len(workers) == CPU_COUNT
    assert {worker["nthreads"] for worker in workers} == {1}
    assert own_embedded.submit(os.getpid).result() == os.getpid()


def test_embedded_is_not_the_active_client(own_embedded):
    assert current_client() is None
    with pytest.raises(ValueError):
        Client.current()
    with own_embedded.as_current():
        assert current_client() is None


def test_embedded_listens_on_the_loopback_only():
    before = listening()
    embedded()
    opened = listening() - before
    close_embedded()
    assert {ip for ip, _ in opened} <= {"127.0.0.1", "::1"}
    assert listening() == before


def test_the_dashboard_of_embedded_answers(own_embedded):
    with urllib.request.urlopen(own_embedded.dashboard_link, timeout=10) as answer:
        assert answer.status == 200
    assert own_embedded.dashboard_link.startswith("http://127.0.0.1:")


def test_an_error_of_a_task_is_raised_and_not_printed_too():
    done = run(
        """
        import logging
        import dask.array as da
        import numpy as np
        from daskdml.cluster import close_embedded
        from daskdml.linear_model import SGDClassifier

        X = da.from_array(np.array([[1.0], [np.nan]]), chunks=1)
        for _ in range(2):
            try:
                SGDClassifier().fit(X, [0, 1])
            except ValueError as error:
                print(error)
            close_embedded()
        print(logging.getLogger("distributed.worker").filters)
        """
    )
    assert done.stdout.splitlines()[2] == "[]" and done.stdout.startswith("Input X contains NaN")
    assert done.stderr == ""


def test_threads_that_ask_at_once_get_one_cluster():
    got = []
    threads = [threading.Thread(target=lambda: got.append(embedded())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(client) for client in got}) == 1
    close_embedded()


def test_a_closed_one_is_replaced():
    first = embedded()
    first.close()
    second = embedded()
    assert second is not first
    assert second.submit(sum, [1, 2]).result() == 3
    assert first.cluster.status.name == "closed"
    close_embedded()
    close_embedded()


def test_the_users_client_is_the_active_one(own_embedded):
    with LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as cluster:
        with Client(cluster) as client:
            assert current_client() is client
    assert current_client() is None


def test_inside_a_task_only_the_tasks_own_client_is_active():
    def plain():
        return current_client() is None

    def opened():
        with worker_client() as client:
            return current_client().scheduler.address == client.scheduler.address

    with LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as cluster:
        with Client(cluster) as client:
            assert client.submit(plain, pure=False).result()
            assert client.submit(opened, pure=False).result()


def test_an_asynchronous_client_is_refused():
    completed = run(
        """
        import asyncio
        from distributed import Client
        from daskdml.cluster import current_client

        async def main():
            async with Client(processes=False, asynchronous=True, dashboard_address="127.0.0.1:0"):
                try:
                    current_client()
                except ValueError as error:
                    print(error)

        asyncio.run(main())
        """
    )
    assert "make a Client without asynchronous=True" in completed.stdout


@pytest.mark.parametrize("end", ["", "raise SystemExit(0)", "import daskdml.cluster as c; c.close_embedded()"])
def test_a_program_that_never_closes_it_ends_quietly(end):
    completed = run(
        f"""
        from daskdml.cluster import embedded
        if __name__ == "__main__":
            client = embedded()
            print(client.submit(sum, [1, 2, 3]).result())
            {end}
        """
    )
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, "6\n", "")


def test_a_forked_process_leaves_its_parents_alone_and_may_start_its_own():
    completed = run(
        """
        import os, sys
        from daskdml import cluster
        client = cluster.embedded()
        child = os.fork()
        if child == 0:
            own = cluster.embedded()
            assert own is not client
            print("child", own.submit(sum, [1, 2]).result(), flush=True)
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        folders = client.run(lambda dask_worker: os.path.isdir(dask_worker.local_directory))
        print("parent", client.submit(sum, [1, 2, 3]).result(), all(folders.values()))
        """
    )
    noise = [line for line in completed.stderr.splitlines() if "fork()" not in line and "os.fork" not in line]
    assert (completed.returncode, completed.stdout, noise) == (0, "child 3\nparent 6 True\n", [])


def test_local_owns_its_cluster():
    with local(n_workers=1, memory_limit="500MB", dashboard_address="127.0.0.1:0") as client:
        assert current_client() is client
        (worker,) = worker_info(client).values()
        assert (worker["memory_limit"], worker["nthreads"]) == (500_000_000, 1)
        pid = client.submit(os.getpid).result()
        assert pid != os.getpid()
        assert {ip for ip, _ in listening(pid) | listening()} <= {"127.0.0.1", "::1"}
    assert current_client() is None
    assert not psutil.pid_exists(pid)


def test_local_refuses_no_workers():
    with pytest.raises(ValueError, match="n_workers must be at least 1, got 0"):
        local(n_workers=0)


def test_workers_are_known_also_while_the_client_forgets_them(own_embedded, monkeypatch):
    # The client's own look at the scheduler, every other second, brings a description without workers.
    monkeypatch.setattr(type(own_embedded), "scheduler_info", lambda self, **options: {"workers": {}})
    assert set(worker_info(own_embedded)) == set(own_embedded.nthreads())
    memory = worker_memory(own_embedded)
    assert set(memory.limits) == set(memory.threads) == set(own_embedded.nthreads())


def test_a_fit_on_the_embedded_cluster_takes_over_no_computation_of_the_users():
    done = run(
        """
        import dask, dask.array as da, numpy as np
        from distributed.client import _get_global_client
        from daskdml.linear_model import SGDClassifier

        rng = np.random.default_rng(0)
        X = da.from_array(rng.standard_normal((400, 3)), chunks=(100, 3))[rng.permutation(400)]
        SGDClassifier(strategy="ssp", max_iter=2, tol=None).fit(X, np.arange(400) % 2)
        print(dask.config.get("scheduler", None), _get_global_client())
        """
    )
    assert done.stdout == "None None\n", done.stderr
