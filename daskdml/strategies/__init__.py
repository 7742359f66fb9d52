"""How replicas agree: one Strategy protocol, and one list of them."""

from __future__ import annotations

from daskdml.strategies._averaging import Averaging
from daskdml.strategies._bsp import BSP
from daskdml.strategies._dask import DaskRunner
from daskdml.strategies._local import LocalRunner
from daskdml.strategies._plan import Holdout, Piece, Work, mixed_seed, mixed_shares, plan_epoch, shares
from daskdml.strategies._strategy import Agreed, Partial, Synchronous
from daskdml.strategies._train import Schedule, Trained, train
from daskdml.strategies._work import Blocks, InMemory, Report

STRATEGIES: dict[str, type[Synchronous]] = {"averaging": Averaging, "bsp": BSP}
"""Strategies by the name users give."""


def as_strategy(strategy: str | Synchronous) -> Synchronous:
    """The strategy a user means: an object as it is, a name with that strategy's defaults.

    Raises
    ------
    ValueError
        For anything else, naming what there is.
    """
    if isinstance(strategy, Synchronous):
        return strategy
    if isinstance(strategy, str) and strategy in STRATEGIES:
        return STRATEGIES[strategy]()
    names = ", ".join(repr(name) for name in STRATEGIES)
    raise ValueError(f"strategy must be one of {names} or a strategy object such as Averaging(), got {strategy!r}")


__all__ = [
    "BSP",
    "STRATEGIES",
    "Agreed",
    "Averaging",
    "Blocks",
    "DaskRunner",
    "Holdout",
    "InMemory",
    "LocalRunner",
    "Partial",
    "Piece",
    "Report",
    "Schedule",
    "Synchronous",
    "Trained",
    "Work",
    "as_strategy",
    "mixed_seed",
    "mixed_shares",
    "plan_epoch",
    "shares",
    "train",
]
