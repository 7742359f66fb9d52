"""From tables as they are found to the numbers a linear model takes."""

from daskdml.preprocessing._pipeline import TablePipeline
from daskdml.preprocessing._sparse import SparseScaler

__all__ = ["SparseScaler", "TablePipeline"]
