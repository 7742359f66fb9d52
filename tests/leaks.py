"""What a process holds: threads, children, ports, clients, temporary files. Compare before and after a test."""

import contextlib
import functools
import gc
import os
import tempfile
import threading
import time
from dataclasses import dataclass, fields

import dask
import dask.threaded
import psutil
from distributed import Client, Worker
from distributed.core import Status

PATIENCE = 5.0
"""Seconds that closing things may take in the background."""

# Started when first needed by a running cluster or a library, few, and kept until the process ends.
_POOLS = (
    "Dask-Default-Threads", "Dask-Actor-Threads", "Dask-Offload", "Dask-Callback", "TCP-Executor", "asyncio_",
    "zarr_io", "fsspecIO", "daskdml-move",
)  # fmt: skip
# Of this process, and no one else's: a worker that was forked bears the name of the server that forked it.
_SERVANTS = ("resource_tracker", "forkserver")
# scikit-learn's and joblib's own, deleted when the process ends.
_FILES = ("sklearn_testing_", "joblib_memmapping_folder", "loky-")


@dataclass(frozen=True)
class Leftovers:
    """What there was at one moment."""

    threads: frozenset
    children: frozenset
    sockets: frozenset
    clients: frozenset
    files: frozenset
    settings: frozenset

    @classmethod
    def now(cls):
        """What there is at this moment."""
        children = _children()
        return cls(_threads(), children, _sockets(children), _clients(), _files(), _settings())

    def __or__(self, other):
        """What there was at either of two moments."""
        return Leftovers(*(getattr(self, f.name) | getattr(other, f.name) for f in fields(self)))

    def remaining(self):
        """What there is now and was not then, once what closes had time to close; a sentence each."""
        end = time.monotonic() + PATIENCE
        while (found := self._compare()) and time.monotonic() < end:
            gc.collect()
            time.sleep(0.02)
        return found

    def _compare(self):
        now = Leftovers.now()
        new = {
            "threads": {thread.name for thread in now.threads - self.threads},
            "processes": {f"{child.pid} {_command(child)}" for child in now.children - self.children},
            "listening ports": _ports(now.children, now.sockets - self.sockets),
            "open clients": {address for _, address in now.clients - self.clients},
            "temporary files": now.files - self.files,
            "settings of Dask": now.settings - self.settings,
        }
        return [f"{what} {sorted(map(str, which))}" for what, which in new.items() if which]


def _threads():
    pools = [dask.threaded.default_pool, *(pool for of in dask.threaded.pools.values() for pool in of.values())]
    shared = {thread for pool in pools for thread in getattr(pool, "_threads", ())}
    return frozenset(t for t in threading.enumerate() if t not in shared and not any(pool in t.name for pool in _POOLS))


# Every test asks twice: to go through all processes and connections of the machine takes twenty times as long as to
# look at one's own first.


def _children():
    below = _below(os.getpid())
    own = {child for child in below if any(name in _command(child) for name in _SERVANTS)}
    found = set(below)
    todo = list(below)
    while todo:
        todo = [child for parent in todo for child in _below(parent.pid)]
        found.update(todo)
    return frozenset(found - own)


def _below(pid):
    """The processes that one has started."""
    found = []
    # What has ended meanwhile, be it the process, one of its threads or a child, is passed over by itself.
    gone = OSError, psutil.NoSuchProcess
    with contextlib.suppress(*gone):
        if not _linux():
            return psutil.Process(pid).children()
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(*gone), open(f"/proc/{pid}/task/{thread}/children") as file:
                for child in file.read().split():
                    with contextlib.suppress(*gone):
                        found.append(psutil.Process(int(child)))
    return found


@functools.cache
def _linux():
    return os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children")


def _command(process):
    try:
        return " ".join(process.cmdline()) if process.status() != psutil.STATUS_ZOMBIE else "ended, not waited for"
    except psutil.NoSuchProcess:
        return "gone"


def _sockets(children):
    """Open sockets, told apart by their process and name."""
    return frozenset(
        (process.pid, name) for process in (psutil.Process(), *children) for name in _open_sockets(process.pid).values()
    )


def _open_sockets(pid):
    found = {}
    try:
        if not _linux():
            return {c.fd: str(c.laddr) for c in psutil.Process(pid).net_connections(kind="inet")}
        for file in os.listdir(f"/proc/{pid}/fd"):
            name = _target(f"/proc/{pid}/fd/{file}")
            if name.startswith("socket:"):
                found[int(file)] = name
    except (OSError, psutil.NoSuchProcess, psutil.AccessDenied):
        pass
    return found


def _target(link):
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _ports(children, new):
    """Addresses at which one of the ``new`` sockets listens."""
    found = set()
    for process in (psutil.Process(), *children):
        if not any(pid == process.pid for pid, _ in new):
            continue
        names = _open_sockets(process.pid)
        try:
            listening = [c for c in process.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        found |= {c.laddr for c in listening if (process.pid, names.get(c.fd)) in new}
    return frozenset(found)


def _clients():
    # A worker that shares the process opens one when it is sent a future, or a task asks for one, till it ends itself.
    kept = {id(worker._client) for worker in list(Worker._instances) if worker.status == Status.running}
    return frozenset(
        (id(c), _address(c))
        for c in list(Client._instances)
        if c.status not in ("closed", "newly-created") and id(c) not in kept
    )


def _address(client):
    return client.scheduler.address if client.scheduler is not None else "unknown"


def _files():
    top = tempfile.gettempdir()
    workers = os.path.join(top, "dask-scratch-space")
    names = {entry.path for entry in os.scandir(top) if entry.path != workers and not entry.name.startswith(_FILES)}
    if os.path.isdir(workers):
        # The folder's own two locks stay with it.
        found = (entry.path for entry in os.scandir(workers) if entry.name not in ("global.lock", "purge.lock"))
        names |= {path for path in found if not _stale(path)}
    return frozenset(names)


def _stale(path):
    """Whether it is the lock of a killed worker, whose directory its nanny has removed.

    The next worker on the machine removes that too: none began where the cluster was closed right after the kill.
    """
    directory, suffix = os.path.splitext(path)
    return suffix == ".dirlock" and not os.path.exists(directory)


def _settings():
    # A client that is the default sets it, and takes it back when it is closed: but two of them, closed out of order,
    # leave it to a process without a client, which then can compute nothing any more.
    scheduler = dask.config.get("scheduler", None)
    return frozenset() if scheduler is None else frozenset({f"scheduler={scheduler}"})
