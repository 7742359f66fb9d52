"""Minibatches: epochs to equal loss by batch size on a CPU; and on a GPU, where there is one, rates and times.

On the card: how fast X is read in an epoch of logistic regression, against what copies on the card say its memory
gives; blocks that stream from the host against page-locked copies; sparse rows; the same fit on CPU and card; PyTorch.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from benchmarks._measure import keep, median, spread, table
from benchmarks.kernels import dense, sparse
from daskdml.data import Block
from daskdml.linear_model import SGDClassifier
from daskdml.numerics import LOSSES, SCHEDULES, Settings, card, init_state, row_order, why_no_card

BATCHES = (1, 16, 64, 256, 1024, 4096)
CARD_BATCHES = (4096, 16_384, 65_536, 262_144)
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


def timed(work: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of a call, the first one left out."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def copy_rate(nbytes: int, repeats: int) -> float:
    """Bytes a second that a copy on the card reads and writes together: what its memory gives."""
    from numba import cuda

    source, target = (cuda.device_array(nbytes, np.uint8) for _ in range(2))

    def copy() -> None:
        target.copy_to_device(source)
        cuda.synchronize()

    return nbytes / min(timed(copy, repeats)) * 2


def pinned_rate(nbytes: int, repeats: int) -> float:
    """Bytes a second from page-locked memory to the card."""
    from numba import cuda

    source, target = cuda.pinned_array(nbytes, np.uint8), cuda.device_array(nbytes, np.uint8)

    def copy() -> None:
        target.copy_to_device(source)
        cuda.synchronize()

    return nbytes / min(timed(copy, repeats))


def epoch_on_card(X: Any, y: np.ndarray, batch: int, repeats: int) -> list[float]:
    """Seconds of an epoch of logistic regression over rows that lie on the card."""
    here = card()
    block = here.put(Block(0, X, y.astype(X.dtype)))
    settings = Settings(LOSSES["log_loss"].number, 1, schedule=SCHEDULES["adagrad"], eta0=0.5)
    state, order = init_state(1, X.shape[1], X.dtype, settings), row_order(X.shape[0], 0)
    sides, active = (np.ones(1), np.ones(1)), np.ones(1, dtype=bool)
    return timed(lambda: here.train(block, order, state, settings, sides, active, batch), repeats)


def epoch_of_torch(X: np.ndarray, y: np.ndarray, batch: int, repeats: int) -> list[float]:
    """The same by PyTorch, rows on the card, a gather and an Adagrad step for each batch."""
    import torch

    rows, labels = torch.from_numpy(X).cuda(), torch.from_numpy(y.astype(np.float32)).cuda()
    model = torch.nn.Linear(X.shape[1], 1).cuda()
    step = torch.optim.Adagrad(model.parameters(), lr=0.5)
    order = torch.randperm(len(y), device="cuda")

    def epoch() -> None:
        for start in range(0, len(y), batch):
            some = order[start : start + batch]
            step.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(rows[some])[:, 0], labels[some])
            loss.backward()
            step.step()
        torch.cuda.synchronize()

    return timed(epoch, repeats)


def on_card(full: bool) -> tuple[list[list[Any]], dict[str, Any]]:
    n, repeats = (10_000_000, 5) if full else (1_000_000, 3)
    X, y = dense(n, 100)
    memory, bus = copy_rate(2**30, repeats), pinned_rate(2**30, repeats)
    rows: list[list[Any]] = []
    figures: dict[str, Any] = {"card": card().name, "copy_rate": memory, "pinned_rate": bus}
    torch = importlib.util.find_spec("torch") is not None

    def note(what: str, seconds: list[float], nbytes: int, limit: float) -> None:
        rate = nbytes / median(seconds)
        rows.append([what, spread(seconds), f"{rate / 1e9:.1f}", f"{rate / limit:.0%}"])
        figures[what] = seconds

    for batch in CARD_BATCHES:
        note(f"dense, batches of {batch:,}", epoch_on_card(X, y, batch, repeats), X.nbytes, memory)
        if torch:
            note(f"PyTorch, batches of {batch:,}", epoch_of_torch(X, y, batch, repeats), X.nbytes, memory)
    note("from host memory to the card", timed(lambda: card().put(Block(0, X, y.astype("f4"))), repeats), X.nbytes, bus)
    S, t = sparse(n // 4, 2**20, 39)
    for batch in CARD_BATCHES:
        nbytes = S.data.nbytes + S.indices.nbytes
        note(f"CSR, batches of {batch:,}", epoch_on_card(S, t, batch, repeats), nbytes, memory)
    for device in ("cpu", "cuda"):
        clf = SGDClassifier(
            loss="log_loss",
            learning_rate="adagrad",
            device=device,
            batch_size=4096,
            max_iter=5,
            tol=None,
            random_state=0,
        )
        seconds = timed(lambda clf=clf: clf.fit(X, y), 1)
        rows.append([f"5 epochs, {device}, loss {clf.history_['loss'].iloc[-1]:.5f}", spread(seconds), "", ""])
        figures[f"fit on {device}"] = seconds
    return rows, figures


def run(full: bool = False) -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows, figures = by_batch(1_000_000 if full else 100_000)
    n = "1,000,000" if full else "100,000"
    text = f"## Epochs to equal loss by batch size, on the CPU\n\n{n} x 100 float32, log_loss, AdaGrad, one thread.\n\n"
    text += table(["batch_size", "epochs", "seconds"], rows)
    kept: dict[str, Any] = {"by_batch": figures}
    if card() is None:
        text += f"\n\n## On a GPU\n\n**Not measured: this machine has no GPU that can be used ({why_no_card()}).**"
    else:
        rows, kept["on_card"] = on_card(full)
        found = kept["on_card"]
        text += f"\n\n## On {found['card']}\n\nA copy there reads and writes {found['copy_rate'] / 1e9:.0f} GB/s, "
        text += f"page-locked memory reaches it at {found['pinned_rate'] / 1e9:.1f} GB/s.\n\n"
        text += table(["what", "seconds", "GB/s of X", "of its limit"], rows)
    keep("gpu", kept, text)
