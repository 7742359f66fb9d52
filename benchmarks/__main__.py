"""Run benchmarks by name; without a name, all of them at their quick size."""

from __future__ import annotations

import argparse
import importlib
import time

from benchmarks._measure import folder
from benchmarks._plots import redraw

NAMES = (
    "kernels",
    "workers",
    "out_of_core",
    "stragglers",
    "chaos",
    "shards",
    "agreement",
    "overheads",
    "dashboard",
    "gpu",
    "minibatch",
    "scale_model",
    "race",
    # Of what the others have kept.
    "standing",
)


# Which have options of their own.
WITH_OPTIONS = ("race", "out_of_core")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; default all")
    parser.add_argument("--full", action="store_true", help="the sizes that the documentation quotes")
    parser.add_argument("--draw", action="store_true", help="measure nothing: draw again what --full has kept")
    # A benchmark that is run by itself may have options of its own.
    options, own = parser.parse_known_args()
    if own and (len(options.names) != 1 or options.names[0] not in WITH_OPTIONS):
        parser.error(f"unrecognized arguments: {' '.join(own)}")
    if unknown := [n for n in options.names if n not in NAMES]:
        parser.error(f"no benchmark is called {unknown[0]!r}; there are: {', '.join(NAMES)}")
    for name in options.names or NAMES:
        if options.draw:
            redraw(name, folder(full=True))
            continue
        print(f"\n## {name}\n", flush=True)
        benchmark, start = importlib.import_module(f"benchmarks.{name}"), time.perf_counter()
        benchmark.run(full=options.full, **({"arguments": own} if own else {}))
        print(f"\n{name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
