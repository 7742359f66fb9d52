"""The Dask actors of the parameter server: thin shells around a shard and around the ledger.

Their methods are coroutines on the worker's event loop, because all synchronous methods of a worker's actors share one
thread, where a wait would block the message that ends it. The decisions are those of :class:`Shard` and
:class:`Ledger`; what is added here is waiting, and the second copy of a shard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
from distributed import get_worker

from daskdml.server._parcels import Arrival, Path, messages
from daskdml.server._remote import Directory, Ref, Refused, Remote, Unreachable
from daskdml.server._shard import Applied, Push, Shard, View

# Updates above this many bytes are applied in a thread: the event loop serves the whole worker.
_LARGE = 2**22
# Seconds between tries to reach a second copy that does not answer, until the driver says what has become of it.
_PAUSE = 0.02


class ShardHost:
    """One copy of a shard: the primary, which serves it, or the backup, which repeats what the primary does.

    An update is acknowledged when both have it. A primary whose backup does not answer holds its acknowledgements back
    until the driver has decided who goes on, so that no acknowledged update is lost.
    """

    def __init__(self) -> None:
        self._shard: Shard | None = None
        self._arrival: Arrival | None = None
        self._primary = False
        self._number = -1
        self._backup: Ref | None = None
        self._remote: Remote | None = None
        self._directory: Directory | None = None
        self._order = asyncio.Lock()
        self._changed = asyncio.Condition()

    async def start(self, snapshot: Mapping[str, Any], primary: bool, number: int, pieces: int = 0) -> None:
        """Take a shard over as it is described, once ``pieces`` of it that are sent by themselves are here."""
        self._remote = Remote.here()
        self._shard, self._primary, self._number = None, primary, number
        self._arrival = await asyncio.to_thread(Arrival, snapshot, pieces)
        await self._unpack()

    async def piece(self, path: Path, at: int, values: np.ndarray) -> None:
        """Some of the entries of an array that belongs to the shard."""
        if self._arrival is not None:
            await asyncio.to_thread(self._arrival.add, path, at, values)
            await self._unpack()

    async def _unpack(self) -> None:
        if self._arrival is not None and self._arrival.complete:
            arrival, self._arrival = self._arrival, None
            # What came over a wire is ours alone; in one process it is the other copy's own arrays.
            copy = get_worker().address.startswith("inproc:")
            self._shard = await asyncio.to_thread(Shard.restore, arrival.snapshot, copy=copy)

    async def push(self, push: Push) -> Applied:
        """Apply an update on both copies; harmless when repeated."""
        async with self._order:
            shard = self._served()
            applied = await self._apply(shard, push)
            # A duplicate too: the backup counts who has brought what, as this copy does.
            if applied.status != "fenced":
                await self._forward(push)
        if applied.advanced or shard.staleness is None:
            async with self._changed:
                self._changed.notify_all()
        return applied

    async def _apply(self, shard: Shard, push: Push) -> Applied:
        if sum(update.nbytes for update in push.updates.values()) > _LARGE:
            return await asyncio.to_thread(shard.handle, push)
        return shard.handle(push)

    async def _forward(self, push: Push) -> None:
        assert self._remote is not None
        while (backup := self._backup) is not None:
            try:
                await self._remote.ask(backup, "replicate", self._number, push)
                return
            except Unreachable:
                await asyncio.sleep(_PAUSE)
            except Refused:
                # The backup serves the shard now: what it does not have must not be acknowledged here.
                self._primary = False
                raise

    async def replicate(self, number: int, push: Push) -> None:
        """Repeat what the primary did."""
        async with self._order:
            if self._primary or number < self._number or self._shard is None:
                raise Refused("this copy is not the backup of that primary any more")
            await self._apply(self._shard, push)

    async def promote(self, number: int) -> None:
        """Serve the shard from now on."""
        async with self._order:
            self._primary, self._number, self._backup = True, number, None

    async def demote(self) -> None:
        """Serve the shard no longer; who waits for something here is to ask elsewhere."""
        self._primary = False
        async with self._changed:
            self._changed.notify_all()

    async def drop_backup(self, number: int) -> None:
        """Go on without a second copy."""
        # Not under the lock: an update that waits for the lost backup holds it.
        self._number, self._backup = max(number, self._number), None

    async def add_backup(self, backup: Ref, number: int) -> None:
        """Bring a second copy up to date and keep it so."""
        assert self._remote is not None
        async with self._order:
            shard = self._served()
            for message in messages(shard, False, number):
                await self._remote.ask(backup, *message, timeout=120.0)
            if number < self._number:
                raise Refused("the driver has decided otherwise meanwhile")
            self._backup, self._number = backup, number

    async def pull(
        self, keys: Mapping[str, np.ndarray | None] | None = None, least: int | None = None, wait: float = 20.0
    ) -> View:
        """The values once the slowest lane has completed ``least`` clocks, or what there is after ``wait`` seconds."""
        shard = self._served()
        if least is not None and shard.clock.minimum < least:
            await self._until(lambda: shard.clock.minimum >= least or not self._primary, wait)
        async with self._order:
            shard = self._served()
            # Copies of much, or updates that wait to be applied.
            if shard.nbytes > _LARGE and keys is None:
                return await asyncio.to_thread(shard.view, keys, least)
            return shard.view(keys, least)

    async def changed(self, minimum: int, wait: float) -> View | None:
        """The values as soon as the slowest lane is past ``minimum``; None if it is not in ``wait`` seconds."""
        shard = self._served()
        if not await self._until(lambda: shard.clock.minimum > minimum or not self._primary, wait):
            return None
        return await self.pull()

    async def _until(self, condition: Any, wait: float) -> bool:
        try:
            async with asyncio.timeout(wait), self._changed:
                await self._changed.wait_for(condition)
        except TimeoutError:
            return False
        return True

    def _served(self) -> Shard:
        if not self._primary or self._shard is None:
            raise Refused("this copy does not serve the shard: ask for the present directory")
        return self._shard

    async def clock(self) -> dict[str, Any]:
        """The vector clock."""
        return self._served().clock.to_dict()

    async def snapshot(self) -> dict[str, Any]:
        """All there is to know of the shard."""
        async with self._order:
            return self._served().snapshot()

    async def nbytes(self) -> int:
        """Bytes of values and optimizer state."""
        return 0 if self._shard is None else self._shard.nbytes

    async def directory(self) -> Directory | None:
        """Who serves what, as the driver last said."""
        return self._directory

    async def set_directory(self, directory: Directory) -> None:
        """Hear from the driver who serves what."""
        if self._directory is None or directory.number > self._directory.number:
            self._directory = directory
