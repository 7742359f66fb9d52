"""The scheduler's side: it hears of fits, and has pages and metrics of them where it has a dashboard."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any

from distributed.diagnostics.plugin import SchedulerPlugin

from daskdml.monitor.dashboard._store import FitStore

if TYPE_CHECKING:
    from distributed import Scheduler

logger = logging.getLogger("daskdml")


class DashboardPlugin(SchedulerPlugin):
    """Keeps a :class:`FitStore` on the scheduler and shows it: registered by the first fit, once.

    The scheduler then answers to ``daskdml_fit``, by which clients tell of their fits. If it has a dashboard there is a
    page ``/daskdml`` in its navigation and a page for each plot; if it has prometheus_client its ``/metrics``
    tell of fits too. Where either is missing, or other than expected, the rest works without.

    Attributes
    ----------
    store : FitStore

    Examples
    --------
    >>> from daskdml.monitor.dashboard import DashboardPlugin
    >>> DashboardPlugin().store.fits
    []
    """

    name = "daskdml-dashboard"
    idempotent = True

    def __init__(self) -> None:
        self.store = FitStore()
        self._scheduler: Scheduler | None = None

    async def start(self, scheduler: Scheduler) -> None:
        """Begin to listen, on this scheduler."""
        self._scheduler = scheduler
        scheduler.handlers["daskdml_fit"] = self.hear
        for what, begin in (("page of fits", self._begin_pages), ("metrics of fits", self._begin_metrics)):
            try:
                begin(scheduler)
            except Exception as error:
                # Training is not to suffer for its picture: whatever a newer bokeh or Dask does differently.
                logger.warning("the scheduler has no %s: %s: %s", what, type(error).__name__, error)

    def _begin_pages(self, scheduler: Scheduler) -> None:
        if "bokeh" not in sys.modules:
            # No dashboard runs here, and to load bokeh for nothing takes a while.
            return
        from daskdml.monitor.dashboard._routes import add_pages, bokeh_server

        if (server := bokeh_server(scheduler)) is not None:
            add_pages(scheduler, server, self.store)

    def _begin_metrics(self, scheduler: Scheduler) -> None:
        from daskdml.monitor.dashboard._metrics import publish

        publish(self.store)

    async def hear(self, message: dict[str, Any]) -> str:
        """Take a message of a fit."""
        threads = 0 if self._scheduler is None else self._scheduler.total_nthreads
        self.store.handle(message, time.monotonic(), threads)
        return "OK"

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """A worker came."""
        self.store.on_worker(worker, True, time.monotonic())

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        """A worker is gone."""
        self.store.on_worker(worker, False, time.monotonic())

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """A client is gone, and its fits with it."""
        self.store.on_client_gone(client)

    async def close(self) -> None:
        """The scheduler ends."""
        from daskdml.monitor.dashboard._metrics import withdraw

        if self._scheduler is not None:
            self._scheduler.handlers.pop("daskdml_fit", None)
        withdraw(self.store)
