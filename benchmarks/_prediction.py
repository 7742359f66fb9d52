"""Predicting dense rows in memory, chunk by chunk on threads, against a plain sum over the same chunks."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np

from benchmarks._measure import in_turn, median, table

FEATURES = 100
METHODS = ("decision_function", "predict", "predict_proba", "score")


def predictions(full: bool) -> tuple[dict[str, Any], str]:
    from threadpoolctl import threadpool_limits

    from daskdml.linear_model import SGDClassifier

    rows, chunk, repeats = (2_000_000, 100_000, 9) if full else (400_000, 50_000, 2)
    rng = np.random.default_rng(0)
    held = rng.standard_normal((rows, FEATURES), dtype=np.float32)
    labels = (held[:, 0] > 0).astype(np.int64)
    clf = SGDClassifier(loss="log_loss", max_iter=1, tol=None, random_state=0).fit(held[:10_000], labels[:10_000])
    # Chunks that lie in memory, as those of persisted data do: no copy is made of one.
    X = da.concatenate([da.from_array(held[i : i + chunk], chunks=-1, asarray=False) for i in range(0, rows, chunk)])
    y = da.from_array(labels, chunks=chunk, asarray=False)
    figures: dict[str, Any] = {"bytes": held.nbytes, "seconds": {}}
    table_rows = []
    for threads in (1, 2):
        # BLAS threads of its own would be more threads than the sum has.
        with threadpool_limits(1), dask.config.set(scheduler="threads", num_workers=threads):
            sum_of = X.map_blocks(_sum, dtype=np.float64, chunks=(1, 1))
            sides = {"a plain sum": lambda sums=sum_of: _run(sums)}
            for method in METHODS[:-1]:
                lazy = getattr(clf, method)(X)
                sides[method] = lambda lazy=lazy: _run(lazy)
            sides["score"] = lambda: clf.score(X, y)
            seconds = in_turn(sides, repeats)
        figures["seconds"][threads] = seconds
        base = median(seconds["a plain sum"])
        for side, taken in seconds.items():
            rate = held.nbytes / median(taken) / 1e9
            table_rows.append(
                [threads, side, f"{1e3 * median(taken):.1f}", f"{rate:.1f}", f"{base / median(taken):.0%}"]
            )
    headings = ["threads", f"{rows:,} x {FEATURES} float32", "ms", "GB/s", "of the sum"]
    return figures, table(headings, table_rows)


def _sum(chunk: np.ndarray) -> np.ndarray:
    return np.array([[chunk.sum()]])


def _run(lazy: Any) -> None:
    # Chunk after chunk, as a writer would take them; gathering the result into one array is not predicting.
    dask.compute(*lazy.to_delayed().ravel(), optimize_graph=True)
