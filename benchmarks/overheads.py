"""What daskdml costs beside the work itself: starting, compiling, running rounds, and predicting.

Every figure has its yardstick in the same run: imports that of the dependencies, compilation the same fit by a process
that finds it done, rounds the bare round trip of a Dask task, predictions a plain sum over the same chunks.
"""

from __future__ import annotations

from benchmarks._measure import keep
from benchmarks._prediction import predictions
from benchmarks._rounds import rounds
from benchmarks._startup import compilations, imports


def run(full: bool = False) -> None:
    figures, texts = {}, []
    for name, part in {
        "imports": imports,
        "compilations": compilations,
        "predictions": predictions,
        "rounds": rounds,
    }.items():
        figures[name], text = part(full)
        print(text + "\n", flush=True)
        texts.append(f"## {name}\n\n{text}")
    keep("overheads", figures, "\n\n".join(texts))
