"""Kernels with many arguments, called as words of 64 bits: what they are given is what they get."""

import gc
import math
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from daskdml.numerics import Kernel, Patience, _epochs, init_state, narrowed, train_epochs
from daskdml.numerics import Settings as LinearSettings


class Pair(NamedTuple):
    matrix: np.ndarray
    switch: bool | None


class Given(NamedTuple):
    number: float
    count: int
    pair: Pair
    on: bool


@Kernel
def tell(given, column, cube, flags, text, out):
    """Write down all that came."""
    out[0], out[1] = given.number, given.count
    out[2] = given.pair.matrix.sum()
    out[3] = 1.0 if given.on else 0.0
    out[4] = column.shape[0]
    for i in range(column.shape[0]):
        out[5] += (i + 1) * column[i]
    out[6] = cube[1, 0, 2]
    out[7] = cube.shape[0] * 100 + cube.shape[1] * 10 + cube.shape[2]
    for i in range(flags.shape[0]):
        out[8] += 2.0**i if flags[i] else 0.0
    if given.pair.switch is not None:
        out[9] = 1.0
    if text is not None:
        out[10] = text


def told(given, column, cube, flags, text):
    out = np.zeros(11)
    tell(given, column, cube, flags, text, out)
    return out.tolist()


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "u1"])
def test_what_is_given_arrives(dtype):
    matrix = np.arange(6, dtype=dtype).reshape(2, 3)
    cube = np.arange(24, dtype=dtype).reshape(2, 4, 3)
    found = told(Given(-2.5, -7, Pair(matrix, None), True), matrix[0], cube, np.array([True, False, True]), None)
    assert found == [-2.5, -7, 15, 1, 3, 0 * 1 + 1 * 2 + 2 * 3, 14, 243, 5, 0, 0]


def test_arrays_that_do_not_lie_in_order_arrive():
    matrix = np.arange(12.0).reshape(3, 4)
    given = Given(np.inf, 2**40, Pair(matrix[::-1, 1::2], True), False)
    found = told(given, matrix[::-1, 2], np.zeros((2, 2, 3))[:, ::-1], np.zeros(0, bool), 3)
    assert found == [np.inf, 2**40, 5 + 7 + 1 + 3 + 9 + 11, 0, 3, 10 + 2 * 6 + 3 * 2, 0, 223, 0, 1, 3]


def test_not_a_number_arrives_and_nothing_at_all():
    out = told(
        Given(np.nan, 0, Pair(np.zeros((0, 0)), None), False), np.zeros(0), np.zeros((2, 1, 3)), np.ones(1, bool), 0.5
    )
    assert np.isnan(out[0])
    assert out[1:] == [0, 0, 0, 0, 0, 0, 213, 1, 0, 0.5]


def test_arrays_are_kept_until_the_call():
    out = np.zeros(11)
    given = Given(1.0, 1, Pair(np.full((300, 300), 2.0), None), True)
    call = tell.prepared((given, np.ones(3), np.zeros((2, 1, 3)), np.ones(2, bool), None, out))
    del given
    gc.collect()
    for filler in range(20):
        np.full((300, 300), float(filler))
    call()
    assert out[2] == 180_000
    # Once more, with what is in the arrays by then.
    out[:] = 0.0
    call()
    assert out[2] == 180_000 and out[8] == 3


@Kernel
def returning(values):
    return values.sum()


@Kernel
def hungry(n):
    values = np.empty(n)
    values[0] = 1.0


def test_a_kernel_returns_nothing():
    with pytest.raises(TypeError, match="returning returns float64, and a kernel nothing"):
        returning(np.ones(2))


@Kernel
def ignoring(value):
    pass


@pytest.mark.parametrize("value", ["text", 1j, (1, (2.0, b"bytes"))])
def test_what_cannot_be_passed_is_refused(value):
    with pytest.raises(
        TypeError, match="a kernel takes numbers, arrays, None and tuples of them, not (str|complex|bytes)"
    ):
        ignoring(value)


@pytest.mark.parametrize("value", [np.float32(0.1), np.int8(-3), np.uint64(2**63), np.bool_(True)])
def test_numbers_of_numpy_arrive(value):
    given = Given(1.0, 1, Pair(np.zeros((1, 1)), None), True)
    assert told(given, np.ones(1), np.zeros((2, 1, 3)), np.ones(1, bool), value)[10] == value


def test_without_memory_it_says_so():
    hungry(1)
    with pytest.raises(MemoryError, match="no memory for what a kernel keeps beside its arguments"):
        hungry(2**60)


@Kernel
def starved(rows, y, sample_weight, order, state, settings, positive, negative, active, totals):
    state.clock[0] += 1.0
    values = np.empty(2**60 if state.clock[0] > 3.0 else 1)
    values[0] = 1.0


# The compiled loop tries the epoch once more, for the kernel to say what is the matter.
@pytest.mark.parametrize(("worth", "calls"), [(0, 4), (math.inf, 3)], ids=["compiled", "one by one"])
def test_epochs_end_where_a_kernel_fails(monkeypatch, worth, calls):
    monkeypatch.setattr(_epochs, "_run", _epochs._Run())
    monkeypatch.setattr(_epochs, "_WORTH", worth)
    monkeypatch.setattr(_epochs, "at_hand", lambda *given: False)
    settings = narrowed(LinearSettings(loss=0, mode=1))
    state, ones, on = init_state(1, 1, np.dtype("f8"), settings), np.ones(1), np.ones(1, bool)
    patience = Patience(np.full(1, np.inf), np.zeros(1, np.int64), -np.inf, 5)
    data = (None, np.zeros(3), np.zeros(0))
    with pytest.raises(MemoryError, match="no memory"):
        train_epochs(starved, data, 0, 1, (state, settings, ones, ones, on), patience, np.zeros((10, 2, 1)))
    assert state.clock[0] == 1.0 + calls


@Kernel
def slow(values, n):
    for i in range(n):
        values[0] = np.sin(values[0] + i)


def test_others_run_meanwhile():
    values, began, ended, turns = np.zeros(1), threading.Event(), threading.Event(), 0
    slow(values, 1)

    def run():
        began.set()
        slow(values, 20_000_000)
        ended.set()

    thread = threading.Thread(target=run)
    thread.start()
    began.wait(60)
    # With Python's lock held by the kernel, this thread would come here when it has ended.
    while not ended.is_set():
        turns += 1
    thread.join(60)
    assert turns > 1000


@Kernel
def broken(value):
    value.none_such()


@pytest.mark.parametrize("on", [True, False])
def test_cycles_are_looked_for_again_after_compiling(on):
    was = gc.isenabled()
    (gc.enable if on else gc.disable)()
    try:
        with pytest.raises(Exception, match="none_such"):
            broken(1.0)
        assert gc.isenabled() is on
        returned = Kernel(hungry.__wrapped__)
        returned(1)
        assert gc.isenabled() is on
    finally:
        (gc.enable if was else gc.disable)()


SCRIPT = """
import numba.core.event as event, numpy as np, sys
compiled = []
class Listener(event.Listener):
    def on_start(self, event): compiled.append(event)
    def on_end(self, event): pass
event.register("numba:compile", Listener())
from daskdml.linear_model import SGDClassifier
from daskdml.numerics import _epochs
_epochs._WORTH = int(sys.argv[1])
X = np.random.default_rng(0).standard_normal((50, 3))
fitted = SGDClassifier(max_iter=5, tol=None, random_state=0).fit(X, X[:, 0] > 0)
print(fitted.coef_.tolist(), len(compiled), _epochs._run.epochs, sep=";")
"""


def test_the_next_process_compiles_nothing(tmp_path):
    def fitted(worth):
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
        call = [sys.executable, "-c", SCRIPT, str(worth)]
        done = subprocess.run(call, env=environment, check=True, capture_output=True, text=True)
        coef, compiled, one_by_one = done.stdout.strip().split(";")
        return coef, int(compiled), int(one_by_one)

    first, again = fitted(100), fitted(100)
    assert first[1] > 1 and first[2] == 5
    assert again == (first[0], 0, 5)
    # Once the loop over epochs was worth it, those after have it as well.
    looped, after = fitted(0), fitted(100)
    assert looped[0] == first[0] and looped[1] > 1 and looped[2] == 0
    assert after == (first[0], 0, 0)
