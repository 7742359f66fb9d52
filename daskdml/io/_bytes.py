"""Whole lines of a byte range of a text file, compressed or not."""

from __future__ import annotations

import os
from dataclasses import dataclass

from daskdml.io._paths import compression_of, open_text

_STEP = 1 << 20


@dataclass(frozen=True)
class LineRange:
    """The lines of a file that begin in ``start <= byte < stop``; bytes are counted uncompressed.

    A compressed file cannot be entered in the middle: the bytes before ``start`` are unpacked and dropped, so
    that memory stays that of one range whatever the size of the file.
    """

    path: str
    start: int
    stop: int
    compression: str | None = None

    def read(self) -> bytes:
        with open_text(self.path, self.compression) as file:
            # From the byte before: where that is a line's end, the first line of the range is whole.
            begin = max(self.start - 1, 0)
            _skip(file, begin, self.compression)
            if self.start:
                begin += len(file.readline())
            if begin >= self.stop:
                return b""
            body = file.read(self.stop - begin)
            return body if body.endswith(b"\n") else body + file.readline()

    def first_line_number(self) -> int:
        """The number, from 1, of the first line of the range in its file. Reads the file up to there."""
        if not self.start:
            return 1
        with open_text(self.path, self.compression) as file:
            number, left = 1, self.start - 1
            while left and (chunk := file.read(min(left, _STEP))):
                number += chunk.count(b"\n")
                left -= len(chunk)
        return number + 1


def _skip(file, n: int, compression: str | None) -> None:  # noqa: ANN001
    if compression is None:
        file.seek(n)
        return
    while n and (chunk := file.read(min(n, _STEP))):
        n -= len(chunk)


def line_ranges(path: str, block_bytes: int) -> list[LineRange]:
    """A file cut into ranges of at most about ``block_bytes``; a compressed one is unpacked once to be measured."""
    compression = compression_of(path)
    size = os.path.getsize(path) if compression is None else _unpacked_size(path, compression)
    n = max(1, -(-size // block_bytes))
    cuts = [size * i // n for i in range(n + 1)]
    return [LineRange(path, a, b, compression) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]


def _unpacked_size(path: str, compression: str) -> int:
    size = 0
    with open_text(path, compression) as file:
        while chunk := file.read(_STEP):
            size += len(chunk)
    return size
