"""A payload as bytes, and back: JSON for what is small, arrays as they are, a checksum over all of it. No pickle.

A file is the mark, the length of the JSON, the JSON, the arrays one after another. After the JSON and at the end stands
the CRC-32 of all that is before: a file that was cut short or changed is known before anything in it is believed.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, BinaryIO

import numpy as np

from daskdml.checkpoint._errors import CheckpointError

_MARK = b"daskdml-checkpoint-1\n"
_LENGTH, _CHECK = struct.Struct("<Q"), struct.Struct("<I")
# Whose bytes are their values: no pointers to Python objects.
_KINDS = "biufcSU"
_SIMPLE = (str, int, float, bool, type(None))


def write_payload(file: BinaryIO, payload: Any) -> None:
    """Write nested dicts, lists and tuples of arrays, numbers, strings and None.

    Raises
    ------
    TypeError
        For anything else, naming its place.
    """
    arrays: list[np.ndarray] = []
    tree = json.dumps(_described(payload, arrays, "payload")).encode()
    check = 0
    for parts in ([_MARK, _LENGTH.pack(len(tree)), tree], map(_bytes_of, arrays)):
        for part in parts:
            check = zlib.crc32(part, check)
            file.write(part)
        file.write(_CHECK.pack(check))


def read_payload(file: BinaryIO) -> Any:
    """What :func:`write_payload` wrote; its arrays may be written to.

    Raises
    ------
    CheckpointError
        Where the file is cut short, changed, or something else.
    """
    reader = _Checked(file)
    if reader.take(len(_MARK)) != _MARK:
        raise CheckpointError("it does not begin as a checkpoint does")
    (length,) = _LENGTH.unpack(reader.take(_LENGTH.size))
    text = reader.take(length)
    reader.check()
    tree = json.loads(text)
    arrays = [np.empty(tuple(shape), dtype=dtype) for dtype, shape in tree["arrays"]]
    for array in arrays:
        # Into place, in pieces: the file's bytes are never in memory beside the arrays they become.
        reader.fill(_bytes_of(array))
    reader.check()
    if file.read(1):
        raise CheckpointError("something follows its end")
    return _rebuilt(tree["value"], arrays)


class _Checked:
    """Reads on, adding up the checksum."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._sum = 0

    def take(self, length: int) -> bytes:
        # A length that was damaged must not become an allocation: read what there is, in pieces.
        parts, left = [], length
        while left > 0:
            parts.append(self._read(min(left, 2**24)))
            left -= len(parts[-1])
        return b"".join(parts)

    def fill(self, place: memoryview) -> None:
        at = 0
        while at < len(place):
            part = self._read(min(len(place) - at, 2**24))
            place[at : at + len(part)] = part
            at += len(part)

    def check(self) -> None:
        if self._file.read(_CHECK.size) != _CHECK.pack(self._sum):
            raise CheckpointError("its checksum is wrong")

    def _read(self, length: int) -> bytes:
        part = self._file.read(length)
        if not part:
            raise CheckpointError("it was cut short")
        self._sum = zlib.crc32(part, self._sum)
        return part


def _described(payload: Any, arrays: list[np.ndarray], place: str) -> dict[str, Any]:
    value = _flat(payload, arrays, place)
    return {"value": value, "arrays": [(a.dtype.str, a.shape) for a in arrays]}


def _flat(value: Any, arrays: list[np.ndarray], place: str) -> Any:
    """``value`` as JSON; every container is a pair of its kind and its contents, so none is mistaken for another."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in _KINDS:
            raise TypeError(f"{place} is an array of {value.dtype}; a checkpoint holds numbers and text")
        arrays.append(np.require(value, requirements="C"))
        return ["array", len(arrays) - 1]
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"{place} has the key {odd[0]!r}; the keys of a checkpoint are text")
        return ["dict", {key: _flat(held, arrays, f"{place}[{key!r}]") for key, held in value.items()}]
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return [kind, [_flat(held, arrays, f"{place}[{i}]") for i, held in enumerate(value)]]
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, _SIMPLE):
        return value
    raise TypeError(f"{place} is a {type(value).__name__}; a checkpoint holds arrays, numbers, text, lists and dicts")


def _rebuilt(node: Any, arrays: list[np.ndarray]) -> Any:
    if not isinstance(node, list):
        return node
    kind, held = node
    if kind == "array":
        return arrays[held]
    if kind == "dict":
        return {key: _rebuilt(value, arrays) for key, value in held.items()}
    values = [_rebuilt(value, arrays) for value in held]
    return values if kind == "list" else tuple(values)


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data if array.nbytes else memoryview(b"")
