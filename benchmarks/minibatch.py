"""What a larger batch costs: epochs to equal loss by batch size, on the CPU."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from benchmarks._measure import keep, table
from benchmarks.kernels import dense
from daskdml.linear_model import SGDClassifier

BATCHES = (1, 16, 64, 256, 1024, 4096)
MOST_EPOCHS = 64


def epochs_to(loss: float, X: np.ndarray, y: np.ndarray, batch: int) -> tuple[int | None, float]:
    """Epochs until the mean training loss of one is at most ``loss``, and their seconds; None after 64."""
    start = time.perf_counter()
    clf = SGDClassifier(
        loss="log_loss", learning_rate="adagrad", batch_size=batch, max_iter=MOST_EPOCHS, tol=None, random_state=0
    ).fit(X, y)
    reached = np.flatnonzero(clf.history_["loss"].to_numpy() <= loss)
    share = (reached[0] + 1) / MOST_EPOCHS if len(reached) else 1.0
    return (int(reached[0]) + 1 if len(reached) else None), share * (time.perf_counter() - start)


def by_batch(n: int) -> tuple[list[list[Any]], list[dict[str, Any]]]:
    """What a larger batch costs in epochs: the loss to reach is within 1 % of what row after row ends with."""
    X, y = dense(n, 100)
    SGDClassifier(loss="log_loss", learning_rate="adagrad", max_iter=1, tol=None).fit(X[:100], y[:100])
    best = SGDClassifier(loss="log_loss", learning_rate="adagrad", max_iter=MOST_EPOCHS, tol=None, random_state=0)
    target = 1.01 * float(best.fit(X, y).history_["loss"].iloc[-1])
    found = [(batch, *epochs_to(target, X, y, batch)) for batch in BATCHES]
    rows = [[f"{b:,}", e or f"more than {MOST_EPOCHS}", f"{s:.2f}"] for b, e, s in found]
    return rows, [{"batch": b, "epochs": e, "seconds": s, "loss": target} for b, e, s in found]


def run(full: bool = False) -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)
    n = 1_000_000 if full else 20_000
    rows, figures = by_batch(n)
    text = f"Epochs to equal loss by batch size. {n:,} x 100 float32, log_loss, AdaGrad, one thread.\n\n"
    keep("minibatch", {"by_batch": figures}, text + table(["batch_size", "epochs", "seconds"], rows), full)
