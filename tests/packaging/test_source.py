"""What every source file keeps to."""

import ast
import importlib
import inspect
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "daskdml").rglob("*.py"))
PUBLIC = [path for path in FILES if not any(part.startswith("_") and part != "__init__.py" for part in path.parts)]
# The command is called, not imported.
PUBLIC.remove(ROOT / "daskdml" / "cli.py")
# Spelt apart, or this file would find itself.
UNFINISHED = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK", "NotImplemented" + "Error")))


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def names(path):
    return str(path.relative_to(ROOT))


def written(path):
    """What somebody wrote: the text of a file, of a notebook without its pictures and other outputs."""
    text = path.read_text()
    if path.suffix != ".ipynb":
        return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])


@pytest.mark.parametrize("folder", ["daskdml", "tests", "benchmarks", "docs", "notebooks"])
def test_nothing_is_left_for_later(folder):
    for path in (ROOT / folder).rglob("*"):
        if path.suffix in (".py", ".md", ".ipynb") and ".ipynb_checkpoints" not in path.parts:
            found = UNFINISHED.search(written(path))
            assert found is None, f"{path}: {found.group()}"


@pytest.mark.parametrize("path", FILES, ids=names)
def test_modules_are_documented(path):
    if path.name != "_version.py":
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


@pytest.mark.parametrize("path", PUBLIC, ids=names)
def test_public_modules_list_what_they_offer(path):
    module = importlib.import_module(module_name(path))
    assert len(module.__all__) == len(set(module.__all__))
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isroutine(thing):
            assert inspect.getdoc(thing), f"{module.__name__}.{name} has no docstring"


@pytest.mark.parametrize("path", PUBLIC, ids=names)
def test_public_functions_are_annotated(path):
    module = importlib.import_module(module_name(path))
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isfunction(thing):
            signature = inspect.signature(thing)
            bare = [p.name for p in signature.parameters.values() if p.annotation is p.empty]
            assert not bare, f"{module.__name__}.{name}: {bare} are not annotated"
            assert signature.return_annotation is not signature.empty, f"{module.__name__}.{name}: no return type"


def test_no_rooms_for_odds_and_ends():
    odd = {"utils", "_utils", "helpers", "_helpers", "common", "_common", "misc", "_misc"}
    assert not [path for path in FILES if path.stem in odd]
