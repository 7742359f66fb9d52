"""Smaller updates, with what was not sent kept for the next one.

Each compression keeps a residual by table: sent + residual = update + previous residual. So nothing is lost, it only
comes later (error feedback: Seide et al. 2014; Stich et al. 2018), and `flush` gives what is left at the end.

Only dense updates of floating-point tables with ``op="add"`` are compressed, and only where there is something to gain:
a sparse update has 8 bytes of key to each value already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from daskdml.server._tables import Partition, Table, Update

Residual = dict[str, np.ndarray]

_SMALL = 4096
_LARGEST_HALF = float(np.finfo(np.float16).max)


@runtime_checkable
class Compression(Protocol):
    """Makes updates smaller; settings only, the residual is passed in and out."""

    def compress(
        self, updates: Mapping[str, Update], residual: Mapping[str, np.ndarray] | None, tables: Iterable[Table]
    ) -> tuple[dict[str, Update], Residual]:
        """What to send, and what remains.

        Parameters
        ----------
        updates : dict of str to Update
            Updates of whole tables; not changed.
        residual : dict of str to ndarray, or None
            What remained the last time, None the first; not changed.
        tables : iterable of Table
            All tables, for their sizes, types and operations.
        """


@dataclass(frozen=True)
class Float16:
    """Two bytes a value instead of four or eight.

    A finite value beyond the range of float16 is sent as the largest there is and the rest follows in later updates;
    NaN and infinity are sent as they are, so that divergence shows.

    Examples
    --------
    >>> table, update = Table("w", 5000, "float32"), {"w": Update(np.full(5000, 0.1, "float32"))}
    >>> sent, residual = Float16().compress(update, None, [table])
    >>> sent["w"].values.dtype, bool(np.all(sent["w"].values + residual["w"] == update["w"].values))
    (dtype('float16'), True)
    """

    def compress(
        self, updates: Mapping[str, Update], residual: Mapping[str, np.ndarray] | None, tables: Iterable[Table]
    ) -> tuple[dict[str, Update], Residual]:
        return _compress(self._cut, updates, residual, tables)

    def _cut(self, whole: np.ndarray) -> tuple[Update, np.ndarray]:
        with np.errstate(invalid="ignore", over="ignore", under="ignore"):
            # NaN stays NaN in a clip; what is infinite was so before.
            sent = np.clip(whole, -_LARGEST_HALF, _LARGEST_HALF).astype(np.float16)
            rest = whole - sent
            endless = ~np.isfinite(rest)
            if endless.any():
                sent[endless] = whole[endless]
                rest[endless] = 0
        return Update(sent), rest


@dataclass(frozen=True)
class TopK:
    """The largest values of each table only, as a sparse update.

    Parameters
    ----------
    fraction : float, default 0.01
        Part of a table's entries that is sent, in (0, 1].

    Examples
    --------
    >>> table, update = Table("w", 5000, "float32"), {"w": Update(np.arange(5000, dtype="float32"))}
    >>> sent, residual = TopK(0.001).compress(update, None, [table])
    >>> sent["w"].keys, float(residual["w"].max())
    (array([4995, 4996, 4997, 4998, 4999]), 4994.0)
    """

    fraction: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction={self.fraction} is outside (0, 1]")

    def compress(
        self, updates: Mapping[str, Update], residual: Mapping[str, np.ndarray] | None, tables: Iterable[Table]
    ) -> tuple[dict[str, Update], Residual]:
        return _compress(self._cut, updates, residual, tables)

    def _cut(self, whole: np.ndarray) -> tuple[Update, np.ndarray]:
        count = int(np.ceil(self.fraction * len(whole)))
        # NaN counts as largest, so that divergence shows.
        keys = np.sort(np.argpartition(np.abs(whole), len(whole) - count)[len(whole) - count :])
        sent = Update(whole[keys], keys)
        whole[keys] = 0
        return sent, whole


COMPRESSIONS: dict[str, type] = {"float16": Float16, "topk": TopK}


def as_compression(compression: str | Compression | None) -> Any:
    """A compression from its name in `COMPRESSIONS`, with default settings, or the object itself; None for none."""
    if isinstance(compression, str):
        if compression not in COMPRESSIONS:
            raise ValueError(f"no compression {compression!r}; there are {', '.join(map(repr, COMPRESSIONS))}")
        return COMPRESSIONS[compression]()
    if compression is not None and not isinstance(compression, Compression):
        raise TypeError(
            f"{compression!r} is not a compression; use a name, {', '.join(map(repr, COMPRESSIONS))}, or None"
        )
    return compression


def flush(residual: Mapping[str, np.ndarray] | None) -> dict[str, Update]:
    """All that remains, as updates: sent at the end, they make up for everything that was held back."""
    return {name: Update(rest) for name, rest in (residual or {}).items() if rest.any()}


def withdraw(
    residual: Mapping[str, np.ndarray],
    whole: Mapping[str, Update],
    sent: Mapping[str, Update],
    partition: Partition,
    shard: int,
) -> None:
    """Change ``residual`` in place to what it would be had an update not been made.

    For an update that a shard did not take, as it had another one of the same work: what was left over of it must not
    be sent any more, and what had been left over before and went with it must be sent again.

    Parameters
    ----------
    residual : dict of str to ndarray
        What remained of later updates; only what of it lies in the shard's ranges is changed.
    whole, sent : dict of str to Update
        The update before its compression, and after.
    partition : Partition
    shard : int
    """
    for name, rest in residual.items():
        if name in whole and whole[name].keys is None:
            start, stop = partition.range(name, shard)
            rest[start:stop] -= whole[name].values[start:stop]
            update = sent[name]
            if update.keys is None:
                rest[start:stop] += update.values[start:stop]
            else:
                first, last = np.searchsorted(update.keys, (start, stop))
                rest[update.keys[first:last]] += update.values[first:last]


def _compress(
    cut: Callable[[np.ndarray], tuple[Update, np.ndarray]],
    updates: Mapping[str, Update],
    residual: Mapping[str, np.ndarray] | None,
    tables: Iterable[Table],
) -> tuple[dict[str, Update], Residual]:
    large = {table.name: table for table in tables if _worth_it(table)}
    rest = dict(residual or {})
    sent = dict(updates)
    for name, update in updates.items():
        if name in large and update.keys is None:
            dtype = large[name].dtype
            # A new array in any case: the update is the caller's.
            whole = update.values + rest[name] if name in rest else np.array(update.values, dtype=dtype)
            sent[name], rest[name] = cut(whole.astype(dtype, copy=False))
    return sent, rest


def _worth_it(table: Table) -> bool:
    return table.op == "add" and table.size > _SMALL and table.dtype in ("float32", "float64")
