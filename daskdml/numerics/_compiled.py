"""How the functions that kernels are made of are compiled.

What a first fit waits for is mostly not LLVM but numba's own work for each function: typing it, and wrapping it for
Python and for C. Only the kernels themselves are called from compiled code or Python, so only they are wrapped.
"""

from __future__ import annotations

from numba import njit

# A part of kernels, for compiled code only.
part = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)

# What Python calls; compiled once for each type of rows, and kept on disk.
kernel = njit(cache=True, nogil=True, error_model="numpy", no_cfunc_wrapper=True)
