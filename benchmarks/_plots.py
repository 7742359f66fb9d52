"""Pictures of what was measured, drawn from the figures that are kept, so that they can be drawn again at any time.

A benchmark that has one says how: ``picture(figures)`` returns a figure, ``CAPTION`` tells what it shows.
"""

from __future__ import annotations

import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from daskdml.monitor._axes import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, finish

__all__ = ["BLUE", "COLOURS", "GREEN", "GREY", "ORANGE", "PURPLE", "SKY", "VERMILION"]
__all__ += ["draw", "finish", "panels", "redraw"]

COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, GREY)


def draw(name: str, folder: Path) -> str:
    """Draw a benchmark's picture beside its figures; returns the Markdown that shows it, or nothing."""
    benchmark = import_module(f"benchmarks.{name}")
    if not hasattr(benchmark, "picture"):
        return ""
    if find_spec("matplotlib") is None:
        print(f"{name}: not drawn, matplotlib is not installed (pip install 'daskdml[plot]')", flush=True)
        return ""
    figure = benchmark.picture(json.loads((folder / f"{name}.json").read_text()))
    if figure is None:
        return ""
    # Small enough for a page, and for git.
    figure.savefig(folder / f"{name}.png", dpi=90, pil_kwargs={"optimize": True})
    return f"![{benchmark.CAPTION}]({name}.png)"


def redraw(name: str, folder: Path) -> None:
    """Draw the picture of what was measured before, and show it on the page of the figures."""
    if not (folder / f"{name}.json").exists():
        print(f"{name}: nothing measured in {folder}", flush=True)
        return
    shown = draw(name, folder)
    page = folder / f"{name}.md"
    if shown and f"({name}.png)" not in page.read_text():
        page.write_text(f"{page.read_text().rstrip()}\n\n{shown}\n")
    print(f"{name}: {folder / name}.png" if shown else f"{name}: no picture", flush=True)


def panels(count: int, width: float = 5.0, height: float = 3.5, **shared: Any) -> tuple[Any, list[Any]]:
    """A new figure with a row of Axes, known to nobody else."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * count, height), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False, **shared)[0])
