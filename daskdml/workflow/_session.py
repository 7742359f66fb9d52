"""The cluster a command runs on: an address, processes of its own, or none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from daskdml import cluster
from daskdml.data._allocator import settle
from daskdml.io import InputError
from daskdml.workflow._errors import RunError

_TIMEOUT = 10


@contextmanager
def session(workers: int | None = None, memory_limit: str | None = None, scheduler: str | None = None) -> Iterator[Any]:
    """A client for the time of a command, or None where the embedded cluster will do.

    Parameters
    ----------
    workers, memory_limit : int and str, optional
        Start so many processes of one thread each on this machine, each with so much memory.
    scheduler : str, optional
        Connect to this address instead.

    Raises
    ------
    InputError
        For settings that contradict each other or have no meaning.
    RunError
        Where the scheduler does not answer or its workers cannot run daskdml.
    """
    if scheduler is not None and (workers is not None or memory_limit is not None):
        raise InputError("--scheduler names a cluster that is there; leave out --workers and --memory-limit")
    if scheduler is not None:
        opened = _connected(scheduler)
    elif workers is not None or memory_limit is not None:
        opened = _started(workers, memory_limit)
    else:
        yield None
        return
    with opened as client, _told(client, None if scheduler is not None else memory_limit):
        check_workers(client)
        # Parts are surveyed, and predicted, by plain Dask tasks: no stream prepares their workers.
        client.run(_settle)
        yield client


@contextmanager
def _told(client: Any, memory_limit: str | None) -> Iterator[None]:
    """What Dask raises for a lost worker or scheduler as one :class:`RunError` that says which, and the remedy."""
    from distributed import KilledWorker

    own = client.cluster is not None
    asked = f" of {memory_limit}" if memory_limit else ""
    remedy = "raise --memory-limit, or lower --workers" if own else "give the workers more memory"
    limit = f"workers end when they use more than their memory limit{asked}: {remedy}"
    try:
        yield
    except KilledWorker as error:
        raise RunError(
            f"workers died {error.allowed_failures + 1} times while running {error.task}; {limit}"
        ) from error
    except (*cluster.LOST, OSError) as error:
        if isinstance(error, OSError) and not _of_connection(error):
            raise
        lost = None if own else cluster.connection_lost(client)
        raise RunError(str(lost) if lost else f"the connection to a worker was lost; {limit}") from error


def _of_connection(error: OSError) -> bool:
    return isinstance(error, cluster.LOST) or "Timed out trying to connect" in str(error)


def _settle(dask_worker: Any) -> None:
    settle(dask_worker)


def _connected(address: str) -> Any:
    from concurrent.futures import ThreadPoolExecutor

    from distributed import Client

    try:
        # A client that finds no scheduler leaves the thread of its event loop behind: knock first. In a thread
        # of its own, for the caller's may run an event loop already, as notebooks do.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, _knock(address)).result()
        return Client(address, timeout=f"{_TIMEOUT}s")
    except (OSError, TimeoutError) as error:
        raise RunError(
            f"no scheduler answers at {address} ({_reason(error)}); check the address, and that a scheduler runs there"
        ) from None
    except (ValueError, KeyError) as error:
        raise InputError(f"{address!r} is no scheduler address ({error}); it looks like tcp://host:8786") from None


async def _knock(address: str) -> None:
    from distributed.comm import connect

    (await connect(address, timeout=_TIMEOUT)).abort()


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".")[:120] if text else f"no answer within {_TIMEOUT} s"


@contextmanager
def _started(workers: int | None, memory_limit: str | None) -> Iterator[Any]:
    from dask.utils import parse_bytes

    from daskdml.cluster import local

    if workers is not None and workers < 1:
        raise InputError(f"--workers {workers} is less than 1; give at least one, or leave it out")
    try:
        limit = parse_bytes(memory_limit) if memory_limit else None
    except ValueError:
        raise InputError(f"--memory-limit {memory_limit!r} is no amount of memory; write it as 700MB or 2GiB") from None
    if limit is not None and limit < 300e6:
        raise InputError(
            f"--memory-limit {memory_limit} is too little: Python and its libraries alone take 250 MB a worker"
        )
    try:
        client = local(workers, limit or "auto", dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL)
    except (OSError, RuntimeError, TimeoutError) as error:
        raise RunError(
            f"the workers did not start ({_reason(error)}); ask for fewer, or look at the limits of the machine"
        ) from None
    cluster = client.cluster
    try:
        yield client
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


def check_workers(client: Any) -> None:
    """Raise :class:`RunError` unless every worker has this version of daskdml.

    Examples
    --------
    >>> from daskdml.cluster import embedded
    >>> from daskdml.workflow import check_workers
    >>> check_workers(embedded())
    """
    try:
        cluster.check_workers(client, timeout=_TIMEOUT)
    except RuntimeError as error:
        raise RunError(str(error)) from None
