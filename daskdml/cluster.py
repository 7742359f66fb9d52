"""Clusters: the one that is active, the embedded one, and local ones.

See :func:`current_client`, :func:`embedded`, :func:`local` and :func:`retire`.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import logging
import os
import platform
import pydoc
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import CancelledError
from importlib.util import find_spec
from typing import Any

import dask
from dask.system import CPU_COUNT
from distributed import Client, Future, LocalCluster, get_client, get_worker
from distributed.client import FutureCancelledError, _wait, default_client
from distributed.comm.core import CommClosedError
from distributed.threadpoolexecutor import thread_state
from distributed.utils import format_dashboard_link

from daskdml._version import __version__

__all__ = [
    "LOST",
    "check_workers",
    "client_of_task",
    "close_embedded",
    "connection_lost",
    "current_client",
    "embedded",
    "local",
    "retire",
    "wait_with",
    "worker_info",
]

_lock = threading.Lock()
_lock_of_clients = threading.Lock()
_embedded: Client | None = None
# Clusters of the process this one was forked from. Their threads did not come along: closing them would wait
# for an answer that never comes, and letting go of them would close them.
_of_parent: list[Client] = []
# Until 3.11.12 Python takes the stacks of all threads under a lock without which none begins or ends, and may collect
# garbage meanwhile, which lets other threads run: now and then the whole process stands still for good
# (python/cpython#106883). Dask's profiler takes them a hundred times a second while tasks run.
_STACKS_ARE_SAFE = sys.version_info >= (3, 11, 12)
_PROFILER = "distributed.worker.profile.enabled"
# Dask looks fifty times a second in each process whether its event loop is free, to warn of one that was not for three
# seconds, and twice what the system says of the process, which workers tell once. Beside kernels that want all
# processors and their caches that takes 2 % of an epoch of 20 ms. Here it is done less often.
_SETTINGS: dict[str, Any] = {
    "distributed.admin.tick.interval": "100ms",
    "distributed.admin.system-monitor.interval": "1s",
}
if not _STACKS_ARE_SAFE:
    _SETTINGS[_PROFILER] = False
_warned_of: set[str] = set()


def current_client() -> Client | None:
    """The active Dask client of this process, or None. The embedded cluster's does not count.

    Inside a Dask task there is one only where the task gave its place in the worker's thread pool away
    (``with worker_client():``, ``secede()``): a fit that kept it, and waited for tasks of the same cluster, could
    wait for ever.

    Raises
    ------
    ValueError
        Where the active client is asynchronous.

    Examples
    --------
    >>> from daskdml.cluster import current_client
    >>> current_client() is None
    True
    """
    try:
        client = _client_of_task() if _inside_task() else Client.current()
    except ValueError:
        return None
    if client is None or client is _embedded or client.status in ("closing", "closed"):
        return None
    if client.asynchronous:
        raise ValueError(f"{client!r} is asynchronous, and a fit waits; make a Client without asynchronous=True")
    return client


def embedded() -> Client:
    """The client of a cluster inside this process: started once, reused, closed at exit.

    One worker with one thread for each core; kernels release the GIL, so threads suffice and data are not
    copied. The ports it opens, the dashboard's among them, are on the loopback interface only, and it never becomes
    the default client. What a task raises is raised, and not printed as well. A forked process starts its own.

    Examples
    --------
    >>> from daskdml.cluster import close_embedded, embedded
    >>> embedded().submit(sum, [1, 2, 3]).result()
    6
    >>> close_embedded()
    """
    global _embedded
    with _lock:
        if _embedded is not None and _embedded.status != "running":
            _close(_embedded)
            _embedded = None
        if _embedded is None:
            _embedded = _start()
            atexit.register(close_embedded)
        return _embedded


def close_embedded() -> None:
    """Close the embedded cluster, if one runs; the next :func:`embedded` starts another."""
    global _embedded
    with _lock:
        client, _embedded = _embedded, None
        atexit.unregister(close_embedded)
        if client is not None:
            _close(client)


def local(
    n_workers: int | None = None,
    memory_limit: str | int = "auto",
    *,
    memory_pause: float | bool = False,
    gpus: bool | int = False,
    **kwargs: Any,
) -> Client:
    """A client of a new cluster of processes on this machine; closing the client closes the cluster.

    Parameters
    ----------
    n_workers : int, default one for each core
        Worker processes, each of one thread unless ``threads_per_worker`` is given.
    memory_limit : str or int, default "auto"
        Bytes for each worker, as ``"700MB"``; "auto" shares the machine's memory out.
    memory_pause : float or False, default False
        The fraction of its limit at which a worker begins no more tasks (Dask's own default is 0.8). Off, because
        a fit keeps to its plan, and a process that idles above that mark with nothing to give back would never
        begin a task again; a worker at 95 % is restarted all the same.
    gpus : bool or int, default False
        A worker for each GPU of this machine, or for the first so many, through ``dask_cuda.LocalCUDACluster`` (the
        extra ``gpu``); ``n_workers`` is then theirs to say. Unless said otherwise in ``kwargs``, workers that are
        several speak UCX where ``distributed-ucxx`` is installed, and TCP elsewhere.
    **kwargs
        Passed to :class:`distributed.LocalCluster`, or with ``gpus`` to ``dask_cuda.LocalCUDACluster``:
        ``rmm_pool_size="20GB"``, ``device_memory_limit``, ``protocol``. The dashboard listens on the loopback
        interface, at port 8787 or the next free one, unless ``dashboard_address`` says otherwise.

    Returns
    -------
    distributed.Client
        Becomes the default client; as a context manager it closes itself and the cluster.

    Examples
    --------
    >>> from daskdml.cluster import local
    >>> with local(n_workers=1, memory_limit="1GB", dashboard_address="127.0.0.1:0") as client:
    ...     client.submit(sum, [1, 2, 3]).result()
    6
    """
    if gpus is not False:
        return _local_cuda(gpus, n_workers, memory_limit, memory_pause, kwargs)
    if n_workers is not None and n_workers < 1:
        raise ValueError(f"n_workers must be at least 1, got {n_workers}")
    defaults = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:8787"}
    settings = {"distributed.worker.memory.pause": memory_pause} | _SETTINGS
    # Workers take the settings over from the process that starts them. Those that a nanny starts again would have its
    # settings of then, not of now, were they not given to it.
    if kwargs.get("processes", True) and "worker_class" not in kwargs:
        kwargs["config"] = settings | (kwargs.get("config") or {})
    # A client given no cluster owns the one it makes.
    with dask.config.set(settings):
        return Client(n_workers=n_workers or CPU_COUNT, memory_limit=memory_limit, **defaults | kwargs)


def _local_cuda(
    gpus: bool | int, n_workers: int | None, memory_limit: str | int, memory_pause: float | bool, kwargs: dict[str, Any]
) -> Client:
    """A client of a cluster with a worker for each GPU; both are closed with it."""
    if n_workers is not None:
        raise ValueError(f"gpus={gpus!r} says how many workers there are: leave n_workers={n_workers} out")
    if gpus is not True and gpus < 1:
        raise ValueError(f"gpus must be True, False or at least 1, got {gpus}")
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        raise ImportError(
            f"local(gpus={gpus!r}) needs dask-cuda ({error}): install the extra with pip install 'daskdml[gpu]'"
        ) from error
    defaults: dict[str, Any] = {"dashboard_address": "127.0.0.1:8787", "memory_limit": memory_limit}
    if gpus is not True:
        defaults["n_workers"] = int(gpus)
    if gpus != 1 and find_spec("distributed_ucxx") is not None:
        defaults["protocol"] = "ucx"
    given = defaults | kwargs
    # Kernels take their memory from numba: of a pool that dask-cuda has made it must be told.
    environ = dask.config.get("distributed.nanny.pre-spawn-environ", {})
    if given.get("rmm_pool_size"):
        environ = environ | {"NUMBA_CUDA_MEMORY_MANAGER": "rmm.allocators.numba"}
    settings = {"distributed.worker.memory.pause": memory_pause, "distributed.nanny.pre-spawn-environ": environ}
    with dask.config.set(settings | _SETTINGS):
        cluster = LocalCUDACluster(**given)
        try:
            return _Owner(cluster)
        except BaseException:
            cluster.close()
            raise


class _Owner(Client):
    """A client that closes its cluster with itself, as a client does with one that it has made."""

    def close(self, *args: Any, **kwargs: Any) -> Any:
        cluster = self.cluster
        try:
            return super().close(*args, **kwargs)
        finally:
            if cluster is not None:
                cluster.close()


def retire(workers: str | Sequence[str], client: Client | None = None, timeout: float = 60.0) -> list[str]:
    """Retire workers while fits go on, moving what these hold there to other workers first.

    Dask refuses to retire a worker that holds a shard of a parameter server. A running fit, in whatever process,
    notices the attempt and moves its shards; this tries until Dask agrees.

    Parameters
    ----------
    workers : str or sequence of str
        Addresses, as ``"tcp://10.0.0.7:40123"``.
    client : Client, default the active one
    timeout : float, default 60
        Seconds.

    Returns
    -------
    list of str
        The addresses of the workers that were retired, those that had gone already left out.

    Raises
    ------
    ValueError
        Without a client, or for the cluster's last workers while something is on them that cannot move.
    TimeoutError
        If a worker could not be emptied in time, naming it.

    Examples
    --------
    >>> from daskdml.cluster import local, retire
    >>> with local(n_workers=2, dashboard_address="127.0.0.1:0") as client:
    ...     retired = retire(list(client.nthreads())[:1])
    ...     len(retired), len(client.nthreads())
    (1, 1)
    """
    client = client or current_client()
    if client is None:
        raise ValueError("there is no active client: connect one, or pass client=")
    wanted = [workers] if isinstance(workers, str) else list(workers)
    retired: list[str] = []
    deadline = time.monotonic() + timeout
    while wanted := [address for address in wanted if address not in retired and address in client.nthreads()]:
        retired += client.retire_workers(wanted)
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"worker {wanted[0]} could not be retired in {timeout:g} s: what it holds can move nowhere; "
                "add a worker, or let the fit end first"
            )
        time.sleep(0.2)
    return retired


def _inside_task() -> bool:
    try:
        get_worker()
    except ValueError:
        return False
    return True


def _client_of_task() -> Client | None:
    # Where the executor is not Dask's own, nobody can leave it: as if it had not been left.
    seceded = not getattr(thread_state, "proceed", True)
    return get_client() if seceded else None


def client_of_task() -> Client:
    """The client with which the task that asks may use its cluster; for tasks that have left their thread.

    Dask's own ``get_client`` makes the worker's client the default of the process, and its cluster the scheduler of
    everything that is computed there. Where workers share the user's process that would take over the user's own
    computations; this one is nobody's default.

    Returns
    -------
    Client
        Closed with the last worker of the process.

    Raises
    ------
    ValueError
        Outside a task.
    """
    worker = get_worker()
    with contextlib.suppress(ValueError):
        of_process = default_client()
        if _serve_one(of_process, worker):
            return of_process
    with _lock_of_clients:
        if worker._client is None:
            worker._client = Client(
                worker.scheduler,
                loop=worker.loop,
                security=worker.security,
                set_as_default=False,
                direct_to_workers=True,
                name="worker",
            )
            type(worker)._initialized_clients.add(worker._client)
            # The loop is the worker's. As one of its users this client, which ends without leaving it, would keep the
            # thread of a cluster in this process alive for ever.
            worker._client._loop_runner.stop()
            # The last worker of a process to close closes the clients, but only if it has one itself.
            for other in list(type(worker)._instances):
                if other._client is None and other.loop is worker.loop and _serve_one(other, worker):
                    other._client = worker._client
        return worker._client


def _serve_one(a: Any, b: Any) -> bool:
    return a.scheduler is not None and a.scheduler.address == b.scheduler.address


def wait_with(client: Client, futures: Sequence[Future], when: str = "ALL_COMPLETED", timeout: float = 2.0) -> None:
    """Wait for futures of a client that need not be the default one.

    Dask's ``wait`` asks the default client, and making one the default for a while is a setting of the whole process:
    two threads that do so at once may leave it to all others.

    Raises
    ------
    TimeoutError
        Where they are not done after ``timeout`` seconds.
    """
    client.sync(_wait, futures, timeout=timeout, return_when=when)


class _Embedded(LocalCluster):
    """A local cluster whose address is no host's: workers and scheduler speak inside the process."""

    @property
    def dashboard_link(self) -> str:
        # Dask takes the host from the scheduler's address, which is that of a network interface; nobody answers there.
        port = self.scheduler_info["services"].get("dashboard")
        return "" if port is None else format_dashboard_link("127.0.0.1", port)


class _RaisedAnyway(logging.Filter):
    """Drops what workers print of a failed task: in the process of ``fit`` it is raised, with its traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith("Compute Failed")


_raised_anyway = _RaisedAnyway()
_worker_logger = logging.getLogger("distributed.worker")


def _start() -> Client:
    with dask.config.set(_SETTINGS):
        cluster = _Embedded(
            n_workers=CPU_COUNT,
            threads_per_worker=1,
            processes=False,
            # Its workers share the process with the user's own arrays: pausing them would not free those.
            memory_limit=0,
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            silence_logs=logging.WARNING,
        )
    try:
        client = Client(cluster, set_as_default=False)
        _worker_logger.addFilter(_raised_anyway)
        return client
    except BaseException:
        cluster.close()
        raise


def _close(client: Client) -> None:
    cluster = client.cluster
    # Streams that close while they send say so at level INFO, after the cluster has given its silence up; a worker
    # warns of a task that it leaves unfinished; and asyncio tells of an answer that nobody waits for any more, when
    # its future is collected.
    quiet = {
        logging.getLogger("distributed.batched"): logging.WARNING,
        logging.getLogger("distributed.worker.state_machine"): logging.ERROR,
        logging.getLogger("asyncio"): logging.CRITICAL,
    }
    levels = {logger: logger.level for logger in quiet}
    for logger, level in quiet.items():
        logger.setLevel(max(level, logger.getEffectiveLevel()))
    try:
        client.close()
        if cluster is not None:
            cluster.close()
        gc.collect()
    finally:
        _worker_logger.removeFilter(_raised_anyway)
        for logger, level in levels.items():
            logger.setLevel(level)


def _after_fork() -> None:
    global _embedded, _lock, _lock_of_clients
    _lock, _lock_of_clients = threading.Lock(), threading.Lock()
    client, _embedded = _embedded, None
    if client is not None:
        _worker_logger.removeFilter(_raised_anyway)
        atexit.unregister(close_embedded)
        _disown(client.cluster)
        _of_parent.append(client)


def _disown(cluster: Any) -> None:
    cluster.shutdown_on_close = False
    for server in (cluster.scheduler, *cluster.workers.values()):
        # Else the child, when it ends, deletes the folders in which the parent's workers still keep files.
        if server._workdir is not None:
            server._workdir._finalizer.detach()


os.register_at_fork(after_in_child=_after_fork)


LOST = (CommClosedError, CancelledError, asyncio.CancelledError, FutureCancelledError)
"""What Dask raises where a process or a connection has ended: none of them says which."""


def worker_info(client: Any) -> dict[str, dict[str, Any]]:
    """What the scheduler knows of each worker, by address."""
    # Not client.scheduler_info(): every other second the client sets what that returns to a description without
    # workers, now and then between our asking and our reading.
    return dict(client.sync(client.scheduler.identity, n_workers=-1)["workers"])


def connection_lost(client: Client, patience: float = 2.0) -> RuntimeError | None:
    """The error that says so where the connection to the scheduler is lost; None where it is there.

    Parameters
    ----------
    client : Client
    patience : float, default 2
        Seconds to wait for the client to notice: its requests fail before its own connection does.

    Examples
    --------
    >>> from daskdml.cluster import connection_lost, embedded
    >>> connection_lost(embedded(), patience=0) is None
    True
    """
    deadline = time.monotonic() + patience
    while client.status == "running":
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.1)
    address = getattr(client.scheduler, "address", None) or "an unknown address"
    return RuntimeError(
        f"the connection to the scheduler at {address} was lost: see whether it still runs, start it again if not, "
        "connect to it and repeat this; a fit with a checkpoint goes on from there"
    )


def _states(workers: dict[str, Any]) -> str:
    counts = Counter(w["status"] for w in workers.values())
    return ", ".join(f"{n} {state}" for state, n in counts.items())


def check_workers(client: Client, timeout: float = 30.0) -> None:
    """Raise RuntimeError unless the cluster has workers, and every one this version of daskdml.

    Warns, once for each cluster, where an old Python and Dask's profiler may bring a process to a standstill.

    Parameters
    ----------
    client : Client
    timeout : float, default 30
        Seconds to wait for the first worker.

    Examples
    --------
    >>> from daskdml.cluster import check_workers, embedded
    >>> check_workers(embedded())
    """
    try:
        client.wait_for_workers(1, timeout=timeout)
    except TimeoutError:
        where, present = client.scheduler_info()["address"], worker_info(client)
        # Dask waits for workers that take tasks.
        if present:
            raise RuntimeError(
                f"none of the {len(present)} workers of the scheduler at {where} takes a task: "
                f"{_states(present)}; a paused one is above 80 % of its memory limit: give workers more memory"
            ) from None
        raise RuntimeError(f"the scheduler at {where} has no workers; start some with 'dask worker'") from None
    # A function of daskdml's own could not even be unpickled by a worker that lacks it; pydoc's is everywhere.
    found = client.run(pydoc.locate, "daskdml._version.__version__", on_error="return")
    for address, version in found.items():
        if isinstance(version, BaseException):
            # What pydoc raises is the error in its own words, a line of its own for each part.
            reason = " ".join(str(version).split())
            raise RuntimeError(f"worker {address} cannot import daskdml ({reason}); mend its environment")
        if version is None:
            raise RuntimeError(f"worker {address} lacks daskdml; install daskdml=={__version__} in its environment")
        if version != __version__:
            raise RuntimeError(
                f"worker {address} has daskdml {version} but this process {__version__}; install the same on both"
            )
    _warn_of_profiler(client)


def _profiled_unsafely(dask_worker: Any) -> str | None:
    """The version of Python where Dask's profiler may bring this process to a standstill."""
    profiled = not _STACKS_ARE_SAFE and "profile" in dask_worker.periodic_callbacks
    return platform.python_version() if profiled else None


def _warn_of_profiler(client: Client) -> None:
    address = client.scheduler.address if client.scheduler else None
    if address is None or address in _warned_of:
        return
    _warned_of.add(address)
    versions = {version for version in client.run(_profiled_unsafely, on_error="ignore").values() if version}
    if versions:
        warnings.warn(
            f"workers of the scheduler at {address} run Python {', '.join(sorted(versions))}, where Dask's profiler "
            "can bring a process to a standstill (python/cpython#106883): use Python 3.11.12 or later, or set "
            f"{_PROFILER} to False in Dask's configuration of the workers",
            RuntimeWarning,
            stacklevel=2,
        )
