"""What each plot shows of a fit: plain columns, worked out from what the store has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from dask.utils import format_bytes

from daskdml.monitor.dashboard._fit import Fit, Lane

Columns = Mapping[str, Sequence[Any] | npt.NDArray[Any]]

# More bars or lines than this nobody can read.
_MOST = 32
# Seconds, and the part of what is shown, over which a rate is a mean.
_WINDOW = 1.0
_PART = 0.02
# Seconds of work, as a part of that time, from which on a limit is told.
_LITTLE = 0.1
# A replica is a straggler that takes so many times the median for a row.
_SLOW = 1.3


@dataclass(frozen=True)
class Straggler:
    """The slowest replica: ``times`` the median's time a row."""

    replica: int
    worker: str
    times: float


def straggler(fit: Fit) -> Straggler | None:
    """Who holds the others up; None where nobody is much slower than the median."""
    paces = {replica: pace for replica, lane in fit.lanes.items() if (pace := lane.pace) is not None}
    if len(paces) < 2:
        return None
    slowest = max(paces, key=lambda replica: paces[replica])
    usual = median(pace for replica, pace in paces.items() if replica != slowest)
    if not usual or paces[slowest] < _SLOW * usual:
        return None
    return Straggler(slowest, fit.lanes[slowest].worker, paces[slowest] / usual)


def loss(fit: Fit) -> Columns:
    """The mean loss a row, against seconds and epochs."""
    at, epoch, value = fit.loss.columns()
    return {"at": at, "epoch": epoch, "loss": value}


def validation(fit: Fit) -> Columns:
    """The validation score, against seconds and epochs."""
    at, epoch, score = fit.validation.columns()
    return {"at": at, "epoch": epoch, "score": score}


def shown(fit: Fit) -> list[tuple[int, Lane]]:
    """The replicas that are drawn: where there are many, those most behind and those most ahead."""
    lanes = sorted(fit.lanes.items())
    if len(lanes) <= _MOST:
        return lanes
    by_clock = sorted(lanes, key=lambda found: (found[1].clock, found[0]))
    return sorted(by_clock[: _MOST // 2] + by_clock[-_MOST // 2 :])


def clocks(fit: Fit) -> Columns:
    """A line for each replica: the clocks it has finished, against seconds."""
    lanes = shown(fit)
    return {
        "at": [[at for at, _ in lane.track] for _, lane in lanes],
        "clock": [[clock for _, clock in lane.track] for _, lane in lanes],
        "replica": [replica for replica, _ in lanes],
        "worker": [lane.worker for _, lane in lanes],
    }


def bound(fit: Fit) -> Columns:
    """How many clocks a replica may have finished at most: those of the slowest, the staleness, and the one it does."""
    lanes = list(fit.lanes.values())
    if fit.staleness is None or len(lanes) < (fit.facts.get("n_replicas") or 1):
        return {"at": [], "clock": []}
    # In the order of time, whatever the order in which the events came.
    moves = sorted((at, n, clock) for n, lane in enumerate(lanes) for at, clock in lane.track)
    begin = max(lane.track[0][0] for lane in lanes)
    reached = [lane.track[0][1] for lane in lanes]
    there, least = Counter(reached), min(reached)
    at, limit = [begin], [least + fit.staleness + 1]
    for time, n, clock in moves:
        there[reached[n]] -= 1
        reached[n] = max(reached[n], clock)
        there[reached[n]] += 1
        while not there[least]:
            least += 1
        if time >= begin and least + fit.staleness + 1 != limit[-1]:
            at.append(time)
            limit.append(least + fit.staleness + 1)
    return {"at": [*at, moves[-1][0]], "clock": [*limit, limit[-1]]}


def staleness(fit: Fit) -> Columns:
    """How often parameters were read so many clocks behind."""
    lags = range(max(fit.lags, default=-1) + 1)
    return {"lag": list(lags), "reads": [fit.lags[lag] for lag in lags]}


def time_spent(fit: Fit) -> Columns:
    """For each replica, what its time went into, in percent; loading goes on beside the rest."""
    lanes = shown(fit)
    found: dict[str, list[Any]] = {name: [] for name in ("replica", "worker", *SPENT, "load", "seconds")}
    for replica, lane in lanes:
        total = sum(getattr(lane, name) for name in SPENT)
        scale = 100.0 / total if total else 0.0
        found["replica"].append(str(replica))
        found["worker"].append(lane.worker)
        found["seconds"].append(total)
        for name in (*SPENT, "load"):
            found[name].append(scale * getattr(lane, name))
    return found


SPENT = ("compute", "wait", "gate", "communicate")
"""What a replica's time goes into, one after another."""


def paces(fit: Fit) -> Columns:
    """Microseconds that a row took each replica lately, computing and waiting for its data."""
    lanes = [(replica, lane, pace) for replica, lane in shown(fit) if (pace := lane.pace) is not None]
    slow = straggler(fit)
    return {
        "replica": [str(replica) for replica, _, _ in lanes],
        "worker": [lane.worker for _, lane, _ in lanes],
        "pace": [1e6 * pace for _, _, pace in lanes],
        "slow": [slow is not None and slow.replica == replica for replica, _, _ in lanes],
    }


def rates(fit: Fit) -> Columns:
    """Rows and gigabytes a second, each the mean over about the last second."""
    at, rows, nbytes, _, _ = fit.work.columns()
    if not len(at):
        return {"at": at, "rows": rows, "gigabytes": nbytes}
    took, rows, nbytes, _, _ = _lately(fit)
    took = np.maximum(took, 1e-9)
    return {"at": at, "rows": rows / took, "gigabytes": nbytes / took / 1e9}


def limits(fit: Fit) -> tuple[float, float] | None:
    """Rows and gigabytes a second if all replicas computed, or loaded, all the time as in the fit's best second."""
    if fit.work.last is None:
        return None
    took, rows, nbytes, compute, load = _lately(fit)
    slower = np.maximum(compute, load)
    # Of little work nothing can be said, unless there was no more.
    told = slower >= min(_LITTLE * float(took.max()), float(slower.max()))
    told &= slower > 0
    if not told.any():
        return None
    replicas = fit.facts.get("n_replicas") or 1
    side_by_side = min(replicas, fit.threads) if fit.threads else replicas
    best = [side_by_side * float((done[told] / slower[told]).max()) for done in (rows, nbytes)]
    return best[0], best[1] / 1e9


def _lately(fit: Fit) -> list[np.ndarray]:
    """For each moment of the fit's work: seconds since about a second before, and what was done in them."""
    totals = [np.concatenate([[0.0], column]) for column in fit.work.columns()]
    at = totals[0]
    window = max(_WINDOW, _PART * (at[-1] - at[0]))
    before = np.minimum(np.searchsorted(at, at - window, side="right") - 1, np.arange(len(at)) - 1).clip(0)
    return [(total - total[before])[1:] for total in totals]


def shards(fit: Fit) -> Columns:
    """Bytes of each shard, and bytes that went to and from it; where there are many, the hottest."""
    hottest = sorted(range(len(fit.shards)), key=lambda shard: (-fit.traffic[shard], shard))[:_MOST]
    return {
        "shard": [str(shard) for shard in hottest],
        "nbytes": [fit.shards[shard] for shard in hottest],
        "traffic": [fit.traffic[shard] for shard in hottest],
        "size": [format_bytes(fit.shards[shard]) for shard in hottest],
        "moved": [format_bytes(fit.traffic[shard]) for shard in hottest],
    }


def caches(fit: Fit) -> Columns:
    """Bytes of blocks that each worker keeps, in memory and in files; where there are many, the fullest."""
    fullest = sorted(sorted(fit.caches.items(), key=lambda found: -sum(found[1]))[:_MOST])
    return {
        "worker": [_short(worker) for worker, _ in fullest],
        "memory": [memory for _, (memory, _) in fullest],
        "disk": [disk for _, (_, disk) in fullest],
        "in_memory": [format_bytes(memory) for _, (memory, _) in fullest],
        "on_disk": [format_bytes(disk) for _, (_, disk) in fullest],
    }


def marks(fit: Fit) -> Columns:
    """What happened: recoveries, parts trained by others, workers that came and went."""
    found = fit.marks
    return {
        "at": [mark.at for mark in found],
        "kind": [mark.kind for mark in found],
        "what": [mark.what for mark in found],
    }


KINDS = ("recovery", "worker left", "worker joined", "reassigned")
"""The kinds of marks there are."""


def _short(worker: str) -> str:
    return worker.rsplit("/", 1)[-1][-28:]
