"""What the project says of itself in several places is the same everywhere."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement

import daskdml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# conda-forge's names, where they are not PyPI's.
CONDA = {"torch": "pytorch", "cupy-cuda13x": "cupy", "rmm-cu13": "rmm", "prometheus-client": "prometheus_client"}


def bounds(lines):
    """Package name to version bounds; Dask's extras are all part of conda-forge's `dask`."""
    requirements = [Requirement(line) for line in lines]
    found = {}
    for requirement in requirements:
        name = CONDA.get(requirement.name, requirement.name)
        assert found.setdefault(name, requirement.specifier) == requirement.specifier, f"two bounds for {name}"
    return found


def test_environment_names_the_packages_of_pyproject():
    text = (ROOT / "environment.yml").read_text()
    lines = yaml.safe_load(text)["dependencies"]
    left_to_the_user = re.findall(r"^  # - (\S+)$", text, re.MULTILINE)
    assert lines[:2] == [f"python{PROJECT['requires-python']}", "pip"]
    installed = [extra for extra in EXTRAS if extra != "gpu"]
    wanted = PROJECT["dependencies"] + [line for extra in installed for line in EXTRAS[extra]]
    assert bounds(lines[2:]) == bounds(wanted)
    assert bounds(left_to_the_user) == bounds(EXTRAS["gpu"])
    assert len(lines) == len(set(lines))


def test_the_extras_are_there():
    assert {"torch", "gpu", "plot", "bench", "test"} <= set(EXTRAS)


def test_the_version_has_one_source():
    assert "version" in PROJECT["dynamic"]
    source = (ROOT / "daskdml" / "_version.py").read_text()
    assert re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE).group(1) == daskdml.__version__


def test_the_changelog_has_the_version():
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert daskdml.__version__ in headings


def test_the_readme_names_both_commands_and_its_links_lead_somewhere():
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme
    assert "make test" in readme
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_licence_is_bsd_3():
    text = (ROOT / "LICENSE").read_text()
    assert text.startswith("BSD 3-Clause License")
    assert "daskdml developers" in text
