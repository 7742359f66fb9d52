"""Rows in memory, on one and on two workers: against a plain loop, scikit-learn, and reading the rows alone.

Dense rows (100 float32 features) and sparse ones (39 nonzeros of 2^20 columns) lie in the block caches of the workers;
an epoch is that of a fit by ``Averaging``, after the first, as its history tells. In turn with the fits, on the same
rows: an epoch of a per-row loop of a few lines, compiled by numba, on one thread and on two, each with weights of its
own and half of the rows; scikit-learn's SGD on one core; the sum of all values, by one thread and by two; and of each
row its square, in the order in which the kernels take them and asked for ahead as they do, by one and by two: that is
what the memory allows who reads rows so. Workers are processes of one thread, or one process of two.

There is one cluster at a time, as users have: one that does nothing takes some of a processor, too. What driver,
scheduler and workers take of the two processors in an epoch is told beside that: the difference between a fit of many
epochs and one of a single epoch.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import scipy.sparse as sp
from numba import njit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import SGDClassifier as Plain

from benchmarks._measure import keep, median, table
from benchmarks._parts import COMPUTING, PARTS, parts_cpu
from benchmarks.kernels import read_dense_rows, read_rows, seconds_of_a_pass
from daskdml.numerics import as_rows, row_order

# Passes of which the median counts: a fit's first ones are tasks of their own, and its later ones go several to a task,
# half a second of them, so that it takes many to be the median of several tasks.
BLOCKS, PASSES, EPOCHS, PROCESSORS = 16, 12, 90, 2
ONE, TWO, THREADS = "daskdml, 1 worker", "daskdml, 2 workers", "daskdml, 1 worker of 2 threads"
CLUSTERS = {ONE: (1, 1), TWO: (2, 1), THREADS: (1, 2)}
SKLEARN, LOOP, READ = "scikit-learn, 1 core", "plain loop, threads: {}", "reading the values, threads: {}"
ROWS = "reading rows in that order, threads: {}"
CAPTION = "million rows a second by side and case"


@dataclass(frozen=True)
class Rows:
    """Rows that are made block by block, the same wherever a block is made, and read from files where they are kept."""

    n: int
    sparse: bool
    folder: str

    @property
    def d(self) -> int:
        return 2**20 if self.sparse else 100

    # Made once in a process: fits of the same rows would otherwise wait for that again and again.
    @lru_cache(BLOCKS)  # noqa: B019
    def block(self, seed: int) -> Any:
        path = Path(self.folder, f"{seed}.{'npz' if self.sparse else 'npy'}")
        if not path.exists():
            if self.sparse:
                sp.save_npz(path, self._made(seed), compressed=False)
            else:
                np.save(path, self._made(seed))
        return sp.load_npz(path) if self.sparse else np.load(path)

    def _made(self, seed: int) -> Any:
        rng, n = np.random.default_rng(seed), self.n // BLOCKS
        if not self.sparse:
            return rng.standard_normal((n, self.d), dtype=np.float32)
        # Of a click log: column numbers follow a power law.
        columns = np.sort((self.d * rng.random((n, 39)) ** 3).astype(np.int32), axis=1)
        indptr = np.arange(0, 39 * n + 1, 39, dtype=np.int32)
        X = sp.csr_matrix((np.ones(39 * n, np.float32), columns.ravel(), indptr), shape=(n, self.d))
        X.sum_duplicates()
        return X

    def labels(self, seed: int) -> np.ndarray:
        rng = np.random.default_rng(10_000)
        X = self.block(seed)
        noise = np.random.default_rng(20_000 + seed).standard_normal(X.shape[0])
        return (X @ rng.standard_normal(self.d).astype(np.float32) + noise > 0).astype(np.int64)

    def lazy(self) -> tuple[Any, Any]:
        """X and y, whose blocks are made in the tasks that want them, and kept there."""
        rows = (self.n // BLOCKS,) * BLOCKS
        meta = sp.csr_matrix((0, 0), dtype=np.float32) if self.sparse else np.empty((0, 0), np.float32)
        X = da.map_blocks(_block, self, chunks=(rows, (self.d,)), meta=meta)
        return X, da.map_blocks(_labels, self, chunks=(rows,), meta=np.empty(0, np.int64))

    def here(self) -> tuple[Any, np.ndarray]:
        blocks = [self.block(k) for k in range(BLOCKS)]
        y = np.concatenate([self.labels(k) for k in range(BLOCKS)])
        return (sp.vstack(blocks, format="csr") if self.sparse else np.concatenate(blocks)), y


def _block(rows: Rows, block_info: Any = None) -> Any:
    return rows.block(block_info[None]["chunk-location"][0])


def _labels(rows: Rows, block_info: Any = None) -> np.ndarray:
    return rows.labels(block_info[None]["chunk-location"][0])


@njit(nogil=True, fastmath=True)
def loop_log_loss(X, y, order, w, eta, shrink):
    for n in range(order.shape[0]):
        x = X[order[n]]
        score = np.float32(0)
        for j in range(x.shape[0]):
            score += w[j] * x[j]
        target = y[order[n]]
        step = eta * target / (np.float32(1) + np.exp(target * score))
        for j in range(x.shape[0]):
            w[j] = shrink * w[j] + step * x[j]


@njit(nogil=True, fastmath=True)
def loop_hinge(X, y, order, w, eta, shrink):
    for n in range(order.shape[0]):
        x = X[order[n]]
        score = np.float32(0)
        for j in range(x.shape[0]):
            score += w[j] * x[j]
        target = y[order[n]]
        step = eta * target if target * score < 1 else np.float32(0)
        for j in range(x.shape[0]):
            w[j] = shrink * w[j] + step * x[j]


@njit(nogil=True, fastmath=True)
def total(values):
    s = np.float32(0)
    for i in range(values.shape[0]):
        s += values[i]
    return s


LOOPS = {"log_loss": loop_log_loss, "hinge": loop_hinge}


def threaded(pool: ThreadPoolExecutor, threads: int, part: Callable[[int], Any]) -> float:
    start = time.perf_counter()
    list(pool.map(part, range(threads)))
    return time.perf_counter() - start


def loop_seconds(pool: ThreadPoolExecutor, threads: int, X: Any, y: np.ndarray, loss: str, shuffle: bool) -> float:
    signs = np.where(y > 0, 1, -1).astype(np.float32)
    halves = np.array_split(np.arange(len(y), dtype=np.int32), threads)
    orders = [np.random.default_rng(0).permutation(half) if shuffle else half for half in halves]
    weights = [np.zeros(X.shape[1], np.float32) for _ in range(threads)]

    def part(k: int) -> None:
        LOOPS[loss](X, signs, orders[k], weights[k], np.float32(0.01), np.float32(1 - 1e-6))

    return threaded(pool, threads, part)


def read_seconds(pool: ThreadPoolExecutor, threads: int, X: Any) -> float:
    values = (X.data if sp.issparse(X) else X.ravel(), X.indices if sp.issparse(X) else None)
    flat = values[0] if values[1] is None else np.concatenate([values[0], values[1].view(np.float32)])
    parts = np.array_split(flat, threads)
    return threaded(pool, threads, lambda k: total(parts[k]))


def rows_seconds(pool: ThreadPoolExecutor, threads: int, X: Any, y: np.ndarray, shuffle: bool) -> float:
    """Of reading a block after the other, the rows of each in the order of a kernel."""
    rows, read = as_rows(X), read_rows if sp.issparse(X) else read_dense_rows
    edges = np.linspace(0, len(y), BLOCKS + 1).astype(np.int32)
    orders = [low + row_order(high - low, 1 if shuffle else None) for low, high in zip(edges, edges[1:], strict=False)]
    parts = [np.concatenate(orders[k::threads]) for k in range(threads)]
    return threaded(pool, threads, lambda k: read(rows, y, parts[k]))


def fit_seconds(client: Any, rows: Rows, replicas: int, params: dict[str, Any], epochs: int) -> list[float]:
    """Seconds of the epochs after the first."""
    from daskdml import Averaging
    from daskdml.linear_model import SGDClassifier

    X, y = rows.lazy()
    with client.as_current():
        clf = SGDClassifier(
            max_iter=1 + epochs, tol=None, random_state=0, strategy=Averaging(n_replicas=replicas), **params
        ).fit(X, y)
    return clf.history_["seconds"].tolist()[1:]


def run(full: bool = False) -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)
    # Below 256 MB rows of all blocks are mixed, which is another thing to measure.
    n, repeats = (1_000_000, 4) if full else (700_000, 1)
    cases = [(False, "log_loss", True)]
    if full:
        cases += [(False, "log_loss", False), (False, "hinge", False), (True, "log_loss", True), (True, "hinge", False)]
    figures: dict[str, Any] = {"cases": []}
    with ThreadPoolExecutor(2) as pool, tempfile.TemporaryDirectory(prefix="daskdml-workers-") as folder:
        held: dict[Rows, Any] = {}
        for sparse, loss, shuffle in cases:
            rows = Rows(n, sparse, str(Path(folder, "csr" if sparse else "dense")))
            if rows not in held:
                Path(rows.folder).mkdir()
                held = {rows: rows.here()}
            seconds, cpu = measure(pool, rows, held[rows], loss, shuffle, repeats)
            what = f"{'CSR' if sparse else 'dense'}, {loss}, {'shuffled' if shuffle else 'in order'}"
            figures["cases"].append(
                {"case": what, "rows": n, "nbytes": nbytes(held[rows][0]), "seconds": seconds, "cpu": cpu}
            )
            print(what, flush=True)
    keep("workers", figures, text(figures), full)


def nbytes(X: Any) -> int:
    return int(X.data.nbytes + X.indices.nbytes if sp.issparse(X) else X.nbytes)


def measure(
    pool: Any, rows: Rows, held: tuple[Any, np.ndarray], loss: str, shuffle: bool, repeats: int
) -> tuple[dict[str, list[float]], dict[str, dict[str, list[float]]]]:
    """Seconds of an epoch, sides in turn, and CPU seconds of parts; the first turn warms up who has no cluster."""
    X, y = held
    params = {"loss": loss, "shuffle": shuffle}
    seconds: dict[str, list[float]] = {}
    cpu: dict[str, dict[str, list[float]]] = {side: {part: [] for part in PARTS} for side in CLUSTERS}
    for turn in range(repeats + 1):
        found: dict[str, float] = {}
        for side in CLUSTERS if turn else ():
            epochs, spent = side_seconds(side, rows, params)
            found[side] = median(epochs)
            for part, each in spent.items():
                cpu[side][part].append(each)
        for threads in (1, 2):
            if not rows.sparse:
                times = [loop_seconds(pool, threads, X, y, loss, shuffle) for _ in range(PASSES if turn else 1)]
                found[LOOP.format(threads)] = median(times)
            times = [read_seconds(pool, threads, X) for _ in range(PASSES if turn else 1)]
            found[READ.format(threads)] = median(times)
            times = [rows_seconds(pool, threads, X, y, shuffle) for _ in range(PASSES if turn else 1)]
            found[ROWS.format(threads)] = median(times)
        if turn:
            found[SKLEARN] = seconds_of_a_pass(Plain, X, y, 2, **params)
            for name, one in found.items():
                seconds.setdefault(name, []).append(one)
    return seconds, cpu


def side_seconds(side: str, rows: Rows, params: dict[str, Any]) -> tuple[list[float], dict[str, float]]:
    """Of epochs, on a cluster of its own, after a fit that makes it ready; and CPU seconds of its parts in an epoch."""
    from daskdml.cluster import local

    workers, threads = CLUSTERS[side]
    with local(workers, threads_per_worker=threads, dashboard_address="127.0.0.1:0", set_as_default=False) as client:
        spent = []
        for epochs in (1, 1, EPOCHS):
            before = parts_cpu(client)
            seconds = fit_seconds(client, rows, workers * threads, params, epochs)
            spent.append({part: after - before[part] for part, after in parts_cpu(client).items()})
        return seconds, {part: (spent[2][part] - spent[1][part]) / (EPOCHS - 1) for part in PARTS}


def text(figures: dict[str, Any]) -> str:
    lines, verdicts = [], []
    for case in figures["cases"]:
        at = {side: median(s) for side, s in case["seconds"].items()}
        two = LOOP.format(2)
        for side, s in at.items():
            rate = [f"{1e3 * s:.1f}", f"{case['rows'] / s / 1e6:.1f}", f"{case['nbytes'] / s / 1e9:.1f}"]
            of = [f"{at[two] / s:.0%}" if two in at else "", f"{at[SKLEARN] / s:.1f}"]
            lines.append([case["case"], side, *rate, *of])
        read, alone = at[READ.format(1)] / at[READ.format(2)], at[ROWS.format(1)] / at[ONE]
        in_order = at[ROWS.format(1)] / at[ROWS.format(2)]
        best = min(at[TWO], at[THREADS])
        verdict = f"{case['case']}: two workers are {at[ONE] / at[TWO]:.2f} times as fast as one"
        verdict += f" (two threads of one, {at[ONE] / at[THREADS]:.2f})"
        verdict += f"; two threads read {read:.2f} times as fast as one, rows in that order {in_order:.2f} times; one"
        verdict += f" worker is at {alone:.0%} of what one thread reads so"
        if two in at:
            verdict += f", and run the plain loop {at[LOOP.format(1)] / at[two]:.2f} times as fast"
            verdict += f". Of that loop on two threads, two workers reach {at[two] / at[TWO]:.0%}; wanted 70%"
        want = 8 if two in at else 4
        verdicts.append(f"* {verdict}. Of scikit-learn {at[SKLEARN] / best:.1f} times the speed; wanted {want}.")
    headings = ["rows", "side", "ms an epoch", "M rows/s", "GB/s", "of the loop on 2 threads", "times scikit-learn"]
    return "\n\n".join([table(headings, lines), "\n".join(verdicts), PROFILE, profile(figures)])


PROFILE = """What an epoch takes of the two processors, in ms: the tasks of all replicas, event loops of workers,
and scheduler and driver, which share the processors with them. The rest nobody used: replicas wait for each other at
its end, and with one worker of one thread a processor has nothing to do."""


def profile(figures: dict[str, Any]) -> str:
    rows = []
    for case in figures["cases"]:
        one = median(case["cpu"][ONE][COMPUTING])
        for side, parts in case["cpu"].items():
            spent = {part: median(each) for part, each in parts.items()}
            whole = PROCESSORS * median(case["seconds"][side])
            rest = whole - sum(spent.values())
            values = [*(spent[part] for part in PARTS), rest]
            cells = [f"{1e3 * v:.1f} ({v / whole:.0%})" for v in values]
            rows.append([case["case"], side, f"{1e3 * whole:.1f}", *cells, f"{spent[COMPUTING] / one:.2f}"])
    return table(["rows", "side", "both processors", *PARTS, "nobody", "tasks, times those of one worker"], rows)


def picture(figures: dict[str, Any]) -> Any:
    """A panel for dense rows and one for sparse ones, where these were measured."""
    from benchmarks._plots import BLUE, GREEN, GREY, ORANGE, SKY, VERMILION, finish, panels

    colours = {ONE: SKY, TWO: BLUE, THREADS: GREEN, SKLEARN: VERMILION}
    colours |= {LOOP.format(1): "#e8c877", LOOP.format(2): ORANGE}
    kinds = list(dict.fromkeys(c["case"].split(",")[0] for c in figures["cases"]))
    figure, axes = panels(len(kinds), 5.0, 4.2)
    for ax, kind in zip(axes, kinds, strict=True):
        cases = [c for c in figures["cases"] if c["case"].startswith(kind)]
        sides = [s for s in colours if s in cases[0]["seconds"]]
        for k, side in enumerate(sides):
            rates = [c["rows"] / median(c["seconds"][side]) / 1e6 for c in cases]
            ax.barh([i + 0.8 * k / len(sides) for i in range(len(cases))], rates, 0.7 / len(sides), align="edge",
                    color=colours[side], label=side)  # fmt: skip
        for i, case in enumerate(cases):
            limit = case["rows"] / median(case["seconds"][READ.format(2)]) / 1e6
            ax.plot([limit, limit], [i, i + 0.8], color=GREY, linestyle="--", label=None if i else READ.format(2))
        ax.set_yticks([i + 0.4 for i in range(len(cases))], [c["case"].split(", ", 1)[1] for c in cases])
        ax.invert_yaxis()
        ax.set(title=f"{kind}, {cases[0]['rows']:,} rows", xlabel="M rows/s")
        finish(ax, fontsize=8)
        ax.get_legend().remove()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure
