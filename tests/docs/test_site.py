"""The documentation can be built, without a warning and without the network, and it names everything public."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import daskdml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ROOMS = sorted(
    path.stem
    for path in (ROOT / "daskdml").iterdir()
    if not path.name.startswith("_") and path.name not in ("cli.py", "py.typed")
)


def listed(page):
    """The names in autosummary tables and data directives of a page of the reference."""
    text = page.read_text()
    tables = re.findall(r"\.\. autosummary::\n   :toctree: generated\n\n((?:   \w+\n)+)", text)
    return " ".join(tables).split() + re.findall(r"^\.\. py:data:: (\w+)", text, re.MULTILINE)


@pytest.mark.parametrize("room", ROOMS)
def test_the_reference_has_every_public_name(room):
    names = listed(DOCS / "api" / f"{room}.md")
    assert len(names) == len(set(names))
    assert set(names) == set(importlib.import_module(f"daskdml.{room}").__all__), f"bring docs/api/{room}.md up to date"


def test_the_reference_has_every_room_and_the_package_itself():
    text = (DOCS / "api" / "index.md").read_text()
    assert sorted(re.search(r":maxdepth: 1\n\n((?:\w+\n)+)", text).group(1).split()) == ROOMS
    assert [name for name in daskdml.__all__ if f"`{name}`" not in text] == []


def html_of(source, folder):
    return folder / "html" / source.relative_to(folder / "docs").with_suffix(".html")


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("myst_nb", reason="the extra `docs` is not installed")
    # A proxy at which nobody answers: what wanted something from the network would fail.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    # Beside the checkout, so that what is generated does not come to lie in it.
    source = tmp_path / "docs"
    for name in ("daskdml", "benchmarks", "notebooks"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("_build", "generated", "notebooks", "benchmarks"))
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", source, tmp_path / "html"]
    environment = os.environ | nowhere | {"PYTHONPATH": str(ROOT)}
    # The theme lays out its tree of all pages for each of them, in two thirds of all time: some pages show that it can.
    themed = [source / "index.md", source / "api" / "linear_model.md", source / "strategies.md"]
    for given in (["-D", "html_theme=basic"], themed):
        done = subprocess.run([*command, *given], env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
    assert [path for path in themed if "sidebar-tree" not in html_of(path, tmp_path).read_text()] == []
    built = {path.relative_to(tmp_path / "html").as_posix() for path in (tmp_path / "html").rglob("*.html")}
    notebooks = {f"notebooks/{path.stem}.html" for path in (ROOT / "notebooks").glob("*.ipynb")}
    pages = {path.relative_to(source).with_suffix(".html").as_posix() for path in source.rglob("*.md")}
    results = {f"benchmarks/{path.stem}.html" for path in (ROOT / "benchmarks" / "results").glob("*.md")}
    assert (notebooks | pages | results) - built == set()
    assert (
        "coordinate_eta0" in (tmp_path / "html" / "api/generated/daskdml.linear_model.SGDClassifier.html").read_text()
    )
