"""The interface of a listener."""

from __future__ import annotations

from daskdml.monitor._events import EpochEnd, FitEnd, FitInfo, Recovery, ReplicaRound, RoundEnd, ServerStart


class StopTraining(Exception):
    """Raised by a callback to end the fit after this round; what was learnt so far is kept."""


class Callback:
    """Listen to a fit: override what you need; every method does nothing by default.

    Methods run in the process that called ``fit``, in order; an exception other than
    :class:`StopTraining` ends the fit and is raised from it. Where epochs take a fraction of a second, a few that are
    over may be told of one after another, at the end of the last of them.
    """

    def on_fit_start(self, info: FitInfo) -> None: ...

    def on_server_start(self, event: ServerStart) -> None: ...

    def on_replica_round(self, event: ReplicaRound) -> None: ...

    def on_recovery(self, event: Recovery) -> None: ...

    def on_round_end(self, event: RoundEnd) -> None: ...

    def on_epoch_end(self, event: EpochEnd) -> None: ...

    def on_fit_end(self, event: FitEnd) -> None: ...
