"""Files written beside the training, which does not wait for the disk."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

# Seconds in which a write that is nearly done gets done: less than it takes to make a block that a thread writes.
_PATIENCE = 0.02

# Bytes made in a second by who does little more than copy them; and by how many one knows.
_COPIED, _KNOWN = 3e9, 2**26


@dataclass
class Pace:
    """How fast blocks of a data set can be made in this process.

    Beside training and writing it takes longer, so the fastest counts. Threads add to it without a lock: what gets lost
    is little.
    """

    nbytes: int = 0
    least: float = math.inf  # seconds for a byte

    def made(self, seconds: float, nbytes: int) -> None:
        if nbytes:
            self.nbytes += nbytes
            self.least = min(self.least, seconds / nbytes)

    def worth_a_file(self) -> bool:
        """Whether a block may come back from a file sooner than it is made again.

        Not where it is made about as fast as it could be copied from the system's memory, as rows of files are that
        hold them as they are.
        """
        return self.nbytes < _KNOWN or self.least * _COPIED > 1.0


@dataclass(frozen=True)
class Write:
    """What writes a block's file; and what is done instead where there is no time."""

    run: Callable[[], None]
    give_up: Callable[[], None]


class Writing:
    """Writes, one after another: one under way, one that waits.

    Where a further one comes, the one that waits is given up: its block is made again the next time, and kept then if
    the disk has caught up. To wait instead would leave the processors idle, and the disk has no less to do for it.

    Parameters
    ----------
    has_room : callable, optional
        Whether so many bytes more may exist in this process. Without room for another block beside those that are in
        use and being written, the write under way is waited for.
    """

    def __init__(self, has_room: Callable[[int], bool] | None = None) -> None:
        self._has_room = has_room
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._busy = False
        self._next: Write | None = None
        self._nbytes = 0
        self._late = False

    def begin(self, write: Write, nbytes: int) -> None:
        """Write beside what follows, or give up what waited until now."""
        given_up = None
        with self._changed:
            self._nbytes = nbytes
            if self._next is not None:
                self._changed.wait_for(lambda: self._next is None, _PATIENCE)
                given_up, self._next = self._next, None
                if given_up is not None:
                    self._late = True
            self._next = write
            if not self._busy:
                self._busy = True
                self._thread = threading.Thread(target=self._run, name="daskdml-write", daemon=True)
                self._thread.start()
        if given_up is not None:
            given_up.give_up()

    def _run(self) -> None:
        try:
            while (write := self._taken()) is not None:
                write.run()
                # Its block need not live until the next comes.
                del write
        except BaseException:
            # Whoever waits for what waited is not to wait for ever.
            with self._changed:
                given_up, self._next, self._busy = self._next, None, False
                self._changed.notify_all()
            if given_up is not None:
                given_up.give_up()
            raise

    def _taken(self) -> Write | None:
        with self._changed:
            write, self._next = self._next, None
            self._busy = write is not None
            self._changed.notify_all()
            return write

    def before_making(self) -> None:
        """Wait until there is room for one more block, of the size of the last."""
        with self._changed:
            if self._next is not None and self._has_room is not None and not self._has_room(self._nbytes):
                self._changed.wait_for(lambda: self._next is None)

    def end(self) -> None:
        """Wait for the write under way; and for the one that waits, unless the disk was too slow before."""
        with self._changed:
            self._changed.wait_for(lambda: self._next is None, _PATIENCE if self._late else None)
            given_up, self._next = self._next, None
            thread = self._thread
        if given_up is not None:
            given_up.give_up()
        if thread is not None:
            thread.join()
