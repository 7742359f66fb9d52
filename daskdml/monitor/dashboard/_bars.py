"""Plots of how a fit's time, reads and bytes are divided."""

from __future__ import annotations

from typing import Any

from bokeh.models import AdaptiveTicker, BasicTickFormatter, CustomJSTickFormatter

from daskdml.monitor.dashboard import _views
from daskdml.monitor.dashboard._figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    legend_above,
    plain_figure,
    put,
    source,
)
from daskdml.monitor.dashboard._fit import Fit

_TICKS: dict[str, Any] = {"base": 1024, "mantissas": [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]}
_BYTES = """
const units = ["B", "kiB", "MiB", "GiB", "TiB", "PiB"];
let value = tick, unit = 0;
while (Math.abs(value) >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
return (unit && Math.abs(value) < 10 ? value.toFixed(1) : value.toFixed(0)) + " " + units[unit];
"""


class StalenessPlot:
    """How many clocks behind the parameters were that replicas read."""

    def __init__(self) -> None:
        self.title = "Staleness of reads"
        tips = [("clocks behind", "@lag"), ("reads", "@reads{0,0}")]
        self.figure = plain_figure("staleness", self.title, "clocks behind", "reads", tips)
        self._reads = source("lag", "reads")
        self.figure.vbar("lag", top="reads", width=0.8, source=self._reads, color=BLUE)
        self.figure.y_range.start = 0
        self.figure.xaxis.ticker.min_interval = 1
        self.figure.yaxis.formatter = BasicTickFormatter(use_scientific=False)

    def update(self, fit: Fit) -> None:
        """Show a fit."""
        put(self._reads, _views.staleness(fit))
        reads = sum(fit.lags.values())
        mean = sum(lag * count for lag, count in fit.lags.items()) / reads if reads else 0.0
        together = self.title if fit.shards else "Staleness: replicas read together"
        self.figure.title.text = f"Staleness of {reads:,} reads: mean {mean:.2f}" if reads else together


class ReplicaPlot:
    """What the time of each replica went into."""

    def __init__(self) -> None:
        self.title = "Time of the replicas"
        parts = [("computing", "compute"), ("waiting for data", "wait"), ("waiting for others", "gate")]
        parts += [("communicating", "communicate"), ("loading, beside", "load")]
        tips = [("replica", "@replica"), ("worker", "@worker"), ("seconds", "@seconds{0.0}")]
        tips += [(label, f"@{name}{{0.0}} %") for label, name in parts]
        self.figure = plain_figure("replicas", self.title, "replica", "percent", tips, x_range=["0"])
        self._time = source("replica", "worker", *_views.SPENT, "load", "seconds")
        colors = [BLUE, ORANGE, GREY, PURPLE]
        bars = self.figure.vbar_stack(_views.SPENT, x="replica", width=0.8, source=self._time, color=colors)
        load = self.figure.scatter(
            "replica", "load", source=self._time, marker="dash", size=14, color=GREEN, line_width=3
        )
        self.figure.y_range.start = 0
        self.figure.hover.renderers = bars
        labels = [label for label, _ in parts]
        legend_above(self.figure, {label: [bar] for label, bar in zip(labels, [*bars, load], strict=True)}, columns=3)

    def update(self, fit: Fit) -> None:
        """Show a fit."""
        found = _views.time_spent(fit)
        _with_factors(self.figure.x_range, list(found["replica"]))
        put(self._time, found)


class PacePlot:
    """Who is slow: what a row takes each replica, the straggler in red."""

    def __init__(self) -> None:
        self.title = "Time a row takes"
        tips = [("replica", "@replica"), ("worker", "@worker"), ("microseconds", "@pace{0.000}")]
        self.figure = plain_figure("stragglers", self.title, "replica", "microseconds", tips, x_range=["0"])
        self._paces = source("replica", "worker", "pace", "slow", "color")
        self.figure.vbar("replica", top="pace", width=0.8, source=self._paces, color="color")
        self.figure.y_range.start = 0

    def update(self, fit: Fit) -> None:
        """Show a fit."""
        found = _views.paces(fit)
        _with_factors(self.figure.x_range, list(found["replica"]))
        put(self._paces, {**found, "color": [RED if slow else BLUE for slow in found["slow"]]})
        slow = _views.straggler(fit)
        told = "" if slow is None else f": replica {slow.replica}, {slow.times:.1f} × median"
        self.figure.title.text = self.title + told


class ShardPlot:
    """The bytes of each shard of the parameter server."""

    def __init__(self, what: str = "nbytes") -> None:
        name, self._name = ("shards", "Bytes of each shard") if what == "nbytes" else ("hottest", "Hottest shards")
        self.title = self._name
        tips = [("shard", "@shard"), ("holds", "@size"), ("moved", "@moved")]
        label = "bytes held" if what == "nbytes" else "bytes moved"
        self.figure = plain_figure(name, self.title, "shard, the hottest first", label, tips, x_range=["0"])
        self._shards = source("shard", "nbytes", "traffic", "size", "moved")
        color = BLUE if what == "nbytes" else RED
        self.figure.vbar("shard", top=what, width=0.8, source=self._shards, color=color)
        self.figure.y_range.start = 0
        self.figure.yaxis[0].ticker = AdaptiveTicker(**_TICKS, desired_num_ticks=5)
        self.figure.yaxis.formatter = CustomJSTickFormatter(code=_BYTES)

    def update(self, fit: Fit) -> None:
        """Show a fit."""
        found = _views.shards(fit)
        _with_factors(self.figure.x_range, list(found["shard"]))
        put(self._shards, found)
        some = f": {len(found['shard'])} of {len(fit.shards)}" if len(found["shard"]) < len(fit.shards) else ""
        self.figure.title.text = self.title + (some if fit.shards else ": no parameter server")


class CachePlot:
    """The blocks that each worker keeps, in memory and in files."""

    def __init__(self) -> None:
        self.title = "Block cache of the workers"
        tips = [("worker", "@worker"), ("in memory", "@in_memory"), ("on disk", "@on_disk")]
        self.figure = plain_figure("cache", self.title, "bytes", "", tips, y_range=["no worker"])
        self._caches = source("worker", "memory", "disk", "in_memory", "on_disk")
        bars = self.figure.hbar_stack(
            ["memory", "disk"], y="worker", height=0.7, source=self._caches, color=[BLUE, ORANGE]
        )
        self.figure.x_range.start = 0
        # Fewer than on the other axes: side by side, on a narrow page, their labels would touch.
        self.figure.xaxis[0].ticker = AdaptiveTicker(**_TICKS, desired_num_ticks=3)
        self.figure.xaxis.formatter = CustomJSTickFormatter(code=_BYTES)
        legend_above(self.figure, {"in memory": [bars[0]], "on disk": [bars[1]]}, columns=2)

    def update(self, fit: Fit) -> None:
        """Show a fit."""
        found = _views.caches(fit)
        _with_factors(self.figure.y_range, list(found["worker"]))
        put(self._caches, found)


def _with_factors(range: Any, factors: list[str]) -> None:
    # An empty range of names is one that bokeh cannot draw.
    if factors and range.factors != factors:
        range.factors = factors
