"""Compiled kernels are kept on disk for the version of the package they were made from, and no other."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import daskdml

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
    losses.write_text(losses.read_text().replace("return max(0.0, 1.0 - z), -y", "return max(0.0, 3.0 - z), -y"))
    assert run(tmp_path / "lib", tmp_path / "kept") == 2.5
