"""daskdml and its peers on the same rows and the same objective: seconds to within so much of the optimum.

The objective is the mean log-loss + alpha/2 |w|^2 with a free intercept, alpha = 1e-4, over the training rows; its
optimum is found beforehand to high precision. A side is trained for more and more passes, and its time to a target is
that of the first model whose objective is within 2 %, 0.5 % or 0.01 % of the optimum. Judging models is not counted.
A start in memory begins with rows where the library keeps rows that are in memory (the process, its workers, Spark's
cache); a start from files with Parquet, and whatever a library has to make of it counts. Interpreter, cluster, Java and
first compilations are not counted but reported. Each side runs in processes of its own, in turn with the others.

``--tune`` tries each side's grid on the workload and keeps, for each target, what was fastest; ``race`` then uses it.
"""

from __future__ import annotations

from collections.abc import Sequence


def run(full: bool = False, arguments: Sequence[str] = ()) -> None:
    # The processes of a race import its parts: they have no use for what directs it.
    from benchmarks.race._run import run

    run(full, arguments)
