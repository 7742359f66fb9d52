"""A shard on its way to another process, in pieces: nobody needs the memory of a large one twice.

Dask receives the arrays of a message whole, and copies a large one to put its frames together. So a host is sent
everything but the large arrays first, makes room for these, and is then sent what belongs there a piece at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskdml.server._shard import Shard

# Bytes of an array that are sent in one message.
PIECE = 2**25


@dataclass(frozen=True)
class Room:
    """In the place of a large array: how much comes in its stead."""

    size: int
    dtype: str


# The names that lead to an array in a snapshot.
Path = tuple[str, ...]


def parcel(shard: Shard, piece: int = PIECE) -> tuple[dict[str, Any], list[tuple[Path, int, np.ndarray]]]:
    """The snapshot of a shard without its large arrays, and these in pieces; the shard must not change meanwhile."""
    pieces: list[tuple[Path, int, np.ndarray]] = []

    def pack(entry: Any, path: Path) -> Any:
        if isinstance(entry, Mapping):
            return {name: pack(value, (*path, name)) for name, value in entry.items()}
        if not isinstance(entry, np.ndarray) or entry.nbytes <= piece:
            return entry
        entries = max(1, piece // entry.dtype.itemsize)
        pieces.extend((path, at, entry[at : at + entries]) for at in range(0, len(entry), entries))
        return Room(len(entry), entry.dtype.str)

    snapshot = shard.snapshot(copy=False)
    packed = {name: pack(snapshot[name], (name,)) for name in ("values", "state")}
    return {**snapshot, **packed}, pieces


class Arrival:
    """A snapshot whose pieces are still to come.

    Parameters
    ----------
    snapshot : dict
        The first part of what `parcel` gave.
    pieces : int
        How many are to come.
    """

    def __init__(self, snapshot: Mapping[str, Any], pieces: int):
        self.snapshot = {name: _unpacked(value) for name, value in snapshot.items()}
        self._missing = pieces
        self._here: set[tuple[Path, int]] = set()

    @property
    def complete(self) -> bool:
        """Whether all pieces are here."""
        return len(self._here) == self._missing

    def add(self, path: Path, at: int, values: np.ndarray) -> None:
        """Put a piece where it belongs; again is harmless."""
        array: Any = self.snapshot
        for name in path:
            array = array[name]
        array[at : at + len(values)] = values
        self._here.add((tuple(path), at))


def _unpacked(entry: Any) -> Any:
    if isinstance(entry, Room):
        return np.empty(entry.size, entry.dtype)
    if isinstance(entry, Mapping):
        return {name: _unpacked(value) for name, value in entry.items()}
    return entry


def messages(shard: Shard, primary: bool, number: int) -> Iterator[tuple[Any, ...]]:
    """The calls, method and arguments, that make a host a copy of the shard."""
    snapshot, pieces = parcel(shard)
    yield "start", snapshot, primary, number, len(pieces)
    for piece in pieces:
        yield "piece", *piece
