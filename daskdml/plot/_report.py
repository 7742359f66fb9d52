"""A page that tells all of a fit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from daskdml.monitor import estimate_scaling
from daskdml.monitor._html import changed, facts_of
from daskdml.monitor._tally import counted, short
from daskdml.plot import tables
from daskdml.plot._clocks import clocks
from daskdml.plot._cost import cost, staleness
from daskdml.plot._history import history
from daskdml.plot._page import facts, folded, frame, page, picture

# Lines of the history: of longer ones there is a line an epoch.
_MOST_LINES = 200
_REASONS = {
    "converged": "no problem improved any more",
    "max_iter": "all epochs were run",
    "stopped": "stopped by a callback",
}


def report(
    clf: Any,
    path: str | os.PathLike,
    *,
    title: str | None = None,
    results: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write a page that tells all of a fit: one HTML file, pictures in it, that loads nothing from anywhere.

    Parameters
    ----------
    clf : estimator
        A fitted daskdml estimator.
    path : path
        By custom ``*.html``; there whole or not at all. An existing file is replaced.
    title : str, optional
        By default the estimator's name and its strategy's.
    results : mapping of str to mappings, optional
        Further tables, by their captions: what is known beside the fit, as scores on other rows.

    Raises
    ------
    ImportError
        Where matplotlib is not installed.
    TypeError, ValueError
        Where it is not fitted.
    InputError
        Where the file cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> from daskdml import plot
    >>> from daskdml.linear_model import SGDClassifier
    >>> clf = SGDClassifier(max_iter=2, tol=None).fit([[0.0], [1.0]] * 9, [0, 1] * 9)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     plot.report(clf, os.path.join(folder, "fit.html"))
    ...     os.listdir(folder)
    ['fit.html']
    """
    from daskdml.io._atomic import check_writable, replacing

    check_writable(path)
    require_matplotlib()
    text = _text(clf, title, results or {})
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(text)


def require_matplotlib() -> None:
    """Raise ImportError, with the remedy, where there is no matplotlib."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError("a report needs matplotlib; install it with: pip install 'daskdml[plot]'") from error


def _text(clf: Any, title: str | None, results: Mapping[str, Mapping[str, Any]]) -> str:
    rounds = tables.history(clf)
    provenance = getattr(clf, "provenance_", {})
    name = f"{type(clf).__name__} by {type(clf.strategy_).__name__}"
    sections = [
        ("The fit", _summary(clf, provenance, results)),
        ("Training", _training(clf, rounds)),
        ("Replicas", _replicas(clf)),
        ("Cost", _cost(clf)),
        ("More workers", _scaling(clf, provenance)),
        ("Data and cluster", _surroundings(rounds, provenance)),
        ("Parameters", facts("Those that were set are in bold.", clf.get_params(deep=False), changed(clf))),
        ("History", _history(rounds)),
    ]
    return page(title or name, _subtitle(clf, rounds, provenance), sections)


def _subtitle(clf: Any, rounds: pd.DataFrame, provenance: Mapping[str, Any]) -> str:
    epochs, seconds = int(rounds["epoch"].max()), provenance.get("seconds", rounds["seconds"].sum())
    text = f"{counted(epochs, 'epoch')} by {counted(clf.n_replicas_, 'replica')} in {seconds:.3g} s"
    if "begun" in provenance:
        text += f", begun {datetime.fromtimestamp(provenance['begun'], UTC):%Y-%m-%d %H:%M} UTC"
    return text


def _summary(clf: Any, provenance: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]) -> str:
    found = dict(facts_of(clf, clf.history_))
    if "reason" in provenance:
        found["ended"] = _REASONS.get(provenance["reason"], provenance["reason"])
    beside = "".join(facts(caption, values) for caption, values in results.items())
    fit = facts("What was fitted", found)
    return f'<div class="columns"><div>{fit}</div><div>{beside}</div></div>' if beside else fit


def _training(clf: Any, rounds: pd.DataFrame) -> str:
    panels = 3 if rounds["validation_score"].notna().any() else 2
    return picture(
        lambda axes: history(clf, axes),
        panels,
        (3.4 * panels, 2.9),
        f"Training loss by epoch, from {rounds['loss'].iloc[0]:.4g} to {rounds['loss'].iloc[-1]:.4g}; time by epoch",
        "Losses are means a row, each row's taken just before it was learnt from. Loading goes on beside computing; "
        "waiting is what it did not hide.",
    )


def _replicas(clf: Any) -> str:
    try:
        known = tables.replicas_of(clf)
    except (TypeError, ValueError):
        return "<p>Nothing is known of single replicas.</p>"
    height = 1.6 + 0.22 * min(known["replica"].nunique(), 24)
    text = picture(
        lambda ax: clocks(clf, ax),
        1,
        (9.0, height),
        "Timeline of the replicas: who computed, and who waited",
        "Each line is a replica, each bar a part of a round. Where nothing is drawn, the replica had nothing to do: "
        "tasks were scheduled, parameters were on their way, or an epoch was judged.",
    )
    sums = known.groupby("replica")[["rows", "compute_seconds", "wait_seconds", "gate_seconds", "communicate_seconds"]]
    text += folded("By replica", frame(sums.sum(), "Sums of each replica, over the rounds that are known"))
    try:
        counts = tables.staleness(clf)
    except ValueError:
        return text + "<p>All replicas met at the end of each round: no read was of old parameters.</p>"
    mean = float((counts.index * counts["share"]).sum())
    text += picture(
        lambda ax: staleness(clf, ax),
        1,
        (5.0, 2.9),
        f"Histogram of the staleness of reads, {mean:.2f} clocks on the mean, at most {int(counts.index[-1])}",
        "How many clocks the slowest replica was behind when parameters were read.",
    )
    return text + folded("As a table", frame(counts, "Reads by staleness"))


def _cost(clf: Any) -> str:
    table = tables.cost(clf)
    largest = str(table["share"].idxmax())
    text = picture(
        lambda axes: cost(clf, axes),
        2,
        (9.0, 2.8),
        f"Time and bytes by part; most time went in {largest}, {table['share'].max():.0%}",
        "Seconds of all replicas together. Reading goes on beside the others; what is elsewhere is what is left of the "
        "time the fit took times its replicas.",
    )
    return text + folded("As a table", frame(table, "Seconds, shares and bytes by part"))


def _scaling(clf: Any, provenance: Mapping[str, Any]) -> str:
    if not provenance.get("cluster", {}).get("workers", 1):
        return (
            "<p>It was trained within one process: nothing is known of what a cluster's messages would take, "
            "so nothing is estimated.</p>"
        )
    estimate = estimate_scaling(clf)
    text = f"<p>{estimate.sentence}</p>" + picture(
        estimate.plot,
        1,
        (6.0, 3.4),
        "Seconds of an epoch by number of workers: measured, estimated, and if all were shared",
        "From this one fit it cannot be known how the time that workers do not share grows with their number: the band "
        "goes from not at all to in proportion. daskdml.monitor.estimate_scaling takes several fits. More replicas may "
        "need more epochs, which is no part of this.",
    )
    return text + folded("As a table", frame(estimate.table, "An epoch by number of workers, in seconds"))


def _surroundings(rounds: pd.DataFrame, provenance: Mapping[str, Any]) -> str:
    data = dict(provenance.get("data", {}))
    if data.get("bytes") is not None:
        data["bytes"] = f"{short(data['bytes'])}B"
    first = rounds[rounds["epoch"] == rounds["epoch"].min()]
    data |= {"rows trained on": int(first["rows"].sum()), "read in epoch 1": f"{short(float(first['bytes'].sum()))}B"}
    renamed = {"bytes": "all rows", "self_contained": "made by workers", "cacheable": "kept in caches"}
    data = {renamed.get(name, name): value for name, value in data.items()}
    cluster = {name.replace("_", " "): value for name, value in provenance.get("cluster", {}).items()}
    if cluster.get("memory limit"):
        cluster["memory limit"] = f"{short(cluster['memory limit'])}B a worker"
    if cluster.get("workers") == 0:
        cluster["workers"] = "none: within one process"
    tiers = rounds.groupby("epoch")[["blocks_from_recipe", "blocks_from_memory", "blocks_from_disk", "bytes"]].sum()
    tiers.columns = pd.Index(["from their source", "from memory", "from disk", "bytes"])
    if len(tiers) > _MOST_LINES:
        tiers = tiers.tail(_MOST_LINES)
    columns = [facts("Data", data), facts("Cluster", cluster), facts("Versions", provenance.get("versions", {}))]
    text = "".join(f"<div>{column}</div>" for column in columns)
    return f'<div class="columns">{text}</div>' + frame(tiers, "Where blocks came from, by epoch")


def _history(rounds: pd.DataFrame) -> str:
    shown = ["round", "epoch", "loss", "objective", "validation_score", "learning_rate", "rows", "seconds"]
    if len(rounds) <= _MOST_LINES:
        return frame(rounds[shown], "A line a round")
    sums = rounds.groupby("epoch")[["rows", "seconds"]].sum()
    last = rounds.groupby("epoch")[["round", "loss", "objective", "validation_score", "learning_rate"]].last()
    table = last.join(sums).tail(_MOST_LINES)
    return frame(
        table, f"A line an epoch: the last of its rounds, of {len(rounds):,} in all; the last {len(table)} epochs"
    )
