"""Writing a file so that it is there whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from daskdml.io._errors import InputError


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[str]:
    """A temporary path beside ``path`` to write to; it takes the place of ``path`` if the body ends well.

    Otherwise it is removed. A full disk becomes one :class:`OSError` that says so. A link stays a link: the file
    it leads to is the one replaced.
    """
    check_writable(path)
    path = os.path.realpath(os.fspath(path))
    folder, name = os.path.split(path)
    root, suffix = os.path.splitext(name)
    handle, temporary = tempfile.mkstemp(suffix=suffix, prefix=f".{root}-", dir=folder)
    os.close(handle)
    try:
        yield temporary
        _flush(temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        # pyarrow, zipfile and numpy word it differently and some drop the number
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise OSError(
                errno.ENOSPC,
                f"the disk of {folder} is full: {path} was not written; free some space or write elsewhere",
            ) from error
        raise
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def check_writable(path: str | os.PathLike) -> None:
    """Raise :class:`InputError` where ``path`` cannot become a file: better before the work than after it."""
    path = os.path.realpath(os.fspath(path))
    folder = os.path.dirname(path)
    if os.path.isdir(path):
        raise InputError(f"{path} is a directory; give the name of a file")
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{path} is a device, pipe or socket and not a file to replace; give the name of a file")
    if not os.path.isdir(folder):
        raise InputError(f"there is no directory {folder} to write {os.path.basename(path)} to; make it first")
    if not os.access(folder, os.W_OK):
        raise InputError(f"the directory {folder} may not be written to by you; choose another place for the output")


def check_apart(path: str | os.PathLike, sources: Iterable[str]) -> None:
    """Raise :class:`InputError` where writing ``path`` would replace one of ``sources``, or something within one."""
    path = os.path.realpath(os.fspath(path))
    for source in sources:
        inside = os.path.isdir(source) and path.startswith(os.path.realpath(source) + os.sep)
        if inside or (os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source)):
            raise InputError(f"{path} is read from (as {source}), and the output would replace it; choose another name")


def _flush(path: str) -> None:
    # A full disk may show only here.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
