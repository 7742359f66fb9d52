"""Every notebook runs from beginning to end, and is kept without outputs."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def executed(path, folder):
    environment = os.environ | {
        "DASKDML_NOTEBOOK_SCALE": "0.01",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    command = [sys.executable, Path(__file__).with_name("execute.py"), path, folder / path.name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return nbformat.read(folder / path.name, as_version=4)


def printed(notebook):
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.slow
def test_quickstart_teaches_what_is_true(tmp_path):
    notebook = executed(ROOT / "notebooks" / "quickstart.ipynb", tmp_path)
    text = printed(notebook)
    assert "dashboard: http://127.0.0.1:" in text
    accuracies = [float(line.split()[1]) for line in text.splitlines() if line.startswith("accuracy")]
    assert len(accuracies) == 2
    assert min(accuracies) > 0.9
    cosine = next(line for line in text.splitlines() if line.startswith("cosine"))
    assert float(cosine.split()[-1]) > 0.98
    shown = [data for cell in notebook.cells if cell.cell_type == "code" for data in _data(cell)]
    assert any("image/png" in data for data in shown)
    assert any("daskdml-fit" in data.get("text/html", "") for data in shown)


def _data(cell):
    return [output["data"] for output in cell.outputs if "data" in output]
