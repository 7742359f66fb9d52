"""A place for the last checkpoints of a fit: a directory, or a URL that fsspec knows."""

from __future__ import annotations

import logging
import os
import re
import uuid
from contextlib import suppress
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from daskdml.checkpoint._errors import CheckpointError
from daskdml.checkpoint._payload import read_payload, write_payload

logger = logging.getLogger("daskdml")

_NAME = re.compile(r"checkpoint-(\d{8,})\.ckpt")
_TEMPORARY = ".checkpoint-"


class CheckpointStore:
    """The last checkpoints of one fit, in a place of their own.

    A checkpoint is one file with a checksum, under a number that goes up and is used once. In a local directory
    it is written beside its place, flushed to the disk and renamed into it; elsewhere it is written as a new object,
    for few object stores can rename. Older ones go only when the new one is there. So whenever the writer is killed,
    the checkpoint before is whole, and :meth:`latest` finds it: what was cut short fails its checksum. One fit at
    a time may write to a place.

    Parameters
    ----------
    url : path or str
        A local directory, made by the first :meth:`save`, or a URL such as ``"s3://bucket/run-1"`` (with the
        fsspec package of its protocol installed).
    keep : int, default 2
        How many checkpoints stay.

    Raises
    ------
    ValueError
        For a protocol that fsspec does not know.

    Examples
    --------
    >>> import numpy as np
    >>> from daskdml.checkpoint import CheckpointStore
    >>> store = CheckpointStore("memory://example")
    >>> store.save({"epoch": 3, "weights": np.arange(3.0)})
    >>> store.latest()
    {'epoch': 3, 'weights': array([0., 1., 2.])}
    >>> store.clear()
    """

    def __init__(self, url: str | os.PathLike, keep: int = 2):
        if keep < 1:
            raise ValueError(f"keep must be at least 1 checkpoint, got {keep}")
        self.url = os.fspath(url)
        self.keep = keep
        try:
            self._fs, self._folder = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise ValueError(f"the checkpoint url {self.url!r} cannot be used here: {error}") from None
        self._local = isinstance(self._fs, LocalFileSystem)
        # Files that do not count among those to keep: damaged, or of a fit that is over.
        self._worthless: set[str] = set()

    def prepare(self) -> None:
        """Make the place, and raise OSError where nothing can be written to it: better before the work than after."""
        self._fs.makedirs(self._folder, exist_ok=True)
        if self._local and not os.access(self._folder, os.W_OK):
            raise PermissionError(f"the checkpoint directory {self.url} may not be written to by you; choose another")

    def begin(self) -> None:
        """Say that a new fit writes from here on: what is there stays until its first save, and goes then."""
        self._worthless = set(self._names())

    def save(self, payload: Any) -> None:
        """Write a checkpoint, then remove those that are not to be kept.

        Parameters
        ----------
        payload : dict
            Of NumPy arrays, numbers, strings, None, and dicts, lists and tuples of them.

        Raises
        ------
        TypeError
            For a payload with anything else in it.
        OSError
            Where it cannot be written; the one before is still there.
        """
        names = self._names()
        name = f"checkpoint-{1 + max(map(_number, names), default=0):08d}.ckpt"
        self._fs.makedirs(self._folder, exist_ok=True)
        if self._local:
            self._write_beside(name, payload)
        else:
            self._write_object(name, payload)
        good = [other for other in names if other not in self._worthless]
        for old in {*good[self.keep - 1 :], *self._worthless}:
            self._remove(self._path(old))
        self._worthless = set()

    def latest(self) -> Any | None:
        """The newest checkpoint that is whole; None where there is none at all.

        One that is damaged is passed over with a warning in the log.

        Raises
        ------
        CheckpointError
            Where there are checkpoints and every one is damaged.
        """
        names = self._names()
        for name in names:
            try:
                with self._fs.open(self._path(name), "rb") as file:
                    return read_payload(file)
            except FileNotFoundError:
                continue
            except CheckpointError as error:
                self._worthless.add(name)
                logger.warning("the checkpoint %s in %s is damaged: %s", name, self.url, error)
        if self._worthless.issuperset(names) and names:
            raise CheckpointError(
                f"none of the {len(names)} checkpoints in {self.url} can be read; empty it to begin anew"
            )
        return None

    def clear(self) -> None:
        """Remove every checkpoint; the place itself stays."""
        for name in self._names():
            self._remove(self._path(name))
        self._worthless = set()

    def __repr__(self) -> str:
        return f"CheckpointStore({self.url!r})"

    def _write_beside(self, name: str, payload: Any) -> None:
        # Those that a killed process left; one fit at a time writes here.
        for entry in os.scandir(self._folder):
            if entry.name.startswith(_TEMPORARY):
                self._remove(entry.path)
        temporary = self._path(f"{_TEMPORARY}{uuid.uuid4().hex}")
        try:
            with open(temporary, "wb") as file:
                write_payload(file, payload)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path(name))
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
        # The name, too, must outlive a loss of power, before older checkpoints go.
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _write_object(self, name: str, payload: Any) -> None:
        try:
            with self._fs.open(self._path(name), "wb") as file:
                write_payload(file, payload)
        except BaseException:
            # Closing the file may have made an object of what was written so far.
            with suppress(Exception):
                self._remove(self._path(name))
            raise

    def _names(self) -> list[str]:
        """The names of the checkpoints, newest first."""
        # Object stores list from a cache that another process's writes do not reach.
        self._fs.invalidate_cache(self._folder)
        try:
            paths = self._fs.ls(self._folder, detail=False)
        except FileNotFoundError:
            return []
        names = [path.rstrip("/").rsplit("/", 1)[-1] for path in paths]
        return sorted(filter(_NAME.fullmatch, names), key=_number, reverse=True)

    def _path(self, name: str) -> str:
        return f"{self._folder.rstrip('/')}/{name}"

    def _remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._fs.rm_file(path)


def _number(name: str) -> int:
    found = _NAME.fullmatch(name)
    assert found is not None
    return int(found[1])
