"""Clusters and data for the tests, and a check that each test leaves nothing behind."""

import functools
import gc
import multiprocessing.util
import operator
import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from tests.leaks import Leftovers

DATA = Path(__file__).parents[2] / "shared" / "data"
_scratch = pytest.StashKey[str]()
# What there was when the session's cluster had started, which may be in the middle of a test.
_of_session = []


def pytest_configure(config):
    # The socket of the process that forks workers is taken away by multiprocessing itself, when all is over.
    multiprocessing.util.get_temp_dir()
    # A temporary folder of our own: what another program leaves in the common one is no leak of ours. pytest's
    # own tmp_path stays where it is looked for after a failure.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    config.stash[_scratch] = tempfile.tempdir = tempfile.mkdtemp(prefix="daskdml-tests-")
    os.environ["TMPDIR"] = tempfile.tempdir
    _no_profiler()
    _fork_workers()


def _no_profiler():
    """Dask's profiler brings a process of some Pythons to a standstill now and then: see ``daskdml.cluster``."""
    import dask

    # Clusters of these processes, and of those that tests start.
    os.environ["DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED"] = "False"
    dask.config.set({"distributed.worker.profile.enabled": False})


def _fork_workers():
    """Workers of clusters that this process makes are forked from one that has imported all they need.

    Started anew, as everywhere else, each takes seconds to import it, and there are hundreds. What runs in processes of
    its own starts them as its users do: commands, notebooks, examples of drivers that are killed.
    """
    import dask
    from distributed.utils import get_mp_context

    dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
    imported = ["distributed.nanny", "daskdml.linear_model", "daskdml.server", "daskdml.io"]
    get_mp_context().set_forkserver_preload(imported)


def pytest_collection_finish():
    """Leave the thousands of tests and all modules out of what is searched for garbage, which tests do all the time."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure(config):
    shutil.rmtree(config.stash[_scratch], ignore_errors=True)


# What is tested there is who waits for whom, who is slow and who is given up: that other tests share the cores shows.
ALONE = (
    "monitor/dashboard",
    "monitor/test_scaling.py",
    "strategies/test_agreement.py",
    "strategies/test_asynchronous.py",
    "strategies/test_failures.py",
    "strategies/test_sent_ahead.py",
    "strategies/test_speeds.py",
)


def pytest_collection_modifyitems(items):
    alone = tuple(Path(__file__).parent / name for name in ALONE)
    for item in items:
        if any(item.path.is_relative_to(folder) for folder in alone):
            item.add_marker(pytest.mark.alone)
    if any(item.get_closest_marker("gpu") for item in items) and not _has_gpu():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no GPU, or no numba-cuda to use it (make test-gpu)"))


def _has_gpu():
    from numba import config

    from daskdml.numerics import card

    return card() is not None and not config.ENABLE_CUDASIM


@pytest.fixture(autouse=True)
def leaves_nothing_behind():
    """Fail a test after which threads, processes, ports, clients or temporary files remain."""
    before = Leftovers.now()
    yield
    from daskdml.cluster import close_embedded

    # A fit without a client starts it, and it stays till the end of the process by design.
    close_embedded()
    _close_joblib()
    remains = functools.reduce(operator.or_, _of_session, before).remaining()
    if remains:
        pytest.fail("this test left behind: " + "; ".join(remains), pytrace=False)


def _close_joblib():
    """Joblib keeps its pool of processes for whoever asks next."""
    from joblib.externals.loky import reusable_executor

    if reusable_executor._executor is not None:
        reusable_executor._executor.shutdown(wait=True)


@pytest.fixture(scope="session")
def cluster():
    """A cluster inside this process: two workers of one thread; every test may use it, none changes it."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        memory_limit=0,
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
    ) as cluster:
        _of_session.append(Leftovers.now())
        yield cluster


@pytest.fixture
def client(cluster):
    """The active client, of the cluster inside this process."""
    from distributed import Client

    with Client(cluster) as client:
        yield client


@pytest.fixture
def process_client():
    """Make an active client of a new cluster of processes: ``process_client(n_workers=2, memory_limit="500MB")``."""
    from daskdml.cluster import local

    clients = []

    def make(n_workers=2, **options):
        clients.append(local(n_workers, **{"dashboard_address": "127.0.0.1:0"} | options))
        return clients[-1]

    yield make
    for client in reversed(clients):
        client.close()


@pytest.fixture
def pause():
    """Have workers begin no more tasks, as Dask does where memory is short: ``pause(client, *addresses)``, else all."""
    from distributed.core import Status

    def paused(dask_worker):
        # Dask would resume it at its next look at the memory.
        dask_worker.memory_manager.memory_pause_fraction = False
        dask_worker.status = Status.paused

    def pause(client, *workers):
        client.run(paused, workers=list(workers) or None)
        wanted = set(workers or client.nthreads())
        end = time.monotonic() + 30
        # The scheduler hears of it later.
        while wanted and time.monotonic() < end:
            time.sleep(0.01)
            told = client.scheduler_info(n_workers=-1)["workers"]
            wanted -= {address for address in wanted if told.get(address, {}).get("status") == "paused"}

    return pause


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real data sets; skips the test where there is none."""
    if not DATA.is_dir():
        pytest.skip("the folder of real data sets, ../shared/data beside the checkout, is absent")
    return DATA
