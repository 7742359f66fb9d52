"""Blocks as raw files: written whole or not at all, read back into reused buffers.

They can be written straight to the disk. Through the system's memory for files every byte is copied by the processor
into a page that has to be found first, 0.4 to 1.2 seconds for each GB, while blocks are being made; and more than the
system is ready to owe the disk waits for the disk in the end. Reading them back goes through that memory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from daskdml.data._block import Block
from daskdml.data._buffers import ALIGN, PAGE, Buffers

# How much goes straight to the disk at once of what does not lie as the disk wants it: from a page's start on.
_PIECE = 2 * 2**20


class ShortFile(OSError):
    """A cached file ends before its block does."""


@dataclass(frozen=True)
class Stored:
    """Where the arrays of a block lie in its file; ``csr`` holds the class and shape of a sparse X."""

    path: str
    nbytes: int
    layout: tuple[tuple[int, np.dtype, tuple[int, ...]] | None, ...]
    csr: tuple[type, tuple[int, int]] | None


def write(directory: str, block: Block, straight: bool = False) -> Stored:
    """Write a block's arrays to a new file in ``directory``; on any error nothing is left there.

    With ``straight`` not by way of the system's memory for files, if the file system can do that.
    """
    arrays, csr = _arrays(block)
    layout: list[tuple[int, np.dtype, tuple[int, ...]] | None] = []
    offset = 0
    for array in arrays:
        if array is None:
            layout.append(None)
            continue
        layout.append((offset, array.dtype, array.shape))
        offset += _padded(array.nbytes)
    path = os.path.join(directory, f"{block.index}-{uuid.uuid4().hex}.block")
    views = [np.ascontiguousarray(a).data.cast("B") for a in arrays if a is not None and a.nbytes]
    try:
        if not (straight and _write_straight(path + ".part", views, offset)):
            _write_through(path + ".part", views, offset)
        os.replace(path + ".part", path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + ".part")
        raise
    return Stored(path, offset, tuple(layout), csr)


def _padded(nbytes: int) -> int:
    return -(-nbytes // ALIGN) * ALIGN


def _write_through(path: str, views: list[memoryview], nbytes: int) -> None:
    with open(path, "wb", buffering=0) as file:
        at = 0
        for view in views:
            file.seek(at)
            at += _padded(len(view))
            _write_all(file, view)
        file.truncate(nbytes)


def _write_straight(path: str, views: list[memoryview], nbytes: int) -> bool:
    """The same past the system's memory for files; False where the system or the file system cannot."""
    flag = getattr(os, "O_DIRECT", 0)
    if not flag:
        return False
    piece = Buffers().take(_PIECE)[:_PIECE]
    try:
        with open(path, "wb", buffering=0, opener=lambda name, flags: os.open(name, flags | flag, 0o666)) as file:
            whole = _in_place(views)
            if whole:
                _write_all(file, views[0][:whole])
                views = [views[0][whole:], *views[1:]]
            for filled in _pieces(views, piece):
                _write_all(file, piece[: -(-filled // PAGE) * PAGE].data)
            file.truncate(nbytes)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOTSUP):
            return False
        raise
    return True


def _in_place(views: list[memoryview]) -> int:
    """Bytes of the first array, whole pages, that the disk takes from where they are."""
    if not views or np.frombuffer(views[0], np.uint8).ctypes.data % PAGE:
        return 0
    return len(views[0]) // PAGE * PAGE


def _pieces(views: list[memoryview], piece: np.ndarray) -> Iterator[int]:
    """Fill ``piece`` with the arrays and what lies between them, again and again; yields how many bytes it holds."""
    filled = 0
    for view in views:
        gap = np.zeros(_padded(len(view)) - len(view), np.uint8)
        for part in (np.frombuffer(view, np.uint8), gap):
            while len(part):
                n = min(len(part), len(piece) - filled)
                piece[filled : filled + n] = part[:n]
                part, filled = part[n:], filled + n
                if filled == len(piece):
                    yield filled
                    filled = 0
    if filled:
        yield filled


def _write_all(file: Any, view: memoryview) -> None:
    while view:
        view = view[file.write(view) :]


def _arrays(block: Block) -> tuple[list[np.ndarray | None], tuple[type, tuple[int, int]] | None]:
    X = block.X
    if sp.issparse(X):
        return [X.data, X.indices, X.indptr, block.y, block.sample_weight], (type(X), X.shape)
    return [X, block.y, block.sample_weight], None


def read(index: int, stored: Stored, buffers: Buffers) -> Block:
    """Read a block back: one sequential read. Mapping the file would count as memory of the worker."""
    buffer = buffers.take(stored.nbytes)
    view, done = buffer.data[: stored.nbytes], 0
    with open(stored.path, "rb", buffering=0) as file:
        while done < stored.nbytes:
            got = file.readinto(view[done:])
            if not got:
                raise ShortFile(f"{stored.path} has {done} bytes, not {stored.nbytes}")
            done += got
    arrays = [None if at is None else _view(buffer, *at) for at in stored.layout]
    if stored.csr is None:
        return Block(index, *arrays)
    kind, shape = stored.csr
    X = kind((arrays[0], arrays[1], arrays[2]), shape=shape, copy=False)
    X.has_canonical_format = True
    return Block(index, X, arrays[3], arrays[4])


def _view(buffer: np.ndarray, offset: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(shape, dtype=np.int64))
    return buffer[offset : offset + count * dtype.itemsize].view(dtype).reshape(shape)
