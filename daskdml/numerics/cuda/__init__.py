"""Training on a GPU: what :mod:`daskdml.numerics` does in minibatches, as kernels compiled by numba-cuda.

Imported only where a GPU is asked for: numba's CUDA part, and the driver, are looked for when this is.
"""

from daskdml.numerics.cuda._card import Card, page_locked_copy
from daskdml.numerics.cuda._layout import Threads
from daskdml.numerics.cuda._move import Mover, PageLocked, is_page_locked

__all__ = ["Card", "Mover", "PageLocked", "Threads", "is_page_locked", "page_locked_copy"]
