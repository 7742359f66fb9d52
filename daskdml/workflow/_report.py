"""The page of a trained model."""

from __future__ import annotations

import os
from typing import Any

from daskdml.io import InputError, load_model
from daskdml.io._atomic import check_apart, check_writable
from daskdml.workflow._trained import TrainedModel


def report(model: Any, output: str | os.PathLike) -> None:
    """Write a page that tells all of a training: pictures, results, parameters, data, cluster, history, scaling.

    Parameters
    ----------
    model : path, TrainedModel or estimator
        What ``train`` or :func:`daskdml.io.save_model` saved, or ``train`` returned as ``model``.
    output : path
        By custom ``*.html``; there whole or not at all.

    Raises
    ------
    InputError
        Where the page cannot be written, matplotlib is not installed, or the model is not daskdml's own.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np, pandas as pd
    >>> from daskdml.workflow import report, train
    >>> table = pd.DataFrame({"x": np.linspace(-1, 1, 100)}).assign(y=lambda t: 2 * t.x + 0.5)
    >>> model = train(table, "y", epochs=3, test_size=0).model
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report(model, os.path.join(folder, "fit.html"))
    ...     os.listdir(folder)
    ['fit.html']
    """
    from daskdml import plot

    check_report(output)
    if isinstance(model, str | os.PathLike):
        check_apart(output, [os.fspath(model)])
        model = load_model(model)
    estimator = model.estimator if isinstance(model, TrainedModel) else model
    if not hasattr(estimator, "history_"):
        raise InputError(f"the model, a {type(estimator).__name__}, has no history: it was not trained by daskdml")
    told: dict[str, Any] = (
        {"title": _title(model), "results": _results(model)} if isinstance(model, TrainedModel) else {}
    )
    plot.report(estimator, output, **told)


def check_report(output: str | os.PathLike) -> None:
    """Raise :class:`InputError` where no page can be written: better before the training than after it."""
    from daskdml.plot._report import require_matplotlib

    check_writable(output)
    try:
        require_matplotlib()
    except ImportError as error:
        raise InputError(str(error)) from None


def _title(trained: TrainedModel) -> str:
    of = "" if trained.target is None else f" of {trained.target}"
    text = f"{trained.record.get('model_name', '')} {trained.task}{of}".strip()
    return text[:1].upper() + text[1:]


def _results(trained: TrainedModel) -> dict[str, dict[str, Any]]:
    record = trained.record
    rows = record.get("test_rows", 0)
    found = {
        f"On {rows:,} rows held out": record.get("test"),
        "The best answer without features": record.get("baseline"),
    }
    return {caption: values for caption, values in found.items() if values}
