"""A fit and its checkpoints: when to save, whether what was saved is of this fit, where to go on."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from daskdml.checkpoint import Cadence, CheckpointError, CheckpointStore
from daskdml.monitor import History
from daskdml.strategies._plan import Holdout

logger = logging.getLogger("daskdml")

_LONGEST = 120


@dataclass(frozen=True, eq=False)
class FitStart:
    """What a fit decides at its start and keeps when it is resumed, whatever cluster there is then."""

    n_replicas: int
    seed: int
    holdout: Holdout | None
    in_process: bool

    def to_payload(self) -> dict[str, Any]:
        """As a checkpoint holds it."""
        held = self.holdout
        kept = None if held is None else {"fraction": held.fraction, "seed": held.seed, "mask": held.mask}
        return {"n_replicas": self.n_replicas, "seed": self.seed, "in_process": self.in_process, "holdout": kept}

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> FitStart:
        """What :meth:`to_payload` gave."""
        held = payload["holdout"]
        return cls(**{**payload, "holdout": None if held is None else Holdout(**held)})


class Checkpoint:
    """The checkpoints of one fit, made by :meth:`open`.

    A runner calls :meth:`tick` after each round; where that makes it :attr:`due`, it calls :meth:`save` with its
    progress: arrays, numbers and text from which it can go on. ``progress`` is that of the fit to be resumed.

    Attributes
    ----------
    start : FitStart or None
        What the fit to be resumed began with; None where a fit begins.
    progress : dict or None
        How far it had come.
    history : dict or None
        What :class:`daskdml.monitor.History` held of it.
    """

    def __init__(self, store: CheckpointStore, cadence: Cadence, found: Mapping[str, Any] | None = None):
        self.store = store
        self.cadence = cadence
        self.start = None if found is None else FitStart.of(found["start"])
        self.progress: Any = None if found is None else found["progress"]
        self.history: dict[str, Any] | None = None if found is None else found["history"]
        self._identity: Mapping[str, str] = {} if found is None else found["identity"]
        self._listener: History | None = None
        self._kept: tuple[Mapping[str, Any], int] | None = None
        self._saved = False
        self._rounds = 0
        self._since = time.monotonic()

    @classmethod
    def open(cls, url: str | os.PathLike, every: Any, resume: bool) -> Checkpoint:
        """The place of a fit's checkpoints, with the newest one there if the fit is to be resumed.

        Raises
        ------
        CheckpointError
            Where there are checkpoints to resume and none of them can be read.
        OSError
            Where nothing can be written.
        """
        store, cadence = CheckpointStore(url), Cadence.of(every)
        store.prepare()
        if not resume:
            store.begin()
            return cls(store, cadence)
        found = store.latest()
        if found is None:
            logger.warning("there is no checkpoint in %s to resume: the fit starts from the beginning", url)
        return cls(store, cadence, found)

    def claim(self, identity: Mapping[str, Any], start: FitStart, history: History) -> None:
        """Say which fit this is: what is to be equal in two fits for one to go on from the other.

        Raises
        ------
        CheckpointError
            Where what was found is of another fit, naming the difference.
        """
        mine = {name: _short(value) for name, value in identity.items()}
        if self.progress is not None and mine != self._identity:
            names = [*mine, *(name for name in self._identity if name not in mine)]
            nothing = "not there"
            differences = [
                f"{name} was {self._identity.get(name, nothing)} and is {mine.get(name, nothing)}"
                for name in names
                if mine.get(name) != self._identity.get(name)
            ]
            raise CheckpointError(
                f"the checkpoint in {self.store.url} is of another fit: {'; '.join(differences)}. Resume it with its "
                "own parameters and data, or fit without resume to begin anew"
            )
        self.start, self._identity, self._listener = start, mine, history
        self._since = time.monotonic()

    def tick(self) -> None:
        """A round is over."""
        self._rounds += 1

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return self._rounds > 0 and self.cadence.due(self._rounds, time.monotonic() - self._since)

    def save(self, progress: Mapping[str, Any], finished: str | None = None) -> None:
        """Write a checkpoint; one that cannot be written is a warning in the log, and the fit goes on.

        Parameters
        ----------
        progress : dict
            All that is needed to go on: see :meth:`daskdml.checkpoint.CheckpointStore.save` for what it may hold.
        finished : str, optional
            Why the fit is over, where it is.
        """
        self._write(progress, None, finished)

    def keep(self, progress: Mapping[str, Any]) -> None:
        """Hold on to what may be saved later, should the fit not get so far: see :meth:`save_kept`.

        Its arrays must not be changed afterwards.
        """
        assert self._listener is not None
        self._kept = progress, self._listener.n_rounds

    def save_kept(self) -> None:
        """A fit ends before its time: write what was kept since the last save, if anything was."""
        if self._kept is not None:
            self._write(*self._kept)
            logger.warning("the fit was broken off: what it had reached at its last epoch is in %s", self.store.url)

    def _write(self, progress: Mapping[str, Any], rounds: int | None, finished: str | None = None) -> None:
        assert self.start is not None and self._listener is not None
        payload = {
            "identity": dict(self._identity),
            "start": self.start.to_payload(),
            "progress": dict(progress),
            "history": self._listener.to_columns(rounds),
            "finished": finished,
        }
        try:
            self.store.save(payload)
            self._saved = True
        except TypeError:
            raise
        except Exception as error:
            # Each file system has errors of its own. Hours of training are worth more than one checkpoint.
            logger.warning("no checkpoint could be written to %s (%r): the fit goes on", self.store.url, error)
        self._kept = None
        self._rounds, self._since = 0, time.monotonic()

    @property
    def has_something(self) -> bool:
        """Whether there is, or will be, something in the store to go on from."""
        return self._saved or self._kept is not None or self.progress is not None

    @property
    def fresh(self) -> bool:
        """Whether nothing was trained since the last save, or since what was found."""
        return self._rounds == 0


def already_further(checkpoint: Checkpoint, epoch: int, max_epochs: int) -> CheckpointError:
    """The error of a fit that is to end before it was saved."""
    return CheckpointError(
        f"the checkpoint in {checkpoint.store.url} is in epoch {epoch} already and max_iter={max_epochs}: raise "
        "max_iter, or fit without resume to begin anew"
    )


def of_other_rows(checkpoint: Checkpoint, before: int | None, now: int) -> CheckpointError:
    """The error of a fit that goes on with other data, noticed when they had been read."""
    return CheckpointError(
        f"the checkpoint in {checkpoint.store.url} is of another fit: it had {before} rows to train on, and these "
        f"data have {now}. Resume it with its own data, or fit without resume to begin anew"
    )


def _short(value: Any) -> str:
    """A value as it is compared, and shown: long ones by their beginning and a digest."""
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters, {crc32(text.encode()):x})"
