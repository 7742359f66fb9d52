"""Events of a fit as plain lists and numbers, for the way to the scheduler."""

from __future__ import annotations

import operator
from dataclasses import fields
from typing import Any

import numpy as np

from daskdml.monitor._events import EpochEnd, FitInfo, Recovery, ReplicaRound, RoundEnd, ServerStart

FORMAT = 1
"""The number of this way to write events down; a scheduler takes no other."""

_OF_FIT = (
    "estimator strategy n_replicas n_blocks n_rows n_features max_epochs rounds_per_epoch staleness epochs_done "
    "rows_done loss_scale"
).split()

KINDS: dict[str, type[Any]] = {
    "epoch": EpochEnd,
    "recovery": Recovery,
    "replica": ReplicaRound,
    "round": RoundEnd,
    "server": ServerStart,
}
"""What is sent, by the name under which it is."""

_VALUES = {kind: operator.attrgetter(*(f.name for f in fields(event))) for kind, event in KINDS.items()}


def packed(kind: str, at: float, event: Any) -> list[Any]:
    """An event, heard ``at`` seconds after the fit began."""
    # Of a single field the getter gives what is in it.
    values = (event.shard_bytes,) if kind == "server" else _VALUES[kind](event)
    return [kind, at, *(value.item() if isinstance(value, np.generic) else value for value in values)]


def unpacked(line: list[Any]) -> tuple[float, Any]:
    """What `packed` was given: when it was heard, and the event."""
    kind, at, *values = line
    return at, KINDS[kind](*(tuple(v) if isinstance(v, list) else v for v in values))


def described(info: FitInfo) -> dict[str, Any]:
    """What is told of a fit with every message, so that a scheduler which hears of it late knows it too."""
    return {name: getattr(info, name) for name in _OF_FIT}
