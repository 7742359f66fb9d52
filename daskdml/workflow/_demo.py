"""A demonstration: a data set larger than its workers' memory, trained on out of core."""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from daskdml.cluster import worker_info
from daskdml.io import InputError
from daskdml.workflow._errors import RunError
from daskdml.workflow._planted import Planted, Written, file_rows, write_file
from daskdml.workflow._session import session
from daskdml.workflow._train import TrainResult, train


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration saw. ``best_accuracy`` is that of the planted weights themselves."""

    rows: int
    gigabytes: float
    workers: int
    memory_limit_gb: float
    peak_memory_mb: dict[str, float]
    restarts: int
    generate_seconds: float
    train_seconds: float
    rows_per_second: float
    accuracy: float
    best_accuracy: float
    baseline_accuracy: float
    training: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Nested plain dicts."""
        return asdict(self)


def demo(
    *,
    size: str = "1.5GB",
    workers: int = 2,
    memory_limit: str = "700MB",
    epochs: int = 3,
    seed: int = 0,
    features: int = 50,
    progress: bool = False,
    say: Callable[[str], None] | None = None,
) -> DemoResult:
    """Write a data set to a temporary directory, train on it with little memory, and measure.

    Parameters
    ----------
    size : str, default "1.5GB"
        Of the data; it must be more than the workers' memory together, for that is the point.
    workers, memory_limit : int and str
        Processes, and the memory of each.
    epochs, seed, features : int
    progress : bool, default False
        Show the estimator's progress bar.
    say : callable, optional
        Told in words what goes on.

    Returns
    -------
    DemoResult

    Examples
    --------
    >>> from daskdml.workflow import demo
    >>> demo(size="100MB", workers=1, memory_limit="700MB")
    Traceback (most recent call last):
        ...
    daskdml.io._errors.InputError: 100MB of data fit in the workers' memory of 0.7 GB; ask for more, such as --size 2GB
    """
    say = say or (lambda text: None)
    total = _checked_size(size, workers, memory_limit)
    if epochs < 1 or features < 1:
        raise InputError(f"{epochs} epochs over {features} features are nothing to do; give at least 1 of each")
    planted = Planted(n_features=features, seed=seed)
    folder = tempfile.mkdtemp(prefix="daskdml-demo-")
    try:
        _check_disk(folder, total)
        with session(workers, memory_limit) as client:
            started = _worker_ids(client)
            say(f"started {workers} workers of {memory_limit} each; dashboard: {client.dashboard_link}")
            clock = time.perf_counter()
            written = _write(client, planted, folder, total)
            generated = time.perf_counter() - clock
            right = sum(w.right for w in written) / sum(w.rows for w in written)
            say(
                f"wrote {sum(w.nbytes for w in written) / 1e9:.2f} GB of Parquet in {len(written)} files, "
                f"{generated:.1f} s"
            )
            result = train(folder, "label", epochs=epochs, seed=seed, progress=progress, say=say)
            peaks = {k: v / 1e6 for k, v in client.run(peak_memory).items()}
            restarts = len(set(started) - set(_worker_ids(client)))
        return _result(written, (workers, memory_limit), (peaks, restarts), generated, right, result)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def peak_memory() -> int:
    """The largest resident size this process has had, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss, which a new process takes over from the one that started it.
        line = next(s for s in status.read_text().splitlines() if s.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _checked_size(size: str, workers: int, memory_limit: str) -> float:
    from dask.utils import parse_bytes

    try:
        total, limit = parse_bytes(size), parse_bytes(memory_limit)
    except ValueError as error:
        raise InputError(f"{error}; write an amount of memory as 700MB or 2GB") from None
    if workers >= 1 and total <= workers * limit:
        raise InputError(
            f"{size} of data fit in the workers' memory of {workers * limit / 1e9:.1f} GB; ask for more, such as "
            f"--size {max(2 * round(workers * limit / 1e9), 2)}GB"
        )
    return float(total)


def _check_disk(folder: str, total: float) -> None:
    free = shutil.disk_usage(folder).free
    # The files, and as much again for the workers' caches.
    if free < 2.2 * total:
        raise RunError(
            f"{folder} has {free / 1e9:.1f} GB free but the demonstration needs {2.2 * total / 1e9:.1f} GB; "
            "free some, set TMPDIR to a larger disk, or give a smaller --size and --memory-limit"
        )


def _worker_ids(client: Any) -> list[str]:
    return [str(w["id"]) + a for a, w in worker_info(client).items()]


def _write(client: Any, planted: Planted, folder: str, total: float) -> list[Written]:
    rows = file_rows(planted, total)
    n = len(rows)
    return client.gather(client.map(write_file, [planted] * n, [folder] * n, range(n), rows, pure=False))


def _result(
    written: list[Written],
    asked: tuple[int, str],
    seen: tuple[dict[str, float], int],
    generated: float,
    best: float,
    result: TrainResult,
) -> DemoResult:
    from dask.utils import parse_bytes

    return DemoResult(
        rows=sum(w.rows for w in written),
        gigabytes=sum(w.nbytes for w in written) / 1e9,
        workers=asked[0],
        memory_limit_gb=parse_bytes(asked[1]) / 1e9,
        peak_memory_mb={k: round(v, 1) for k, v in seen[0].items()},
        restarts=seen[1],
        generate_seconds=round(generated, 2),
        train_seconds=result.seconds,
        rows_per_second=round(result.rows_per_second),
        accuracy=result.test["accuracy"],
        best_accuracy=best,
        baseline_accuracy=result.baseline["accuracy"],
        training=result.to_json(),
    )
