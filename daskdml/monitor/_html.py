"""What a notebook shows: of a fitted estimator, below scikit-learn's own diagram, of a strategy, of a data set."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from html import escape
from typing import Any

import numpy as np
import pandas as pd

_LONGEST = 120
_POINTS = 200
_WIDTH, _HEIGHT = 240, 48

# Text and lines take the page's colour, whatever its theme; the accent has one shade for light and one for dark.
_STYLE = """
.daskdml-fit {font-size: 0.9em; margin: 0.5em 0; color: inherit; --daskdml-accent: #0072B2;}
@media (prefers-color-scheme: dark) {.daskdml-fit {--daskdml-accent: #56B4E9;}}
[data-jp-theme-light="true"] .daskdml-fit {--daskdml-accent: #0072B2;}
[data-jp-theme-light="false"] .daskdml-fit {--daskdml-accent: #56B4E9;}
.daskdml-fit table {border-collapse: collapse; background: none; color: inherit;}
.daskdml-fit th, .daskdml-fit td {text-align: left; vertical-align: top; padding: 0.1em 0.8em 0.1em 0;
  background: none; border: none; color: inherit;}
.daskdml-fit th {font-weight: normal; opacity: 0.7;}
.daskdml-fit svg {display: block; margin-top: 0.3em;}
.daskdml-fit polyline {fill: none; stroke: var(--daskdml-accent); stroke-width: 1.5;}
.daskdml-fit .base {stroke: currentColor; opacity: 0.25;}
"""


def fitted_html(estimator: Any) -> str:
    """Tell in HTML how an estimator was fitted: a self-contained fragment, everything in it escaped.

    Parameters
    ----------
    estimator : daskdml estimator
        What it lacks of ``history_``, ``strategy_``, ``n_replicas_``, ``classes_``, ``n_iter_`` and
        ``n_features_in_`` is left out.

    Returns
    -------
    str
        Empty where it is not fitted (no ``history_``).
    """
    history = getattr(estimator, "history_", None)
    if history is None:
        return ""
    name = type(estimator).__name__
    return facts_html(f"how {name} was fitted", facts_of(estimator, history), _sparkline(history))


def facts_html(label: str, facts: Iterable[tuple[str, str]], below: str = "") -> str:
    """Names and values as a self-contained fragment: what stands in a notebook below, or in the place of, a repr.

    Parameters
    ----------
    label : str
        What it is, for who does not see it.
    facts : iterable of (str, str)
        Both are escaped; long values are cut short.
    below : str, optional
        HTML that follows the table.
    """
    lines = "".join(f"<tr><th>{escape(name)}</th><td>{escape(_short(value))}</td></tr>" for name, value in facts)
    return (
        f'<div class="daskdml-fit"><style>{_STYLE}</style>'
        f'<table aria-label="{escape(label)}"><tbody>{lines}</tbody></table>{below}</div>'
    )


def facts_of(estimator: Any, history: pd.DataFrame) -> list[tuple[str, str]]:
    """What there is to tell of a fitted estimator, by name."""
    replicas = getattr(estimator, "n_replicas_", None)
    strategy = getattr(estimator, "strategy_", None)
    classes = getattr(estimator, "classes_", None)
    features = getattr(estimator, "n_features_in_", None)
    found = [
        ("parameters set", ", ".join(f"{name}={value!r}" for name, value in changed(estimator).items()) or "none"),
        ("strategy", None if strategy is None else strategy if isinstance(strategy, str) else repr(strategy)),
        ("replicas", None if replicas is None else f"{replicas:,}"),
        ("features", None if features is None else f"{features:,}"),
        ("classes", None if classes is None else _classes(classes)),
        *_training(history),
    ]
    return [(name, value) for name, value in found if value is not None]


def _training(history: pd.DataFrame) -> list[tuple[str, str]]:
    if len(history) == 0:
        return [("training", "nothing was trained")]
    last = history.iloc[-1]
    rows, seconds = int(history["rows"].sum()), float(history["seconds"].sum())
    per_epoch = int(history.loc[history["epoch"] == last["epoch"], "rows"].sum())
    speed = f", {rows / seconds:,.0f} rows/s" if seconds > 0 else ""
    found = [
        ("rows", f"{per_epoch:,} in the last epoch, {rows:,} in all"),
        ("epochs", f"{int(last['epoch']):,}, {seconds:,.3g} s{speed}"),
        ("last loss", f"{last['loss']:.6g} (objective {last['objective']:.6g})"),
    ]
    scores = history["validation_score"].dropna()
    if len(scores):
        found.append(("validation score", f"{scores.iloc[-1]:.6g} (best {scores.max():.6g})"))
    return found


def changed(estimator: Any) -> dict[str, Any]:
    """The parameters that are not at their defaults."""
    defaults = inspect.signature(type(estimator).__init__).parameters
    return {
        name: value
        for name, value in estimator.get_params(deep=False).items()
        if name in defaults and not _same(value, defaults[name].default)
    }


def _same(value: Any, default: Any) -> bool:
    # repr, for what cannot say whether it is equal: an array, or nan.
    return type(value) is type(default) and repr(value) == repr(default)


def _classes(classes: np.ndarray) -> str:
    shown = ", ".join(str(label) for label in classes[:6])
    return f"{len(classes):,}: {shown}{', ...' if len(classes) > 6 else ''}"


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST else f"{value[: _LONGEST - 3]}..."


def _sparkline(history: pd.DataFrame) -> str:
    """The loss, round by round, as a small picture; nothing where there are not two finite values."""
    loss = history["loss"].to_numpy(dtype=float)
    loss = loss[np.isfinite(loss)]
    if len(loss) < 2:
        return ""
    loss = loss[np.linspace(0, len(loss) - 1, min(len(loss), _POINTS)).round().astype(int)]
    low, high = loss.min(), loss.max()
    height = (high - loss) / (high - low) if high > low else np.full(len(loss), 0.5)
    across = np.linspace(2, _WIDTH - 2, len(loss))
    down = 3 + height * (_HEIGHT - 6)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True))
    label = f"training loss by round, from {loss[0]:.4g} to {loss[-1]:.4g}"
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        f'<title>{label}</title><line class="base" x1="0" y1="{_HEIGHT - 1}" x2="{_WIDTH}" y2="{_HEIGHT - 1}"/>'
        f'<polyline points="{points}"/></svg>'
    )
