"""Real data: whether replicas that do not wait for each other learn as much in as many epochs as those that average.

On covtype (class 2 against the rest), a9a and MNIST, at 4 and 8 replicas, every strategy fits the same rows for the
same number of epochs, and its log-loss over these rows is set beside that of ``Averaging()``, and so is the objective:
the log-loss with its penalty. More than 0.5 % above either is a failure, and named so. The objective shows weights
that have run away in columns that are nearly always 0, where the log-loss does not.

Two baselines are shown: ``Averaging()`` as it is by default, which meets once an epoch, and one that meets as often as
SSP(3) has clocks. How far these two are apart tells how much of a difference is the noise of the last rows visited.
Two worker processes of two threads hold the replicas, so 8 of them share 4 threads.

The data lie in ``../shared/data`` beside the checkout; a set that is absent is passed over. The digits that come inside
scikit-learn are always there, and are all of the quick size.
"""

from __future__ import annotations

import gzip
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits, load_svmlight_file
from sklearn.metrics import log_loss

from benchmarks._measure import keep, median, table
from daskdml import ASP, BSP, ESSP, SSP, Averaging
from daskdml.cluster import local
from daskdml.linear_model import SGDClassifier

DATA = Path(__file__).parents[2] / "shared" / "data"
BLOCKS = 16
# How much worse than averaging is too much.
ALLOWED = 0.005
AVERAGING, AS_OFTEN = "Averaging()", "Averaging, as often as SSP(3)"


@dataclass(frozen=True, eq=False)
class Problem:
    """Rows to train on, rows to test on, and how they are trained on."""

    X: np.ndarray
    y: np.ndarray
    test_X: np.ndarray
    test_y: np.ndarray
    params: dict[str, Any]

    def first(self, n: int | None) -> Problem:
        """The same with the first rows only to train on."""
        return replace(self, X=self.X[:n], y=self.y[:n])


@dataclass(frozen=True)
class Fitted:
    """What came of one fit; ``rounds`` are those of an epoch, in the mean."""

    loss: float
    objective: float
    test_loss: float
    rounds: float
    staleness_mean: float
    staleness_max: int
    seconds: float


def covtype() -> Problem:
    frame = pd.read_parquet(DATA / "covtype.parquet")
    y = (frame.pop("Cover_Type").to_numpy() == 2).astype(int)
    X = frame.to_numpy(dtype=float)
    order = np.random.default_rng(0).permutation(len(y))
    test, train = np.split(order, [len(y) // 5])
    return Problem(X[train], y[train], X[test], y[test], {"loss": "log_loss", "learning_rate": "normalized"})


def a9a() -> Problem:
    (X, y), (test_X, test_y) = (load_svmlight_file(DATA / f, n_features=123) for f in ("a9a.gz", "a9a.t.gz"))
    params = {"loss": "log_loss", "learning_rate": "adagrad"}
    return Problem(X.toarray(), (y > 0).astype(int), test_X.toarray(), (test_y > 0).astype(int), params)


def mnist() -> Problem:
    def read(name: str, header: int) -> np.ndarray:
        return np.frombuffer(gzip.decompress((DATA / "mnist" / name).read_bytes()), np.uint8, offset=header)

    def pixels(name: str) -> np.ndarray:
        return (read(name, 16).reshape(-1, 784) / 255).astype(np.float32)

    # "adagrad" at its default rate is too fast for so many columns: the last rows visited then decide the loss, and
    # two averagings differ by ten per cent.
    params = {"loss": "multinomial", "learning_rate": "normalized"}
    return Problem(
        pixels("train-images-idx3-ubyte.gz"),
        read("train-labels-idx1-ubyte.gz", 8),
        pixels("t10k-images-idx3-ubyte.gz"),
        read("t10k-labels-idx1-ubyte.gz", 8),
        params,
    )


def digits() -> Problem:
    """Those that come inside scikit-learn, for where the folder of real data is not."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    test, train = np.split(order, [len(y) // 5])
    params = {"loss": "multinomial", "learning_rate": "normalized"}
    return Problem(X[train] / 16, y[train], X[test] / 16, y[test], params)


# With the rows to train on with --full, None for all, and epochs. MNIST is not near its optimum after 5: two
# averagings that differ only in how often they meet are then 0.7 % apart.
PROBLEMS: dict[str, tuple[Callable[[], Problem], int | None, int]] = {
    "covtype": (covtype, None, 5),
    "a9a": (a9a, None, 15),
    "mnist": (mnist, 20_000, 10),
    "digits": (digits, None, 15),
}
QUICK = ("digits",)


def strategies(n_replicas: int) -> dict[str, Any]:
    return {
        AVERAGING: Averaging(n_replicas),
        "BSP()": BSP(n_replicas),
        "SSP(0)": SSP(0, n_replicas),
        "SSP(3)": SSP(3, n_replicas),
        "ESSP(3)": ESSP(3, n_replicas),
        "ASP()": ASP(n_replicas),
    }


def fit(problem: Problem, strategy: Any, epochs: int) -> Fitted:
    rows = -(-len(problem.y) // BLOCKS)
    X = da.from_array(problem.X, chunks=(rows, problem.X.shape[1]))
    y = da.from_array(problem.y, chunks=rows)
    clf = SGDClassifier(max_iter=epochs, tol=None, random_state=0, strategy=strategy, **problem.params)
    start = time.perf_counter()
    clf.fit(X, y)
    seconds = time.perf_counter() - start
    loss = _log_loss(clf, problem.X, problem.y)
    return Fitted(
        loss,
        loss + clf.alpha / 2 * float((clf.coef_.astype(float) ** 2).sum()),
        _log_loss(clf, problem.test_X, problem.test_y),
        len(clf.history_) / epochs,
        float(clf.history_["staleness_mean"].mean()),
        int(clf.history_["staleness_max"].max()),
        seconds,
    )


def _log_loss(clf: SGDClassifier, X: np.ndarray, y: np.ndarray) -> float:
    return float(log_loss(y, np.asarray(clf.predict_proba(X), dtype=float), labels=clf.classes_))


def fit_all(problem: Problem, n_replicas: int, epochs: int, repeats: int) -> dict[str, list[Fitted]]:
    """The fits of each strategy; several of those that depend on timing."""
    fits = {}
    for side, strategy in strategies(n_replicas).items():
        again = 1 if isinstance(strategy, (Averaging, BSP)) else repeats
        fits[side] = [fit(problem, strategy, epochs) for _ in range(again)]
    rounds = round(median([f.rounds for f in fits["SSP(3)"]]))
    fits[AS_OFTEN] = [fit(problem, Averaging(n_replicas, rounds_per_epoch=rounds), epochs)]
    return fits


def _beside(values: list[float], base: float) -> str:
    """How far values are above a baseline: the median, and between what."""
    ratios = [value / base for value in values]
    low, high = _percent(min(ratios)), _percent(max(ratios))
    return low if low == high else f"{_percent(median(ratios))} ({low} to {high})"


def _percent(ratio: float) -> str:
    # Weights that have run away make an objective of any size.
    return f"{ratio - 1:+.2%}" if ratio < 10 else f"{ratio:.0e} times"


def lines(name: str, n_replicas: int, epochs: int, fits: dict[str, list[Fitted]]) -> list[list[Any]]:
    """The lines of the table."""
    base, often = fits[AVERAGING][0], fits[AS_OFTEN][0]
    return [
        [
            name,
            n_replicas,
            side,
            epochs,
            f"{median([f.rounds for f in found]):.0f}",
            f"{median([f.loss for f in found]):.5f}",
            _beside([f.loss for f in found], base.loss),
            _beside([f.loss for f in found], often.loss),
            _beside([f.objective for f in found], base.objective),
            f"{median([f.test_loss for f in found]):.5f}",
            f"{median([f.staleness_mean for f in found]):.2f}, {max(f.staleness_max for f in found)}",
            f"{median([f.seconds for f in found]):.1f}",
        ]
        for side, found in fits.items()
    ]


HEADINGS = [
    "data",
    "replicas",
    "strategy",
    "epochs",
    "rounds",
    "log-loss",
    "to Averaging()",
    "to Averaging as often",
    "objective, to Averaging()",
    "test log-loss",
    "staleness: mean, at most",
    "s",
]


def too_far(name: str, n_replicas: int, fits: dict[str, list[Fitted]]) -> list[str]:
    """In what the strategies on the parameter server were worse than averaging by more than is allowed."""
    found = []
    for side in ("SSP(0)", "SSP(3)", "ESSP(3)", "ASP()"):
        for what in ("loss", "objective"):
            worst = max(getattr(f, what) for f in fits[side]) / getattr(fits[AVERAGING][0], what)
            if worst > 1 + ALLOWED:
                found.append(f"{name}, {n_replicas} replicas, {side}: {what} {_percent(worst)}")
    return found


def run(full: bool = False) -> None:
    warnings.simplefilter("ignore")
    repeats, replicas = 1, (4, 8) if full else (4,)
    rows: list[list[Any]] = []
    figures: list[dict[str, Any]] = []
    failures: list[str] = []
    with local(2, threads_per_worker=2, dashboard_address="127.0.0.1:0") as client:
        client.wait_for_workers(2)
        for name in PROBLEMS if full else QUICK:
            load, most, epochs = PROBLEMS[name]
            epochs = epochs if full else 2
            try:
                problem = load().first(most)
            except FileNotFoundError as error:
                print(f"{name} is passed over: {error}", flush=True)
                continue
            # Imports and compilation count for nobody.
            for strategy in (Averaging(2), SSP(1, 2)):
                fit(problem, strategy, 1)
            for n_replicas in replicas:
                fits = fit_all(problem, n_replicas, epochs, repeats)
                rows += lines(name, n_replicas, epochs, fits)
                failures += too_far(name, n_replicas, fits)
                figures += [
                    {"data": name, "replicas": n_replicas, "strategy": side, "epochs": epochs} | asdict(f)
                    for side, found in fits.items()
                    for f in found
                ]
    verdict = f"Worse than {AVERAGING} by more than {ALLOWED:.1%}, in the worst fit:"
    verdict += "".join(f"\n* {failure}" for failure in failures) or " none."
    keep("agreement", {"fits": figures}, table(HEADINGS, rows) + f"\n\n{verdict}", full)


CAPTION = "log-loss of each strategy beside Averaging()"


def picture(figures: dict[str, Any]) -> Any:
    """A panel for each data set: how far each strategy's log-loss is from that of averaging."""
    from benchmarks._plots import BLUE, GREY, ORANGE, finish, panels

    found = pd.DataFrame(figures["fits"])
    sides = [s for s in dict.fromkeys(found["strategy"]) if s != AVERAGING]
    names = list(dict.fromkeys(found["data"]))
    figure, axes = panels(len(names), 3.4, 3.2, sharey=True, sharex=True)
    for ax, name in zip(axes, names, strict=True):
        ax.axvspan(-100 * ALLOWED, 100 * ALLOWED, color=GREY, alpha=0.25, label=f"within {ALLOWED:.1%}")
        styles = zip(sorted(set(found["replicas"])), (BLUE, ORANGE), ("o", "s"), (-0.12, 0.12), strict=False)
        for replicas, colour, marker, shift in styles:
            some = found[(found["data"] == name) & (found["replicas"] == replicas)]
            base = some.loc[some["strategy"] == AVERAGING, "loss"].iloc[0]
            at = [sides.index(s) + shift for s in some["strategy"] if s != AVERAGING]
            above = 100 * (some.loc[some["strategy"] != AVERAGING, "loss"] / base - 1)
            ax.plot(above, at, marker, color=colour, label=f"{replicas} replicas")
        ax.set(title=name, xlabel="log-loss above averaging's, %")
        ax.set_yticks(range(len(sides)), sides)
        finish(ax, fontsize=7)
    axes[0].invert_yaxis()
    return figure
