"""The Makefile finds a Python, and sets up again when pyproject.toml has changed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def checkout(tmp_path):
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder, *arguments, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=clean | environment, capture_output=True, text=True, timeout=120
    )


def ready(folder):
    """Leave what a finished set-up leaves."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("bin/python", ".ready", ".ready-test", ".ready-bench", ".ready-gpu"):
        (folder / ".venv" / name).touch()


def test_a_launcher_that_fails_is_passed_over(checkout):
    broken = checkout / "broken"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    done = make(checkout, ".venv/bin/python", f"PYTHON={broken}")
    assert done.returncode == 0, done.stderr
    assert str(broken) not in done.stdout
    assert (checkout / ".venv" / "bin" / "pip").exists()


def test_without_a_python_the_remedy_is_named(checkout):
    tools = checkout / "tools"
    tools.mkdir()
    for name in ("sh", "make"):
        (tools / name).symlink_to(shutil.which(name))
    done = make(checkout, ".venv/bin/python", PATH=str(tools))
    assert done.returncode != 0
    assert "make PYTHON=" in done.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("target", ["demo", "test", "test-gpu", "lint", "bench"])
def test_what_is_ready_is_not_set_up_again_until_pyproject_changes(checkout, target):
    ready(checkout)
    assert "pip" not in make(checkout, "--dry-run", target).stdout
    os.utime(checkout / "pyproject.toml", (4e9, 4e9))
    assert "pip" in make(checkout, "--dry-run", target).stdout


def test_ci_is_a_valid_script():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()
    subprocess.run(["bash", "-n", script], check=True)
