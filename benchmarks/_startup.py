"""Seconds until the first fit: imports, and what numba compiles; each in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp

from benchmarks._measure import median, spread, table

# With the parts of them that daskdml uses: their names alone would import next to nothing.
DEPENDENCIES = (
    "import numpy, pandas, scipy.sparse, scipy.special, numba, numba.extending, dask, dask.array, dask.dataframe, "
    "distributed, sklearn.base, sklearn.linear_model, sklearn.utils.validation"
)
SIDES = {
    "dependencies": "",
    "and daskdml": "import daskdml",
    "and SGDClassifier": "import daskdml; from daskdml.linear_model import SGDClassifier",
}


def imports(full: bool) -> tuple[dict[str, Any], str]:
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(5 if full else 1):
        for side, more in SIDES.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"{DEPENDENCIES}\n{more}"], check=True)
            seconds[side].append(time.perf_counter() - start)
    base = median(seconds["dependencies"])
    rows = [[side, spread(s), f"{median(s) - base:.2f}"] for side, s in seconds.items()]
    return seconds, table(["a fresh process that imports", "seconds", "on top of the dependencies"], rows)


def cases() -> dict[str, tuple[Any, Any, dict[str, Any]]]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 10))
    two, three = (X[:, 0] > 0).astype(int), rng.integers(0, 3, 200)
    log = {"loss": "log_loss"}
    return {
        "log_loss, dense float64": (X, two, log),
        "log_loss, dense float32": (X.astype("f4"), two, log),
        "log_loss, CSR": (sp.csr_array(X), two, log),
        "three classes": (X, three, log),
        "three classes, multinomial": (X, three, {"loss": "multinomial"}),
        "average=True": (X, two, log | {"average": True}),
        "penalty='l1'": (X, two, log | {"penalty": "l1"}),
        "learning_rate='adagrad'": (X, two, log | {"learning_rate": "adagrad"}),
        "learning_rate='adagrad', CSR": (sp.csr_array(X), two, log | {"learning_rate": "adagrad"}),
    }


def first_fit(case: str) -> float:
    """Seconds of the first fit of this process."""
    from daskdml.linear_model import SGDClassifier

    warnings.simplefilter("ignore")
    X, y, params = cases()[case]
    start = time.perf_counter()
    SGDClassifier(max_iter=2, tol=None, random_state=0, **params).fit(X, y)
    return time.perf_counter() - start


def compilations(full: bool) -> tuple[dict[str, Any], str]:
    figures: dict[str, Any] = {}
    for case in list(cases())[: None if full else 1]:
        cold, warm = [], []
        for _ in range(2 if full else 1):
            with tempfile.TemporaryDirectory(prefix="daskdml-numba-") as folder:
                cold.append(_in_fresh_process(case, folder))
                warm.append(_in_fresh_process(case, folder))
        figures[case] = {"cold": cold, "warm": warm}
    rows = [
        [case, spread(f["cold"]), spread(f["warm"]), f"{median(f['cold']) - median(f['warm']):.2f}"]
        for case, f in figures.items()
    ]
    headings = ["first fit of a process, s", "nothing compiled yet", "compiled before", "compiling"]
    return figures, table(headings, rows)


def _in_fresh_process(case: str, folder: str) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._startup", case],
        check=True,
        stdout=subprocess.PIPE,
        env=os.environ | {"NUMBA_CACHE_DIR": folder},
    )
    return float(json.loads(done.stdout))


if __name__ == "__main__":
    print(json.dumps(first_fit(sys.argv[1])))
