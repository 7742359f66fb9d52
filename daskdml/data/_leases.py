"""For which fits a process keeps blocks, and what ends that."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Collection
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# A task that is late by more fits than these in one process is not thinkable.
_REMEMBERED = 4096


def new_lease(client: Any) -> str:
    """A name for a fit of this client, unique: for :class:`CacheSpec` and :class:`DeviceSpec`.

    Parameters
    ----------
    client : distributed.Client
        Whoever frees the blocks at the end; once it is gone, :func:`release_abandoned` does.

    Returns
    -------
    str
    """
    return f"{client.id}/{uuid.uuid4().hex[:12]}"


class Leases:
    """Leases by data set. No lock of its own.

    A task cannot be told that nobody wants it any more once it runs. One of a fit that is over, which goes on to its
    end, would bring blocks back to a cache that was freed, and nobody would free it again: so the last leases that
    ended are remembered. And a client that was killed frees nothing; its name is in its leases.

    Examples
    --------
    >>> leases = Leases()
    >>> leases.take("data", "Client-1/fit")
    True
    >>> leases.abandoned(["Client-1"]), leases.abandoned(["Client-2"])
    ([], ['data'])
    >>> leases.end("data", "Client-1/fit")
    >>> leases.take("data", "Client-1/fit"), leases.take("data", "Client-2/fit")
    (False, True)
    """

    def __init__(self) -> None:
        self._ended: dict[str, None] = {}
        self._of: dict[str, set[str]] = {}

    def take(self, token: str, lease: str) -> bool:
        """Whether blocks of a data set may be kept; "" is the lease of whoever has none, and does not end."""
        if lease in self._ended:
            return False
        self._of.setdefault(token, set()).add(lease)
        return True

    def end(self, token: str, lease: str = "") -> None:
        """Nothing is kept of the data set any more, and nothing will be for ``lease``."""
        self._of.pop(token, None)
        if lease:
            self._ended[lease] = None
            if len(self._ended) > _REMEMBERED:
                del self._ended[next(iter(self._ended))]

    def end_all(self, token: str) -> None:
        """End every lease of a data set."""
        for lease in self._of.get(token, set()).copy():
            self.end(token, lease)

    def abandoned(self, clients: Collection[str]) -> list[str]:
        """Data sets of which blocks are kept for other clients than these only."""
        return [
            token
            for token, leases in self._of.items()
            if all(lease and lease.partition("/")[0] not in clients for lease in leases)
        ]


class Leased(Generic[T]):
    """What a process keeps by data set, shared by its threads, for as long as leases last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sets: dict[str, T] = {}
        self._leases = Leases()

    def release(self, token: str, lease: str = "") -> None:
        """Forget what is kept of a data set, and keep no more of it for ``lease``."""
        with self._lock:
            self._leases.end(token, lease)
            self._sets.pop(token, None)

    def release_abandoned(self, clients: Collection[str]) -> None:
        """Forget what is kept for fits of other clients than these."""
        with self._lock:
            for token in self._leases.abandoned(clients):
                self._leases.end_all(token)
                self._sets.pop(token, None)
