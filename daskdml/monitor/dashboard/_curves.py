"""Plots of what changes in the course of a fit."""

from __future__ import annotations

from bokeh.models import CustomJSTickFormatter, DataRange1d, LinearAxis, Range1d
from bokeh.models.annotations import Span

from daskdml.monitor.dashboard import _views
from daskdml.monitor.dashboard._figures import BLUE, GREEN, GREY, ORANGE, RED, legend_above, plain_figure, put, source
from daskdml.monitor.dashboard._fit import Fit

_LARGE = """
const units = ["", "k", "M", "G"];
let value = tick, unit = 0;
while (Math.abs(value) >= 1000 && unit < units.length - 1) { value /= 1000; unit += 1; }
return String(Math.round(value * 10) / 10) + units[unit];
"""


class LossPlot:
    """The training loss, and at its right the validation score where there is one."""

    def __init__(self, x: str = "at") -> None:
        name, label = ("loss", "seconds") if x == "at" else ("loss-epochs", "epochs")
        self.title = f"Loss by {'time' if x == 'at' else 'epoch'}"
        tips = [("seconds", "@at{0.0}"), ("epoch", "@epoch{0.00}"), ("loss", "@loss{0.00000}")]
        self.figure = plain_figure(name, self.title, label, "loss a row", [*tips, ("score", "@score{0.0000}")])
        self._loss, self._score = source("at", "epoch", "loss"), source("at", "epoch", "score")
        line = self.figure.line(x, "loss", source=self._loss, color=BLUE, line_width=2)
        self.figure.y_range = DataRange1d(renderers=[line])
        self.figure.extra_y_ranges = {"score": DataRange1d()}
        score = self.figure.line(x, "score", source=self._score, color=GREEN, y_range_name="score", line_width=2)
        dots = self.figure.scatter(x, "score", source=self._score, color=GREEN, size=5, y_range_name="score")
        self.figure.extra_y_ranges["score"].renderers = [dots]
        self._axis = LinearAxis(
            y_range_name="score",
            axis_label="validation score",
            axis_label_text_font_style="normal",
            axis_label_text_font_size="11px",
            major_label_text_font_size="11px",
            minor_tick_line_color=None,
            visible=False,
        )
        self.figure.add_layout(self._axis, "right")
        legend_above(self.figure, {"training loss": [line], "validation score": [score]}, columns=2)

    def update(self, fit: Fit) -> None:
        """Show a fit."""
        put(self._loss, _views.loss(fit))
        put(self._score, _views.validation(fit))
        self._axis.visible = len(fit.validation) > 0


class ClockPlot:
    """The clocks of the replicas, and how far the staleness lets them go."""

    def __init__(self) -> None:
        self.title = "Clocks of the replicas"
        tips = [("replica", "@replica"), ("worker", "@worker"), ("clock", "$y{0.0}")]
        self.figure = plain_figure("clocks", self.title, "seconds", "clocks finished", tips)
        self._clocks = source("at", "clock", "replica", "worker")
        self._bound = source("at", "clock")
        lines = self.figure.multi_line("at", "clock", source=self._clocks, color=BLUE, line_width=1.5, alpha=0.7)
        bound = self.figure.step("at", "clock", source=self._bound, mode="after", color=RED, line_dash="dashed")
        self.figure.hover.renderers = [lines]
        legend_above(self.figure, {"replicas": [lines], "slowest + staleness + 1": [bound]}, columns=2)

    def update(self, fit: Fit) -> None:
        """Show a fit."""
        put(self._clocks, _views.clocks(fit))
        put(self._bound, _views.bound(fit))
        limit = "no bound" if fit.staleness is None else f"staleness {fit.staleness}"
        some = f", {len(_views.shown(fit))} of {len(fit.lanes)}" if len(_views.shown(fit)) < len(fit.lanes) else ""
        self.figure.title.text = f"{self.title}: {limit}{some}"


class RatePlot:
    """What is trained on in a second, and what could be if nobody ever waited."""

    def __init__(self, what: str = "rows") -> None:
        name, label = ("rows", "rows/s") if what == "rows" else ("bandwidth", "GB/s")
        self.title = "Rows a second" if what == "rows" else "Gigabytes a second"
        self._what = what
        tips = [("seconds", "@at{0.0}"), (label, f"@{what}{{0,0.000}}")]
        self.figure = plain_figure(name, self.title, "seconds", label, tips)
        self._rates = source("at", "rows", "gigabytes")
        self._limit = source("at", "limit")
        rate = self.figure.line("at", what, source=self._rates, color=BLUE, line_width=2)
        limit = self.figure.line("at", "limit", source=self._limit, color=ORANGE, line_dash="dashed", line_width=2)
        self.figure.hover.renderers = [rate]
        self.figure.y_range.start = 0
        if what == "rows":
            self.figure.yaxis[0].formatter = CustomJSTickFormatter(code=_LARGE)
        legend_above(self.figure, {"trained": [rate], "measured limit": [limit]}, columns=2)

    def update(self, fit: Fit) -> None:
        """Show a fit."""
        put(self._rates, _views.rates(fit))
        limits = _views.limits(fit)
        limit = None if limits is None else limits[0 if self._what == "rows" else 1]
        put(self._limit, {"at": [], "limit": []} if limit is None else {"at": [0, fit.seconds], "limit": [limit] * 2})
        shown = "" if limit is None else f": limit {limit:,.0f}" if self._what == "rows" else f": limit {limit:,.3f}"
        self.figure.title.text = self.title + shown


class MarkPlot:
    """What happened meanwhile: recoveries, work that others took over, workers that came and went."""

    def __init__(self) -> None:
        self.title = "Recoveries and reassignments"
        tips = [("seconds", "@at{0.0}"), ("what", "@what")]
        kinds = list(reversed(_views.KINDS))
        self.figure = plain_figure("recoveries", self.title, "seconds", "", tips, y_range=kinds)
        self._marks = source("at", "kind", "what")
        # One that follows the data by itself takes the end that it is given for its own, and may stay behind.
        self.figure.x_range = Range1d(start=0, end=1)
        self.figure.scatter("at", "kind", source=self._marks, color=RED, size=8, marker="diamond", alpha=0.8)
        self._now = Span(location=0, dimension="height", line_color=GREY, line_dash="dotted")
        self.figure.add_layout(self._now)

    def update(self, fit: Fit) -> None:
        """Show a fit."""
        put(self._marks, _views.marks(fit))
        self._now.location = fit.seconds
        self.figure.x_range.end = max(fit.seconds * 1.02, 1.0)
        recovered, reassigned = fit.counts["recovery"], fit.counts["reassigned"]
        self.figure.title.text = f"Recoveries: {recovered:,}, clocks reassigned: {reassigned:,}"
