"""Axes for a picture of several panels: new ones, or those that the caller has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from daskdml.monitor._axes import new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(panels: Sequence[Callable[[Axes], Any]], ax: Axes | Sequence[Axes] | None, what: str) -> Axes | list[Axes]:
    """Draw each panel on an Axes of its own; a single Axes gets the first.

    Raises
    ------
    ValueError
        For a sequence of another length.
    """
    if ax is not None and not isinstance(ax, Sequence | np.ndarray):
        panels[0](ax)
        return ax
    axes = new_axes(len(panels)) if ax is None else list(ax)
    if len(axes) != len(panels):
        raise ValueError(f"{what} has {len(panels)} panels, ax has {len(axes)}; pass {len(panels)} Axes, or one")
    for one, panel in zip(axes, panels, strict=True):
        panel(one)
    return axes
