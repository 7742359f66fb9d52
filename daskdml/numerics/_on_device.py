"""Rows that lie on a GPU. Needs none to be imported: what they are is known where no card is."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import count
from typing import Any

from daskdml.numerics._rows import CsrRows, DenseRows


@dataclass(frozen=True, eq=False)
class DeviceBlock:
    """A block of rows in device memory, as :class:`daskdml.data.Block` is one of the host.

    Attributes
    ----------
    index : int
    rows : DenseRows or CsrRows
        Of device arrays.
    y, sample_weight : device arrays
        ``sample_weight`` has length 0 where every row weighs 1.
    shape : tuple of int
        Of X.
    largest : float
        The largest absolute value of sparse rows; 0 for dense ones.
    card : Card
        Where it lies.
    serial : int
        Tells blocks of this process apart, also those of one index.
    """

    index: int
    rows: DenseRows | CsrRows
    y: Any
    sample_weight: Any
    shape: tuple[int, int]
    largest: float
    card: Any
    serial: int = field(default_factory=count().__next__)

    @property
    def n_rows(self) -> int:
        return self.shape[0]

    @property
    def sparse(self) -> bool:
        """Whether the rows are CSR."""
        return isinstance(self.rows, CsrRows)

    @cached_property
    def flat(self) -> Any:
        """The entries of dense rows, one row after the other, as one array."""
        return self.rows[0].ravel()

    @property
    def nbytes(self) -> int:
        return sum(int(array.nbytes) for array in (*self.rows, self.y, self.sample_weight))


# A cache alone would let two threads that ask at once have a card each, whose kernels do not wait for one another.
_finding = threading.Lock()


def _found() -> tuple[Any, str]:
    """The card of this process and "", or None and the reason."""
    with _finding:
        return _looked_for()


@cache
def _looked_for() -> tuple[Any, str]:
    # numba's own part for CUDA is enough for its simulator, which the tests of this package run kernels in.
    try:
        from numba import cuda
    except ImportError as error:
        return None, f"numba has no CUDA part ({error})"
    if not cuda.is_available():
        return None, "numba finds no CUDA driver or no card: is numba-cuda installed, the extra 'gpu'?"
    try:
        from daskdml.numerics.cuda import Card

        return Card(), ""
    except Exception as error:
        return None, f"the card cannot be used ({error})"


def card() -> Any:
    """The GPU of this process, or None where it has none that can be used."""
    return _found()[0]


def why_no_card() -> str:
    """Why :func:`card` is None."""
    return _found()[1]
