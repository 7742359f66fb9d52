"""Pictures of fits, by matplotlib (the extra ``plot``), the same as tables, and a page with all of them."""

from daskdml.plot import tables
from daskdml.plot._clocks import clocks
from daskdml.plot._compare import compare
from daskdml.plot._cost import cost, staleness
from daskdml.plot._history import history
from daskdml.plot._report import report

__all__ = ["clocks", "compare", "cost", "history", "report", "staleness", "tables"]
