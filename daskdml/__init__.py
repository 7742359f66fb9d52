"""Train machine-learning models on data larger than memory, through Dask."""

from daskdml._version import __version__
from daskdml.strategies import BSP, Averaging

__all__ = ["BSP", "Averaging", "__version__"]
