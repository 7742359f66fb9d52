"""On a GPU, where there is one: rates and times. ``benchmarks.minibatch`` says what its batches cost in epochs.

How fast X is read in an epoch of logistic regression, against what copies on the card say its memory
gives, and PyTorch in the same batches; passes of a full-batch descent; blocks that stream from the host against
page-locked copies; sparse rows; the same fit on CPU and card, on generated rows and on covtype and MNIST, which lie in
``../shared/data`` beside the checkout and are passed over where they do not.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
from distributed import Client, LocalCluster
from sklearn.exceptions import ConvergenceWarning

from benchmarks._measure import keep, median, spread, table
from benchmarks._plots import BLUE, GREEN, GREY, ORANGE, panels
from benchmarks.agreement import DATA, covtype, mnist
from benchmarks.kernels import dense, sparse
from daskdml.data import Block
from daskdml.linear_model import SGDClassifier
from daskdml.models import LinearModel
from daskdml.numerics import LOSSES, SCHEDULES, BatchOrder, Settings, card, init_state, why_no_card
from daskdml.strategies._full_batch import HESSIAN_ROWS

CARD_BATCHES = (4096, 16_384, 65_536, 262_144, 1_048_576)
STREAMED_BLOCKS = 20
# AdaGrad at its default rate is too fast for so many columns: rounding then decides where a fit ends.
_SLOWLY = {"learning_rate": "constant", "eta0": 0.05}


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


class Resident:
    """Rows that lie on the card, and epochs of logistic regression over them."""

    def __init__(self, X: Any, y: np.ndarray):
        self.block = card().put(Block(0, X, y.astype(X.dtype)))
        self.settings = Settings(LOSSES["log_loss"].number, 1, schedule=SCHEDULES["adagrad"], eta0=0.5)

    def epochs(self, batch: int, repeats: int) -> list[float]:
        """Seconds of each: its order made, parameters brought and taken back."""
        n, d = self.block.shape
        state = init_state(1, d, self.block.rows[0].dtype, self.settings)
        order, sides, active = BatchOrder(n, 0), (np.ones(1), np.ones(1)), np.ones(1, dtype=bool)
        return timed(lambda: card().train(self.block, order, state, self.settings, sides, active, batch), repeats)

    def passes(self, curved: bool, repeats: int) -> list[float]:
        """Seconds of each pass of a full-batch descent, in the order of the rows.

        With ``curved`` also of the second derivatives of as many rows as Newton's method takes.
        """
        n, d = self.block.shape
        model = LinearModel(self.settings, 1, d, self.block.rows[0].dtype, np.ones(1), np.ones(1), device="cuda")
        state, order, active = model.init(), BatchOrder(n, None), np.ones(1, dtype=bool)

        def summed(shares: np.ndarray | None) -> Any:
            sums = model.zero_sums(state, curved, False)
            sample = model.sample(shares, HESSIAN_ROWS, 1) if curved else None
            model.add_sums(state, self.block, order, active, sums, sample)
            return sums

        shares = model.shares(summed(None), np.full(1, float(HESSIAN_ROWS))) if curved else None
        return timed(lambda: summed(shares), repeats)


def epoch_of_torch(X: np.ndarray, y: np.ndarray, batch: int, repeats: int) -> list[float]:
    """The same by PyTorch, rows on the card, a gather and an Adagrad step for each batch."""
    import torch

    rows, labels = torch.from_numpy(X).cuda(), torch.from_numpy(y.astype(np.float32)).cuda()
    model = torch.nn.Linear(X.shape[1], 1).cuda()
    step = torch.optim.Adagrad(model.parameters(), lr=0.5)

    def epoch() -> None:
        order = torch.randperm(len(y), device="cuda")
        for start in range(0, len(y), batch):
            some = order[start : start + batch]
            step.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(rows[some])[:, 0], labels[some])
            loss.backward()
            step.step()
        torch.cuda.synchronize()

    return timed(epoch, repeats)


def streamed_epochs(X: np.ndarray, y: np.ndarray, epochs: int) -> list[float]:
    """Seconds of each epoch whose blocks all come from the host's memory; the first makes them, the second locks it."""
    n = -(-len(y) // STREAMED_BLOCKS)
    lazy = da.from_array(X, chunks=(n, X.shape[1])), da.from_array(y, chunks=n)
    local = {"processes": False, "n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**local, memory_limit=0) as cluster, Client(cluster):
        clf = SGDClassifier(loss="log_loss", learning_rate="adagrad", device="cuda", batch_size=65_536, tol=None)
        clf.set_params(device_memory=0, memory_budget=4 * X.nbytes, max_iter=epochs, random_state=0).fit(*lazy)
    return list(clf.history_["seconds"])


def same_fits(problems: dict[str, tuple[Any, Any, dict[str, Any]]]) -> tuple[list[list[Any]], dict[str, Any]]:
    """The same schedule on CPU and card: objectives, seconds, how far the coefficients are apart."""
    rows, figures = [], {}
    for name, (X, y, params) in problems.items():
        fits, seconds = {}, {}
        for device in ("cuda", "cpu"):
            clf = SGDClassifier(loss="log_loss", learning_rate="adagrad", device=device, tol=None, random_state=0)
            clf.set_params(**params)
            if device == "cuda":
                # What is compiled once, for this loss and this number of features, is not of the comparison.
                clf.fit(X, y)
            start = time.perf_counter()
            fits[device] = clf.fit(X, y)
            seconds[device] = time.perf_counter() - start
        objectives = [float(fits[device].history_["objective"].iloc[-1]) for device in ("cuda", "cpu")]
        apart = np.abs(fits["cuda"].coef_ - fits["cpu"].coef_).max() / np.abs(fits["cpu"].coef_).max()
        ratio = seconds["cpu"] / seconds["cuda"]
        texts = [f"{objective:.6f}" for objective in objectives], [f"{s:.2f}" for s in seconds.values()]
        rows.append([name, *texts[0], f"{apart:.1e}", *texts[1], f"{ratio:.0f}"])
        figures[name] = {"objective": objectives, "apart": float(apart), "seconds": seconds}
    return rows, figures


def problems(full: bool, X: np.ndarray, y: np.ndarray) -> dict[str, tuple[Any, Any, dict[str, Any]]]:
    """What is fitted on both."""
    found: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        f"dense {len(y):,} x 100": (X, y, {"batch_size": 65_536, "max_iter": 5}),
        f"dense {len(y):,} x 100, full_batch": (X, y, {"strategy": "full_batch", "max_iter": 30}),
    }
    if DATA.is_dir():
        for name, of, params in (("covtype", covtype(), {}), ("MNIST", mnist(), {"loss": "multinomial", **_SLOWLY})):
            scale = np.abs(of.X).max(axis=0)
            rows = (of.X / np.where(scale > 0, scale, 1)).astype(np.float32)
            found[name] = rows, of.y, {"batch_size": 256, "max_iter": 10 if full else 2} | params
            descent = {"strategy": "full_batch", "max_iter": 60 if full else 5}
            found[f"{name}, full_batch"] = rows, of.y, params | descent
    return found


def on_card(full: bool) -> tuple[str, dict[str, Any]]:
    n, repeats = (10_000_000, 5) if full else (1_000_000, 3)
    X, y = dense(n, 100)
    memory, bus = copy_rate(2**31, repeats), pinned_rate(2**30, repeats)
    rows: list[list[Any]] = []
    figures: dict[str, Any] = {"card": card().name, "copy_rate": memory, "pinned_rate": bus, "rates": {}}
    torch = importlib.util.find_spec("torch") is not None

    def note(what: str, seconds: list[float], nbytes: int, limit: float) -> None:
        rate = nbytes / median(seconds)
        print(f"{what}: {rate / 1e9:.1f} GB/s", flush=True)
        rows.append([what, spread(seconds), f"{rate / 1e9:.1f}", f"{rate / limit:.0%}"])
        figures["rates"][what] = {"seconds": seconds, "bytes": nbytes, "limit": limit}

    resident = Resident(X, y)
    for batch in (*CARD_BATCHES, n):
        note(f"dense, batches of {batch:,}", resident.epochs(batch, repeats), X.nbytes, memory)
        if torch and batch > 4096:
            note(f"PyTorch, batches of {batch:,}", epoch_of_torch(X, y, batch, 2), X.nbytes, memory)
    note("dense, a full-batch pass", resident.passes(False, repeats), X.nbytes, memory)
    note("dense, a full-batch pass of Newton's method", resident.passes(True, repeats), X.nbytes, memory)
    del resident
    block = Block(0, X, y.astype("f4"))
    note("a block to the card, through buffers", timed(lambda: card().put(block), repeats), X.nbytes, bus)
    note("a block to the card, locked", timed(lambda: card().put(block, kept=True), repeats), X.nbytes, bus)
    note("an epoch streamed from the host", streamed_epochs(X, y, 6)[2:], X.nbytes, bus)
    S, t = sparse(n // 10, 2**20, 39)
    resident = Resident(S, t)
    for batch in (*CARD_BATCHES[:-1], len(t)):
        nbytes = S.data.nbytes + S.indices.nbytes
        note(f"CSR, batches of {batch:,}", resident.epochs(batch, repeats), nbytes, memory)
    note("CSR, a full-batch pass", resident.passes(False, repeats), nbytes, memory)
    del resident
    compared, figures["same"] = same_fits(problems(full, X, y))
    text = (
        f"## On {figures['card']}\n\n{n:,} x 100 float32; CSR {n // 10:,} x 2^20, 39 a row. A copy on the card reads "
    )
    text += f"and writes {memory / 1e9:.0f} GB/s, page-locked memory reaches it at {bus / 1e9:.1f} GB/s.\n\n"
    text += table(["what", "seconds", "GB/s of X", "of its limit"], rows)
    text += "\n\n## The same schedule on card and CPU (one thread)\n\n"
    heads = ["data", "objective, card", "objective, CPU", "coefficients apart", "s, card", "s, CPU", "ratio"]
    return text + table(heads, compared), figures


CAPTION = "Rates at which X is read by an epoch on the card, by the rows of a batch"


def picture(figures: dict[str, Any]) -> Any:
    """Rates of reading X by batch size, beside what the memory gives."""
    figure, (axes,) = panels(1, width=7.0)
    for kind, colour in (("dense", BLUE), ("PyTorch", ORANGE), ("CSR", GREEN)):
        rates = {
            int(name.rsplit(" ", 1)[1].replace(",", "")): found["bytes"] / median(found["seconds"]) / 1e9
            for name, found in figures["on_card"]["rates"].items()
            if name.startswith(f"{kind}, batches")
        }
        if rates:
            axes.plot(list(rates), list(rates.values()), marker="o", label=kind, color=colour)
    axes.axhline(figures["on_card"]["copy_rate"] / 1e9, linestyle="--", color=GREY, label="a copy, read and written")
    axes.set(xscale="log", yscale="log", xlabel="rows of a batch", ylabel="GB/s of X", title="An epoch on the card")
    axes.legend()
    return figure


def run(full: bool = False) -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)
    if card() is None:
        print(f"gpu: passed over, this machine has no GPU that can be used ({why_no_card()})", flush=True)
        return
    text, figures = on_card(full)
    keep("gpu", {"on_card": figures}, text, full)
