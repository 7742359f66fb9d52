"""How replicas agree: one Strategy protocol, and one list of them."""

from __future__ import annotations

from collections.abc import Callable

from daskdml.strategies._ahead import runs_ahead, train_ahead
from daskdml.strategies._asynchronous import AsynchronousFit
from daskdml.strategies._averaging import Averaging
from daskdml.strategies._bsp import BSP
from daskdml.strategies._checkpoint import Checkpoint, FitStart
from daskdml.strategies._dask import DaskRunner
from daskdml.strategies._full_batch import FullBatch
from daskdml.strategies._local import LocalRunner
from daskdml.strategies._plan import Holdout, Piece, Work, mixed_seed, mixed_shares, plan_epoch, shares
from daskdml.strategies._ssp import ASP, ESSP, SSP, Asynchronous
from daskdml.strategies._strategy import Agreed, Partial, Synchronous
from daskdml.strategies._train import Schedule, Trained, train
from daskdml.strategies._work import Blocks, InMemory, Report

STRATEGIES: dict[str, Callable[..., Synchronous | Asynchronous]] = {
    "averaging": Averaging,
    "bsp": BSP,
    "ssp": SSP,
    "essp": ESSP,
    "asp": ASP,
    "full_batch": FullBatch,
}
"""Strategies by the name users give."""


def as_strategy(strategy: str | Synchronous | Asynchronous) -> Synchronous | Asynchronous:
    """The strategy a user means: an object as it is, a name with that strategy's defaults.

    Raises
    ------
    ValueError
        For anything else, naming what there is.
    """
    if isinstance(strategy, (Synchronous, Asynchronous)):
        return strategy
    if isinstance(strategy, str) and strategy in STRATEGIES:
        return STRATEGIES[strategy]()
    names = ", ".join(repr(name) for name in STRATEGIES)
    raise ValueError(f"strategy must be one of {names} or a strategy object such as Averaging(), got {strategy!r}")


__all__ = [
    "ASP",
    "BSP",
    "ESSP",
    "SSP",
    "STRATEGIES",
    "Agreed",
    "Asynchronous",
    "AsynchronousFit",
    "Averaging",
    "Blocks",
    "Checkpoint",
    "DaskRunner",
    "FitStart",
    "FullBatch",
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
    "runs_ahead",
    "train",
    "train_ahead",
]
