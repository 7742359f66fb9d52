"""Blocks as raw files: written whole or not at all, read back into reused buffers."""

from __future__ import annotations

import contextlib
import os
import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from daskdml.data._block import Block
from daskdml.data._buffers import ALIGN, Buffers


class ShortFile(OSError):
    """A cached file ends before its block does."""


@dataclass(frozen=True)
class Stored:
    """Where the arrays of a block lie in its file; ``csr`` holds the class and shape of a sparse X."""

    path: str
    nbytes: int
    layout: tuple[tuple[int, np.dtype, tuple[int, ...]] | None, ...]
    csr: tuple[type, tuple[int, int]] | None


def write(directory: str, block: Block) -> Stored:
    """Write a block's arrays to a new file in ``directory``; on any error nothing is left there."""
    arrays, csr = _arrays(block)
    layout: list[tuple[int, np.dtype, tuple[int, ...]] | None] = []
    offset = 0
    for array in arrays:
        if array is None:
            layout.append(None)
            continue
        layout.append((offset, array.dtype, array.shape))
        offset += -(-array.nbytes // ALIGN) * ALIGN
    path = os.path.join(directory, f"{block.index}-{uuid.uuid4().hex}.block")
    try:
        with open(path + ".part", "wb", buffering=0) as file:
            for array, at in zip(arrays, layout, strict=True):
                if array is not None and at is not None and array.nbytes:
                    file.seek(at[0])
                    _write_all(file, np.ascontiguousarray(array).data.cast("B"))
            file.truncate(offset)
        os.replace(path + ".part", path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + ".part")
        raise
    return Stored(path, offset, tuple(layout), csr)


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
