"""Train machine-learning models on data larger than memory, through Dask."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from daskdml._version import __version__

if TYPE_CHECKING:
    from daskdml.strategies import ASP, BSP, ESSP, SSP, Averaging, FullBatch

# What is logged, and where to, is for the program to say: logging.basicConfig(level="INFO") shows it.
logging.getLogger(__name__).addHandler(logging.NullHandler())

# What users reach as `daskdml.plot` without importing it.
_ROOMS = (
    "checkpoint",
    "cluster",
    "data",
    "io",
    "linear_model",
    "metrics",
    "monitor",
    "plot",
    "preprocessing",
    "server",
    "strategies",
    "workflow",
)
__all__ = ["ASP", "BSP", "ESSP", "SSP", "Averaging", "FullBatch", "__version__"]


def __getattr__(name: str) -> Any:
    # Found when asked for: the command line's help, and a worker asked for its version, need no numerics.
    if name in ("ASP", "BSP", "ESSP", "SSP", "Averaging", "FullBatch"):
        from daskdml import strategies

        globals()[name] = value = getattr(strategies, name)
        return value
    if name in _ROOMS:
        # The import itself makes it an attribute of the package.
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS, *(name for name in globals() if name.startswith("__"))})
