"""What daskdml costs beside the work itself: starting, compiling, running rounds, and predicting.

Every figure has its yardstick in the same run: imports that of the dependencies, compilation the same fit by a process
that finds it done, rounds the bare round trip of a Dask task, predictions a plain sum over the same chunks.
"""

from __future__ import annotations

from typing import Any

from benchmarks._measure import keep, median
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
    keep("overheads", figures, "\n\n".join(texts), full)


CAPTION = "rounds, compilation and predictions"


def picture(figures: dict[str, Any]) -> Any:
    """What a block costs in an epoch, what a first fit waits for, and how near predictions come to a plain sum."""
    from benchmarks._plots import BLUE, COLOURS, GREY, SKY, finish, panels

    figure, (blocks, first, predicted) = panels(3, 4.3, 3.4)
    fits = figures["rounds"]["fits"]
    sides = list(dict.fromkeys((f["strategy"], f["workers"]) for f in fits))
    names = list(dict.fromkeys(name for name, _ in sides))
    for (name, workers), marker in zip(sides, "osD^vPXs*"[: len(sides)].ljust(len(sides), "o"), strict=True):
        some = [f for f in fits if (f["strategy"], f["workers"]) == (name, workers)]
        at, cost = [f["blocks"] for f in some], [1e3 * median(f["epochs"][1:]) / f["blocks"] for f in some]
        blocks.plot(at, cost, marker=marker, color=COLOURS[names.index(name)], label=f"{name}, {workers} workers")
    blocks.axhline(1.0, color="0.6", linewidth=0.8)
    blocks.set(xscale="log", yscale="log", xlabel="blocks", ylabel="ms a block, later epochs", title="empty kernels")
    # Room for the legend, beside the points.
    blocks.set_xlim(right=3e7)
    finish(blocks, fontsize=6, loc="center right")
    cases = figures["compilations"]
    for shift, key, colour, name in ((0, "cold", BLUE, "nothing compiled yet"), (0.4, "warm", SKY, "compiled before")):
        first.barh([k + shift for k in range(len(cases))], [median(c[key]) for c in cases.values()], 0.35,
                   color=colour, label=name)  # fmt: skip
    first.set_yticks([k + 0.2 for k in range(len(cases))], list(cases), fontsize=7)
    first.invert_yaxis()
    first.set(xlabel="seconds of a process's first fit")
    first.set_xlim(right=1.7 * max(median(c["cold"]) for c in cases.values()))
    finish(first, fontsize=7, loc="upper right")
    sums = figures["predictions"]["seconds"]
    for shift, (threads, seconds) in enumerate(sums.items()):
        base = median(seconds["a plain sum"])
        shares = {side: 100 * base / median(s) for side, s in seconds.items() if side != "a plain sum"}
        predicted.bar([k + 0.4 * shift for k in range(len(shares))], list(shares.values()), 0.36,
                      color=(BLUE, SKY)[shift % 2], label=f"{threads} thread{'s' * (threads != '1')}")  # fmt: skip
        predicted.set_xticks([k + 0.2 for k in range(len(shares))], [s.replace("_", "_\n") for s in shares], fontsize=8)
    predicted.axhline(50, color=GREY, linestyle="--")
    predicted.set(ylabel="% of the rate of a plain sum")
    finish(predicted, fontsize=8)
    return figure
