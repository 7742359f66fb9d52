"""Where a fit came from: data, cluster and versions, as plain values."""

from __future__ import annotations

import sys
import time
from functools import cache
from typing import Any

import dask
import distributed
import numba
import numpy as np
import sklearn

from daskdml._version import __version__
from daskdml.cluster import worker_info
from daskdml.linear_model._training import Distributed, Memory


def provenance_of(data: Memory | Distributed) -> dict[str, Any]:
    """What is known of a fit's surroundings before it begins; end and duration are added when it is over."""
    return {"begun": time.time(), "data": _data(data), "cluster": _cluster(data), "versions": dict(_versions())}


@cache
def _versions() -> dict[str, str]:
    found = {"daskdml": __version__, "Python": ".".join(map(str, sys.version_info[:3]))}
    modules = {"dask": dask, "distributed": distributed, "numba": numba, "numpy": np, "scikit-learn": sklearn}
    return found | {name: module.__version__ for name, module in modules.items()}


def _data(data: Memory | Distributed) -> dict[str, Any]:
    schema, rows = data.schema, data.n_rows
    dense = None if rows is None or schema.sparse else rows * schema.n_features * np.dtype(schema.dtype).itemsize
    found: dict[str, Any] = {
        "blocks": data.n_blocks,
        "rows": rows,
        "features": schema.n_features,
        "dtype": np.dtype(schema.dtype).name,
        "sparse": bool(schema.sparse),
        "bytes": dense if isinstance(data, Distributed) else data.block.nbytes,
    }
    if isinstance(data, Distributed):
        found |= {name: data.dataset.describe()[name] for name in ("self_contained", "cacheable")}
    return found


def _cluster(data: Memory | Distributed) -> dict[str, Any]:
    if isinstance(data, Memory):
        return {"workers": 0, "threads": 1, "hosts": 1, "memory_limit": None}
    workers = list(worker_info(data.client).values())
    limits = [worker.get("memory_limit") or 0 for worker in workers]
    return {
        "workers": len(workers),
        "threads": sum(int(worker.get("nthreads", 1)) for worker in workers),
        "hosts": len({worker.get("host") for worker in workers}),
        # Of the smallest, which is what a fit is planned for; 0 is none.
        "memory_limit": int(min(limits, default=0)) or None,
    }
