"""Many passes over rows in memory in one call: with few rows, calling a kernel takes longer than what it does.

An epoch here is the epoch of :mod:`daskdml.strategies`, to the last bit: the same seed gives the same order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import typeof, types, uint32
from numba._dispatcher import compute_fingerprint
from numba.extending import intrinsic

from daskdml.numerics._compiled import kernel, part
from daskdml.numerics._shuffle import hashed_words, shuffle_in_place


class Patience(NamedTuple):
    """How far each problem is from being judged: the comparisons of scikit-learn's stopping rule.

    ``best`` and ``stalled`` (one entry a problem) change in place.
    """

    best: np.ndarray
    stalled: np.ndarray
    tol: float  # -inf where nothing ever stalls
    epochs: int


@intrinsic
def _call(typingctx, address, rows, y, sample_weight, order, state, settings, positive, negative, active, totals):
    """Call the kernel compiled at ``address`` for exactly these types."""
    kinds = (rows, y, sample_weight, order, state, settings, positive, negative, active, totals)

    def codegen(context, builder, signature, args):
        convention = context.call_conv
        function = convention.get_function_type(types.none, kinds).as_pointer()
        callee = builder.inttoptr(args[0], function)
        status, _ = convention.call_function(builder, callee, types.none, kinds, args[1:])
        with builder.if_then(status.is_error):
            convention.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return types.none(types.uintp, *kinds), codegen


_ORDER, _TOTALS = types.Array(types.int32, 1, "C"), types.Array(types.float64, 2, "C")


_addresses: dict[tuple[Any, bytes], int] = {}


def _address(function: Any, data: tuple, given: tuple) -> int:
    """Where the machine code of ``function`` for arguments of these types is, compiled if it was not."""
    # By address, because a kernel that is called by name is compiled again as a part of its caller. The fingerprint is
    # what numba itself knows arguments by: finding out their types takes as long as ten epochs over few rows.
    key = (function, compute_fingerprint((data, given)))
    if key not in _addresses:
        kinds = (*map(typeof, data), _ORDER, *map(typeof, given), _TOTALS)
        if kinds not in function.overloads:
            function.compile(kinds)
        compiled = function.overloads[kinds]
        _addresses[key] = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    return _addresses[key]


@part
def _finite(state):
    for k in range(state.coef.shape[0]):
        if not np.isfinite(state.intercept[k]):
            return False
        for j in range(state.coef.shape[1]):
            if not np.isfinite(state.coef[k, j]):
                return False
    return True


@part
def _decided(objective, n_rows, active, patience):
    """Whether a problem's patience ends with this epoch; otherwise the epoch is noted."""
    for k in range(patience.best.shape[0]):
        if active[k] and objective[k] / n_rows > patience.best[k] - patience.tol:
            if patience.stalled[k] + 1 >= patience.epochs:
                return True
    for k in range(patience.best.shape[0]):
        if active[k]:
            value = objective[k] / n_rows
            patience.stalled[k] = patience.stalled[k] + 1 if value > patience.best[k] - patience.tol else 0
            patience.best[k] = np.fmin(patience.best[k], value)
    return False


@kernel
def _train_epochs(
    address, rows, y, weight, seed, first, order, words, state, settings, positive, negative, active, patience, totals
):
    n_rows = y.shape[0]
    for e in range(totals.shape[0]):
        for n in range(n_rows):
            order[n] = n
        if seed >= 0:
            words[0], words[1] = uint32(seed), uint32(first + e)
            shuffle_in_place(order, hashed_words(words))
        _call(address, rows, y, weight, order, state, settings, positive, negative, active, totals[e])
        if e + 1 == totals.shape[0] or not _finite(state) or _decided(totals[e, 1], n_rows, active, patience):
            return e + 1
    return totals.shape[0]


def train_epochs(
    function: Any, data: tuple, seed: int, first: int, given: tuple, patience: Patience, totals: np.ndarray
) -> int:
    """Train with a kernel until there is something to decide; returns how many epochs that took.

    There is after ``totals.shape[0]`` epochs, or where a problem did not improve for long enough, or where parameters
    are not finite. The last epoch is not noted in ``patience``: who decides does that.

    Parameters
    ----------
    function : train_rows, train_rows_plain or train_rows_adaptive
    data : tuple
        The kernel's ``rows, y, sample_weight``.
    seed : int
        Of the order of rows in each epoch; below 0 they stay in their own.
    first : int
        The number of the first epoch.
    given : tuple
        The kernel's ``state, settings, positive_weight, negative_weight, active``.
    patience : Patience
    totals : ndarray of shape (n_epochs, 2, K)
        Receives what the kernel says of each epoch; at most so many are run.
    """
    address = np.uintp(_address(function, data, given))
    # Made here: compiling what allocates an array takes longer than many a fit.
    order, words = np.empty(len(data[1]), np.int32), np.zeros(4, np.uint32)
    return int(_train_epochs(address, *data, seed, first, order, words, *given, patience, totals))
