"""Parameters as named one-dimensional tables, and how they are cut into the ranges that shards own.

A shard owns a contiguous range of each table, so that a dense update is cut into views and a sparse one by two binary
searches. What a table means (weights, intercepts, counts) is the strategy's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

# A shard's part of a table is worth a message of its own from about this many entries.
_ENTRIES_PER_SHARD = 1024
_BYTES_PER_SHARD = 4 * 2**20
# Above this many bytes a shard, two shards a worker keep messages and state transfers short.
_HUGE_SHARD = 256 * 2**20


@dataclass(frozen=True)
class Table:
    """A named one-dimensional array of parameters.

    Parameters
    ----------
    name : str
        Its name.
    size : int
        Number of entries.
    dtype : str
        NumPy name of their type, such as ``"float32"``.
    op : {"add", "sum", "max"}
        How an update meets a value: it is handed to the optimizer, which by default adds it; it is added whatever
        the optimizer; or the larger of the two stays.
    """

    name: str
    size: int
    dtype: str
    op: str = "add"

    def __post_init__(self) -> None:
        if self.op not in ("add", "sum", "max"):
            raise ValueError(f"table {self.name!r}: op is 'add', 'sum' or 'max', not {self.op!r}")
        if self.size < 0:
            raise ValueError(f"table {self.name!r}: size is {self.size}, but cannot be negative")


@dataclass(frozen=True, eq=False)
class Update:
    """What is to be added to a table, or compared with it.

    Parameters
    ----------
    values : ndarray
        One value for each position.
    keys : ndarray of int64, optional
        The positions, sorted and unique; None for the whole range.
    """

    values: np.ndarray
    keys: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of values and keys."""
        return self.values.nbytes + (0 if self.keys is None else self.keys.nbytes)


def add_update(values: np.ndarray, update: Update, op: str, factor: float = 1.0) -> None:
    """Add an update, ``factor`` times, to the values of a table or of a range of it, in place, as a shard does.

    The larger of two values is the same however often they are compared.
    """
    place = slice(None) if update.keys is None else update.keys
    if op == "max":
        values[place] = np.maximum(values[place], update.values)
    elif factor == 1.0:
        values[place] += update.values
    else:
        values[place] += update.values * values.dtype.type(factor)


def thinned(values: np.ndarray) -> Update:
    """An update by ``values`` of a whole table; of what is not 0 only, where that makes the message half as long.

    Examples
    --------
    >>> change = np.zeros(5000, "float32")
    >>> change[[7, 4000]] = 1
    >>> thinned(change)
    Update(values=array([1., 1.], dtype=float32), keys=array([   7, 4000]))
    """
    if len(values) < _ENTRIES_PER_SHARD:
        return Update(values)
    entry = values.itemsize + np.dtype(np.int64).itemsize
    # Counted first: to list the positions of a dense change would cost more than the rest of this.
    if np.count_nonzero(values) * entry > values.nbytes // 2:
        return Update(values)
    keys = np.flatnonzero(values)
    return Update(values[keys], keys)


def check_keys(keys: np.ndarray, size: int, table: str) -> None:
    """Raise ValueError unless ``keys`` are sorted, unique positions below ``size``.

    Examples
    --------
    >>> check_keys(np.array([0, 3]), 4, "w")
    >>> check_keys(np.array([3, 0]), 4, "w")
    Traceback (most recent call last):
    ...
    ValueError: table 'w': keys must be one-dimensional, sorted and unique
    """
    if keys.ndim != 1 or not np.issubdtype(keys.dtype, np.integer):
        raise ValueError(f"table {table!r}: keys must be a one-dimensional array of integers, not {keys.dtype}")
    if not len(keys):
        return
    if not np.all(keys[1:] > keys[:-1]):
        raise ValueError(f"table {table!r}: keys must be one-dimensional, sorted and unique")
    if keys[0] < 0 or keys[-1] >= size:
        wrong = keys[0] if keys[0] < 0 else keys[-1]
        raise ValueError(f"table {table!r}: key {wrong} is outside 0..{size - 1}")


def check_update(update: Update, size: int, table: str) -> None:
    """Raise ValueError unless ``update`` fits a range of ``size`` entries."""
    if update.keys is not None:
        check_keys(update.keys, size, table)
        size = len(update.keys)
    if update.values.shape != (size,):
        raise ValueError(f"table {table!r}: an update of shape {update.values.shape} for {size} positions")


@dataclass(frozen=True)
class Partition:
    """Which range of each table each shard owns.

    A table with fewer than 1024 entries a shard lies whole on shard 0; the others are cut into equal ranges.

    Parameters
    ----------
    tables : tuple of Table
        The tables, of their whole sizes.
    n_shards : int
        Number of shards, at least 1.

    Examples
    --------
    >>> partition = Partition((Table("w", 10_000, "float32"), Table("b", 1, "float32")), n_shards=2)
    >>> partition.range("w", 1), partition.range("b", 0), partition.range("b", 1)
    ((5000, 10000), (0, 1), (1, 1))
    """

    tables: tuple[Table, ...]
    n_shards: int

    def __post_init__(self) -> None:
        if self.n_shards < 1:
            raise ValueError(f"n_shards is {self.n_shards}, but at least one shard is needed")
        if len(self._by_name) != len(self.tables):
            raise ValueError(f"two tables of the same name: {', '.join(sorted(t.name for t in self.tables))}")

    @cached_property
    def _by_name(self) -> dict[str, Table]:
        return {table.name: table for table in self.tables}

    @cached_property
    def _edges(self) -> dict[str, np.ndarray]:
        """For each table, where each shard's range begins, and the end of the last."""
        edges = {}
        for table in self.tables:
            if table.size < _ENTRIES_PER_SHARD * self.n_shards:
                edges[table.name] = np.array([0] + [table.size] * self.n_shards)
            else:
                edges[table.name] = np.arange(self.n_shards + 1) * table.size // self.n_shards
        return edges

    def _table(self, name: str) -> Table:
        try:
            return self._by_name[name]
        except KeyError:
            raise KeyError(f"no table {name!r}; there are {', '.join(map(repr, self._by_name)) or 'none'}") from None

    def range(self, table: str, shard: int) -> tuple[int, int]:
        """First position of a shard's range, and the first behind it."""
        name = self._table(table).name
        if not 0 <= shard < self.n_shards:
            raise ValueError(f"no shard {shard}; there are {self.n_shards}")
        edges = self._edges[name]
        return int(edges[shard]), int(edges[shard + 1])

    def cut(self, values: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Each shard's part of whole arrays, as views; a part may be empty."""
        for name, array in values.items():
            check_update(Update(array), self._table(name).size, name)
        return [
            {name: array[slice(*self.range(name, shard))] for name, array in values.items()}
            for shard in range(self.n_shards)
        ]

    def cut_updates(self, updates: Mapping[str, Update]) -> list[dict[str, Update]]:
        """Each shard's part of updates of whole tables.

        Keys become positions in the shard's range. A table is left out where nothing of it is for a shard.
        """
        result: list[dict[str, Update]] = [{} for _ in range(self.n_shards)]
        for name, update in updates.items():
            check_update(update, self._table(name).size, name)
            edges = self._edges[name]
            cuts = edges if update.keys is None else np.searchsorted(update.keys, edges)
            for shard, (start, stop) in enumerate(zip(cuts[:-1], cuts[1:], strict=True)):
                if start < stop:
                    keys = None if update.keys is None else update.keys[start:stop] - edges[shard]
                    result[shard][name] = Update(update.values[start:stop], keys)
        return result

    def cut_keys(self, keys: Mapping[str, np.ndarray | None]) -> list[dict[str, np.ndarray | None]]:
        """Each shard's part of the positions to read, None for a whole table.

        A table is left out where nothing of it is asked of a shard, so that `join` of what shards answer has the values
        in the order of the keys. No keys at all are asked of shard 0.
        """
        result: list[dict[str, np.ndarray | None]] = [{} for _ in range(self.n_shards)]
        for name, wanted in keys.items():
            edges = self._edges[self._table(name).name]
            if wanted is None:
                for shard in range(self.n_shards):
                    if edges[shard] < edges[shard + 1] or edges[-1] == 0 == shard:
                        result[shard][name] = None
                continue
            check_keys(wanted, int(edges[-1]), name)
            cuts = np.searchsorted(wanted, edges)
            for shard, (start, stop) in enumerate(zip(cuts[:-1], cuts[1:], strict=True)):
                if start < stop or (not len(wanted) and shard == 0):
                    result[shard][name] = wanted[start:stop] - edges[shard]
        return result

    def join(self, parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Put the shards' parts together: the inverse of `cut`, and of `cut_keys` for what was read.

        An array that only one shard has something of is handed on without a copy.
        """
        if len(parts) != self.n_shards:
            raise ValueError(f"{len(parts)} parts of {self.n_shards} shards")
        result = {}
        for table in self.tables:
            arrays = [part[table.name] for part in parts if table.name in part]
            filled = [array for array in arrays if len(array)]
            if len(filled) > 1:
                result[table.name] = np.concatenate(filled)
            elif arrays:
                result[table.name] = (filled or arrays)[0]
        return result


def default_shards(n_bytes: int, n_workers: int) -> int:
    """How many shards serve ``n_bytes`` of parameters: one for each 4 MB, at most one a worker, or two when huge.

    Examples
    --------
    >>> default_shards(50_000, 8), default_shards(20_000_000, 8), default_shards(10**9, 8), default_shards(10**10, 8)
    (1, 5, 8, 16)
    """
    most = max(n_workers, 1)
    if n_bytes > most * _HUGE_SHARD:
        most *= 2
    return max(1, min(round(n_bytes / _BYTES_PER_SHARD), most))
