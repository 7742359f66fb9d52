"""Timing sides in turn, and writing down what was seen."""

from __future__ import annotations

import contextlib
import json
import mmap
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def in_turn(sides: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each side, A B C A B C ..., so that drift of the machine meets all alike; one warm-up each."""
    for side in sides.values():
        side()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median(values: list[float]) -> float:
    return statistics.median(values)


def spread(values: list[float]) -> str:
    return f"{median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def new_memory_seconds(nbytes: int = 2**28) -> float:
    """Seconds to have so many bytes that this process did not have before, in huge pages where there are some.

    What NumPy takes for large arrays. A virtual machine may have given free memory back to its host, and then has to
    ask for each page of it again, which takes twenty times as long.
    """
    with mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
        start = time.perf_counter()
        for at in range(0, nbytes, mmap.PAGESIZE):
            memory[at] = 1
        return time.perf_counter() - start


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    packages = ("daskdml", "numpy", "numba", "scikit-learn", "dask", "distributed", "pyarrow")
    return {"processor": model, "python": platform.python_version()} | {p: _version(p) for p in packages}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        # Run from a checkout that is not installed.
        return "not installed"


def table(headings: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def folder(full: bool) -> Path:
    """Where results are kept; those of a quick size replace none of those that the documentation quotes."""
    return RESULTS if full else RESULTS / "quick"


def keep(name: str, figures: dict[str, Any], text: str, full: bool) -> None:
    """Print a table, and keep it with its figures and their picture under ``benchmarks/results``."""
    from benchmarks._plots import draw

    place = folder(full)
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{name}.json").write_text(json.dumps({"machine": machine()} | figures, indent=1) + "\n")
    head = ", ".join(f"{k} {v}" for k, v in machine().items())
    shown = draw(name, place)
    page = [f"# {name}" + (", quick size" if not full else ""), head, text, *([shown] if shown else [])]
    (place / f"{name}.md").write_text("\n\n".join(page) + "\n")
    print(text)


def kept(name: str, full: bool) -> dict[str, Any]:
    """The figures that were kept last; none where there are none."""
    path = folder(full) / f"{name}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}
