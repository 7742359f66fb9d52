"""What can be asked of a race."""

from __future__ import annotations

import argparse

from benchmarks.peers import PEERS
from benchmarks.race._workloads import WORKLOADS

STARTS = ("memory", "files")
# Of the quick size: with a process for each and its start, more would not be quick.
QUICK_SECONDS = 75.0
QUICK_SIDES = ("1 replica", "2 threads", "FullBatch", "scikit-learn", "PyTorch, 1 process", "dask-ml", "Spark")


def parse(arguments: list[str], full: bool) -> argparse.Namespace:
    """The options after the benchmark's name; without any, what belongs to the size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks race")
    parser.add_argument("--only", default="dense", help=f"workloads, of {','.join(WORKLOADS)}; default dense")
    starts = "memory,files" if full else "memory"
    parser.add_argument("--start", default=starts, help=f"memory, files or both as memory,files; default {starts}")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"of {','.join(PEERS)}; daskdml always races")
    parser.add_argument("--sides", default="", help="those whose names have one of these in them, as 'FullBatch,SAGA'")
    parser.add_argument("--tune", action="store_true", help="find the settings of each side, and race afterwards never")
    parser.add_argument("--repeats", type=int, default=3 if full else 1)
    parser.add_argument("--limit", type=float, default=None, help="seconds that a fit may take; default 20, quick 1")
    parser.add_argument(
        "--budget", type=float, default=500.0 if full else QUICK_SECONDS, help="seconds after which everything is ended"
    )
    found = parser.parse_args(arguments)
    found.only = _known(parser, "--only", found.only, tuple(WORKLOADS))
    found.peers = _known(parser, "--peers", found.peers, PEERS)
    if not found.tune:
        found.peers = ("daskdml", *(peer for peer in found.peers if peer != "daskdml"))
    found.starts = _known(parser, "--start", found.start, STARTS)
    usual = () if full or found.tune else QUICK_SIDES
    found.sides = tuple(part for part in found.sides.split(",") if part) or usual
    found.limit = found.limit or (20.0 if full else 1.0)
    found.full = full
    return found


def _known(parser: argparse.ArgumentParser, option: str, given: str, known: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(given.split(","))
    if unknown := [name for name in names if name not in known]:
        parser.error(f"{option}: {unknown[0]!r} is none of {', '.join(known)}")
    return names
