"""A curve in bounded memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class Series:
    """Points of a curve: when there are too many, every second one is dropped, and fewer are taken from then on.

    The first and the last are always there.

    Parameters
    ----------
    width : int
        Numbers in a point.
    most : int, default 512
        Points that are kept.

    Examples
    --------
    >>> from daskdml.monitor.dashboard import Series
    >>> curve = Series(width=1, most=4)
    >>> for value in range(10):
    ...     curve.add(value)
    >>> curve.columns()[0].tolist()
    [0.0, 4.0, 8.0, 9.0]
    """

    def __init__(self, width: int, most: int = 512) -> None:
        if most < 2:
            raise ValueError(f"most must be at least 2 points, got {most}")
        self.width = width
        self.most = most
        self._points: list[tuple[float, ...]] = []
        self._last: tuple[float, ...] | None = None
        self._stride = 1
        self._seen = 0

    def __len__(self) -> int:
        """Points so far, those that were dropped among them."""
        return self._seen

    def add(self, *values: float) -> None:
        """Take a point."""
        self._last = values
        if self._seen % self._stride == 0:
            self._points.append(values)
            if len(self._points) == self.most:
                del self._points[1::2]
                self._stride *= 2
        self._seen += 1

    @property
    def last(self) -> tuple[float, ...] | None:
        """The newest point."""
        return self._last

    def columns(self) -> list[npt.NDArray[np.float64]]:
        """The points, an array for each of their numbers."""
        points = list(self._points)
        if self._last is not None and (not points or points[-1] is not self._last):
            points.append(self._last)
        return list(np.array(points, dtype=np.float64).reshape(len(points), self.width).T)
