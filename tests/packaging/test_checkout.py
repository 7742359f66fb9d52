"""A wheel of the checkout holds the package and nothing else, and can be installed by itself."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import daskdml

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_wheel_holds_the_package_and_nothing_else(tmp_path):
    setuptools = pytest.importorskip("setuptools", reason="building without the network needs setuptools installed")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip(f"setuptools {setuptools.__version__} is older than the 77 that builds daskdml")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "daskdml"):
        subprocess.run(["cp", "-r", ROOT / name, source], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*command, tmp_path, source], check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"daskdml-{daskdml.__version__}-py3")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"daskdml", f"daskdml-{daskdml.__version__}.dist-info"}
    packed = {name for name in names if name.endswith(".py")}
    assert packed == {str(path.relative_to(ROOT)) for path in (ROOT / "daskdml").rglob("*.py")}
    assert "daskdml/py.typed" in names
