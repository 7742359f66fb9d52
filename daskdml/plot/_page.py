"""Parts of a page: tables, facts, and pictures that take the colours of the page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any

import pandas as pd

from daskdml.monitor._axes import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION

# In a picture on the page: text and frame, and the grid. They stand for the page's own colours.
_INK, _RULE = "#010203", "#040506"
# Name, in the light and in the dark; the light ones are those of the pictures.
_PALETTE = (
    ("blue", BLUE, "#56B4E9"),
    ("orange", ORANGE, "#FFC04D"),
    ("green", GREEN, "#2CC79A"),
    ("vermilion", VERMILION, "#FF8A3D"),
    ("purple", PURPLE, "#E3A3C6"),
    ("sky", SKY, "#A5DBF8"),
    ("grey", GREY, "#B5B5B5"),
)
_SIZE = 9.0


def _variables(shade: int) -> str:
    return " ".join(f"--{colour[0]}: {colour[shade]};" for colour in _PALETTE)


_DARK = f"--paper: #15181c; --ink: #e4e6e8; --soft: #a9b0b7; --rule: #3a4048; --shade: #1e2227; {_variables(2)}"
STYLE = f"""
:root {{color-scheme: light dark; --paper: #ffffff; --ink: #1b1f23; --soft: #555c63; --rule: #d5d9dd; --shade: #f4f6f7;
  {_variables(1)}}}
@media (prefers-color-scheme: dark) {{:root {{{_DARK}}}}}
* {{box-sizing: border-box;}}
body {{margin: 0 auto; max-width: 64rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif;}}
h1 {{font-size: 1.6rem; margin: 0 0 0.3rem;}}
h2 {{font-size: 1.2rem; margin: 2.2rem 0 0.6rem; border-bottom: 1px solid var(--rule); padding-bottom: 0.2rem;}}
p {{margin: 0.4rem 0; max-width: 48rem;}}
.soft, figcaption, caption {{color: var(--soft);}}
.columns {{display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: 0 2rem;}}
.wide {{overflow-x: auto;}}
table {{border-collapse: collapse; font-size: 0.9rem; margin: 0.4rem 0;}}
caption {{text-align: left; padding-bottom: 0.2rem;}}
th, td {{text-align: left; vertical-align: top; padding: 0.15rem 1rem 0.15rem 0; overflow-wrap: anywhere;}}
thead th {{border-bottom: 1px solid var(--rule); white-space: nowrap;}}
tbody th {{font-weight: normal; color: var(--soft); overflow-wrap: normal; min-width: 5rem;}}
td.number, th.number {{text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap;}}
tr.set th, tr.set td {{font-weight: 600; color: var(--ink);}}
figure {{margin: 0.6rem 0 1.2rem;}}
figcaption {{font-size: 0.9rem; max-width: 48rem;}}
svg {{display: block; max-width: 100%; height: auto;}}
details {{margin: 0.3rem 0;}}
summary {{cursor: pointer; color: var(--soft);}}
nav a {{color: var(--ink); margin-right: 1rem;}}
"""

_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
"""


def page(title: str, subtitle: str, sections: Iterable[tuple[str, str]]) -> str:
    """A whole page of sections, each a heading and HTML; it loads nothing."""
    named = [(f"part-{number}", heading, body) for number, (heading, body) in enumerate(sections, start=1)]
    links = "".join(f'<a href="#{key}">{escape(heading)}</a>' for key, heading, _ in named)
    parts = "\n".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{escape(heading)}</h2>\n{body}\n</section>'
        for key, heading, body in named
    )
    return (
        f"{_HEAD}<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<header><h1>{escape(title)}</h1>"
        f'<p class="soft">{escape(subtitle)}</p><nav aria-label="parts of this page">{links}</nav></header>\n'
        f"<main>\n{parts}\n</main>\n</body>\n</html>\n"
    )


def facts(caption: str, found: Mapping[str, Any], strong: Iterable[str] = ()) -> str:
    """A table of names and values; those that are ``strong`` stand out."""
    strong = set(strong)
    lines = "".join(
        f'<tr{" class=set" if name in strong else ""}><th scope="row">{escape(name)}</th>'
        f"<td>{escape(spoken(value))}</td></tr>"
        for name, value in found.items()
    )
    return f"<table><caption>{escape(caption)}</caption><tbody>{lines}</tbody></table>"


def frame(table: pd.DataFrame, caption: str) -> str:
    """A DataFrame as a table; its index is the first column where it has a name."""
    if table.index.name is not None:
        table = table.reset_index()
    kinds = [" class=number" if pd.api.types.is_numeric_dtype(table[name]) else "" for name in table]
    head = "".join(
        f'<th scope="col"{kind}>{escape(str(name).replace("_", " "))}</th>'
        for name, kind in zip(table, kinds, strict=True)
    )
    lines = "".join(
        "<tr>" + "".join(f"<td{k}>{escape(spoken(v))}</td>" for v, k in zip(values, kinds, strict=True)) + "</tr>"
        for values in table.itertuples(index=False, name=None)
    )
    return (
        f'<div class="wide" role="region" aria-label="{escape(caption)}" tabindex="0"><table><caption>{escape(caption)}'
        f"</caption><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def folded(summary: str, body: str) -> str:
    """What is shown when it is asked for."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def spoken(value: Any) -> str:
    """A value for a cell."""
    if value is None or (isinstance(value, float) and value != value):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (hasattr(value, "dtype") and value.dtype.kind in "iu"):
        return f"{int(value):,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def picture(draw: Callable[[Any], Any], panels: int, size: tuple[float, float], label: str, caption: str) -> str:
    """What ``draw`` puts on so many Axes, side by side, as a figure of the page.

    It takes the page's colours, so that it is read in the light and in the dark. No window is opened.
    """
    import matplotlib
    from matplotlib.figure import Figure

    inks = ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color")
    settings: Any = {name: _INK for name in inks} | {"grid.color": _RULE, "svg.hashsalt": label}
    with matplotlib.rc_context(settings | {"svg.fonttype": "path", "font.size": _SIZE, "hatch.linewidth": 0.6}):
        figure = Figure(figsize=size, layout="constrained")
        axes = list(figure.subplots(1, panels, squeeze=False)[0])
        draw(axes if panels > 1 else axes[0])
        written = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    svg = _of_the_page(written.getvalue(), re.sub(r"\W+", "-", label.lower()), label)
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _of_the_page(text: str, prefix: str, label: str) -> str:
    """The SVG element alone, with names of its own, the page's colours, and what it shows for who does not see it."""
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    for name, light, _ in _PALETTE:
        svg = svg.replace(light.lower(), f"var(--{name})")
    svg = svg.replace(_INK, "var(--ink)").replace(_RULE, "var(--rule)")
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
