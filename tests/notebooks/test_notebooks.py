"""Every notebook runs from beginning to end and says what is true, and is kept with what it has shown."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Bytes of a notebook with its pictures.
_MOST = 400_000


@pytest.fixture
def executed(tmp_path):
    """What a notebook printed, and what it displayed: ``executed(name)`` runs it, small, in a process of its own."""

    def of(name):
        target = tmp_path / f"{name}.ipynb"
        environment = os.environ | {
            "DASKDML_NOTEBOOK_SCALE": "0.01",
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }
        command = [sys.executable, Path(__file__).with_name("execute.py"), ROOT / "notebooks" / target.name, target]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        cells = nbformat.read(target, as_version=4).cells
        outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
        printed = "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")
        return printed, [output["data"] for output in outputs if "data" in output]

    return of


def number(text, before):
    """The number that stands after some words."""
    return float(re.search(re.escape(before) + r"\s*([-+]?[0-9]+(?:\.[0-9]+)?)", text).group(1))


def pictures(shown):
    return sum("image/png" in data for data in shown)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_as_executed_from_top_to_bottom(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert any(output.output_type != "stream" for output in outputs)
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert path.stat().st_size < _MOST
    # Where it was executed is nobody's business.
    assert re.findall(r"/(?:tmp|home|root|work)/[\w.-]+", path.read_text()) == []


def test_notebooks_are_numbered_in_their_order():
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{i:02d}" for i in range(1, len(NOTEBOOKS) + 1)]


@pytest.mark.slow
def test_quickstart_teaches_what_is_true(executed):
    text, shown = executed("01_quickstart")
    assert "dashboard: http://127.0.0.1:" in text
    accuracies = [float(line.split()[1]) for line in text.splitlines() if line.startswith("accuracy")]
    assert len(accuracies) == 2
    assert min(accuracies) > 0.9
    assert number(text, "cosine to the truth:") > 0.98
    assert pictures(shown) == 1
    assert any("daskdml-fit" in data.get("text/html", "") for data in shown)


@pytest.mark.slow
def test_consistency_models_are_compared(executed):
    text, shown = executed("02_consistency")
    seconds = {line[:18].strip(): float(line[18:].split()[0]) for line in text.splitlines() if " s   loss" in line}
    assert len(seconds) == 5
    assert seconds["ASP"] < seconds["BSP"]
    assert "'duplicates': 0" in text
    assert number(text, "'staleness_max':") <= 3
    assert pictures(shown) == 3


@pytest.mark.slow
def test_data_larger_than_memory_are_trained_on(executed):
    text, shown = executed("03_larger_than_memory")
    assert number(text, "cosine to the planted weights") > 0.98
    assert number(text, "largest worker") < 700
    assert "rechunk X to at most" in text
    assert number(text, "accuracy") > number(text, "the planted weights have") - 0.02
    assert pictures(shown) == 1


@pytest.mark.slow
def test_gridded_data_come_back_with_their_labels(executed):
    text, shown = executed("04_gridded_data")
    assert number(text, "correlation of the two maps:") > 0.9
    assert number(text, "accuracy on days not seen") > 0.85
    assert any("time" in data.get("text/html", "") for data in shown)
    assert pictures(shown) == 3


@pytest.mark.slow
def test_failure_is_survived(executed):
    text, shown = executed("05_surviving_failure")
    assert text.count("the same coefficients, bit for bit: True") == 2
    assert number(text.split("a worker killed")[1], "recoveries") >= 1
    assert "exit status -9" in text
    assert text.count("epochs 40 told in history_ 40") == 2
    assert pictures(shown) == 1


@pytest.mark.slow
def test_tuning_and_comparing_works_where_it_says_so(executed):
    text, shown = executed("06_tuning")
    assert "best: {'alpha'" in text
    assert "sklearn fails: " in text
    assert "daskdml fails: " in text
    assert len(re.findall(r"accuracy 0\.[89]", text)) == 3
    assert pictures(shown) == 1
