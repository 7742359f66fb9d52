"""Tables and the plot of what was measured and simulated."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks._measure import table
from benchmarks.scale.extrapolate import half
from benchmarks.scale.settings import Costs
from benchmarks.scale.validate import WITHIN

# Okabe and Ito's colours, which the colour-blind can tell apart.
_COLOURS = {"BSP": "#000000", "Averaging": "#E69F00", "SSP": "#0072B2", "ESSP": "#009E73", "ASP": "#D55E00"}
# Where so much of the time is training, nothing is worth naming.
_UNLIMITED = 0.95
_MARKERS = {"BSP": "s", "Averaging": "D", "SSP": "o", "ESSP": "^", "ASP": "v"}


def power(n: float) -> str:
    return f"10^{len(str(int(n))) - 1}"


def costs_text(costs: Costs, at_once: dict[str, float]) -> str:
    """What was measured, in units in which it is a small number."""
    ms = [
        ["a task: submitting it, ms", costs.submit * 1e3],
        [
            "scheduling it in a chain (one of many at once, and where the scheduler is busy), ms",
            costs.schedule * 1e3,
            at_once["schedule"] * 1e3,
        ],
        ["the same at the worker, ms", costs.execute * 1e3, at_once["execute"] * 1e3],
        ["from one task to the next, beside that, ms", costs.task_pause * 1e3],
        ["a result from another worker, each end, ms", costs.fetch * 1e3],
        ["the same, ms per MB", costs.fetch_byte * 1e9],
        ["a message to or from an actor, each end, ms", costs.message * 1e3],
        ["the same, ms per MB", costs.message_byte * 1e9],
        ["an actor called in its own process, ms", costs.local * 1e3],
        ["the driver's look at the cluster, ms", costs.tend * 1e3],
        ["a claim that waits, microseconds per lane", costs.claim_lane * 1e6],
        ["a dense update at a shard, ms per 10^6 parameters", costs.apply * 1e9],
        ["a replica's own parameters, ms per 10^6", costs.train * 1e9],
        ["two sums of gradients, ms per 10^6 parameters", costs.combine["BSP"] * 1e9],
        ["the mean of two states, ms per 10^6 parameters", costs.combine["Averaging"] * 1e9],
    ]
    rows = [[name, f"{value:.3g}" + "".join(f" ({m:.3g})" for m in more)] for name, value, *more in ms]
    for strategy in costs.own:
        own, told = costs.own[strategy] * 1e3, costs.report[strategy] * 1e3
        rows.append(
            [f"a clock of {strategy} beside these, at the worker and at the driver, ms", f"{own:.3g}, {told:.3g}"]
        )
    for strategy, seconds in costs.hear.items():
        rows.append([f"the driver's hearing of clocks of {strategy}, however many, ms", f"{seconds * 1e3:.3g}"])
    return table(["cost", "CPU"], rows)


def validation_text(rows: list[dict[str, Any]]) -> str:
    """Model beside reality, and in words what is farther off than it may be."""
    cells = []
    for row in rows:
        real = median(row["real"])
        beside = [1e3 * (1 / speed - 1 / row["free"]) for speed in (real, row["model"])]
        known = "costs are of it" if row["workers"] == 1 else "predicted"
        speeds = [f"{speed:.2f}" for speed in (real, row["model"])]
        cells.append([row["strategy"], row["pattern"], row["workers"], known, *speeds, f"{row['ratio']:.2f}"])
        cells[-1] += [f"{row['free'] / real:.2f}", *(f"{ms:.0f}" for ms in beside)]
    headings = ["strategy", "slow", "workers", "", "clocks/s", "model", "model / real", "without costs / real"]
    predicted = [row for row in rows if row["workers"] > 1]
    outside = [row for row in predicted if not row["within"]]
    told = ", ".join(f"{r['strategy']} on {r['workers']} ({r['pattern']}): {r['ratio']:.2f}" for r in outside)
    summary = f"Of {len(predicted)} predicted rates {len(predicted) - len(outside)} are within {WITHIN:.0%}."
    summary += f" Outside: {told}." if outside else ""
    return table([*headings, "ms a clock beside training", "model"], cells) + "\n\n" + summary


def scale_text(curves: list[dict[str, Any]]) -> str:
    """Workers at which half of the time is lost, and what limits there."""
    times = sorted({c["seconds"] for c in curves})
    found = {(c["parameters"], c["side"], c["seconds"]): c for c in curves}
    rows = []
    for parameters, side in dict.fromkeys((c["parameters"], c["side"]) for c in curves):
        rows.append([power(parameters), side, *(_cell(found[parameters, side, t]["points"]) for t in times)])
    return table(["parameters", "strategy", *(f"clock of {t:g} s" for t in times)], rows)


def _cell(points: list[dict[str, Any]]) -> str:
    at, limit = half(points)
    if at is not None:
        return f"{at:.0f}: {limit}"
    first, last = points[0], points[-1]
    if first["efficiency"] < 0.5:
        return f"never ({first['efficiency']:.0%} with 1): {limit}"
    return f"over {last['workers']}: {_reached(last)}"


def _reached(point: dict[str, Any]) -> str:
    """The efficiency, and what limits it where anything does."""
    much = point["efficiency"] < _UNLIMITED
    return f"{point['efficiency']:.0%}" + (f", {point['limit']}" if much else "")


def beside_text(curves: list[dict[str, Any]], key: str) -> str:
    """Efficiencies and limits, a column for each value of ``key``."""
    columns = list(dict.fromkeys(curve[key] for curve in curves))
    found = {
        (curve["parameters"], curve["side"], point["workers"], curve[key]): _reached(point)
        for curve in curves
        for point in curve["points"]
    }
    rows = [
        [power(row[0]), *row[1:], *(found.get((*row, column), "") for column in columns)]
        for row in dict.fromkeys(at[:3] for at in found)
    ]
    names = [c if isinstance(c, str) else f"{c * 8 / 1e9:g} Gbit/s" for c in columns]
    return table(["parameters", "strategy", "workers", *names], rows)


def plot(curves: list[dict[str, Any]]) -> Any:
    """Efficiency by workers: a row for each size of model, a column for each length of a clock."""
    from matplotlib.figure import Figure

    sizes = [p for p in sorted({c["parameters"] for c in curves}) if len(str(p)) % 2]
    times = sorted({c["seconds"] for c in curves})
    shape = (len(sizes), len(times))
    inches = (max(7.0, 3.3 * shape[1] + 0.6), 2.3 * shape[0] + 0.7)
    figure = Figure(figsize=inches)
    axes = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False)
    for row, parameters in zip(axes.reshape(shape), sizes, strict=True):
        for ax, seconds in zip(row, times, strict=True):
            for curve in curves:
                if (curve["parameters"], curve["seconds"]) == (parameters, seconds):
                    _draw(ax, curve)
            ax.axhline(0.5, color="0.6", linewidth=0.8)
            ax.set(xscale="log", ylim=(0, 1.03))
            ax.set_title(f"{power(parameters)} parameters, clock of {seconds:g} s", fontsize=8)
    for ax in axes.reshape(shape)[-1]:
        ax.set_xlabel("workers")
    for ax in axes.reshape(shape)[:, 0]:
        ax.set_ylabel("efficiency")
    handles, labels = axes.reshape(shape)[0, 0].get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    figure.legend(handles, labels, loc="lower center", ncols=4, fontsize=8)
    return figure


def _draw(ax: Any, curve: dict[str, Any]) -> None:
    strategy, points = curve["side"].split(",")[0], curve["points"]
    ax.plot(
        [p["workers"] for p in points],
        [p["efficiency"] for p in points],
        linestyle="--" if "keys" in curve["side"] else "-",
        color=_COLOURS[strategy],
        marker=_MARKERS[strategy],
        markersize=4,
        linewidth=1.2,
        label=curve["side"],
    )
