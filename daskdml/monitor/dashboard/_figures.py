"""What all plots of the page have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource
from bokeh.models.annotations import Legend, LegendItem
from bokeh.plotting import figure

BLUE, ORANGE, GREEN, PURPLE, GREY, RED = "#3b8dd1", "#e8873a", "#4aa564", "#9b72c4", "#8f969d", "#d9534f"


def plain_figure(name: str, title: str, x: str, y: str, tooltips: list[tuple[str, str]], **options: Any) -> Any:
    """A figure that fills its place; its tools are shown under the mouse only."""
    found: Any = figure(
        name=f"daskdml_{name.replace('-', '_')}",
        title=title,
        x_axis_label=x,
        y_axis_label=y,
        tools="hover,pan,box_zoom,reset,save",
        tooltips=tooltips,
        toolbar_location="right",
        sizing_mode="stretch_both",
        min_border_right=12,
        **options,
    )
    found.toolbar.autohide = True
    found.title.text_font_size = "12px"
    for axis in found.axis:
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "11px"
        axis.minor_tick_line_color = None
    return found


def source(*columns: str) -> ColumnDataSource:
    """Columns without a line so far."""
    return ColumnDataSource({name: [] for name in columns})


def put(shown: ColumnDataSource, columns: Mapping[str, Any]) -> None:
    """Make a source hold these columns. What it holds already is not sent again: most of a message's cost is fixed."""
    before = shown.data
    if before.keys() != columns.keys() or not all(_same(before[name], columns[name]) for name in columns):
        shown.data = dict(columns)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    return bool(a == b)


def legend_above(plot: Any, items: dict[str, list[Any]], columns: int) -> None:
    """What the colours mean, in a line above the plot, where it hides nothing."""
    plot.add_layout(
        Legend(
            items=[LegendItem(label=label, renderers=renderers) for label, renderers in items.items()],
            orientation="horizontal",
            ncols=columns,
            label_text_font_size="11px",
            border_line_color=None,
            background_fill_color=None,
            margin=2,
            spacing=8,
            glyph_width=14,
            glyph_height=12,
            label_height=12,
        ),
        "above",
    )
