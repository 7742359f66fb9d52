"""What can be checked of the documents: tables that render, lists that are complete."""

import re
from pathlib import Path

import pytest

from daskdml.linear_model import SGDClassifier, SGDRegressor
from daskdml.strategies import STRATEGIES

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_table_has_its_head(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        lines = table.splitlines()
        assert len(lines) > 2 and re.fullmatch(r"[|:\- ]+", lines[1]), f"{page.name}: {lines[0]} is in no table"


def test_every_room_is_in_the_table_once():
    found = []
    for line in re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / "design.md").read_text(), flags=re.MULTILINE):
        found += re.findall(r"`(\w+)`", line)
    rooms = {path.stem for path in (ROOT / "daskdml").iterdir() if not path.name.startswith(("_", "py."))}
    assert sorted(found) == sorted(rooms)


@pytest.mark.parametrize("estimator", [SGDClassifier, SGDRegressor])
def test_docstrings_name_every_strategy(estimator):
    told = estimator.__doc__.split("strategy : ")[1].split("memory_budget : ")[0]
    assert [name for name in STRATEGIES if f'"{name}"' not in told] == []
    readme = (ROOT / "README.md").read_text()
    assert [name for name in STRATEGIES if f'| `"{name}"`' not in readme] == []
