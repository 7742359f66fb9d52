"""Whole lines of a byte range of a text file, compressed or not."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO

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


def line_ranges(path: str, block_bytes: int, quoted: bool = False) -> list[LineRange]:
    """A file cut into ranges of at most about ``block_bytes``; a compressed one is unpacked once to be measured.

    Where ``quoted``, lines may go on within quotes, and the file is read once to cut it only where none are open.
    """
    compression = compression_of(path)
    size = os.path.getsize(path) if compression is None else _unpacked_size(path, compression)
    n = max(1, -(-size // block_bytes))
    cuts = [size * i // n for i in range(n + 1)]
    if quoted and n > 1:
        with open_text(path, compression) as file:
            cuts[1:-1] = record_ends(file, cuts[1:-1])
        cuts = sorted(set(cuts))
    return [LineRange(path, a, b, compression) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]


def record_ends(file: BinaryIO, targets: list[int]) -> list[int]:
    r"""For each of ``targets``, in rising order, the first end of a line at or after it where all quotes are closed.

    A doubled quote within quotes changes nothing, so it is enough to count. A single quote that opens nothing, as
    of 5" pipes, would make all that follows look quoted: where no end is found for long, the next line's is taken.

    Examples
    --------
    >>> import io
    >>> from daskdml.io._bytes import record_ends
    >>> record_ends(io.BytesIO(b'1,"a\nb"\n2,c\n'), [3])
    [8]
    """
    ends, at, is_open = [], 0, False
    for target in targets:
        while at < target and (chunk := file.read(min(target - at, _STEP))):
            is_open ^= bool(chunk.count(b'"') & 1)
            at += len(chunk)
        first = 0
        while at - target < _STEP and (line := file.readline()):
            at += len(line)
            is_open ^= bool(line.count(b'"') & 1)
            first = first or at
            if not is_open:
                break
        # The file is not gone back in: a later target before ``at`` is passed over by the same reading.
        ends.append(first if is_open and first else at)
        is_open = is_open and not first
    return ends


def whole_records(body: bytes) -> bytes:
    r"""``body`` up to the last end of a line where all quotes are closed; as it is where there is none.

    Examples
    --------
    >>> from daskdml.io._bytes import whole_records
    >>> whole_records(b'1,"a"\n2,"b\n')
    b'1,"a"\n'
    """
    at = end = quotes = 0
    for line in body.splitlines(keepends=True) if b'"' in body else ():
        at += len(line)
        quotes += line.count(b'"')
        end = end if quotes & 1 else at
    return body[:end] if end else body


def has_quotes(path: str, compression: str | None) -> bool:
    """Whether the beginning of a file, or of a plain one also the middle and the end, shows quotes."""
    with open_text(path, compression) as file:
        if b'"' in file.read(_STEP):
            return True
        size = os.path.getsize(path) if compression is None else 0
        for at in (size // 2, size - _STEP):
            if at > _STEP:
                file.seek(at)
                if b'"' in file.read(_STEP):
                    return True
    return False


def _unpacked_size(path: str, compression: str) -> int:
    size = 0
    with open_text(path, compression) as file:
        while chunk := file.read(_STEP):
            size += len(chunk)
    return size
