"""Figures of fits beside Dask's own, where prometheus_client is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

from daskdml.monitor.dashboard._store import FitStore

_published: list[_Collector] = []


def publish(store: FitStore) -> None:
    """Add the fits of a store to what ``/metrics`` says; nothing without prometheus_client."""
    if importlib.util.find_spec("prometheus_client") is None:
        return
    from prometheus_client import REGISTRY

    if not _published:
        _published.append(_Collector())
        REGISTRY.register(_published[0])
    # As with Dask's own metrics: of several schedulers in one process the last one counts.
    _published[0].store = store


def withdraw(store: FitStore) -> None:
    """Say nothing of these fits any more."""
    for collector in _published:
        if collector.store is store:
            collector.store = None


class _Collector:
    """Reads a store when it is asked: labels are the place of a fit among those kept, its estimator and strategy."""

    def __init__(self) -> None:
        self.store: FitStore | None = None

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        fits = [] if self.store is None else self.store.fits
        running = GaugeMetricFamily("daskdml_fits", "Fits that the scheduler remembers", labels=["state"])
        running.add_metric(["running"], sum(fit.running for fit in fits))
        running.add_metric(["over"], sum(not fit.running for fit in fits))
        yield running
        labels = ["fit", "estimator", "strategy"]
        families: dict[str, Any] = {
            "rows": CounterMetricFamily("daskdml_rows", "Rows visited", labels=labels),
            "rounds": CounterMetricFamily(
                "daskdml_rounds", "Rounds, or clocks, that all replicas finished", labels=labels
            ),
            "bytes": CounterMetricFamily("daskdml_bytes", "Bytes of data read", labels=labels),
            "recoveries": CounterMetricFamily("daskdml_recoveries", "Times something lost was replaced", labels=labels),
        }
        loss = GaugeMetricFamily("daskdml_loss", "Mean training loss a row in the last round", labels=labels)
        for fit in fits:
            values = [str(fit.slot), str(fit.facts.get("estimator", "")), str(fit.facts.get("strategy", ""))]
            for name, family in families.items():
                family.add_metric(values, fit.totals[name])
            if fit.loss.last is not None:
                loss.add_metric(values, fit.loss.last[2])
        yield from families.values()
        yield loss
