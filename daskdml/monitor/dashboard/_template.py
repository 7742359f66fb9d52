"""The page around the plots: Dask's own, and the colours of a dark one for who prefers that."""

from __future__ import annotations

_HEAD = """
<style>
  :root {--daskdml-ink: #3c4043; --daskdml-faint: #6b7176; --daskdml-line: #dadce0; --daskdml-bad: #c5362f;
    --daskdml-ground: #ffffff;}
  html.daskdml-dark {--daskdml-ink: #d5d9de; --daskdml-faint: #a0a6ad; --daskdml-line: #3a3f45;
    --daskdml-bad: #ff7b72; --daskdml-ground: #24272c; background: #16181c; color-scheme: dark;}
  html.daskdml-dark body {background: #16181c; color: var(--daskdml-ink);}
  html.daskdml-dark .navbar ul, html.daskdml-dark .dropdown-content {background-color: #24272c;}
  html.daskdml-dark .navbar li a {color: #d5d9de;}
  html.daskdml-dark #navbar-toggle-icon img {filter: invert(1);}
  #daskdml-head {display: flex; flex-wrap: wrap; gap: 0 24px; padding: 10px 4px 4px;}
  #daskdml-head > div:first-child {width: 330px;}
  #daskdml-head > div:last-child {flex: 1; min-width: 340px;}
  @media (max-width: 1000px) { #daskdml-head > div:last-child {flex: 1 0 100%; max-width: calc(100vw - 40px);} }
  #daskdml-plots {display: grid; grid-template-columns: repeat(auto-fill, minmax(370px, 1fr)); gap: 10px;
    padding-bottom: 16px;}
  #daskdml-plots > div {height: 270px; min-width: 0; border-top: 1px solid var(--daskdml-line); padding-top: 6px;}
  #daskdml-one {position: absolute; inset: 0;}
</style>
<script>
  /* As the browser prefers, or as the address asks: ?theme=dark, ?theme=light. */
  window.daskdmlDark = () => {
    const asked = new URLSearchParams(window.location.search).get("theme");
    const dark = asked ? asked === "dark" : window.matchMedia("(prefers-color-scheme: dark)").matches;
    document.documentElement.classList.toggle("daskdml-dark", dark);
    return dark;
  };
  window.daskdmlDark();
</script>
"""

PAGE = (
    """{% extends "base.html" %}
{% block extra_resources %}"""
    + _HEAD
    + """{% endblock %}
{% block content %}
{% from macros import embed %}
<div id="daskdml-head"><div>{{ embed(roots.daskdml_choice) }}</div><div>{{ embed(roots.daskdml_facts) }}</div></div>
<div id="daskdml-plots">
  {% for name in daskdml_plots %}<div>{{ embed(roots[name]) }}</div>
  {% endfor %}
</div>
{{ plot_script }}
{% endblock %}
"""
)
"""All plots, in Dask's frame of navigation."""

ONE = (
    """<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8" />
  <title>{{ title }}</title>
  {{ bokeh_css }}
  {{ bokeh_js }}"""
    + _HEAD
    + """
</head>
<body style="margin: 0">
  {% from macros import embed %}
  <div id="daskdml-one">{{ embed(roots[0]) }}</div>
  {{ plot_script }}
</body>
</html>
"""
)
"""A plot by itself, as wide and high as its window."""

PAINT = """
const paint = () => {
  const dark = window.daskdmlDark ? window.daskdmlDark() : false;
  const ink = dark ? "#d5d9de" : "#3c4043", line = dark ? "#3a3f45" : "#dadce0";
  for (const figure of figures) figure.outline_line_color = line;
  for (const title of titles) title.text_color = ink;
  for (const grid of grids) grid.grid_line_color = line;
  for (const axis of axes) {
    axis.axis_label_text_color = axis.major_label_text_color = ink;
    axis.axis_line_color = axis.major_tick_line_color = line;
  }
  for (const legend of legends) legend.label_text_color = ink;
};
paint();
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
"""
"""What gives bokeh's plots the colours of the page: they are painted, so that style sheets do not reach them."""
