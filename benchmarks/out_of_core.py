"""Data larger than the workers' memory: speed of the first epoch and of the cached ones, and peak memory.

Parquet files are written to a temporary folder; two workers train on them for three epochs. Beside it, in the same
run: a plain sequential read of the same files, by as many processes as there are workers.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks._measure import keep, table

ROW_FEATURES = 50


def read_files(paths: list[str]) -> int:
    """Read files to the end; returns their bytes."""
    buffer, total = bytearray(1 << 22), 0
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while n := file.readinto(buffer):
                total += n
    return total


def peak_bytes() -> int:
    """The largest resident size this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(full: bool = False) -> None:
    size, limit, workers, epochs = (8e9 if full else 2e9), "700MB", 2, 3
    with tempfile.TemporaryDirectory(prefix="daskdml-bench-") as folder:
        start = time.perf_counter()
        paths = _write(folder, size, workers)
        written = time.perf_counter() - start
        figures = _train(folder, workers, limit, epochs)
        figures["sequential_read_seconds"] = _sequential(paths, workers)
        figures |= {"bytes": sum(map(os.path.getsize, paths)), "write_seconds": written}
    gigabytes = figures["bytes"] / 1e9
    rows: list[list[Any]] = []
    for epoch, seconds in enumerate(figures["epoch_seconds"], 1):
        rows.append([f"epoch {epoch}", f"{seconds:.1f}", f"{gigabytes / seconds:.2f}",
                     f"{figures['rows'] / seconds / 1e6:.1f}", figures["sources"][epoch - 1]])  # fmt: skip
    sequential = figures["sequential_read_seconds"]
    rows.append(
        [f"plain read of the files, {workers} processes", f"{sequential:.1f}", f"{gigabytes / sequential:.2f}", "", ""]
    )
    text = (
        f"{gigabytes:.1f} GB of Parquet, {figures['rows']:,} x {ROW_FEATURES} float32, "
        f"on {workers} workers of {limit}: peak "
        + ", ".join(f"{b / 1e6:.0f} MB" for b in figures["peak_bytes"])
        + f"; {figures['restarts']} restarts, {figures['pauses']} pauses; "
        + f"training accuracy {figures['accuracy']:.4f}.\n\n"
    )
    keep("out_of_core", figures, text + table(["", "seconds", "GB of files/s", "M rows/s", "blocks from"], rows))


def _write(folder: str, size: float, workers: int) -> list[str]:
    from daskdml.workflow._planted import Planted, file_rows, write_file

    planted = Planted(n_features=ROW_FEATURES)
    counts = file_rows(planted, size)
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(write_file, [planted] * len(counts), [folder] * len(counts), range(len(counts)), counts))
    return sorted(str(p) for p in Path(folder).glob("*.parquet"))


def _train(folder: str, workers: int, limit: str, epochs: int) -> dict[str, Any]:
    import dask.dataframe as dd

    from daskdml import Averaging
    from daskdml.cluster import local
    from daskdml.linear_model import SGDClassifier

    with local(workers, memory_limit=limit, dashboard_address="127.0.0.1:0", memory_pause=0.8) as client:
        before = set(client.run(os.getpid).values())
        client.run_on_scheduler(_watch)
        frame = dd.read_parquet(folder)
        clf = SGDClassifier(
            loss="log_loss", learning_rate="adagrad", max_iter=epochs, tol=None, random_state=0,
            strategy=Averaging(n_replicas=workers),
        )  # fmt: skip
        clf.fit(frame.drop(columns="label"), frame["label"])
        after = client.run(os.getpid)
        history = clf.history_
        sources = history[["blocks_from_recipe", "blocks_from_memory", "blocks_from_disk"]]
        return {
            "rows": int(history["rows"].iloc[0]),
            "epoch_seconds": history["seconds"].tolist(),
            "sources": [f"{a} recipes, {b} in memory, {c} on disk" for a, b, c in sources.to_numpy().tolist()],
            "wait_seconds": history["wait_seconds"].tolist(),
            "compute_seconds": history["compute_seconds"].tolist(),
            "peak_bytes": list(client.run(peak_bytes).values()),
            "restarts": len(set(after.values()) - before),
            "pauses": client.run_on_scheduler(_pauses),
            "accuracy": clf.score(frame.drop(columns="label"), frame["label"]),
        }


def _watch(dask_scheduler: Any) -> None:
    """Count every time a worker pauses."""
    from distributed.diagnostics.plugin import SchedulerPlugin

    class Pauses(SchedulerPlugin):
        name = "pauses"
        count = 0

    plugin = Pauses()
    dask_scheduler.add_plugin(plugin)
    handle = dask_scheduler.stream_handlers["worker-status-change"]

    def counting(status: str, worker: str, stimulus_id: str) -> None:
        plugin.count += status == "paused"
        handle(status=status, worker=worker, stimulus_id=stimulus_id)

    dask_scheduler.stream_handlers["worker-status-change"] = counting


def _pauses(dask_scheduler: Any) -> int:
    return int(dask_scheduler.plugins["pauses"].count)


def _sequential(paths: list[str], workers: int) -> float:
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(read_files, [[]] * workers))
        start = time.perf_counter()
        list(pool.map(read_files, [paths[i::workers] for i in range(workers)]))
        return time.perf_counter() - start
