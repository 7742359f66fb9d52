"""The plots there are, by the name in their address."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from daskdml.monitor.dashboard._bars import CachePlot, PacePlot, ReplicaPlot, ShardPlot, StalenessPlot
from daskdml.monitor.dashboard._curves import ClockPlot, LossPlot, MarkPlot, RatePlot
from daskdml.monitor.dashboard._fit import Fit


class Plot(Protocol):
    """A bokeh figure, and how to make it show a fit."""

    title: str
    figure: Any

    def update(self, fit: Fit) -> None: ...


PLOTS: dict[str, Callable[[], Plot]] = {
    "loss": LossPlot,
    "loss-epochs": partial(LossPlot, "epoch"),
    "clocks": ClockPlot,
    "staleness": StalenessPlot,
    "replicas": ReplicaPlot,
    "stragglers": PacePlot,
    "rows": RatePlot,
    "bandwidth": partial(RatePlot, "gigabytes"),
    "shards": ShardPlot,
    "hottest": partial(ShardPlot, "traffic"),
    "cache": CachePlot,
    "recoveries": MarkPlot,
}
"""Those of the page, in its order; each is found alone at ``/individual-daskdml-NAME`` too."""
