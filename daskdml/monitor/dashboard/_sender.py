"""The events of one fit on their way to the scheduler: gathered, and sent from the client's own thread now and then."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import deque
from typing import Any
from weakref import WeakSet

from distributed import Client
from distributed.comm.core import CommClosedError

from daskdml.monitor._events import FitInfo
from daskdml.monitor.dashboard._messages import FORMAT, described, packed
from daskdml.monitor.dashboard._plugin import DashboardPlugin

logger = logging.getLogger("daskdml")

# Events in one message: the scheduler has other things to do in between.
_AT_ONCE = 500
# Seconds in which a scheduler that answers nothing is given up.
_PATIENCE = 60.0
# Clients whose scheduler cannot show fits, which was said once.
_refused: WeakSet[Client] = WeakSet()


class Sender:
    """Sends what it is given, and keeps nobody waiting.

    Parameters
    ----------
    client : distributed.Client
    info : FitInfo
    every : float
        Seconds between messages.
    waiting : int
        Events that wait for a message; where there are more, the oldest are dropped, and counted.
    """

    def __init__(self, client: Client, info: FitInfo, every: float, waiting: int) -> None:
        self.client = client
        self.every = every
        self.totals: dict[str, float] = {"rows": 0, "rounds": 0, "bytes": 0, "recoveries": 0}
        self.dropped = 0
        self._header = {"format": FORMAT, "fit": uuid.uuid4().hex[:12], "client": client.id, "facts": described(info)}
        self._events: deque[tuple[str, float, Any]] = deque(maxlen=waiting)
        self._over: dict[str, Any] = {}
        self._hurry: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._began = time.perf_counter()
        self._silent = client in _refused
        self._in_loop(self._begin)

    def take(self, kind: str, event: Any) -> None:
        """Send an event before long."""
        if self._silent:
            return
        if len(self._events) == self._events.maxlen:
            self.dropped += 1
        self._events.append((kind, time.perf_counter() - self._began, event))

    def end(self, reason: str, error: str | None) -> None:
        """Send what is left, and that it was all."""
        self._over = {"end": reason, "error": error}
        self._in_loop(self._finish)

    def _in_loop(self, function: Any) -> None:
        if self._silent:
            return
        loop = self.client.loop
        try:
            if loop is not None:
                loop.add_callback(function)
        except RuntimeError:
            # The client is closed: nobody is there to be told.
            self._silent = True

    # -- in the client's thread -----------------------------------------------------------------------

    def _begin(self) -> None:
        self._hurry = asyncio.Event()
        # Held here: a task that nobody holds may be collected while it runs.
        self._task = asyncio.ensure_future(self._send())

    def _finish(self) -> None:
        if self._hurry is not None:
            self._hurry.set()

    async def _send(self) -> None:
        """Send until there is nothing left of the fit."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await self.client.register_plugin(DashboardPlugin())
            while not await self._send_some():
                await self._pause()
        except (OSError, CommClosedError, TimeoutError):
            # The scheduler is gone, or too busy: should that matter, the fit will say so itself.
            logger.debug("the scheduler is told no more of this fit", exc_info=True)
        except Exception as error:
            self._refuse(error)
        finally:
            self._silent = True
            self._events.clear()
            self._task = None

    async def _pause(self) -> None:
        assert self._hurry is not None
        try:
            async with asyncio.timeout(self.every):
                await self._hurry.wait()
        except TimeoutError:
            return

    async def _send_some(self) -> bool:
        """Send what waits; whether that was all."""
        while True:
            over, taken = self._over, [self._events.popleft() for _ in range(min(len(self._events), _AT_ONCE))]
            last = bool(over) and not self._events
            message = self._header | {
                "at": time.perf_counter() - self._began,
                "totals": dict(self.totals),
                "dropped": self.dropped,
                "events": [packed(*line) for line in taken],
            }
            scheduler: Any = self.client.scheduler
            async with asyncio.timeout(_PATIENCE):
                await scheduler.daskdml_fit(message=message | (over if last else {}))
            if last or not self._events:
                return last

    def _refuse(self, error: Exception) -> None:
        if self.client in _refused:
            return
        _refused.add(self.client)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        address = getattr(self.client.scheduler, "address", "an unknown address")
        logger.warning(
            "the scheduler at %s cannot show this fit on its dashboard (%s): training goes on without. It needs the "
            "same daskdml as here; the Dask setting daskdml.dashboard: False keeps this line away",
            address,
            reason,
        )
