"""Many passes over rows in memory in one call: with few rows, calling a kernel takes longer than what it does.

An epoch here is the epoch of :mod:`daskdml.strategies`, to the last bit: the same seed gives the same order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import uint32

from daskdml.numerics._calls import Kernel, called
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


@part
def _finite(coef, intercept):
    # What is not finite gives no 0 when it is taken from itself.
    for k in range(coef.shape[0]):
        if intercept[k] - intercept[k] != 0.0:
            return False
        for j in range(coef.shape[1]):
            if coef[k, j] - coef[k, j] != 0.0:
                return False
    return True


@part
def _decided(objective, n_rows, active, best, stalled, tol, patience):
    """Whether a problem's patience ends with this epoch; otherwise the epoch is noted."""
    for k in range(best.shape[0]):
        if active[k] and objective[k] / n_rows > best[k] - tol and stalled[k] + 1 >= patience:
            return True
    for k in range(best.shape[0]):
        if active[k]:
            value = objective[k] / n_rows
            stalled[k] = stalled[k] + 1 if value > best[k] - tol else 0
            # Whichever is less, or not NaN.
            best[k] = value if value < best[k] or best[k] != best[k] else best[k]
    return False


# Arrays and numbers, and no tuples of them, which a first fit would wait for.
@kernel
def _train_epochs(
    entry, given, seed, first, order, words, coef, intercept, active, best, stalled, tol, patience, epoch, totals
):
    n_rows = order.shape[0]
    for e in range(totals.shape[0]):
        for n in range(n_rows):
            order[n] = n
        if seed >= 0:
            words[0], words[1] = uint32(seed), uint32(first + e)
            shuffle_in_place(order, hashed_words(words))
        for k in range(epoch.shape[1]):
            epoch[0, k], epoch[1, k] = 0.0, 0.0
        if called(entry, given) != 0:
            return -1
        for k in range(epoch.shape[1]):
            totals[e, 0, k], totals[e, 1, k] = epoch[0, k], epoch[1, k]
        last = e + 1 == totals.shape[0]
        if last or not _finite(coef, intercept) or _decided(epoch[1], n_rows, active, best, stalled, tol, patience):
            return e + 1
    return totals.shape[0]


def train_epochs(
    function: Kernel, data: tuple, seed: int, first: int, given: tuple, patience: Patience, totals: np.ndarray
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
    # Made here: compiling what allocates an array takes longer than many a fit.
    order, words, epoch = np.empty(len(data[1]), np.int32), np.zeros(4, np.uint32), np.zeros(totals.shape[1:])
    call = function.prepared((*data, order, *given, epoch))
    state, *_, active = given
    at, parameters = (np.uintp(call.entry), np.uintp(call.words)), (state.coef, state.intercept)
    done = int(_train_epochs(*at, seed, first, order, words, *parameters, active, *patience, epoch, totals))
    if done < 0:
        # Of the epoch that was given up nothing is known; and what the kernel has to say, it says itself.
        call()
        raise RuntimeError("a kernel failed, and when it was called again it did not")
    return done
