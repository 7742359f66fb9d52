"""Many passes over rows in memory in one call: with few rows, calling a kernel takes longer than what it does.

An epoch here is the epoch of :mod:`daskdml.strategies`, to the last bit: the same seed gives the same order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numba import uint32
from numba._dispatcher import compute_fingerprint

from daskdml.numerics._calls import Call, Kernel, called
from daskdml.numerics._compiled import at_hand, kernel, part
from daskdml.numerics._settings import State
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
    args = (*at, seed, first, order, words, *parameters, active, *patience, epoch, totals)
    if not _worth_it(args):
        return _one_by_one(call, seed, first, order, state, active, patience, epoch, totals)
    done = int(_train_epochs(*args))
    if done < 0:
        # Of the epoch that was given up nothing is known; and what the kernel has to say, it says itself.
        call()
        raise RuntimeError("a kernel failed, and when it was called again it did not")
    return done


# Epochs that Python runs, in a process for which the loop was not compiled before: a tenth of a second. The loop takes
# five times as long to compile, but once: it is kept on disk for the processes to come.
_WORTH = 5_000


@dataclass
class _Run:
    """What is known of the loop in this process: epochs that Python ran, and for which arguments it is at hand."""

    epochs: int = 0
    ready: set[bytes] = field(default_factory=set)


_run = _Run()


def _worth_it(args: tuple) -> bool:
    """Whether the compiled loop is at hand for arguments like these, or so much was done that it should be.

    A first fit would wait half a second for it, which many epochs take less than.
    """
    key = compute_fingerprint(args)
    if key not in _run.ready and (_run.epochs >= _WORTH or at_hand(_train_epochs, args)):
        _run.ready.add(key)
    return key in _run.ready


def _one_by_one(
    call: Call,
    seed: int,
    first: int,
    order: np.ndarray,
    state: State,
    active: np.ndarray,
    patience: Patience,
    epoch: np.ndarray,
    totals: np.ndarray,
) -> int:
    """What the compiled loop does, to the last bit."""
    numbers = np.arange(len(order), dtype=np.int32)
    for done in range(1, len(totals) + 1):
        order[:] = numbers
        if seed >= 0:
            (word,) = np.random.SeedSequence((seed % 2**32, (first + done - 1) % 2**32)).generate_state(1)
            shuffle_in_place(order, word)
        epoch[:] = 0.0
        call()
        totals[done - 1] = epoch
        _run.epochs += 1
        last = done == len(totals)
        finite = last or (np.isfinite(state.coef).all() and np.isfinite(state.intercept).all())
        if last or not finite or _decided.py_func(epoch[1], len(order), active, *patience):
            return done
    return len(totals)
