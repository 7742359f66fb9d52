"""The sides of the race: daskdml and its peers, each behind the same few methods."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version

from benchmarks.race._side import Side

# The package whose absence is a reason to be passed over, and the classes of each module.
_MODULES = {
    "daskdml": (
        "daskdml",
        ("OneReplica", "Threads", "AveragingProcesses", "SSPProcesses", "Descent", "DescentThreads"),
    ),
    "scikit_learn": ("scikit-learn", ("PlainSGD", "PlainLogistic")),
    "dask_ml": ("dask-ml", ("IncrementalSGD", "GLM")),
    "vowpal_wabbit": ("vowpalwabbit", ("VowpalMemory", "VowpalFiles")),
    "spark": ("pyspark", ("Spark",)),
    "torch": ("torch", ("TorchSingle",)),
    "torch_ddp": ("torch", ("TorchDDP",)),
}
PEERS = tuple(_MODULES)


def sides(peers: tuple[str, ...]) -> tuple[list[type[Side]], dict[str, str]]:
    """The sides of some peers, and why others are passed over."""
    found: list[type[Side]] = []
    absent = {}
    for peer in peers:
        package, classes = _MODULES[peer]
        try:
            version(package)
        except PackageNotFoundError:
            absent[peer] = f"{package} is not installed"
            continue
        module = importlib.import_module(f"benchmarks.peers._{peer}")
        if reason := getattr(module, "missing", lambda: None)():
            absent[peer] = reason
            continue
        found += [getattr(module, name) for name in classes]
    return found, absent


def side_named(name: str) -> type[Side]:
    """The class of a side."""
    return next(side for peer in PEERS for side in sides((peer,))[0] if side.name == name)
