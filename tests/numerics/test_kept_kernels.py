"""Compiled kernels are kept on disk for the version of the package they were made from, and no other."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest
from numba.core.caching import IndexDataCacheFile

import daskdml
from daskdml.numerics._kept import KeptKernel

SCRIPT = """
import numpy as np
from daskdml.numerics import loss_and_gradient
print(loss_and_gradient(0, 1.0, 0.5, 0.1)[0])
"""


def run(folder, kept):
    environment = os.environ | {"PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(kept)}
    call = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(call, env=environment, cwd=folder, check=True, capture_output=True, text=True)
    return float(done.stdout)


def test_a_changed_part_in_another_file_is_compiled_anew(tmp_path):
    package = tmp_path / "lib" / "daskdml"
    shutil.copytree(Path(daskdml.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    losses = package / "numerics" / "_losses.py"
    # The kernel in a file of its own, as the training kernels are; its part elsewhere.
    text = losses.read_text()
    kernel = text[text.index("@kernel") :]
    losses.write_text(text.replace(kernel, ""))
    apart = package / "numerics" / "_apart.py"
    apart.write_text(
        "from daskdml.numerics._compiled import kernel\nfrom daskdml.numerics._losses import value_and_slope\n" + kernel
    )
    init = package / "numerics" / "__init__.py"
    text = init.read_text().replace(", loss_and_gradient", "")
    init.write_text(text + "\nfrom daskdml.numerics._apart import loss_and_gradient\n")
    assert run(tmp_path / "lib", tmp_path / "kept") == 0.5
    losses.write_text(losses.read_text().replace("return 1.0 - z if z < 1.0 else 0.0, -y", "return 3.0 - z, -y"))
    assert run(tmp_path / "lib", tmp_path / "kept") == 2.5


def test_a_damaged_file_is_compiled_anew(tmp_path):
    kept = tmp_path / "kept"
    assert run(Path(daskdml.__file__).parents[1], kept) == 0.5
    files = list(kept.rglob("*.nbc"))
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[:-100])
    assert run(Path(daskdml.__file__).parents[1], kept) == 0.5
    assert all(path.read_bytes() for path in files)


@pytest.fixture
def process(tmp_path):
    """The cache of one kernel as another process opens it."""

    def opened(stamp="of the file", parts="of the parts"):
        return KeptKernel.of(IndexDataCacheFile(str(tmp_path), "kernel-1.py311", stamp), parts)

    return opened


ONE, OTHER = ("float32", "avx2", "bytes"), ("float64", "avx2", "bytes")


def test_processes_that_compile_for_two_kinds_at_once_do_not_take_each_others_code(process, tmp_path, monkeypatch):
    """Numba's own cache gives both the same file: whoever writes last, the other one's kind has its code."""

    def both(opened):
        first, second = opened(), opened()
        writes = []
        # Both have chosen their files before either writes.
        with monkeypatch.context() as patched:
            for file in (first, second):
                original = file._save_data
                patched.setattr(file, "_save_data", lambda *given, original=original: writes.append((original, given)))
            patched.setattr(IndexDataCacheFile, "_load_index", lambda self: {})
            first.save(ONE, "code of one")
            second.save(OTHER, "code of the other")
        for write, given in reversed(writes):
            write(*given)
        return opened().load(OTHER)

    assert both(lambda: IndexDataCacheFile(str(tmp_path), "numba-1.py311", "stamp")) == "code of one"
    assert both(process) == "code of the other"
    assert process().load(ONE) == "code of one"


def test_only_what_was_made_of_the_same_is_found(process, monkeypatch):
    process().save(ONE, "code")
    assert process().load(ONE) == "code"
    assert process().load(OTHER) is None
    assert process(stamp="changed").load(ONE) is None
    assert process(parts="changed").load(ONE) is None
    monkeypatch.setattr(numba, "__version__", "0.0")
    assert process().load(ONE) is None


def test_emptied(process, tmp_path):
    process().save(ONE, "code")
    process().flush()
    assert process().load(ONE) is None
    assert not list(tmp_path.iterdir())


def test_a_disk_that_takes_no_more_is_no_error(process, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    file = process()
    monkeypatch.setattr(file, "_save_data", full)
    file.save(ONE, "code")
    assert file.load(ONE) is None
