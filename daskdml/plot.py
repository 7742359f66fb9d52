"""Pictures of a fit, by matplotlib: the extra ``plot``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["history"]

# Okabe and Ito's palette: told apart with any colour vision, and in grey by markers and hatches beside it.
_BLUE, _ORANGE, _GREEN, _VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
_PARTS = [
    ("compute_seconds", "computing", _BLUE, ""),
    ("load_seconds", "loading", _ORANGE, "//"),
    ("wait_seconds", "waiting", _GREEN, ".."),
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
        One for one, a list otherwise.

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
    table = _table(clf)
    draw = [_draw_losses, _draw_seconds]
    if table["validation_score"].notna().any():
        draw.insert(1, _draw_scores)
    if ax is not None and not isinstance(ax, Sequence | np.ndarray):
        _draw_losses(ax, table)
        return ax
    axes = _new_axes(len(draw)) if ax is None else list(ax)
    if len(axes) != len(draw):
        raise ValueError(f"this history has {len(draw)} panels, ax has {len(axes)}; pass {len(draw)} Axes, or one")
    for one, panel in zip(axes, draw, strict=True):
        panel(one, table)
    return axes


def _table(clf: Any) -> pd.DataFrame:
    table = clf if isinstance(clf, pd.DataFrame) else getattr(clf, "history_", None)
    if table is None:
        raise TypeError(f"{clf!r} has no history_; fit it first, or pass the history_ of a daskdml estimator")
    if len(table) == 0:
        raise ValueError("the history is empty: nothing was trained, so nothing can be drawn")
    rounds = table.groupby("epoch")["round"].transform("count")
    return table.assign(at=table["epoch"] - 1 + (table.groupby("epoch").cumcount() + 1) / rounds)


def _new_axes(count: int) -> list[Axes]:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("drawing needs matplotlib; install it with: pip install 'daskdml[plot]'") from error
    figure, axes = plt.subplots(1, count, figsize=(5 * count, 3.5), layout="constrained", squeeze=False)
    return list(axes[0])


def _draw_losses(ax: Axes, table: pd.DataFrame) -> None:
    few = len(table) <= _MOST_MARKERS
    ax.plot(table["at"], table["loss"], color=_BLUE, marker="o" if few else None, markersize=4, label="loss")
    if not np.allclose(table["objective"], table["loss"], equal_nan=True):
        style: dict[str, Any] = {"linestyle": "--", "marker": "s" if few else None, "markersize": 4}
        ax.plot(table["at"], table["objective"], color=_VERMILION, **style, label="objective (loss + penalty)")
    ax.set(title="Training", xlabel="epoch", ylabel="mean a row")
    _finish(ax)


def _draw_scores(ax: Axes, table: pd.DataFrame) -> None:
    scored = table[table["validation_score"].notna()]
    marker = "D" if len(scored) <= _MOST_MARKERS else None
    ax.plot(scored["at"], scored["validation_score"], color=_GREEN, marker=marker, markersize=4, label="score")
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
    _finish(ax, loc="upper center", ncols=len(_PARTS))


def _finish(ax: Axes, **legend: Any) -> None:
    ax.locator_params(axis="x", integer=True)
    ax.grid(alpha=0.3)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.legend(frameon=False, **legend)
