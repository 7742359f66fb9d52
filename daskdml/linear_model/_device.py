"""Where an estimator trains, and in which batches: a matter of its parameters alone, not of the machines it finds."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from daskdml.data import card_info, require_cards
from daskdml.strategies import BSP, Asynchronous, FullBatch, as_strategy

DEVICES = ("auto", "cpu", "cuda")
# Rows of a batch on a GPU, unless batch_size says otherwise: beyond about so many an epoch of a step for each batch
# has too few steps on data of a million rows; below, the card waits for itself more than it reads.
AUTO_BATCH = 4096
# Rates that the kernels of a GPU do not have.
_ROW_RULES = ("pa1", "pa2")
_NOT_ON_DEVICE = ("normalized", *_ROW_RULES)


def check_device(
    device: str, batch_size: int | str, device_memory: int | str | None, learning_rate: str, strategy: Any
) -> None:
    """Raise ValueError for what does not go together.

    Examples
    --------
    >>> check_device("cuda", "auto", None, "normalized", "averaging")
    Traceback (most recent call last):
    ValueError: learning_rate='normalized' has no kernel for a GPU: use another one, or device='auto' or 'cpu'
    """
    if device == "cuda" and learning_rate in _NOT_ON_DEVICE:
        raise ValueError(
            f"learning_rate='{learning_rate}' has no kernel for a GPU: use another one, or device='auto' or 'cpu'"
        )
    if device == "cpu" and device_memory is not None:
        raise ValueError(
            f"device_memory={device_memory!r} is memory of a GPU, and device='cpu' uses none: leave it None, or "
            "use device='auto' or 'cuda'"
        )
    if batch_size == "auto":
        return
    if _steps_by_gradient(strategy):
        raise ValueError(
            f"batch_size={batch_size} has no meaning with strategy={as_strategy(strategy)!r}, whose batches are its "
            "rounds or clocks: leave batch_size='auto'"
        )
    if batch_size != 1 and learning_rate in _ROW_RULES:
        raise ValueError(
            f"learning_rate='{learning_rate}' is a rule for single rows: use batch_size=1, or another learning_rate"
        )
    if batch_size == 1 and device != "cpu":
        raise ValueError(
            f"batch_size=1 leaves a GPU nothing to do side by side: with device='{device}' use 2 or more, or 'auto'"
        )


def batch_of(device: str, batch_size: int | str, learning_rate: str, strategy: Any) -> int:
    """Rows of a step.

    Examples
    --------
    >>> batch_of("cpu", "auto", "optimal", "averaging"), batch_of("auto", "auto", "optimal", "averaging")
    (1, 4096)
    >>> batch_of("auto", "auto", "optimal", FullBatch()), batch_of("auto", "auto", "optimal", FullBatch(warm_up=1))
    (1, 4096)
    """
    if isinstance(batch_size, Integral):
        return int(batch_size)
    if device == "cpu" or learning_rate in _NOT_ON_DEVICE or _steps_by_gradient(strategy):
        return 1
    return AUTO_BATCH


def require_device(device: str, client: Any = None) -> None:
    """Raise RuntimeError where ``device`` is "cuda" and no worker of the cluster, or not this process, has a GPU."""
    if device == "cuda":
        require_cards({"this process": card_info()} if client is None else client.run(card_info))


def _steps_by_gradient(strategy: Any) -> bool:
    """Whether no step is made by a replica itself: a full-batch descent has such in its warm-up only."""
    chosen = as_strategy(strategy)
    if isinstance(chosen, FullBatch):
        return not chosen.warm_up
    return isinstance(chosen, BSP) or (isinstance(chosen, Asynchronous) and chosen.sends_gradients)
