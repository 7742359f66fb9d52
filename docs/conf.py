"""How Sphinx makes the documentation: ``make docs``, and tests/docs. Nothing is fetched from elsewhere."""

import shutil
from pathlib import Path
from typing import Any

from daskdml import __version__

_ROOT = Path(__file__).parents[1]

project = "daskdml"
author = "daskdml developers"
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "sphinx_copybutton"]
exclude_patterns = ["_build", "conftest.py", "**/.ipynb_checkpoints"]
templates_path = ["_templates"]

# Notebooks are kept with their outputs; tests/notebooks executes them.
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
add_module_names = False

html_theme = "furo"
html_title = f"daskdml {__version__}"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["daskdml.css"]


# Folders of the checkout that are pages here as well, and under which name.
_SHOWN = {"notebooks": "notebooks", "benchmarks/results": "benchmarks"}
# Links are written as they lead in a checkout; where their target is a page of the site, they lead there.
_ELSEWHERE = {
    "](../README.md": "](/index.md",
    "](../docs/": "](/",
    "](../notebooks/": "](/notebooks/",
    "](../../notebooks/": "](/notebooks/",
}


# Pages that are in the table of contents where they are there.
_OPTIONAL = ("monitoring", "plots")


def _bring(app: Any) -> None:
    """Copy what is shown of other folders; Sphinx takes no pages from outside its own."""
    for folder, name in _SHOWN.items():
        shutil.rmtree(app.srcdir / name, ignore_errors=True)
        shutil.copytree(_ROOT / folder, app.srcdir / name, ignore=shutil.ignore_patterns(".*", "*.json", "quick"))


def _relink(app: Any, page: str, source: list[str]) -> None:
    """Let links lead where their target is in the site, and the table of contents to pages that are there."""
    for old, new in _ELSEWHERE.items():
        source[0] = source[0].replace(old, new)
    for name in _OPTIONAL:
        if page == "index" and not (app.srcdir / f"{name}.md").exists():
            source[0] = source[0].replace(f"\n{name}\n", "\n")


def _skip(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what scikit-learn brings by itself: its own pages tell of it, and are not here."""
    inherited = str(getattr(obj, "__module__", "")).startswith("sklearn.")
    return True if inherited or (name.startswith("set_") and name.endswith("_request")) else None


def setup(app: Any) -> None:
    """Connect the functions above; Sphinx calls this."""
    app.connect("builder-inited", _bring)
    app.connect("autodoc-skip-member", _skip)
    app.connect("source-read", _relink)
