"""What a fit writes to the logger ``daskdml``."""

from __future__ import annotations

import logging
import time

from daskdml.monitor._events import EpochEnd, EpochsEnd, FitEnd, FitInfo, Recovery, RoundEnd
from daskdml.monitor._tally import Tally

logger = logging.getLogger("daskdml")


class FitLog:
    """Beginning and end of a fit at INFO, what was lost and replaced at WARNING, rounds and epochs at DEBUG.

    It is no listener: a fit in which nobody but the log listens may run many epochs before one of them is told of.
    """

    def __init__(self) -> None:
        self._tally: Tally | None = None

    @property
    def begun(self) -> bool:
        """Whether a fit has begun and not ended."""
        return self._tally is not None

    def start(self, info: FitInfo) -> None:
        """A fit begins."""
        self._tally = Tally(info, time.monotonic())
        if logger.isEnabledFor(logging.INFO):
            logger.info("%s: %s", info.estimator, self._tally.beginning())
            if info.dashboard:
                logger.info("%s: dashboard at %s", info.estimator, info.dashboard)

    def round(self, event: RoundEnd) -> None:
        """A round is over."""
        if self._tally is None:
            return
        self._tally.add(event)
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s", self._tally.of_round(event))

    def recovery(self, event: Recovery) -> None:
        """Something was lost and replaced."""
        logger.warning("%s (%.1f s after the fit began)", event.what, event.seconds)

    def epoch(self, event: EpochEnd) -> None:
        """An epoch is over."""
        if self._tally is None:
            return
        self._tally.end_epoch(event)
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s", self._tally.of_epoch(event))

    def epochs(self, event: EpochsEnd) -> None:
        """Several epochs of data in memory are over."""
        if self._tally is None:
            return
        self._tally.rows += event.rows * len(event.loss)
        self._tally.loss = float(event.loss[-1]) * self._tally.info.loss_scale
        if logger.isEnabledFor(logging.DEBUG):
            last = event.first + len(event.loss) - 1
            logger.debug("epochs %d to %d: loss %.6g", event.first, last, self._tally.loss)

    def end(self, event: FitEnd) -> None:
        """The fit is over. A failure is raised as well: here it is only noted."""
        tally, self._tally = self._tally, None
        if tally is not None and logger.isEnabledFor(logging.INFO):
            logger.info("%s: %s", tally.info.estimator, tally.ending(event))
