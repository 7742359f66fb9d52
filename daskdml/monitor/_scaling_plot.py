"""The picture of a scaling estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daskdml.monitor._axes import BLUE, GREY, VERMILION, finish, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_scaling(estimate: Any, ax: Axes | None = None) -> Axes:
    """Seconds of an epoch against workers, both by logarithms."""
    ax = new_axes(1, 6.0, 4.0)[0] if ax is None else ax
    table, measured = estimate.table, estimate.measured
    workers = table.index.to_numpy()
    ax.fill_between(workers, table["low"], table["high"], color=BLUE, alpha=0.2, linewidth=0, label="90 % of draws")
    ax.plot(workers, table["seconds"], color=BLUE, marker="o", markersize=4, label="estimate")
    first = table["seconds"].iloc[0] * workers[0]
    ax.plot(workers, first / workers, color=GREY, linestyle="--", label="if all were shared")
    ax.plot(measured.index, measured["seconds"], color=VERMILION, marker="D", linestyle="none", label="measured")
    ax.axvline(estimate.worthwhile, color=GREY, linestyle=":", label=f"half used: {estimate.worthwhile}")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    from matplotlib.ticker import FuncFormatter, NullFormatter

    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set(title="An epoch on other numbers of workers", xlabel="workers", ylabel="seconds")
    finish(ax, loc="lower left")
    return ax
