"""A timeline of the replicas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from daskdml.monitor._axes import BLUE, GREEN, PURPLE, VERMILION, finish, new_axes
from daskdml.plot import tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {
    "computing": BLUE,
    "waiting for blocks": GREEN,
    "waiting for replicas": VERMILION,
    "communicating": PURPLE,
}
# Of replicas times rounds: more cannot be told apart, and take long to draw.
_MOST = 2000
_MOST_NAMES = 24


def clocks(clf: Any, ax: Axes | None = None, rounds: tuple[int, int] | None = None) -> Axes:
    """Draw a timeline of the replicas: who computed, who waited, and what for.

    Parameters
    ----------
    clf : estimator or pandas.DataFrame
        A fitted daskdml estimator, or what was its ``replicas_``.
    ax : matplotlib Axes, optional
        By default of a new figure.
    rounds : (int, int), optional
        The first round and the last that are drawn, counted from 1; by default all, or the last that have 2,000 bars.

    Returns
    -------
    Axes
        The figures are those of :func:`daskdml.plot.tables.clocks`.

    Raises
    ------
    ImportError
        Where matplotlib is not installed.
    ValueError
        Where nothing is known of these rounds.

    Examples
    --------
    >>> from daskdml import plot
    >>> from daskdml.linear_model import SGDClassifier
    >>> clf = SGDClassifier(max_iter=2, tol=None).fit([[0.0], [1.0]] * 9, [0, 1] * 9)
    >>> plot.clocks(clf).get_title()
    'Replicas, rounds 1 to 2'
    """
    known = tables.replicas_of(clf)
    first, last = _window(known) if rounds is None else rounds
    known = known[known["round"].between(first, last)]
    if known.empty:
        raise ValueError(f"nothing is known of rounds {first} to {last}; the fit has told of {_told(clf)}")
    parts = tables.clocks(known)
    ax = new_axes(1, 8.0, 1.8 + 0.3 * min(known["replica"].nunique(), _MOST_NAMES))[0] if ax is None else ax
    rows = {replica: row for row, replica in enumerate(sorted(known["replica"].unique()))}
    for part, colour in _COLOURS.items():
        found = parts[parts["part"] == part]
        for replica, bars in found.groupby("replica"):
            ax.broken_barh(bars[["begin", "seconds"]].to_numpy(), (rows[replica] - 0.4, 0.8), facecolors=colour)
        if len(found):
            # An entry of the legend: bars of one colour are many.
            ax.barh([np.nan], [np.nan], color=colour, label=part)
    _name_rows(ax, known, rows)
    ax.set(title=f"Replicas, rounds {first} to {last}", xlabel="seconds since the fit began", ylabel="replica")
    ax.set_ylim(len(rows) - 0.4, -0.6)
    finish(ax, loc="upper center", bbox_to_anchor=(0.5, -0.2 if len(rows) > 4 else -0.28), ncols=4)
    ax.grid(visible=False, axis="y")
    return ax


def _window(known: pd.DataFrame) -> tuple[int, int]:
    """The last rounds that have so few bars that they can be told apart."""
    counts = known.groupby("round").size().iloc[::-1].cumsum()
    last = int(counts.index[0])
    return int(counts.index[max(0, int((counts <= _MOST).sum()) - 1)]), last


def _told(clf: Any) -> str:
    rounds = tables.replicas_of(clf)["round"]
    return f"rounds {rounds.min()} to {rounds.max()}"


def _name_rows(ax: Axes, known: pd.DataFrame, rows: dict[int, int]) -> None:
    if len(rows) > _MOST_NAMES:
        return
    names = known.groupby("replica")["worker"].agg(lambda workers: _spoken(workers.dropna().unique()))
    ax.set_yticks(list(rows.values()), [f"{replica}{names[replica]}" for replica in rows])


def _spoken(workers: Sequence[str]) -> str:
    """A worker by the end of its address; of a replica that was moved the number of them."""
    if len(workers) == 0:
        return ""
    if len(workers) > 1:
        return f"  ({len(workers)} workers)"
    return f"  (…{str(workers[0])[-6:]})"
