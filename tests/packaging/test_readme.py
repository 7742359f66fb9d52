"""The README's example runs as a reader would run it: saved in a file, with nothing beside it."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_example_runs_as_a_script(tmp_path):
    (code,) = re.findall(r"^```python\n(.*?)^```", README.read_text(), flags=re.MULTILINE | re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(code)
    # Whatever else is running here may have the dashboard's port.
    quiet = ["-W", "ignore:Port 8787 is already in use"]
    done = subprocess.run([sys.executable, *quiet, script], capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    score, predictions, *_ = done.stdout.splitlines()
    assert float(score) > 0.99
    assert predictions.startswith("dask.array<")
