"""Chunks of Zarr arrays in files of this machine, decoded straight to where their rows stay.

zarr reads through an event loop and threads of its own, and hands each chunk on through several arrays. For files that
this machine reads itself that is dear: of a first epoch over 10 GB it took more than the decoding.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskdml.data._buffers import empty_rows

Decode = Callable[[Any, np.ndarray], Any]


@dataclass(frozen=True)
class _Layout:
    """Where the chunks of an array are, how large each one is, and what undoes their compression, if any."""

    folder: str
    chunk: tuple[int, ...]
    file: Callable[[tuple[int, ...]], str]
    decode: Decode | None


class Chunked:
    """A Zarr array for who takes slices of it, and nothing else: they are read by :func:`read_region`."""

    def __init__(self, array: Any):
        self.array = array
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, key: Any) -> Any:
        return read_region(self.array, key)


def is_stored(value: Any) -> bool:
    """Whether a value may be a Zarr array, as such or as xarray wraps one."""
    return type(value).__module__.partition(".")[0] in ("zarr", "xarray")


def chunked(value: Any) -> Any:
    """A value that :func:`is_stored`, or what reads slices of it faster."""
    array = _unwrapped(value)
    return value if array is None or _layout(array) is None else Chunked(array)


def read_region(array: Any, key: Any) -> np.ndarray:
    """``array[key]``, of a Zarr array; whatever is unusual is left to zarr.

    That is another store than a folder, chunks within chunks, filters, other compressors than Zstandard, Blosc and
    gzip, bytes in another order, steps, and chunks that are missing or cannot be read: zarr knows what stands for
    them, or what to say.

    Parameters
    ----------
    array : zarr.Array
    key : slice, or tuple of slices
        Of its first dimensions; anything else that it takes is zarr's.

    Returns
    -------
    ndarray

    Examples
    --------
    >>> import numpy as np, tempfile, zarr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     x = zarr.create_array(folder, shape=(6, 2), chunks=(4, 2), dtype="f4")
    ...     x[:] = np.arange(12).reshape(6, 2)
    ...     read_region(x, slice(3, 5))
    array([[6., 7.],
           [8., 9.]], dtype=float32)
    """
    layout, region = _layout(array), _region(key, array.shape)
    if layout is None or region is None:
        return array[key]
    try:
        return _read(layout, array.dtype, region)
    except Exception:
        # The second attempt gives zarr's own answer, or its error.
        return array[key]


def _read(layout: _Layout, dtype: np.dtype, region: Sequence[slice]) -> np.ndarray:
    shape = [s.stop - s.start for s in region]
    out = empty_rows(shape[0], shape[1], dtype) if len(shape) == 2 else np.empty(shape, dtype)
    grid = (range(s.start // c, -(-s.stop // c)) for s, c in zip(region, layout.chunk, strict=True))
    for place in itertools.product(*grid):
        parts = [_part(i, c, s) for i, c, s in zip(place, layout.chunk, region, strict=True)]
        within, to = tuple(p[0] for p in parts), out[tuple(p[1] for p in parts)]
        path = os.path.join(layout.folder, layout.file(place))
        if to.shape == layout.chunk and to.flags.c_contiguous:
            _decode_into(path, layout.decode, to)
        else:
            _decode_into(path, layout.decode, chunk := np.empty(layout.chunk, dtype))
            to[...] = chunk[within]
    return out


def _part(i: int, size: int, region: slice) -> tuple[slice, slice]:
    """Of the i-th chunk along a dimension, what of it is in the region; and where in the region that is."""
    start, stop = max(i * size, region.start), min((i + 1) * size, region.stop)
    return slice(start - i * size, stop - i * size), slice(start - region.start, stop - region.start)


def _decode_into(path: str, decode: Decode | None, out: np.ndarray) -> None:
    with open(path, "rb", buffering=0) as file:
        nbytes = os.fstat(file.fileno()).st_size
        if decode is None and nbytes != out.nbytes:
            raise ValueError(f"{path} has {nbytes} bytes, not {out.nbytes}")
        buffer = out.reshape(-1).view(np.uint8) if decode is None else np.empty(nbytes, np.uint8)
        view = buffer.data
        while view:
            got = file.readinto(view)
            if not got:
                raise EOFError(f"{path} has become shorter")
            view = view[got:]
    if decode is not None:
        decode(buffer, out)


def _region(key: Any, shape: tuple[int, ...]) -> list[slice] | None:
    """The rows, columns and so on that a key asks for, all of them given; None for any other kind of key."""
    parts = list(key) if isinstance(key, tuple) else [key]
    if len(parts) > len(shape) or not all(isinstance(p, slice) and p.step in (None, 1) for p in parts):
        return None
    parts += [slice(None)] * (len(shape) - len(parts))
    region = [slice(*p.indices(n)) for p, n in zip(parts, shape, strict=True)]
    return region if region and all(s.start < s.stop for s in region) else None


def _unwrapped(value: Any) -> Any:
    """The Zarr array that xarray shows as a whole and unchanged; the value where that is one; else None."""
    import zarr

    if type(value).__name__ == "ImplicitToExplicitIndexingAdapter":
        value = value.array
        if type(value).__name__ == "CopyOnWriteArray":
            value = value.array
        whole = type(value).__name__ == "LazilyIndexedArray" and all(k == slice(None) for k in value.key.tuple)
        value = getattr(value.array, "_array", None) if whole else None
    return value if isinstance(value, zarr.Array) else None


def _layout(array: Any) -> _Layout | None:
    try:
        folder, codec = _folder(array), _codec(array.metadata)
        plain = array.dtype.kind in "biuf" and array.dtype.isnative and sys.byteorder == "little"
        if folder is None or codec is None or not plain or getattr(array, "shards", None) is not None:
            return None
        return _Layout(folder, tuple(array.chunks), array.metadata.encode_chunk_key, codec[0])
    except (AttributeError, ImportError):
        # Of another version of zarr, which has other names for them.
        return None


def _folder(array: Any) -> str | None:
    """Where the chunks of an array lie, if that is a folder of this machine."""
    from fsspec.implementations.local import LocalFileSystem
    from zarr.storage import FsspecStore, LocalStore

    store = array.store
    if isinstance(store, LocalStore):
        root = str(store.root)
    elif isinstance(store, FsspecStore) and isinstance(getattr(store.fs, "sync_fs", store.fs), LocalFileSystem):
        root = store.path
    else:
        return None
    return os.path.join(root, array.store_path.path)


def _codec(metadata: Any) -> tuple[Decode | None] | None:
    """What decodes a chunk, in a tuple; (None,) where its bytes are its values, None where more is to be done."""
    if metadata.zarr_format == 2:
        if metadata.filters or metadata.order != "C":
            return None
        return _decoder(None if metadata.compressor is None else metadata.compressor.get_config())
    first, *others = metadata.codecs
    if type(first).__name__ != "BytesCodec" or len(others) > 1:
        return None
    if first.endian is not None and first.endian.value != "little":
        return None
    return _decoder({"id": others[0].to_dict()["name"]} if others else None)


def _decoder(config: dict[str, Any] | None) -> tuple[Decode | None] | None:
    """By what a compressor's configuration calls it. How it was compressed, the bytes say themselves."""
    if config is None:
        return (None,)
    decode = {"zstd": _zstandard, "blosc": _blosc, "gzip": _gzip}.get(config["id"])
    return None if decode is None else (decode,)


def _zstandard(buffer: np.ndarray, out: np.ndarray) -> None:
    from numcodecs import zstd

    _check(_zstandard_bytes(buffer[:18].tobytes()), out)
    zstd.decompress(buffer, out)


def _zstandard_bytes(header: bytes) -> int | None:
    """Bytes of the content of a frame, if its header says them (RFC 8878, section 3.1.1.1)."""
    if header[:4] != b"\x28\xb5\x2f\xfd":
        return None
    alone = header[4] >> 5 & 1
    size, more = ((1 if alone else 0, 0), (2, 256), (4, 0), (8, 0))[header[4] >> 6]
    start = 5 + (1 - alone) + (0, 1, 2, 4)[header[4] & 3]
    return int.from_bytes(header[start : start + size], "little") + more if size else None


def _blosc(buffer: np.ndarray, out: np.ndarray) -> None:
    from numcodecs import blosc

    # The second word of its header.
    _check(int.from_bytes(buffer[4:8].tobytes(), "little"), out)
    blosc.decompress(buffer, out)


def _gzip(buffer: np.ndarray, out: np.ndarray) -> None:
    import zlib

    content = np.frombuffer(zlib.decompress(buffer.data, zlib.MAX_WBITS | 16, out.nbytes), np.uint8)
    _check(len(content), out)
    out.reshape(-1).view(np.uint8)[:] = content


def _check(nbytes: int | None, out: np.ndarray) -> None:
    """Raise where a chunk holds less, or more, than it should: what decodes it would leave the rest as it was."""
    if nbytes != out.nbytes:
        raise ValueError(f"a chunk has {nbytes} bytes, not {out.nbytes}")
