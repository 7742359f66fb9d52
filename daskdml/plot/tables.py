"""What the pictures show, as DataFrames: a function for each of them. No matplotlib is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["clocks", "compare", "cost", "history", "staleness"]

_INSIDE = ("gate_seconds", "communicate_seconds", "wait_seconds", "compute_seconds")
_PARTS = {
    "compute_seconds": "computing",
    "wait_seconds": "waiting for blocks",
    "gate_seconds": "waiting for replicas",
    "communicate_seconds": "communicating",
}


def history(clf: Any) -> pd.DataFrame:
    """The rounds of a fit, with where each stands in epochs and in time.

    Parameters
    ----------
    clf : estimator or DataFrame
        A fitted daskdml estimator, or what was its ``history_``.

    Returns
    -------
    DataFrame
        ``history_``, and ``at``: epochs done at the round's end, and ``elapsed``: seconds until then.

    Raises
    ------
    TypeError
        For what is not fitted.
    ValueError
        For an empty history.

    Examples
    --------
    >>> from daskdml.linear_model import SGDClassifier
    >>> from daskdml.plot import tables
    >>> clf = SGDClassifier(max_iter=2, tol=None).fit([[0.0], [1.0]] * 9, [0, 1] * 9)
    >>> tables.history(clf)["at"].tolist()
    [1.0, 2.0]
    """
    table = clf if isinstance(clf, pd.DataFrame) else getattr(clf, "history_", None)
    if table is None:
        raise TypeError(f"{clf!r} has no history_; fit it first, or pass the history_ of a daskdml estimator")
    if len(table) == 0:
        raise ValueError("the history is empty: nothing was trained, so nothing can be drawn")
    by_epoch = table.groupby("epoch")
    at = table["epoch"] - 1 + (by_epoch.cumcount() + 1) / by_epoch["round"].transform("count")
    return table.assign(at=at, elapsed=table["seconds"].cumsum())


def clocks(clf: Any) -> pd.DataFrame:
    """Who did what when: a line for each stretch of a replica's time.

    Parameters
    ----------
    clf : estimator or DataFrame
        A fitted daskdml estimator, or what was its ``replicas_``.

    Returns
    -------
    DataFrame
        ``replica``, ``round``, ``epoch``, ``worker``, ``part`` (what it did), ``begin`` (seconds since the fit began)
        and ``seconds``, of the rounds that ``replicas_`` has. How long each part of a round took is measured; that
        they come one after another is how they are drawn: blocks are waited for between pieces of computing.

    Raises
    ------
    TypeError
        For what is not fitted.
    ValueError
        Where nothing is known of replicas.

    Examples
    --------
    >>> from daskdml.linear_model import SGDClassifier
    >>> from daskdml.plot import tables
    >>> clf = SGDClassifier(max_iter=2, tol=None).fit([[0.0], [1.0]] * 9, [0, 1] * 9)
    >>> tables.clocks(clf)["part"].tolist()
    ['computing', 'computing']
    """
    table = replicas_of(clf)
    # On a server a replica waits and reads before it trains; in rounds of tasks it waits for the others afterwards.
    served = bool(table["sent_bytes"].sum())
    order = list(_INSIDE) if served else ["wait_seconds", "compute_seconds", "gate_seconds", "communicate_seconds"]
    lengths = table[order].to_numpy(dtype=float)
    begins = table["begin"].to_numpy()[:, None] + np.cumsum(lengths, axis=1) - lengths
    parts = []
    for column, name in enumerate(order):
        part = table[["replica", "round", "epoch", "worker"]].assign(
            part=_PARTS[name], begin=begins[:, column], seconds=lengths[:, column]
        )
        parts.append(part[part["seconds"] > 0])
    return pd.concat(parts).sort_values(["replica", "begin"], ignore_index=True)


def replicas_of(clf: Any) -> pd.DataFrame:
    """The table of replicas and rounds of an estimator, or the table itself."""
    table = clf if isinstance(clf, pd.DataFrame) else getattr(clf, "replicas_", None)
    if table is None:
        raise TypeError(f"{clf!r} has no replicas_; fit it first, or pass the replicas_ of a daskdml estimator")
    if len(table) == 0:
        raise ValueError("nothing is known of single replicas: this fit told of none")
    return table


def staleness(clf: Any) -> pd.DataFrame:
    """How old the parameters were that replicas read from the parameter server.

    Parameters
    ----------
    clf : estimator or DataFrame
        A fitted daskdml estimator, or what was its ``history_``.

    Returns
    -------
    DataFrame
        Indexed by ``staleness``, in clocks that the slowest replica was behind: ``reads``, and their ``share``.

    Raises
    ------
    ValueError
        For a fit without a parameter server: where all replicas meet at the end of a round, no read is old.

    Examples
    --------
    >>> import pandas as pd
    >>> from daskdml.plot import tables
    >>> rounds = pd.DataFrame({"epoch": 1, "round": [1, 2], "seconds": 0.1, "staleness_histogram": [(2,), (1, 1)]})
    >>> tables.staleness(rounds)["reads"].tolist()
    [3, 1]
    """
    counted = [tuple(counts) for counts in history(clf)["staleness_histogram"]]
    longest = max(map(len, counted), default=0)
    if not longest:
        raise ValueError(
            "no reads from a parameter server: where replicas meet at the end of each round, none is behind; "
            "SSP, ESSP and ASP have a staleness"
        )
    reads = np.zeros(longest, dtype=np.int64)
    for counts in counted:
        reads[: len(counts)] += np.asarray(counts, dtype=np.int64)
    index = pd.RangeIndex(longest, name="staleness")
    return pd.DataFrame({"reads": reads, "share": reads / max(reads.sum(), 1)}, index=index)


def bound_of(clf: Any) -> int | None:
    """The bound on the staleness that a fitted estimator had; None for none, or where it is not known."""
    bound = getattr(getattr(clf, "strategy_", None), "staleness", None)
    return None if bound is None else int(bound)


def cost(clf: Any) -> pd.DataFrame:
    """What a fit spent its time and its bytes on.

    Parameters
    ----------
    clf : estimator
        A fitted daskdml estimator.

    Returns
    -------
    DataFrame
        Indexed by ``part``. ``seconds`` of all replicas together and their ``share``: computing, waiting for blocks,
        waiting for replicas, communicating, and "elsewhere", what is left of the time the fit took times the number of
        replicas: scheduling, messages, and replicas waiting for a thread. "reading" went on beside these, so it has no
        share. ``bytes`` that were read, and sent and received by replicas of a parameter server; NaN where a part
        moves none.

    Raises
    ------
    TypeError, ValueError
        As :func:`history`.

    Examples
    --------
    >>> from daskdml.linear_model import SGDClassifier
    >>> from daskdml.plot import tables
    >>> clf = SGDClassifier(max_iter=2, tol=None).fit([[0.0], [1.0]] * 9, [0, 1] * 9)
    >>> tables.cost(clf).index[0]
    'computing'
    """
    rounds = history(clf)
    seconds = {name: float(rounds[name].sum()) for name in _PARTS if name in rounds}
    seconds |= {name: found for name, found in _of_replicas(clf, len(rounds)).items() if not seconds.get(name)}
    whole = float(rounds["seconds"].sum()) * int(getattr(clf, "n_replicas_", 1))
    named = {_PARTS[name]: seconds.get(name, 0.0) for name in _PARTS}
    named["elsewhere"] = max(0.0, whole - sum(named.values()))
    total = sum(named.values()) or 1.0
    lines = [(name, value, value / total, np.nan) for name, value in named.items()]
    lines.append(("reading", float(rounds["load_seconds"].sum()), np.nan, float(rounds["bytes"].sum())))
    for name in ("sent", "received"):
        lines.append((name, np.nan, np.nan, float(rounds[f"{name}_bytes"].sum())))
    return pd.DataFrame(lines, columns=["part", "seconds", "share", "bytes"]).set_index("part")


def _of_replicas(clf: Any, n_rounds: int) -> dict[str, float]:
    """Seconds that only replicas are asked for, where all their rounds are there."""
    table = getattr(clf, "replicas_", None)
    if table is None or table["round"].nunique() < n_rounds:
        return {}
    return {name: float(table[name].sum()) for name in ("gate_seconds", "communicate_seconds")}


def compare(clfs: Sequence[Any], names: Sequence[str] | None = None) -> pd.DataFrame:
    """The losses of several fits, by time and by epochs.

    Parameters
    ----------
    clfs : sequence of estimators or DataFrames
    names : sequence of str, optional
        By default what they differ in: the strategy and the number of replicas, else a number.

    Returns
    -------
    DataFrame
        A line for each fit and round: ``name``, ``round``, ``at`` (epochs), ``elapsed`` (seconds), ``loss``,
        ``objective``, ``validation_score``.

    Raises
    ------
    ValueError
        For no fits, or another number of names, or one that is there twice.

    Examples
    --------
    >>> from daskdml.linear_model import SGDClassifier
    >>> from daskdml.plot import tables
    >>> X, y = [[0.0], [1.0]] * 9, [0, 1] * 9
    >>> both = [SGDClassifier(loss=loss, max_iter=2, tol=None).fit(X, y) for loss in ("hinge", "log_loss")]
    >>> tables.compare(both, ["hinge", "log"])["name"].tolist()
    ['hinge', 'hinge', 'log', 'log']
    """
    clfs = list(clfs)
    if not clfs:
        raise ValueError("there is nothing to compare: clfs is empty")
    chosen = _names(clfs) if names is None else list(names)
    if len(chosen) != len(clfs) or len(set(chosen)) != len(chosen):
        raise ValueError(f"{len(clfs)} fits need as many different names, got {chosen}")
    columns = ["round", "at", "elapsed", "loss", "objective", "validation_score"]
    tables = [history(clf)[columns].assign(name=name) for clf, name in zip(clfs, chosen, strict=True)]
    return pd.concat(tables, ignore_index=True)[["name", *columns]]


def _names(clfs: list[Any]) -> list[str]:
    names = []
    for clf in clfs:
        strategy = getattr(clf, "strategy_", None)
        name = type(clf).__name__ if strategy is None else type(strategy).__name__
        bound, replicas = bound_of(clf), getattr(clf, "n_replicas_", None)
        name += "" if bound is None else f"({bound})"
        names.append(name if replicas is None else f"{name}, {replicas} replica{'' if replicas == 1 else 's'}")
    if len(set(names)) == len(names):
        return names
    return [f"{number}: {name}" for number, name in enumerate(names, start=1)]
