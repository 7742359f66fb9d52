"""The documents of the dashboard: all plots together, and each by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from html import escape
from typing import TYPE_CHECKING, Any

from bokeh.events import DocumentReady
from bokeh.models import Axis, CustomJS, Grid
from bokeh.models.annotations import Legend, Title
from bokeh.models.widgets import Div, Select
from dask.utils import format_bytes
from distributed.dashboard.components.scheduler import BOKEH_THEME, env

from daskdml.monitor.dashboard import _template, _views
from daskdml.monitor.dashboard._fit import Fit
from daskdml.monitor.dashboard._plots import PLOTS, Plot
from daskdml.monitor.dashboard._store import FitStore

if TYPE_CHECKING:
    from bokeh.document import Document

# Milliseconds between looks at what has changed.
_EVERY = 2000
# Of the scheduler's time, what bringing an open page up to date may take.
_SHARE = 0.004
# Seconds that it is put off at most.
_LATEST = 20.0
_NEWEST = "newest"
_CHOICE = ".bk-input {background-color: var(--daskdml-ground); color: var(--daskdml-ink);}"
_STATES = {"max_iter": "over, all epochs done", "converged": "over, converged", "stopped": "stopped by a callback"}


def page_doc(store: FitStore, extra: dict[str, Any], doc: Document) -> None:
    """All plots of a fit that can be chosen."""
    plots = [make() for make in PLOTS.values()]
    choice = Select(title="Fit", name="daskdml_choice", sizing_mode="stretch_width", stylesheets=[_CHOICE])
    facts = Div(name="daskdml_facts", sizing_mode="stretch_width", styles={"color": "var(--daskdml-ink)"})
    shown = _Shown(store, plots, lambda: choice.value)

    def refresh() -> None:
        known = [(fit.id, _label(fit)) for fit in reversed(store.fits)]
        options: list[Any] = [(_NEWEST, "the newest that runs"), *known]
        if options != choice.options:
            choice.options = options
            choice.value = choice.value if choice.value in dict(options) else _NEWEST
        if shown.refresh():
            facts.text = _facts(shown.fit)

    choice.on_change("value", lambda attr, old, new: refresh())
    refresh()
    for root in (choice, facts, *(plot.figure for plot in plots)):
        doc.add_root(root)
    doc.title = "Dask: daskdml"
    doc.template = env.from_string(_template.PAGE)
    doc.template_variables.update(extra, daskdml_plots=[plot.figure.name for plot in plots])
    _finish(doc, plots, refresh)


def plot_doc(store: FitStore, extra: dict[str, Any], make: Callable[[], Plot], doc: Document) -> None:
    """One plot, of the newest fit that runs or else the newest."""
    plot = make()
    shown = _Shown(store, [plot], lambda: _NEWEST)
    shown.refresh()
    doc.add_root(plot.figure)
    doc.title = f"Dask: daskdml {plot.title}"
    doc.template = env.from_string(_template.ONE)
    doc.template_variables.update(extra)
    _finish(doc, [plot], shown.refresh)


class _Shown:
    """Which fit plots show, and in which state."""

    def __init__(self, store: FitStore, plots: Iterable[Plot], chosen: Callable[[], str]) -> None:
        self._store = store
        self._plots = list(plots)
        self._chosen = chosen
        self._seen: tuple[str | None, int] | None = None
        self._next = 0.0
        self.fit: Fit | None = None

    def refresh(self) -> bool:
        """Bring the plots up to date; whether there was anything new."""
        self.fit = fit = self._store.find(self._chosen())
        seen = (None, 0) if fit is None else (fit.id, fit.version)
        another = self._seen is None or seen[0] != self._seen[0]
        began = time.monotonic()
        # How a fit ended is shown at once: it has nothing to lose any more.
        waits = began < self._next and fit is not None and fit.running
        if seen == self._seen or (waits and not another):
            return False
        self._seen = seen
        if fit is not None:
            for plot in self._plots:
                plot.update(fit)
        self._next = began + min((time.monotonic() - began) / _SHARE, _LATEST)
        return True


def _finish(doc: Document, plots: list[Plot], refresh: Callable[[], Any]) -> None:
    doc.theme = BOKEH_THEME
    doc.add_periodic_callback(refresh, _EVERY)
    painted: dict[str, list[Any]] = {
        name: [model for plot in plots for model in plot.figure.select({"type": kind})]
        for name, kind in (("titles", Title), ("axes", Axis), ("grids", Grid), ("legends", Legend))
    }
    painted["figures"] = [plot.figure for plot in plots]
    doc.js_on_event(DocumentReady, CustomJS(args=painted, code=_template.PAINT))


def _label(fit: Fit) -> str:
    return f"{fit.facts.get('estimator', 'fit')}, {fit.facts.get('strategy', '')} ({fit.id[:4]}, {fit.state})"


def _facts(fit: Fit | None) -> str:
    """The figures at the head of the page, as HTML with everything in it escaped."""
    if fit is None:
        return "<p>No fit yet: this page fills as soon as one begins on this cluster.</p>"
    rows, slow, rate = fit.totals["rows"], _views.straggler(fit), fit.totals["rows"] / max(fit.seconds, 1e-9)
    state = _STATES.get(fit.state, fit.state) + ("" if fit.error is None else f": {fit.error}")
    found = {
        "state": state,
        "epoch": f"{fit.epoch} of at most {fit.facts.get('max_epochs', '?')}",
        "rounds": f"{fit.totals['rounds']:,.0f}",
        "loss": "" if fit.loss.last is None else f"{fit.loss.last[2]:.6g}",
        "validation": "" if fit.validation.last is None else f"{fit.validation.last[2]:.6g}",
        "rows": f"{rows:,.0f} in {fit.seconds:,.1f} s, {rate:,.0f}/s",
        "read": format_bytes(int(fit.totals["bytes"])),
        "replicas": f"{fit.facts.get('n_replicas', '?')}",
        "straggler": ""
        if slow is None
        else f"replica {slow.replica} on {slow.worker}, {slow.times:.1f} times the median",
        "recoveries": f"{fit.totals['recoveries']:,.0f}",
        "events not shown": f"{fit.dropped:,}" if fit.dropped else "",
    }
    style = (
        "display:inline-block;margin:0 18px 4px 0;max-width:100%;"
        "white-space:nowrap;overflow:hidden;text-overflow:ellipsis"
    )
    return "".join(
        f'<span style="{style}" title="{escape(value)}"><span style="color:var(--daskdml-faint)">{escape(name)}</span> '
        f"<b{_bad(name, fit)}>{escape(value)}</b></span>"
        for name, value in found.items()
        if value
    )


def _bad(name: str, fit: Fit) -> str:
    bad = name == "straggler" or (name == "state" and fit.error is not None)
    return ' style="color:var(--daskdml-bad)"' if bad else ""
