"""Imports go one way, and `import daskdml` brings no optional package."""

import ast
import importlib.metadata
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from daskdml import SSP, Averaging

PACKAGE = Path(__file__).parents[2] / "daskdml"
# A room may import the rooms of earlier lines, and itself.
FLOORS = [
    {"numerics"},
    {"models"},
    {"data", "server", "monitor", "cluster", "checkpoint"},
    {"strategies"},
    {"linear_model", "neural_network", "recommendation", "metrics", "io", "preprocessing", "plot"},
    {"workflow"},
    {"cli", "_reports"},
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
OPTIONAL = {
    "torch",
    "cupy",
    "cupyx",
    "cudf",
    "rmm",
    "dask_cuda",
    "matplotlib",
    "IPython",
    "ipywidgets",
    "prometheus_client",
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    """(module, line) of each import in a file, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            yield node.module, node.lineno
            yield from (
                (f"{node.module}.{alias.name}", node.lineno) for alias in node.names if node.module == "daskdml"
            )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    room = room_of(path)
    if room in ("__init__", "__main__", "_version"):
        return
    assert room in LEVEL, f"{room} has no place in FLOORS"
    for module, line in imported(path):
        parts = module.split(".")
        if parts[0] == "daskdml" and len(parts) > 1 and parts[1] in LEVEL:
            assert LEVEL[parts[1]] <= LEVEL[room], f"{path}:{line}: {room} imports {module}, which stands above it"
            if LEVEL[parts[1]] == LEVEL[room] and parts[1] != room:
                assert not _imports_back(parts[1], room), f"{path}:{line}: {room} and {parts[1]} import each other"


def _imports_back(room, to):
    return any(
        module.startswith(f"daskdml.{to}") for path in FILES if room_of(path) == room for module, _ in imported(path)
    )


@pytest.mark.parametrize("room", ["numerics", "models"])
def test_numerics_and_models_know_no_dask(room):
    for path in (PACKAGE / room).rglob("*.py"):
        for module, line in imported(path):
            assert module.split(".")[0] not in ("dask", "distributed", "dask_ml"), f"{path}:{line} imports {module}"


def test_importing_everything_brings_no_optional_package():
    modules = [
        ".".join(("daskdml", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in FILES
        if path.name != "__main__.py"
    ]
    # xarray is a dependency, but where an environment lacks it, everything else works.
    code = (
        "import sys, importlib; sys.modules['xarray'] = None\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(sorted({OPTIONAL!r} & {{name.split('.')[0] for name in sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_nothing_of_cuda_is_imported_before_a_gpu_is_asked_for():
    code = (
        "import sys, numpy as np\n"
        "from daskdml.linear_model import SGDClassifier\n"
        "SGDClassifier(max_iter=2, tol=None).fit(np.eye(2), [0, 1])\n"
        "print([n for n in sys.modules if n.startswith(('numba.cuda', 'daskdml.numerics.cuda'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_a_worker_does_not_import_what_it_has_no_use_for():
    """Each worker imports before its first row, and what it imports takes of its memory."""
    code = (
        "import sys, pickle, daskdml.strategies._tasks, daskdml.data._recipe\n"
        f"pickle.loads({pickle.dumps([Averaging(2), SSP(2)])!r})\n"
        "print(sorted({'sklearn', 'scipy.stats', 'scipy.optimize', 'matplotlib', 'bokeh'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_rooms_are_attributes_that_are_imported_when_asked_for():
    code = (
        "import sys, daskdml\n"
        "rooms = [name for name in dir(daskdml) if name.islower() and not name.startswith('_')]\n"
        "print(sorted(name for name in sys.modules if name.startswith('daskdml.')))\n"
        "print(callable(daskdml.plot.history), [getattr(daskdml, n).__name__ for n in rooms] == "
        "['daskdml.' + n for n in rooms], len(rooms))\n"
        f"print(sorted({OPTIONAL!r} & {{name.split('.')[0] for name in sys.modules}}), hasattr(daskdml, 'nonsense'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["['daskdml._version']", "True True 12", "[] False"]


def test_what_is_imported_is_declared():
    """Every third-party package that daskdml imports is named in pyproject.toml."""
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    extras = ("torch", "gpu", "plot", "notebook", "metrics")
    named = project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]
    declared = {Requirement(line).name.lower() for line in named} | {"distributed", "cupy", "rmm", "sparse", "ipython"}
    distributions = importlib.metadata.packages_distributions()
    # What comes with a declared dependency, as a part of it that it documents.
    declared |= {"toolz", "tornado", "packaging", "llvmlite", "joblib"}
    for path in FILES:
        for module, line in imported(path):
            top = module.split(".")[0]
            if top == "daskdml" or top in sys.stdlib_module_names:
                continue
            names = {name.lower().replace("_", "-") for name in distributions.get(top, [top])}
            assert names & declared, f"{path}:{line}: {top} is not a dependency"
