"""The SGD kernels, one thread, data in memory: against scikit-learn's SGD and against reading the rows alone.

A pass is measured as the difference of fits of 1 + n and of 1 epochs, for either side, so that validation and copies
before the first epoch count for neither.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp
from numba import njit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import SGDClassifier as Plain

from benchmarks._measure import keep, median, table
from daskdml.linear_model import SGDClassifier
from daskdml.numerics import as_rows, row_order
from daskdml.numerics._rows import row_square, rows_prefetch
from daskdml.numerics._vectors import vector_dot


@njit(nogil=True, error_model="numpy")
def read_rows(rows, y, order):
    """What memory alone allows: every row read once in this order, prefetched as the kernels do."""
    total = 0.0
    for n in range(order.shape[0]):
        rows_prefetch(rows, y, order, n)
        total += row_square(rows, order[n]) + y[order[n]]
    return total


@njit(nogil=True, error_model="numpy")
def read_dense_rows(rows, y, order):
    """The same of dense rows, in the vectors in which the kernels read them."""
    total = 0.0
    for n in range(order.shape[0]):
        rows_prefetch(rows, y, order, n)
        total += vector_dot(rows.X, order[n], rows.X, order[n]) + y[order[n]]
    return total


def seconds_of_a_pass(cls: Any, X: Any, y: np.ndarray, epochs: int, **params: Any) -> float:
    def fit(n: int) -> float:
        start = time.perf_counter()
        cls(max_iter=n, tol=None, random_state=0, **params).fit(X, y)
        return time.perf_counter() - start

    return (fit(1 + epochs) - fit(1)) / epochs


def dense(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d), dtype=np.float32)
    return X, (X @ rng.standard_normal(d).astype(np.float32) + rng.standard_normal(n) > 0).astype(int)


def classes(n: int, d: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d), dtype=np.float32)
    scores = X @ rng.standard_normal((d, k)).astype(np.float32) / np.sqrt(d)
    return X, (scores + rng.gumbel(size=(n, k))).argmax(axis=1)


def sparse(n: int, d: int, nonzeros: int) -> tuple[Any, np.ndarray]:
    """Rows of a click log: column numbers follow a power law, values are 1."""
    rng = np.random.default_rng(0)
    columns = np.sort((d * rng.random((n, nonzeros)) ** 3).astype(np.int32), axis=1)
    indptr = np.arange(0, n * nonzeros + 1, nonzeros, dtype=np.int32)
    X = sp.csr_array((np.ones(n * nonzeros, dtype=np.float32), columns.ravel(), indptr), shape=(n, d))
    X.sum_duplicates()
    return X, (X @ rng.standard_normal(d) > 0).astype(int)


def run(full: bool = False) -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)
    n, repeats, epochs = (1_000_000, 5, 8) if full else (100_000, 2, 10)
    cases = [
        ("log_loss, shuffled", {"loss": "log_loss"}),
        ("log_loss, in order", {"loss": "log_loss", "shuffle": False}),
        ("hinge, shuffled", {"loss": "hinge"}),
        ("hinge, in order", {"loss": "hinge", "shuffle": False}),
        ("squared_hinge, shuffled", {"loss": "squared_hinge"}),
        ("log_loss, l1, shuffled", {"loss": "log_loss", "penalty": "l1"}),
        ("log_loss, running mean, shuffled", {"loss": "log_loss", "average": True}),
    ]
    several = [("one versus all, log_loss, shuffled", {"loss": "log_loss"})]
    several += [("one versus all, hinge, shuffled", {"loss": "hinge"})]
    workloads = [
        (f"dense float32, {n:,} x 100", dense(n, 100), cases),
        (f"CSR float32, {n // 4:,} x 2^20, 39 a row", sparse(n // 4, 2**20, 39), cases),
        (f"dense float32, {n // 4:,} x 100, 10 classes", classes(n // 4, 100, 10), several),
    ]
    rows, figures = [], []
    for data, (X, y), chosen in workloads:
        read = read_dense_rows if isinstance(X, np.ndarray) else read_rows
        read(as_rows(X), y, np.arange(100, dtype=np.int32))
        nbytes = X.nbytes if isinstance(X, np.ndarray) else X.data.nbytes + X.indices.nbytes
        for case, params in chosen:
            SGDClassifier(max_iter=1, tol=None, **params).fit(X[:100], y[:100])  # compiled before it is timed
            shuffled = params.get("shuffle", True)
            order = row_order(len(y), 0) if shuffled else np.arange(len(y), dtype=np.int32)
            ours, theirs, memory = [], [], []
            for _ in range(repeats):
                ours.append(seconds_of_a_pass(SGDClassifier, X, y, epochs, **params))
                theirs.append(seconds_of_a_pass(Plain, X, y, max(2, epochs // 4), **params))
                start = time.perf_counter()
                read(as_rows(X), y, order)
                memory.append(time.perf_counter() - start)
            ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
            count = X.shape[0]
            rows.append(
                [
                    data,
                    case,
                    f"{count / median(ours) / 1e6:.1f}",
                    f"{count / median(theirs) / 1e6:.2f}",
                    f"{median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})",
                    f"{nbytes / median(ours) / 1e9:.1f}",
                    f"{median(memory) / median(ours):.0%}",
                ]
            )
            figures.append({"data": data, "case": case, "daskdml_s": ours, "sklearn_s": theirs, "memory_s": memory})
    headings = [
        "data",
        "case",
        "daskdml M rows/s",
        "scikit-learn M rows/s",
        "ratio",
        "GB/s",
        "of the read rate in that order",
    ]
    keep("kernels", {"passes": figures}, table(headings, rows), full)


CAPTION = "million rows a second by case"


def picture(figures: dict[str, Any]) -> Any:
    """A panel for each kind of rows, a group of bars for each case."""
    from benchmarks._plots import BLUE, GREY, VERMILION, finish, panels

    sides = [("daskdml", "daskdml_s", BLUE), ("scikit-learn", "sklearn_s", VERMILION)]
    sides += [("reading the rows", "memory_s", GREY)]
    passes = figures["passes"]
    data = list(dict.fromkeys(p["data"] for p in passes))
    figure, axes = panels(len(data), 5.0, 3.8)
    for ax, name in zip(axes, data, strict=True):
        n = int(name.split(", ")[1].split(" x ")[0].replace(",", ""))
        cases = [p for p in passes if p["data"] == name]
        for k, (side, key, colour) in enumerate(sides):
            rates = [n / median(case[key]) / 1e6 for case in cases]
            ax.barh(np.arange(len(cases)) + 0.27 * k, rates, 0.25, color=colour, label=side)
        ax.set_yticks(np.arange(len(cases)) + 0.27, [case["case"] for case in cases])
        # Bars of all panels are as thick.
        ax.set_ylim(max(len([p for p in passes if p["data"] == other]) for other in data) - 0.2, -0.3)
        ax.set(xlabel="M rows/s, one thread")
        ax.set_title(name.replace(", ", ",\n", 1), fontsize=10)
        finish(ax, fontsize=8)
        ax.get_legend().remove()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(sides), frameon=False)
    return figure
