"""How a fit went, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from daskdml.monitor._axes import BLUE, GREEN, ORANGE, VERMILION, finish
from daskdml.plot import tables
from daskdml.plot._panels import draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PARTS = [
    ("compute_seconds", "computing", BLUE, ""),
    ("load_seconds", "loading", ORANGE, "//"),
    ("wait_seconds", "waiting", GREEN, ".."),
]
_MOST_BARS = 60
_MOST_MARKERS = 60


def history(clf: Any, ax: Axes | Sequence[Axes] | None = None) -> Axes | list[Axes]:
    """Draw how a fit went: losses, validation scores and where the time was spent, against the epoch.

    Parameters
    ----------
    clf : estimator or pandas.DataFrame
        A fitted daskdml estimator, or what was its ``history_``.
    ax : matplotlib Axes, or a sequence of them, optional
        One Axes gets the losses alone. A sequence gets losses, then validation scores where there are
        any, then seconds; it has as many Axes as that. By default a new figure is made.

    Returns
    -------
    Axes or list of Axes
        One for one, a list otherwise. The figures are those of :func:`daskdml.plot.tables.history`.

    Raises
    ------
    ImportError
        Where matplotlib is not installed.

    Examples
    --------
    >>> from daskdml import plot
    >>> from daskdml.linear_model import SGDClassifier
    >>> from sklearn.datasets import load_iris
    >>> clf = SGDClassifier(random_state=0).fit(*load_iris(return_X_y=True))
    >>> [ax.get_title() for ax in plot.history(clf)]
    ['Training', 'Time']
    """
    table = tables.history(clf)
    panels = [partial(_draw_losses, table=table), partial(_draw_seconds, table=table)]
    if table["validation_score"].notna().any():
        panels.insert(1, partial(_draw_scores, table=table))
    return draw(panels, ax, "this history")


def _draw_losses(ax: Axes, table: pd.DataFrame) -> None:
    few = len(table) <= _MOST_MARKERS
    ax.plot(table["at"], table["loss"], color=BLUE, marker="o" if few else None, markersize=4, label="loss")
    if not np.allclose(table["objective"], table["loss"], equal_nan=True):
        style: dict[str, Any] = {"linestyle": "--", "marker": "s" if few else None, "markersize": 4}
        ax.plot(table["at"], table["objective"], color=VERMILION, **style, label="objective (loss + penalty)")
    ax.set(title="Training", xlabel="epoch", ylabel="mean a row")
    _finish(ax)


def _draw_scores(ax: Axes, table: pd.DataFrame) -> None:
    scored = table[table["validation_score"].notna()]
    marker = "D" if len(scored) <= _MOST_MARKERS else None
    ax.plot(scored["at"], scored["validation_score"], color=GREEN, marker=marker, markersize=4, label="score")
    ax.set(title="Validation", xlabel="epoch", ylabel="score")
    _finish(ax)


def _draw_seconds(ax: Axes, table: pd.DataFrame) -> None:
    by_epoch = table.groupby("epoch")[[name for name, *_ in _PARTS]].sum()
    if len(by_epoch) > _MOST_BARS:
        names, labels, colours, _ = zip(*_PARTS, strict=True)
        ax.stackplot(by_epoch.index, *(by_epoch[name] for name in names), labels=labels, colors=colours)
    else:
        below = np.zeros(len(by_epoch))
        for name, label, colour, hatch in _PARTS:
            style: dict[str, Any] = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
            ax.bar(by_epoch.index, by_epoch[name], bottom=below, label=label, **style)
            below += by_epoch[name].to_numpy()
    ax.set(title="Time", xlabel="epoch", ylabel="seconds (all replicas)")
    # The bars fill the panel: room for the legend is made above them.
    ax.set_ylim(top=1.2 * by_epoch.sum(axis=1).max() or 1.0)
    _finish(ax, loc="upper center", ncols=len(_PARTS), columnspacing=1.0, handlelength=1.4)


def _finish(ax: Axes, **legend: Any) -> None:
    ax.locator_params(axis="x", integer=True)
    finish(ax, **legend)
