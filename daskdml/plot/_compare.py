"""Several fits side by side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from daskdml.monitor._axes import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, finish
from daskdml.plot import tables
from daskdml.plot._panels import draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, GREY)
_DASHES = ("-", "--", "-.", ":")
_MARKERS = "osD^vPX*"
# Along a line of many rounds.
_MARKED = 8


def compare(
    clfs: Sequence[Any], names: Sequence[str] | None = None, ax: Axes | Sequence[Axes] | None = None
) -> Axes | list[Axes]:
    """Draw the losses of several fits, against time and against epochs.

    Parameters
    ----------
    clfs : sequence of estimators or pandas.DataFrames
        Fitted daskdml estimators, or what were their ``history_``.
    names : sequence of str, optional
        By default strategy and number of replicas.
    ax : matplotlib Axes, or two of them, optional
        One Axes gets the losses against time alone. By default a new figure is made.

    Returns
    -------
    Axes or list of Axes
        One for one, a list otherwise. The figures are those of :func:`daskdml.plot.tables.compare`.

    Raises
    ------
    ImportError
        Where matplotlib is not installed.
    ValueError
        For no fits, or another number of names.

    Examples
    --------
    >>> from daskdml import plot
    >>> from daskdml.linear_model import SGDClassifier
    >>> X, y = [[0.0], [1.0]] * 9, [0, 1] * 9
    >>> both = [SGDClassifier(loss=loss, max_iter=2, tol=None).fit(X, y) for loss in ("hinge", "log_loss")]
    >>> [ax.get_xlabel() for ax in plot.compare(both, ["hinge", "log"])]
    ['seconds', 'epochs']
    """
    table = tables.compare(clfs, names)
    panels = [
        partial(_draw, table=table, against="elapsed", title="Loss by time", label="seconds"),
        partial(_draw, table=table, against="at", title="Loss by epochs", label="epochs"),
    ]
    return draw(panels, ax, "a comparison")


def _draw(ax: Axes, table: pd.DataFrame, against: str, title: str, label: str) -> None:
    for number, (name, found) in enumerate(table.groupby("name", sort=False)):
        ax.plot(
            found[against],
            found["loss"],
            color=_COLOURS[number % len(_COLOURS)],
            linestyle=_DASHES[number % len(_DASHES)],
            marker=_MARKERS[number % len(_MARKERS)],
            markevery=max(1, len(found) // _MARKED),
            markersize=4,
            label=str(name),
        )
    ax.set(title=title, xlabel=label, ylabel="loss (mean a row)")
    finish(ax)
