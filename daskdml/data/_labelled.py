"""xarray: which dimension holds the samples, and what the features are."""

from __future__ import annotations

import sys
from collections.abc import Hashable
from typing import Any

import dask.array as da
import numpy as np

__all__ = ["feature_labels", "from_xarray", "is_xarray", "sample_dim"]


def is_xarray(X: Any) -> bool:
    """Whether ``X`` is an xarray DataArray or Dataset; xarray is not imported to find out."""
    xr = sys.modules.get("xarray")
    return xr is not None and isinstance(X, (xr.DataArray, xr.Dataset))


def _is_dataset(X: Any) -> bool:
    return hasattr(X, "data_vars")


def sample_dim(X: Any) -> Hashable:
    """The dimension of the rows: the one named "sample", else the first one (of a Dataset's first variable)."""
    dims = tuple(X.dims) if not _is_dataset(X) else _dataset_dims(X)
    return "sample" if "sample" in dims else dims[0]


def _dataset_dims(X: Any) -> tuple[Hashable, ...]:
    if not X.data_vars:
        raise ValueError("Found array with 0 feature(s): the xarray Dataset has no data variables")
    return tuple(next(iter(X.data_vars.values())).dims)


def feature_labels(X: Any) -> list[Any] | None:
    """The names of the columns, where X has any: a Dataset's variables, or the coordinate of the other dimension."""
    dim = sample_dim(X)
    if not _is_dataset(X):
        return _coordinate(X, dim)
    labels: list[Any] = []
    for name, variable in X.data_vars.items():
        if variable.ndim == 1:
            labels.append(name)
        else:
            inner = _coordinate(variable, dim)
            width = variable.size // max(variable.sizes[dim], 1) if variable.sizes[dim] else variable.shape[-1]
            labels.extend(f"{name}_{c}" for c in (inner if inner is not None else range(width)))
    return labels


def _coordinate(X: Any, dim: Hashable) -> list[Any] | None:
    others = [d for d in X.dims if d != dim]
    if len(others) != 1 or others[0] not in X.coords:
        return None
    return X.coords[others[0]].values.tolist()


def from_xarray(X: Any) -> Any:
    """The values of ``X``, rows first: a NumPy or a dask array."""
    dim = sample_dim(X)
    return _stacked(X, dim) if _is_dataset(X) else _oriented(X, dim, "X")


def _oriented(X: Any, dim: Hashable, name: Any) -> Any:
    if X.ndim != 2:
        raise ValueError(
            f"{name} has dimensions {X.dims}, but two are expected: samples and features; "
            "stack the others with .stack(feature=[...])"
        )
    return X.transpose(dim, ...).data


def _stacked(X: Any, dim: Hashable) -> Any:
    """A Dataset's variables side by side: one column each, a 2-D one as many as it has features."""
    parts = []
    for name, variable in X.data_vars.items():
        if dim not in variable.dims:
            raise ValueError(f"variable {name!r} has dimensions {variable.dims}, without the sample dimension {dim!r}")
        data = _oriented(variable, dim, f"variable {name!r}") if variable.ndim != 1 else variable.data[:, None]
        parts.append(data)
    if not any(isinstance(p, da.Array) for p in parts):
        return np.concatenate(parts, axis=1)
    rows = next(p.chunks[0] for p in parts if isinstance(p, da.Array))
    lazy = [
        p.rechunk({0: rows, 1: -1}) if isinstance(p, da.Array) else da.from_array(p, chunks=(rows, -1)) for p in parts
    ]
    return da.concatenate(lazy, axis=1).rechunk({1: -1})
