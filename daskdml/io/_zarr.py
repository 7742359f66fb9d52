"""Zarr stores, plain or written by xarray, as bounded parts."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from daskdml.data import read_region
from daskdml.io._errors import InputError, unknown_name
from daskdml.io._table import Table, part_bytes


@dataclass(frozen=True)
class Column:
    """A variable of a store and the names of the columns it makes."""

    variable: str
    names: tuple[str, ...]


def read_zarr(paths: list[str], columns: list[str] | None, block_bytes: int, source: str) -> Table:
    """Rows of the leading dimension become parts, cut at the chunks of the store."""
    parts: list[Any] = []
    meta: pd.DataFrame | None = None
    rows = 0
    for path in paths:
        store = open_store(path)
        layout = _layout(path, store)
        empty = _part(store, layout, 0, 0)
        if meta is not None and list(empty.columns) != list(meta.columns):
            raise InputError(f"{path} has other columns than {paths[0]}; make them alike, or read them one by one")
        meta = empty
        wanted = _wanted(layout, columns, source, list(empty.columns))
        n = store[layout[0].variable].shape[0]
        rows += n
        parts += [partial(load_rows, path, wanted, a, b, columns) for a, b in _cuts(store, wanted, n, block_bytes)]
    if not rows or meta is None:
        raise InputError(f"{source} holds no rows; there is nothing to read")
    return Table.of_loaders(parts, meta if columns is None else meta[columns], source, rows=rows)


def load_rows(path: str, layout: list[Column], start: int, stop: int, columns: list[str] | None) -> pd.DataFrame:
    """Rows ``start`` to ``stop`` of a store as a DataFrame."""
    frame = _part(open_store(path), layout, start, stop)
    return frame if columns is None else frame[columns]


def open_store(path: str) -> Any:
    """The variables of a store by name: an xarray Dataset where dimensions are named, else a plain mapping."""
    import xarray as xr
    import zarr

    try:
        node = zarr.open(path, mode="r")
    except Exception as error:  # zarr raises a dozen kinds of errors for a store it cannot read
        raise InputError(
            f"{path} is not a readable Zarr store ({str(error).splitlines()[0]}); write it again"
        ) from None
    if isinstance(node, zarr.Array):
        return {"x": node}
    arrays = dict(node.arrays())
    if arrays and all(_dimensions(a) for a in arrays.values() if a.ndim):
        # xarray undoes its own encodings: times, scale factors, fill values.
        return xr.open_zarr(path, chunks=None)
    return arrays


def _dimensions(array: Any) -> Any:
    named = getattr(array.metadata, "dimension_names", None)
    return named if named and None not in named else array.attrs.get("_ARRAY_DIMENSIONS")


def _layout(path: str, store: Any) -> list[Column]:
    """The variables that have the rows as their first dimension, in the store's order."""
    names = (
        list(store.data_vars) + [c for c in store.coords if c not in store.dims]
        if hasattr(store, "dims")
        else list(store)
    )
    shapes = {str(n): tuple(store[n].shape) for n in names if store[n].ndim}
    if not shapes:
        raise InputError(f"{path} holds no arrays of one or more dimensions; there is nothing to train on")
    widest = max(shapes, key=lambda n: (len(shapes[n]) >= 2, int(np.prod(shapes[n]))))
    n_rows = shapes[widest][0]
    sample = store[widest].dims[0] if hasattr(store, "dims") else None
    layout = []
    for name, shape in shapes.items():
        if sample is not None and sample not in store[name].dims:
            continue
        if sample is not None and store[name].dims[0] != sample:
            raise InputError(f"{path}: variable {name!r} has {sample!r} not as its first dimension; transpose it")
        if shape[0] != n_rows:
            raise InputError(
                f"{path}: {name!r} has {shape[0]} rows but {widest!r} has {n_rows}; keep other lengths elsewhere"
            )
        layout.append(Column(name, _names(store, name, shape)))
    return layout


def _names(store: Any, name: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    if len(shape) == 1:
        return (name,)
    if hasattr(store, "dims") and len(shape) == 2:
        second: Hashable = store[name].dims[1]
        if second in store.coords:
            labels = [str(v) for v in store[second].values]
            if len(set(labels)) == len(labels):
                return tuple(labels)
    return tuple(f"{name}_{i}" for i in range(int(np.prod(shape[1:]))))


def _part(store: Any, layout: list[Column], start: int, stop: int) -> pd.DataFrame:
    frames = []
    for column in layout:
        values = _rows(store[column.variable], start, stop)
        frames.append(
            pd.DataFrame(values.reshape(len(values), len(column.names)), columns=list(column.names), copy=False)
        )
    return pd.concat(frames, axis=1) if len(frames) > 1 else frames[0]


def _rows(variable: Any, start: int, stop: int) -> np.ndarray:
    rows = slice(start, stop)
    return np.asarray(variable[rows] if hasattr(variable, "dims") else read_region(variable, rows))


def _wanted(layout: list[Column], columns: list[str] | None, source: str, known: list[str]) -> list[Column]:
    """Only the variables that make one of ``columns``, so that no other is read."""
    if columns is None:
        return layout
    for name in columns:
        if name not in known:
            raise unknown_name("variable", name, known, source)
    return [c for c in layout if set(c.names) & set(columns)]


def _cuts(store: Any, layout: list[Column], n: int, block_bytes: int) -> list[tuple[int, int]]:
    row_bytes = sum(len(c.names) * max(store[c.variable].dtype.itemsize, 1) for c in layout)
    rows = max(1, part_bytes(n * row_bytes, block_bytes) // max(row_bytes, 1))
    chunk = max(_chunk_rows(store[c.variable]) for c in layout)
    # A part of whole chunks reads no chunk twice; a chunk larger than a part is cut all the same.
    rows = rows // chunk * chunk if rows >= chunk else rows
    return [(a, min(a + rows, n)) for a in range(0, n, rows)]


def _chunk_rows(array: Any) -> int:
    chunks = getattr(array, "chunks", None) or getattr(array, "encoding", {}).get("chunks")
    return int(chunks[0]) if chunks and isinstance(chunks[0], int) else 1
