"""The page ``/daskdml`` of the Dask dashboard: fits as they train, and the last ones.

It appears by itself: the first fit on a cluster registers a :class:`DashboardPlugin` with the scheduler, and each fit
has a :class:`DashboardListener` that brings its events there. ``docs/monitoring.md`` shows it.
"""

from daskdml.monitor.dashboard._fit import Fit, Mark
from daskdml.monitor.dashboard._listener import DashboardListener, page_listeners
from daskdml.monitor.dashboard._plugin import DashboardPlugin
from daskdml.monitor.dashboard._series import Series
from daskdml.monitor.dashboard._store import FitStore

__all__ = ["DashboardListener", "DashboardPlugin", "Fit", "FitStore", "Mark", "Series", "page_listeners"]
