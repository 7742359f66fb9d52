"""Progress of a fit: a bar in a terminal or a notebook, a line now and then in a log file."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from typing import Any, TextIO

import tqdm

from daskdml.monitor._callback import Callback
from daskdml.monitor._events import EpochEnd, FitEnd, FitInfo, RoundEnd
from daskdml.monitor._tally import Tally, short

# Lines come further apart the longer a fit lasts: a night's log has some hundred of them.
_GROWTH = 0.05
# Of rounds in detail, which may be a thousand a second.
_ROUND_SECONDS = 1.0


class ProgressBar(Callback):
    """Show rows a second, loss, epoch, staleness and the time that is left while a fit runs.

    In a terminal it is a bar, in a notebook that has ipywidgets a widget. Elsewhere (a log file, a pipe) it is a line
    at the beginning, at the end, and now and then between.

    The bar counts rows where their number is known when the fit starts, epochs otherwise. The time that is left is that
    to ``max_iter``: a fit that converges before is done sooner, and the bar then ends full.

    Parameters
    ----------
    file : text file, optional
        Where to write; default standard error.
    leave : bool, default True
        Leave the finished bar on the screen.
    detail : bool, default False
        Also write a line for each epoch, and one for each round but not more than one a second: where the time went,
        where blocks came from, what was sent. It is what ``verbose=2`` does.
    every : float, default 10.0
        Seconds between lines, where there is no bar; later on a twentieth of the time since the beginning.

    Examples
    --------
    >>> import sys
    >>> from daskdml.linear_model import SGDClassifier
    >>> from daskdml.monitor import ProgressBar
    >>> clf = SGDClassifier(max_iter=3, tol=None, random_state=0, callbacks=[ProgressBar(file=sys.stdout)])
    >>> _ = clf.fit([[0.0], [1.0]] * 50, [0, 1] * 50)
    SGDClassifier: 100 rows of 1 feature in 1 block, 1 replica (averaging), at most 3 epochs
    SGDClassifier: ended after 3 epochs, ...
    """

    def __init__(
        self, file: TextIO | None = None, leave: bool = True, *, detail: bool = False, every: float = 10.0
    ) -> None:
        self.file = file
        self.leave = leave
        self.detail = detail
        self.every = every
        self._bar: Any = None
        self._tally: Tally | None = None
        self._said = self._told = 0.0

    def __deepcopy__(self, memo: dict[int, Any]) -> ProgressBar:
        # scikit-learn's clone copies callbacks deeply; an open file cannot be, and is meant to be shared.
        return type(self)(self.file, self.leave, detail=self.detail, every=self.every)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_bar": None}

    def on_fit_start(self, info: FitInfo) -> None:
        self._close()
        self._said = self._told = now = time.monotonic()
        self._tally = Tally(info, now)
        if self._shows_bar():
            self._bar = self._open(info)
        else:
            self._say(self._tally.beginning())

    def on_round_end(self, event: RoundEnd) -> None:
        tally = self._tally
        if tally is None:
            return
        tally.add(event)
        now = time.monotonic()
        if self._bar is not None:
            self._advance(tally, event)
        elif now - self._said >= max(self.every, _GROWTH * (now - tally.started)):
            self._say(tally.standing(now))
        if self.detail and tally.info.rounds_per_epoch > 1 and now - self._told >= _ROUND_SECONDS:
            self._told = now
            self._say(tally.of_round(event))

    def on_epoch_end(self, event: EpochEnd) -> None:
        tally = self._tally
        if tally is None:
            return
        tally.end_epoch(event)
        if self._bar is not None and not tally.info.n_rows:
            self._bar.update(1)
        if self.detail:
            self._say(tally.of_epoch(event))

    def on_fit_end(self, event: FitEnd) -> None:
        tally, self._tally = self._tally, None
        if self._bar is not None and event.reason != "failed":
            # Rows held out for validation, and epochs that convergence made needless, are not going to come.
            self._bar.total = self._bar.n
            self._bar.refresh()
        if tally is not None and (self._bar is None or self.detail):
            self._say(tally.ending(event), tally.info.estimator)
        self._close()

    # -- where it is shown ------------------------------------------------------------------------------

    def _shows_bar(self) -> bool:
        file = self.file or sys.stderr
        return bool(getattr(file, "isatty", lambda: False)()) or (self.file is None and _in_notebook())

    def _open(self, info: FitInfo) -> Any:
        count: dict[str, Any] = {"unit": "epoch", "total": info.max_epochs, "initial": info.epochs_done}
        if info.n_rows:
            total = info.n_rows * info.max_epochs
            count = {"unit": "rows", "unit_scale": True, "total": total, "initial": info.rows_done}
        options: dict[str, Any] = {"file": self.file, "leave": self.leave, "dynamic_ncols": True}
        return _bar_class(self.file)(**count, desc=info.estimator, **options)

    def _advance(self, tally: Tally, event: RoundEnd) -> None:
        shown = tally.figures()
        if tally.info.n_rows:
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update(event.rows)
        else:
            shown["rows"] = f"{short(tally.rows / tally.seconds if tally.seconds > 0 else 0.0)}/s"
            self._bar.set_postfix(shown)

    def _say(self, text: str, of: str | None = None) -> None:
        self._said = time.monotonic()
        name = of or (self._tally.info.estimator if self._tally is not None else "fit")
        file = self.file or sys.stderr
        if self._bar is not None:
            # Above the bar, which is drawn again below.
            self._bar.write(f"{name}: {text}", file=file)
        else:
            print(f"{name}: {text}", file=file, flush=True)

    def _close(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()


def _bar_class(file: TextIO | None) -> type[Any]:
    base: type[Any] = tqdm.tqdm
    if file is None and _in_notebook() and importlib.util.find_spec("ipywidgets") is not None:
        base = importlib.import_module("tqdm.notebook").tqdm
    # tqdm's monitor is a thread that outlives every bar; rounds are frequent enough without it.
    return type("Bar", (base,), {"monitor_interval": 0})


def _in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")
