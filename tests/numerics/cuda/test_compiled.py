"""The kernels compile and link for real cards, which needs numba-cuda and its compiler, and no card."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda, of the extra gpu, is not installed"
)

CODE = """
import sys
from glob import glob
from types import SimpleNamespace

import numpy as np
import nvidia
from cuda.bindings import nvjitlink
from numba import cuda, typeof
from numba.cuda import dispatcher

from daskdml.numerics import CsrRows, DenseRows, Settings
from daskdml.numerics.cuda._kernels import kernels
from daskdml.numerics.cuda._layout import Data, Scratch, Shape, Threads, Weights, numbers_of
from daskdml.numerics.cuda._products import KEPT, How, Plan, Point, products

cc = int(sys.argv[1]), int(sys.argv[2])
# Parts are compiled for the card of the process, which there is none of.
dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=cc)
runtime = glob(list(nvidia.__path__)[0] + "/cu*/lib/libcudadevrt.a")[0]


def empty(*shape, dtype="f8"):
    return np.zeros(shape, dtype)


def rows_of(sparse, columns):
    if sparse:
        return CsrRows(empty(4, dtype=real), order, order)
    return DenseRows(empty(36, dtype=real) if columns else empty(4, 9, dtype=real))


def built(kernel, given, *what):
    ptx, _ = cuda.compile_ptx(kernel.py_func, tuple(map(typeof, given)), cc=cc)
    linker = nvjitlink.create(1, [f"-arch=sm_{cc[0]}{cc[1]}"])
    text = ptx.encode() + bytes(1)
    nvjitlink.add_data(linker, nvjitlink.InputType.PTX, text, len(text), what[0])
    nvjitlink.add_file(linker, nvjitlink.InputType.LIBRARY, runtime)
    nvjitlink.complete(linker)
    assert nvjitlink.get_linked_cubin_size(linker) > 1000
    print(*what)


for double in (False, True):
    for sparse, *registers in ((False, 0, 0), (True, 0, 0), (False, 4, 4, True), (False, 4, 8)):
        real = "f8" if double else "f4"
        order = empty(4, dtype="i4")
        rows = rows_of(sparse, registers[0])
        data = Data(empty(4, dtype=real), empty(0, dtype=real), order, empty(3), empty(3), empty(3, dtype="u1"))
        w, none = empty(3, 9, dtype=real), empty(0, 0, dtype=real)
        weights = Weights(w, empty(3), empty(3), none, empty(0), none, empty(0))
        parts = empty(3, 3, 2), empty(2, 3, 10), empty(3, 10), empty(3, 9, dtype="i8"), empty(2), empty(4, 3)
        scratch = Scratch(empty(4, 3), empty(4, 3), empty(4, 3), empty(4, 3), *parts)
        numbers = numbers_of(Settings(3, 1), 1.0, 1.0, (32, 8, 104))
        for name, given in {
            "permute": (order, 0, 4, 4, 2, empty(8, dtype="i8")),
            "train": (rows, data, weights, scratch, numbers, 4, 4),
            "slopes": (rows, data, weights, scratch, numbers, 0, 4),
            "valued": (rows, data, weights, scratch, numbers, 0, 4),
            "gather": (rows, data, scratch, numbers, 0, 4),
            "step": (data, weights, scratch, numbers, 0, 4),
            "total": (data, weights, scratch, numbers, 0, 4),
            "decide": (rows_of(sparse, 0), order, w, empty(3), empty(4, 3)),
        }.items():
            kernel = getattr(kernels(Shape(double, sparse, *registers), Threads()), name)
            built(kernel, given, name, double, sparse, registers)
        if registers[0]:
            continue
        point, how = Point(w, empty(3), empty(3, 10, dtype=real)), How(KEPT, True, 0.5, 1.0)
        plan = Plan(empty(3, 2, dtype="i4"), empty(3, 2, dtype="i4"), 9, True, False, 2)
        slices = (rows, order, empty(4, 4), plan, empty(2, 3, 3, 9), 0, 4)
        for name, given in {
            "bends": (rows, data, point, empty(4, 4), numbers, how, 0, 4),
            "products": slices,
            "diagonals": slices,
            "added": (empty(2, 9), empty(9), True),
            "squares": (rows, order, empty(9, dtype="i8"), 1.0, 0, 4),
        }.items():
            built(getattr(products(double, sparse, Threads()), name), given, name, double, sparse)
"""


@pytest.mark.slow
@pytest.mark.parametrize("cc", [(8, 0), (9, 0), (10, 0)])
def test_all_kernels_compile_and_link(cc):
    command = [sys.executable, "-c", CODE, *map(str, cc)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == 84
