"""No kernel reads or writes beside its arrays, which compiled code does without a word."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_every_position_is_within_its_array(tmp_path):
    # Compiling is what takes the time, and code that is not optimised is compiled in two thirds of it.
    tested = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_OPT": "0", "NUMBA_CACHE_DIR": str(tmp_path)}
    script = Path(__file__).with_name("bounded.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=280, env=tested)
    assert done.returncode == 0, done.stderr
