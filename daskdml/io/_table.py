"""A table of files, not read yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd
from dask._task_spec import DependenciesMapping, resolve_aliases
from dask.core import reverse_dict
from dask.delayed import Delayed, delayed
from dask.optimization import cull

from daskdml.io._errors import InputError, unknown_name

# Small tables are cut finer than memory asks for, so that several replicas have something to do.
MIN_PARTS = 32


def part_bytes(total: int, limit: int) -> int:
    """Bytes a part of a table of ``total`` bytes should have, at most ``limit``."""
    return min(limit, max(total // MIN_PARTS, 1 << 18))


@dataclass(frozen=True)
class Table:
    """Rows of files (or of a Dask DataFrame), in order, as a list of parts that nobody has read yet.

    Parameters
    ----------
    parts : tuple of Delayed
        Each makes one part: a pandas DataFrame, or, where ``sparse``, a pair of a CSR matrix and its labels.
    meta : pandas.DataFrame
        No rows; names and dtypes of the columns. Of a sparse table only the columns count.
    source : str
        What to call the table in a message.
    sparse : bool, default False
        The parts are (CSR matrix, labels) pairs; there are no column names and no missing values.
    zero_based : bool or None
        Of svmlight files: whether features are counted from 0.
    notes : tuple of str
        What the user should know of how the files were read, a line each.
    rows : int or None
        The number of rows where it is known without reading.

    Examples
    --------
    >>> import pandas as pd
    >>> from daskdml.io import Table
    >>> table = Table.from_frame(pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}))
    >>> table.columns, table.n_parts
    (['a', 'b'], 1)
    >>> table.frame().compute().shape
    (2, 2)
    """

    parts: tuple[Delayed, ...]
    meta: pd.DataFrame
    source: str
    sparse: bool = False
    zero_based: bool | None = None
    rows: int | None = None
    notes: tuple[str, ...] = ()
    _origin: Any = field(default=None, repr=False)
    _columnar: bool = False

    @classmethod
    def of_loaders(cls, loaders: Sequence[Callable[[], Any]], meta: pd.DataFrame, source: str, **known: Any) -> Table:
        """The table whose parts are what the (small, picklable) ``loaders`` return.

        With ``_columnar=True`` each also takes ``only=``, the columns to read.
        """
        load = delayed(_call, pure=True)
        return cls(tuple(load(one) for one in loaders), meta, source, _origin=tuple(loaders), **known)

    @classmethod
    def from_frame(cls, frame: Any, source: str = "the DataFrame") -> Table:
        """The table of a dask or pandas DataFrame; a dask one stays lazy, its partitions become the parts."""
        if isinstance(frame, pd.DataFrame):
            return cls((delayed(frame, pure=False),), frame.iloc[:0], source, rows=len(frame), _origin=frame)
        if not hasattr(frame, "to_delayed") or not hasattr(frame, "columns"):
            raise TypeError(f"a dask or pandas DataFrame is needed, got {type(frame).__name__}")
        return cls(_parts(frame), frame._meta.iloc[:0], source, _origin=frame)  # noqa: SLF001

    @property
    def n_parts(self) -> int:
        return len(self.parts)

    @cached_property
    def columns(self) -> list[str]:
        return [str(c) for c in self.meta.columns]

    def check_columns(self, names: list[str], kind: str = "column") -> None:
        """Raise :class:`InputError` for the first of ``names`` the table lacks."""
        for name in names:
            if name not in self.columns:
                raise unknown_name(kind, name, self.columns, self.source)

    def only(self, columns: list[str]) -> Table:
        """The same rows, of these columns alone where the format lets others be left unread; else this table."""
        if not self._columnar:
            return self
        load = delayed(_call_for, pure=True)
        parts = tuple(load(one, tuple(columns)) for one in self._origin)
        return Table(parts, self.meta[columns], self.source, rows=self.rows)

    def frame(self) -> Any:
        """The table as a lazy dask DataFrame; refused for a sparse one, which has no columns."""
        if self.sparse:
            raise InputError(f"{self.source} holds sparse rows, which are no DataFrame; use its parts")
        import dask.dataframe as dd

        if isinstance(self._origin, tuple):
            # A function with this argument is asked for the columns alone that are used: a pass over labels reads them.
            load = _call_columns if self._columnar else _call
            return dd.from_map(load, list(self._origin), meta=self.meta)
        return dd.from_pandas(self._origin, npartitions=1) if isinstance(self._origin, pd.DataFrame) else self._origin


def _call_for(loader: Callable[..., Any], columns: tuple[str, ...]) -> Any:
    return loader(only=columns)


def _call_columns(loader: Callable[..., Any], columns: list[str] | None = None) -> Any:
    return loader() if columns is None else loader(only=tuple(columns))


def _call(loader: Callable[[], Any]) -> Any:
    return loader()


def _parts(frame: Any) -> tuple[Delayed, ...]:
    """The partitions of a dask DataFrame, each with just its own tasks."""
    parts = frame.to_delayed()
    if not parts:
        raise InputError("the DataFrame has no partitions; there is nothing to read")
    graph, keys = dict(parts[0].dask), {p.key for p in parts}
    # dd.from_delayed leaves chains of aliases, which Dask 2026.8 loses when it fuses arrays made of such parts.
    graph = resolve_aliases(graph, keys, reverse_dict(DependenciesMapping(graph)))
    return tuple(Delayed(p.key, cull(graph, [p.key])[0]) for p in parts)
