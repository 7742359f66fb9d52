"""A progress bar for a fit, in a terminal or a notebook."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any, TextIO

import tqdm

from daskdml.monitor._callback import Callback
from daskdml.monitor._events import EpochEnd, FitEnd, FitInfo, RoundEnd


class ProgressBar(Callback):
    """Show rows a second, loss, epoch and the time that is left while a fit runs.

    The bar counts rows where their number is known when the fit starts, epochs otherwise. The time that is left is that
    to ``max_iter``: a fit that converges before is done sooner, and the bar then ends full. It is a widget in a
    notebook that has ipywidgets, a line of text elsewhere.

    Parameters
    ----------
    file : text file, optional
        Where to write; default standard error. A file gets the line of text, also in a notebook.
    leave : bool, default True
        Leave the finished bar on the screen.

    Examples
    --------
    >>> from daskdml.monitor import ProgressBar
    >>> bar = ProgressBar(leave=False)
    """

    def __init__(self, file: TextIO | None = None, leave: bool = True) -> None:
        self.file = file
        self.leave = leave
        self._bar: Any = None
        self._info: FitInfo | None = None
        self._rows = 0
        self._seconds = 0.0

    def __deepcopy__(self, memo: dict[int, Any]) -> ProgressBar:
        # scikit-learn's clone copies callbacks deeply; an open file cannot be, and is meant to be shared.
        return type(self)(self.file, self.leave)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_bar": None}

    def on_fit_start(self, info: FitInfo) -> None:
        self._close()
        self._info, self._rows, self._seconds = info, 0, 0.0
        count: dict[str, Any] = {"unit": "epoch", "total": info.max_epochs, "initial": info.epochs_done}
        if info.n_rows:
            total = info.n_rows * info.max_epochs
            count = {"unit": "rows", "unit_scale": True, "total": total, "initial": info.rows_done}
        self._bar = _bar_class(self.file)(
            **count,
            desc=info.estimator,
            file=self.file,
            leave=self.leave,
            dynamic_ncols=True,
        )

    def on_round_end(self, event: RoundEnd) -> None:
        if self._bar is None or self._info is None:
            return
        self._rows += event.rows
        self._seconds += event.seconds
        shown = {"epoch": f"{event.epoch}/{self._info.max_epochs}", "loss": f"{event.loss:.4g}"}
        if self._info.n_rows:
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update(event.rows)
        else:
            speed = self._rows / self._seconds if self._seconds > 0 else 0.0
            shown["rows"] = f"{tqdm.tqdm.format_sizeof(speed)}/s"
            self._bar.set_postfix(shown)

    def on_epoch_end(self, event: EpochEnd) -> None:
        if self._bar is not None and self._info is not None and not self._info.n_rows:
            self._bar.update(1)

    def on_fit_end(self, event: FitEnd) -> None:
        if self._bar is not None and event.reason != "failed":
            # Rows held out for validation, and epochs that convergence made needless, are not going to come.
            self._bar.total = self._bar.n
            self._bar.refresh()
        self._close()

    def _close(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()


def _bar_class(file: TextIO | None) -> type[Any]:
    base: type[Any] = tqdm.tqdm
    if file is None and _in_notebook():
        base = importlib.import_module("tqdm.notebook").tqdm
    # tqdm's monitor is a thread that outlives every bar; rounds are frequent enough without it.
    return type("Bar", (base,), {"monitor_interval": 0})


def _in_notebook() -> bool:
    """Whether this process is a notebook's kernel that can show widgets."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel") and importlib.util.find_spec("ipywidgets") is not None
