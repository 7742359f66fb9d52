"""Hand a fit's events to its listeners, and never leave one without its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from daskdml.monitor._callback import Callback, StopTraining
from daskdml.monitor._events import (
    EpochEnd,
    EpochsEnd,
    FitEnd,
    FitInfo,
    Recovery,
    ReplicaRound,
    RoundEnd,
    ServerStart,
)
from daskdml.monitor._history import History
from daskdml.monitor._log import FitLog


class CallbackList:
    """The listeners of one fit, as a context: whatever ends it, each hears ``on_fit_end`` once.

    Every listener hears an event before a :class:`StopTraining` that one of them raised goes on to the
    caller. Any other exception goes on at once. Leaving the context with an exception, before
    :meth:`on_fit_end` was called, tells the listeners that the fit failed ("stopped" for StopTraining); what
    a listener raises in answer is noted on the first exception and does not replace it.

    Parameters
    ----------
    callbacks : Callback, iterable of Callback, or None
        In the order in which they listen.

    Raises
    ------
    TypeError
        Where one is not an instance of :class:`Callback`, naming it.

    Examples
    --------
    >>> from daskdml.monitor import Callback, CallbackList, FitEnd, FitInfo
    >>> class Say(Callback):
    ...     def on_fit_end(self, event):
    ...         print(event.reason)
    >>> info = FitInfo("SGDClassifier", "averaging", 1, 1, 100, 5, max_epochs=3, rounds_per_epoch=1)
    >>> with CallbackList([Say()]) as listeners:
    ...     listeners.on_fit_start(info)
    ...     listeners.on_fit_end(FitEnd("converged", epochs=2, rows=200, seconds=0.1))
    converged
    """

    def __init__(self, callbacks: Callback | Iterable[Callback] | None = None) -> None:
        self.callbacks = tuple(_checked(callbacks))
        self._log = FitLog()
        # There are many such events: who does not care is not called.
        nothing = Callback.on_replica_round
        self._of_replicas = [c for c in self.callbacks if type(c).on_replica_round is not nothing]
        self._begun: list[Callback] = []
        self._epochs = self._rows = 0
        self._started = time.perf_counter()

    def __enter__(self) -> CallbackList:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._begun and not self._log.begun:
            return
        if error is None:
            self.on_fit_end(self._end("failed", "the fit ended without saying why"))
            return
        reason = "stopped" if isinstance(error, StopTraining) else "failed"
        message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        try:
            self.on_fit_end(self._end(reason, message if reason == "failed" else None))
        except Exception as also:
            error.add_note(f"and a callback failed in on_fit_end: {type(also).__name__}: {also}")

    def on_fit_start(self, info: FitInfo) -> None:
        """Tell the listeners that a fit begins."""
        self._begun, self._epochs, self._rows = [], 0, 0
        self._started = time.perf_counter()
        self._log.start(info)

        def start(callback: Callback) -> None:
            self._begun.append(callback)
            callback.on_fit_start(info)

        _tell(self.callbacks, start)

    def on_server_start(self, event: ServerStart) -> None:
        """Tell the listeners of the parameter server; raises StopTraining where one of them wants the end."""
        _tell(self.callbacks, lambda callback: callback.on_server_start(event))

    def on_replica_round(self, event: ReplicaRound) -> None:
        """Tell the listeners of a replica's part of a round; raises StopTraining where one of them wants the end."""
        _tell(self._of_replicas, lambda callback: callback.on_replica_round(event))

    def on_recovery(self, event: Recovery) -> None:
        """Tell the listeners that something was replaced; raises StopTraining where one of them wants the end."""
        self._log.recovery(event)
        _tell(self.callbacks, lambda callback: callback.on_recovery(event))

    def on_round_end(self, event: RoundEnd) -> None:
        """Tell the listeners of a round; raises StopTraining where one of them wants the end."""
        self._rows += event.rows
        self._log.round(event)
        _tell(self.callbacks, lambda callback: callback.on_round_end(event))

    def on_epoch_end(self, event: EpochEnd) -> None:
        """Tell the listeners of an epoch; raises StopTraining where one of them wants the end."""
        self._epochs = event.epoch
        self._log.epoch(event)
        _tell(self.callbacks, lambda callback: callback.on_epoch_end(event))

    @property
    def only_keep(self) -> bool:
        """Whether no listener does more than keep what it hears, so that it may hear it later."""
        return all(type(callback) is History for callback in self.callbacks)

    def on_epochs_end(self, event: EpochsEnd) -> None:
        """Tell listeners that only keep what they hear of several epochs at once."""
        self._rows += event.rows * len(event.loss)
        self._epochs = event.first + len(event.loss) - 1
        self._log.epochs(event)
        for callback in self.callbacks:
            assert isinstance(callback, History)
            callback.on_epochs_end(event)

    def on_fit_end(self, event: FitEnd) -> None:
        """Tell each listener that heard the beginning of the end, once; the first failure is raised after all."""
        begun, self._begun = self._begun, []
        self._log.end(event)
        failures: list[Exception] = []
        for callback in begun:
            try:
                callback.on_fit_end(event)
            except StopTraining:
                continue
            except Exception as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def _end(self, reason: str, error: str | None) -> FitEnd:
        return FitEnd(reason, self._epochs, self._rows, time.perf_counter() - self._started, error)


def _tell(callbacks: Iterable[Callback], tell: Callable[[Callback], Any]) -> None:
    stop: StopTraining | None = None
    for callback in callbacks:
        try:
            tell(callback)
        except StopTraining as wish:
            stop = stop or wish
    if stop is not None:
        raise stop


def _checked(callbacks: Callback | Iterable[Callback] | None) -> Iterable[Callback]:
    if callbacks is None:
        return
    if isinstance(callbacks, Callback):
        yield callbacks
        return
    if not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks must be a list of daskdml.monitor.Callback, got {callbacks!r}")
    for place, callback in enumerate(callbacks):
        if isinstance(callback, Callback):
            yield callback
        elif isinstance(callback, type) and issubclass(callback, Callback):
            raise TypeError(
                f"callbacks[{place}] is the class {callback.__name__}; pass an instance: {callback.__name__}()"
            )
        else:
            raise TypeError(f"callbacks[{place}] is {callback!r}, not an instance of daskdml.monitor.Callback")
