"""From a fit to the page of it."""

from __future__ import annotations

from typing import Any

import dask
from distributed import Client

from daskdml.monitor._callback import Callback
from daskdml.monitor._events import EpochEnd, FitEnd, FitInfo, Recovery, ReplicaRound, RoundEnd, ServerStart
from daskdml.monitor.dashboard._sender import Sender


def page_listeners(client: Client) -> list[Callback]:
    """What brings a fit to the page ``/daskdml`` of the scheduler's dashboard.

    Nothing where Dask's configuration has ``daskdml.dashboard: False``.

    Parameters
    ----------
    client : distributed.Client

    Returns
    -------
    list of Callback
        One :class:`DashboardListener`, or none.

    Examples
    --------
    >>> import dask
    >>> from daskdml.monitor.dashboard import page_listeners
    >>> with dask.config.set({"daskdml.dashboard": False}):
    ...     page_listeners(None)
    []
    """
    return [DashboardListener(client)] if dask.config.get("daskdml.dashboard", default=True) else []


class DashboardListener(Callback):
    """Brings what it hears of a fit to the scheduler, never waiting for it.

    The first message is preceded by the registration of :class:`DashboardPlugin`. Where the scheduler cannot take it,
    a line in the log says so, once for each client, and the fit goes on unseen.

    Parameters
    ----------
    client : distributed.Client
    every : float, default 0.5
        Seconds between messages.
    waiting : int, default 5000
        Events that wait for a message; the oldest are dropped where there are more, and counted.

    Examples
    --------
    >>> from daskdml.cluster import embedded
    >>> from daskdml.linear_model import SGDClassifier
    >>> from daskdml.monitor.dashboard import DashboardListener
    >>> clf = SGDClassifier(callbacks=[DashboardListener(embedded())])
    """

    def __init__(self, client: Client, every: float = 0.5, waiting: int = 5_000) -> None:
        self.client = client
        self.every = every
        self.waiting = waiting
        self._sender: Sender | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> DashboardListener:
        # scikit-learn's clone copies callbacks deeply; a client is shared.
        return type(self)(self.client, self.every, self.waiting)

    def on_fit_start(self, info: FitInfo) -> None:
        self._sender = Sender(self.client, info, self.every, self.waiting)

    def on_server_start(self, event: ServerStart) -> None:
        self._take("server", event)

    def on_replica_round(self, event: ReplicaRound) -> None:
        self._take("replica", event)

    def on_recovery(self, event: Recovery) -> None:
        self._take("recovery", event, recoveries=1)

    def on_round_end(self, event: RoundEnd) -> None:
        self._take("round", event, rounds=1, rows=event.rows, bytes=event.bytes)

    def on_epoch_end(self, event: EpochEnd) -> None:
        self._take("epoch", event)

    def on_fit_end(self, event: FitEnd) -> None:
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.end(event.reason, event.error)

    def _take(self, kind: str, event: Any, **counts: int) -> None:
        if self._sender is not None:
            for name, count in counts.items():
                self._sender.totals[name] += count
            self._sender.take(kind, event)
