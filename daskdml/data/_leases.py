"""Which fits still keep blocks in a process."""

from __future__ import annotations

# A task that is late by more fits than these in one process is not thinkable.
_REMEMBERED = 4096


class Ended:
    """The leases that were ended, the last ones of them. No lock of its own.

    A task cannot be told that nobody wants it any more once it runs. One of a fit that is over, which goes on to its
    end, would bring blocks back to a cache that was freed, and nobody would free it again.

    Examples
    --------
    >>> ended = Ended()
    >>> ended.add("fit-1")
    >>> "fit-1" in ended, "fit-2" in ended, "" in ended
    (True, False, False)
    """

    def __init__(self) -> None:
        self._leases: dict[str, None] = {}

    def add(self, lease: str) -> None:
        """End a lease; the empty one is that of whoever has none, and does not end."""
        if lease:
            self._leases[lease] = None
            if len(self._leases) > _REMEMBERED:
                del self._leases[next(iter(self._leases))]

    def __contains__(self, lease: str) -> bool:
        return lease in self._leases
