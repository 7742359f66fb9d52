"""The examples on these pages are tests: each page in a folder of its own, and nothing is left behind."""

import pytest

from tests.conftest import leaves_nothing_behind  # noqa: F401

# What Sphinx runs, makes, or shows of other folders.
collect_ignore = ["conf.py", "_build", "api/generated", "notebooks", "benchmarks"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
