"""Starting kernels again and again with mostly the same arrays.

numba takes each argument apart at each launch: half a millisecond for the arrays of a model, in which the card could
have read a gigabyte. Arrays that came before, and lie where they lay, are not taken apart again here.
"""

from __future__ import annotations

import warnings
from typing import Any

from numba import config

_SIMULATED = bool(config.ENABLE_CUDASIM)


class Launch:
    """A kernel with the shape of its launch, for arguments of the types of the first call.

    Parameters
    ----------
    kernel : numba dispatcher
    shape : tuple
        Blocks, threads, stream and bytes of shared memory.
    """

    def __init__(self, kernel: Any, shape: tuple[int, int, Any, int]):
        self._kernel = kernel
        self._shape = shape
        self._launch: Any = None
        # By place of an argument: what tells it apart, and the numbers that numba makes of it.
        self._taken: dict[int, tuple[Any, list[Any]]] = {}

    def __call__(self, arguments: tuple, names: tuple) -> None:
        """Start it; an argument whose name, if it has one, is that of the last call is that argument again.

        Arrays themselves are not kept: that would hold on to the memory of the last block.
        """
        if _SIMULATED:
            self._kernel[self._shape](*arguments)
            return
        if self._launch is None:
            self._launch = self._prepared(arguments)
        self._launch(arguments, names)

    def _prepared(self, arguments: tuple) -> Any:
        kernel = self._kernel if self._kernel.specialized else self._kernel.specialize(*arguments)
        with warnings.catch_warnings():
            # Few blocks are few rows, which nobody can change who reads numba's warning.
            warnings.simplefilter("ignore")
            plain = kernel[self._shape]
        try:
            return self._from_parts(kernel)
        except (ImportError, AttributeError, TypeError, ValueError):
            # Another version of numba-cuda has other parts: then it does all of it.
            return lambda arguments, names: plain(*arguments)

    def _from_parts(self, kernel: Any) -> Any:
        from numba.cuda.cudadrv import driver
        from numba.cuda.dispatcher import LaunchConfig, launch

        blocks, threads, stream, shared_bytes = self._shape
        (overload,) = kernel.overloads.values()
        function, take = overload._codelibrary.get_cufunc().kernel, overload._prepare_args
        queue = driver._to_core_stream(stream)
        how = {"grid": blocks, "block": threads, "shmem_size": shared_bytes}
        try:
            shape = LaunchConfig(**how, is_cooperative=overload.cooperative)
        except TypeError:
            shape = LaunchConfig(**how, cooperative_launch=overload.cooperative)
        kinds, taken = overload.argument_types, self._taken

        def start(arguments: tuple, names: tuple) -> None:
            flat: list[Any] = []
            for place, (kind, value, name) in enumerate(zip(kinds, arguments, names, strict=True)):
                known = taken.get(place)
                if name is None or known is None or known[0] != name:
                    known = name, []
                    take(kind, value, queue, [], known[1])
                    taken[place] = known
                flat.extend(known[1])
            launch(queue, shape, function, *flat)

        return start
