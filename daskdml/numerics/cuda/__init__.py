"""Training on a GPU: what :mod:`daskdml.numerics` does in minibatches, as kernels compiled by numba-cuda.

Imported only where a GPU is asked for: numba's CUDA part, and the driver, are looked for when this is.
"""

from daskdml.numerics.cuda._card import Card
from daskdml.numerics.cuda._layout import Threads
from daskdml.numerics.cuda._move import Mover

__all__ = ["Card", "Mover", "Threads"]
