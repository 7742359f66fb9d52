"""More pages for a dashboard that runs already."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from bokeh.application import Application
from bokeh.application.handlers.document_lifecycle import DocumentLifecycleHandler
from bokeh.application.handlers.function import FunctionHandler
from bokeh.server.contexts import ApplicationContext
from bokeh.server.tornado import BokehTornado
from bokeh.server.urls import per_app_patterns
from bokeh.server.views.ws import WSHandler
from distributed.dashboard.scheduler import template_variables

from daskdml.monitor.dashboard._page import page_doc, plot_doc
from daskdml.monitor.dashboard._plots import PLOTS
from daskdml.monitor.dashboard._store import FitStore

if TYPE_CHECKING:
    from bokeh.document import Document
    from distributed import Scheduler

PAGE = "daskdml"
"""The page's address, below the dashboard's own."""


def bokeh_server(scheduler: Scheduler) -> BokehTornado | None:
    """What serves a scheduler's dashboard; None where there is none."""
    http = getattr(scheduler, "http_application", None)
    return next((app for app in getattr(http, "applications", ()) if isinstance(app, BokehTornado)), None)


def add_pages(scheduler: Scheduler, server: BokehTornado, store: FitStore) -> None:
    """Add the page of all plots, and a page for each, to a scheduler's dashboard and its navigation."""
    variables = template_variables(scheduler)
    extra = {"prefix": f"{server.prefix.rstrip('/')}/", **variables}
    _add(server, f"/{PAGE}", partial(page_doc, store, extra))
    for name, plot in PLOTS.items():
        _add(server, f"/individual-{PAGE}-{name}", partial(plot_doc, store, extra, plot))
    # The very lists that every other page's navigation is made of.
    if PAGE not in variables["pages"]:
        variables["pages"].append(PAGE)
    known = {plot["url"] for plot in variables["plots"]}
    variables["plots"] += [
        {"url": url, "name": f"{PAGE} {name.replace('-', ' ').title()}"}
        for name in PLOTS
        if (url := f"individual-{PAGE}-{name}") not in known
    ]


def _add(server: BokehTornado, url: str, show: Callable[[Document], None]) -> None:
    """Serve a document at an address, as bokeh does with those it is given at the start."""
    application = Application(FunctionHandler(show))
    application.add(DocumentLifecycleHandler())
    context = ApplicationContext(application, io_loop=server.io_loop, url=url)
    # Among the others it is cleaned up, and found by whoever lists the pages.
    applications: dict[str, Any] = server._applications  # type: ignore[assignment]
    applications[url] = context
    known: dict[str, Any] = {
        "application_context": context,
        "bokeh_websocket_path": f"{server.prefix}{url}/ws",
    }
    more = {"compression_level": None, "mem_level": None}
    server.add_handlers(
        r".*",
        [
            (server.prefix + url + route, handler, known | (more if issubclass(handler, WSHandler) else {}))
            for route, handler, *_ in per_app_patterns
        ],
    )
    context.run_load_hook()
