"""What a fit cost, and how old its reads were."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from daskdml.monitor._axes import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, finish, new_axes
from daskdml.monitor._tally import short
from daskdml.plot import tables
from daskdml.plot._panels import draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOOKS = {
    "computing": (BLUE, ""),
    "waiting for blocks": (GREEN, ".."),
    "waiting for replicas": (VERMILION, "xx"),
    "communicating": (PURPLE, "\\\\"),
    "elsewhere": (GREY, ""),
    "reading": (ORANGE, "//"),
    "sent": (SKY, "--"),
    "received": (PURPLE, "\\\\"),
}


def cost(clf: Any, ax: Axes | Sequence[Axes] | None = None) -> Axes | list[Axes]:
    """Draw what a fit spent its time and its bytes on.

    Parameters
    ----------
    clf : estimator
        A fitted daskdml estimator.
    ax : matplotlib Axes, or two of them, optional
        One Axes gets the seconds alone, two get seconds and bytes. By default a new figure is made.

    Returns
    -------
    Axes or list of Axes
        One for one, a list otherwise. The figures, and what each part is, are in :func:`daskdml.plot.tables.cost`.

    Raises
    ------
    ImportError
        Where matplotlib is not installed.

    Examples
    --------
    >>> from daskdml import plot
    >>> from daskdml.linear_model import SGDClassifier
    >>> clf = SGDClassifier(max_iter=2, tol=None).fit([[0.0], [1.0]] * 9, [0, 1] * 9)
    >>> [ax.get_title() for ax in plot.cost(clf)]
    ['Time by part', 'Bytes by part']
    """
    table = tables.cost(clf)
    panels = [partial(_draw_seconds, table=table), partial(_draw_bytes, table=table)]
    return draw(panels, ax, "what a fit costs")


def _draw_seconds(ax: Axes, table: pd.DataFrame) -> None:
    seconds = table["seconds"].dropna()
    shares = [f" {share:.0%}" if share == share else " beside" for share in table["share"][seconds.index]]
    _bars(ax, seconds, shares)
    ax.set(title="Time by part", xlabel="seconds (all replicas)")


def _draw_bytes(ax: Axes, table: pd.DataFrame) -> None:
    nbytes = table["bytes"].dropna()
    scale, unit = next((10.0**p, u) for p, u in ((9, "GB"), (6, "MB"), (3, "kB"), (0, "bytes"))
                       if nbytes.max() >= 10.0**p or p == 0)  # fmt: skip
    _bars(ax, nbytes / scale, [f" {short(value)}B" for value in nbytes])
    ax.set(title="Bytes by part", xlabel=unit)


def _bars(ax: Axes, values: pd.Series, texts: list[str]) -> None:
    for row, (part, value) in enumerate(values.items()):
        colour, hatch = _LOOKS[str(part)]
        ax.barh(row, value, color=colour, hatch=hatch, edgecolor="white", linewidth=0)
        ax.annotate(texts[row], (value, row), va="center")
    ax.set_yticks(range(len(values)), list(values.index))
    # Room for what stands behind the longest bar.
    ax.set_xlim(0, 1.2 * values.max() or 1.0)
    ax.set_ylim(len(values) - 0.4, -0.6)
    finish(ax)
    ax.grid(visible=False, axis="y")


def staleness(clf: Any, ax: Axes | None = None) -> Axes:
    """Draw how old the parameters were that replicas read from the parameter server, and the bound that was set.

    Parameters
    ----------
    clf : estimator or pandas.DataFrame
        A fitted daskdml estimator, or what was its ``history_``: then no bound is drawn.
    ax : matplotlib Axes, optional
        By default of a new figure.

    Returns
    -------
    Axes
        The figures are those of :func:`daskdml.plot.tables.staleness`.

    Raises
    ------
    ImportError
        Where matplotlib is not installed.
    ValueError
        For a fit without a parameter server.

    Examples
    --------
    >>> import matplotlib
    >>> import pandas as pd
    >>> from daskdml import plot
    >>> matplotlib.use("Agg")
    >>> rounds = pd.DataFrame({"epoch": 1, "round": [1, 2], "seconds": 0.1, "staleness_histogram": [(2,), (1, 1)]})
    >>> plot.staleness(rounds).get_xlabel()
    'clocks behind'
    """
    table, bound = tables.staleness(clf), tables.bound_of(clf)
    ax = new_axes()[0] if ax is None else ax
    mean = float((table.index * table["share"]).sum())
    ax.bar(table.index, 100 * table["share"], color=BLUE, label=f"{table['reads'].sum():,} reads, mean {mean:.2f}")
    last = int(table.index[-1])
    if bound is not None:
        ax.axvline(bound + 0.5, ymax=0.82, color=VERMILION, linestyle="--", label=f"bound: at most {bound}")
        last = max(last, bound)
    ax.set(title="Staleness of reads", xlabel="clocks behind", ylabel="% of reads", xlim=(-0.6, last + 1.0))
    # Room for the legend above the bars.
    ax.set_ylim(0, 130 * table["share"].max())
    ax.locator_params(axis="x", integer=True)
    finish(ax, loc="upper center", ncols=2)
    return ax
