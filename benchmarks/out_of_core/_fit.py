"""One fit out of core, watched: seconds and sources of each epoch, memory, bytes, restarts and pauses."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.out_of_core._files import Files, forget
from daskdml import Averaging
from daskdml.cluster import current_client, local, worker_info
from daskdml.linear_model import SGDClassifier
from daskdml.monitor import Callback
from daskdml.strategies import _dask
from daskdml.workflow._demo import peak_memory

Cached = Callable[[list[str]], dict[str, float]]


class Between(Callback):
    """Between epochs: reads back what the cache has written, and empties the page cache of it before some epochs."""

    def __init__(self, folders: list[str], read: Cached, cold: set[int], last: int):
        self.folders = folders
        self.read = read
        self.cold = cold
        self.last = last
        self.reads: list[dict[str, Any]] = []
        self.cached: list[str] = []

    def on_epoch_end(self, epoch: Any) -> None:
        following = epoch.epoch + 1
        self.cached = sorted(str(p) for folder in self.folders for p in Path(folder).rglob("*.block"))
        if following > self.last or not self.cached:
            return
        cold = following in self.cold
        # Of what is read after the other, the second is better off: which it is changes.
        if cold:
            forget(self.cached)
        self.reads.append({"before_epoch": following, "cold": cold} | self.read(self.cached))
        if cold:
            forget(self.cached)


def fit(files: Files, workers: int, limit: str, epochs: int, read: Cached, cold: set[int]) -> dict[str, Any]:
    """Train on the files; ``cold`` epochs find nothing of the cache's files in memory."""
    with local(workers, memory_limit=limit, dashboard_address="127.0.0.1:0", memory_pause=0.8) as client:
        client.wait_for_workers(workers)
        before = set(client.run(os.getpid).values())
        client.run_on_scheduler(_watch)
        X, y = files.open()
        # Imports and compiled code that is loaded count for nobody.
        _warm_up(X, y)
        plan = _plan(client, X, y)
        between = Between(list(client.run(_folder).values()), read, cold, epochs)
        clf = SGDClassifier(
            loss="log_loss", max_iter=epochs, tol=None, random_state=0, strategy=Averaging(n_replicas=workers),
            callbacks=[between],
        )  # fmt: skip
        moved = client.run(_moved)
        # Where epochs take less than a second the next one is sent while one is under way: what is done between two
        # of them here would be done beside it.
        with patch.object(_dask, "_AHEAD_SECONDS", 0.0):
            clf.fit(X, y)
        moved = {k: sum(m[k] for m in client.run(_moved).values()) - sum(m[k] for m in moved.values()) for k in MOVED}
        peaks = list(client.run(peak_memory).values())
        restarts = len(set(client.run(os.getpid).values()) - before)
        history = clf.history_
        sources = history[["blocks_from_recipe", "blocks_from_memory", "blocks_from_disk"]].to_numpy().tolist()
        return {
            "workers": workers,
            "limit": plan["limit_bytes"],
            "plan": plan,
            "seconds": history["seconds"].tolist(),
            "sources": sources,
            "block_bytes": history["bytes"].tolist(),
            "wait_seconds": history["wait_seconds"].tolist(),
            "load_seconds": history["load_seconds"].tolist(),
            "compute_seconds": history["compute_seconds"].tolist(),
            "cold": sorted(cold),
            "reads": between.reads,
            "cached_files": len(between.cached),
            "peak_bytes": peaks,
            "moved": moved,
            "restarts": restarts,
            "pauses": client.run_on_scheduler(_pauses),
            "accuracy": _accuracy(clf, X, y, files.scored),
        }


def _warm_up(X: Any, y: Any) -> None:
    clf = SGDClassifier(loss="log_loss", max_iter=2, tol=None, strategy=Averaging())
    part = 2 * len(worker_info(current_client()))
    clf.fit(*((a.partitions[:part] if hasattr(a, "npartitions") else a) for a in (X, y)))


def _accuracy(clf: Any, X: Any, y: Any, rows: int) -> float:
    """Over the first rows, which were trained on."""
    if hasattr(X, "npartitions") and hasattr(X, "partitions") and not hasattr(X, "chunks"):
        part = max(1, X.npartitions // 10)
        return float(clf.score(X.partitions[:part], y.partitions[:part]))
    return float(clf.score(X[:rows], y[:rows]))


def _plan(client: Any, X: Any, y: Any) -> dict[str, Any]:
    """The plan that the fit will make, from the same figures."""
    from daskdml.data import Target, as_dataset, plan_memory, worker_memory

    data = as_dataset(X, y, target=Target(), client=client)
    memory = worker_memory(client)
    model = 8 * (data.schema.n_features + 1)
    plan = plan_memory(data.schema, data.max_block_rows, model, memory.limits, memory.baselines, threads=memory.threads)
    return {
        "cache_bytes": plan.cache_bytes,
        "limit_bytes": plan.limit_bytes,
        "model_bytes": model,
        "blocks": data.n_blocks,
        "process_bytes": max(memory.baselines.values()),
    }


def _folder(dask_worker: Any) -> str:
    return str(dask_worker.local_directory)


MOVED = ("read_chars", "write_chars", "read_bytes", "write_bytes")


def _moved() -> dict[str, int]:
    """What this process has read and written by system calls, and what of it moved from and to the disk."""
    import psutil

    counters = psutil.Process().io_counters()
    return {k: int(getattr(counters, k)) for k in MOVED}


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
