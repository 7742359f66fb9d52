"""What makes two fits the same one, so that the second may go on from a checkpoint of the first."""

from __future__ import annotations

from numbers import Integral
from typing import Any
from zlib import crc32

import numpy as np
from sklearn.base import BaseEstimator

from daskdml.linear_model._training import Distributed, Memory
from daskdml.strategies import as_strategy

# They change how far, where or how loudly a fit goes, not its steps. warm_start gives coefficients to begin with:
# they are in the checkpoint's.
_FREE = {
    "callbacks",
    "checkpoint",
    "checkpoint_every",
    "device_memory",
    "max_iter",
    "memory_budget",
    "n_jobs",
    "random_state",
    "strategy",
    "verbose",
    "warm_start",
}


def identity_of(estimator: BaseEstimator, data: Memory | Distributed, given: dict[str, Any]) -> dict[str, Any]:
    """Parameters, data and model of a fit by name, with what else was ``given`` to it.

    Of the data it knows shape, dtype, blocks and names, not the values: nothing is read for it.
    """
    params = estimator.get_params(deep=False)
    strategy = as_strategy(params["strategy"])
    # Where it is no number, each fit has a seed of its own, and the checkpoint's is used.
    seed = params["random_state"] if isinstance(params["random_state"], Integral) else None
    steps = {name: value for name, value in strategy.get_params(deep=False).items() if name != "n_replicas"}
    found = {
        "estimator": type(estimator).__name__,
        **{name: value for name, value in sorted(params.items()) if name not in _FREE},
        "random_state": "no number" if seed is None else int(seed),
        "strategy": f"{type(strategy).__name__}({', '.join(f'{k}={_plain(v)!r}' for k, v in sorted(steps.items()))})",
        "n_replicas": data.n_replicas,
        "data": "in memory, in this process" if isinstance(data, Memory) else "in blocks, on a cluster",
        "n_blocks": data.n_blocks,
        "n_rows": data.n_rows,
        "n_features": data.schema.n_features,
        "dtype": np.dtype(data.schema.dtype).name,
        "sparse": data.schema.sparse,
        "feature names": list(getattr(estimator, "feature_names_in_", ())),
        **given,
    }
    return {name: _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    """The same for 1 and np.int64(1), for a list and the array of it; long arrays by their digest."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        # Of text and objects the bytes are not the values.
        if value.size <= 20 or value.dtype.kind not in "biufc":
            return _plain(value.tolist())
        return f"{value.shape} {crc32(value.tobytes()):x}"
    if isinstance(value, (list, tuple)):
        return [_plain(held) for held in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(held) for key, held in sorted(value.items(), key=lambda item: str(item[0]))}
    return value
