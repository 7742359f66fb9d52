"""How the functions that kernels are made of are compiled.

What a first fit waits for is mostly not LLVM but numba's own work for each function: typing it, and wrapping it for
Python and for C. Only the kernels themselves are called from compiled code or Python, so only they are wrapped.

A call hands every array over as a dozen numbers through memory, which takes as long as the dot product of a hundred
features. So the parts of a row's work that every row needs are put in where they stand; the others are left to LLVM,
which takes a second longer over a kernel with all of them put in.
"""

from __future__ import annotations

import gc
import hashlib
import threading
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from numba import njit, typeof

from daskdml.numerics._kept import KeptKernel

# A part of kernels, for compiled code only.
part = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
_INNER = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": True}
inner_part = njit(nogil=True, error_model="numpy", **_INNER)
# Its products are added without being rounded before, where the processor can.
fused_part = njit(nogil=True, error_model="numpy", fastmath={"contract"}, **_INNER)

_kernel = partial(njit, cache=True, nogil=True, error_model="numpy", no_cfunc_wrapper=True)


def kernel(function: Callable[..., Any]) -> Any:
    """Compile what Python calls: once for each kind of arguments, kept on disk, run without Python's global lock.

    Parameters
    ----------
    function : callable
        Of a file, in Python that numba compiles.

    Returns
    -------
    numba.core.registry.CPUDispatcher
        Called like ``function``.

    Examples
    --------
    The loss of a row is computed by one:

    >>> from daskdml.numerics import LOSSES, loss_and_gradient
    >>> loss_and_gradient(LOSSES["hinge"].number, 1.0, 0.5, 0.1)
    (0.5, -1.0)
    """
    return kept(function)


def kept(function: Callable[..., Any], **options: Any) -> Any:
    """Compiled as `kernel` says, with more options of numba's."""
    compiled = _kernel(**options)(function)
    compiled.compile = partial(_compile, compiled.compile)
    # Numba asks only whether the file of the kernel itself has changed. Its parts come from other files: after an
    # upgrade that touches those alone, the machine code of the old version would go on running.
    file = getattr(compiled._cache, "_cache_file", None)
    if file is not None:
        compiled._cache._cache_file = KeptKernel.of(file, _sources())
    return compiled


def at_hand(compiled: Any, args: tuple[Any, ...]) -> bool:
    """Whether machine code of a kernel is there for arguments like these, in this process or on disk."""
    kinds = tuple(map(typeof, args))
    file = getattr(compiled._cache, "_cache_file", None)
    if kinds in compiled.overloads or not isinstance(file, KeptKernel):
        return kinds in compiled.overloads
    return file.has(compiled._cache._index_key(kinds, compiled.targetctx.codegen()))


def _compile(compile: Callable[..., Any], *given: Any) -> Any:
    """Compile while Python looks for no cycles of objects.

    It would do that again and again, as numba makes hundreds of thousands of them; with the libraries of a fit
    imported, for a sixth of the time. What is garbage by then is found soon after.
    """
    with _uncollected:
        return compile(*given)


class _Uncollected:
    """While any thread is within, Python's search for cycles is off, if it was on."""

    def __init__(self) -> None:
        self._lock, self._within, self._was_on = threading.Lock(), 0, False

    def __enter__(self) -> None:
        with self._lock:
            if not self._within:
                self._was_on = gc.isenabled()
                gc.disable()
            self._within += 1

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._within -= 1
            if not self._within and self._was_on:
                gc.enable()


_uncollected = _Uncollected()


@cache
def _sources() -> str:
    """A fingerprint of all that kernels are made of."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
