"""A large, sparse model on the parameter server: time of a pull and a push of a few keys, and every process's memory.

Parameters lie on four shards, one a worker process, each with a second copy on another; a task pulls and pushes
10,000 random keys at a time, the push being acknowledged when both copies have it.
"""

from __future__ import annotations

import resource
import time
from typing import Any

import numpy as np

from benchmarks._measure import keep, median, table
from daskdml.cluster import local
from daskdml.server import Group, Ledger, Partition, Push, Remote, Shard, Table, Ticket, Update, VectorClock

KEYS = 10_000
SHARDS = 4


def exchange(size: int, directory: Any, rounds: int) -> dict[str, list[float]]:
    """In a task: pulls and pushes of random keys, and what each took."""
    remote = Remote.here()
    partition = Partition((Table("w", size, "float32"),), SHARDS)
    rng = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {"pull": [], "push": []}
    for clock in range(rounds):
        keys = np.unique(rng.integers(0, size, KEYS))
        start = time.perf_counter()
        parts = [
            remote.start(ref, "pull", wanted)
            for ref, wanted in zip(directory.primaries, partition.cut_keys({"w": keys}), strict=True)
        ]
        values = np.concatenate([part.result().values["w"] for part in parts])
        seconds["pull"].append(time.perf_counter() - start)
        start = time.perf_counter()
        updates = partition.cut_updates({"w": Update(values + np.float32(1), keys)})
        ticket = Ticket(1, clock, 0)
        parts = [
            remote.start(ref, "push", Push(0, 0, ticket, part))
            for ref, part in zip(directory.primaries, updates, strict=True)
        ]
        for part in parts:
            part.result()
        seconds["push"].append(time.perf_counter() - start)
    return seconds


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(full: bool = False) -> None:
    size, rounds = (200_000_000, 100) if full else (20_000_000, 30)
    tables = (Table("w", size, "float32"),)
    with local(SHARDS, threads_per_worker=1, dashboard_address="127.0.0.1:0") as client:
        client.wait_for_workers(SHARDS)
        before = client.run(peak_megabytes)
        shards = [
            Shard(i, {"w": np.zeros(size // SHARDS, "f4")}, tables, VectorClock([0]), staleness=None, copy=False)
            for i in range(SHARDS)
        ]
        group = Group(client)
        try:
            start = time.perf_counter()
            directory = group.start(shards, Ledger(1, 1, None))
            placed = time.perf_counter() - start
            del shards
            seconds = client.submit(exchange, size, directory, rounds).result()
            after = client.run(peak_megabytes)
        finally:
            group.close()
    shard = size * 4 / SHARDS / 2**20
    rows = [
        ["pull of 10^4 keys, ms", f"{1e3 * median(seconds['pull']):.1f}"],
        ["replicated push of 10^4 keys, ms", f"{1e3 * median(seconds['push']):.1f}"],
        ["a shard, MB", f"{shard:.0f}"],
        ["a worker before, MB", f"{max(before.values()):.0f}"],
        ["a worker at its peak, less that, MB", f"{max(after[a] - before[a] for a in after):.0f}"],
        ["placing all copies, s", f"{placed:.1f}"],
    ]
    figures = {"size": size, "seconds": seconds, "before": list(before.values()), "after": list(after.values())}
    keep("shards", figures, table([f"{size:,} float32 on {SHARDS} shards", ""], rows), full)


CAPTION = "time of a pull and of a push, and memory"


def picture(figures: dict[str, Any]) -> Any:
    """How long messages took, and what a worker held."""
    from benchmarks._plots import BLUE, GREY, ORANGE, SKY, finish, panels

    figure, (times, memory) = panels(2, 4.4, 3.0)
    for key, name, colour in (("pull", "pull of 10^4 keys", BLUE), ("push", "push to both copies", ORANGE)):
        seconds = np.sort(figures["seconds"][key])
        times.step(1e3 * seconds, np.arange(1, len(seconds) + 1) / len(seconds), where="post", color=colour, label=name)
    times.set(xlabel="ms", ylabel="part of the messages", xscale="log", ylim=(0, 1.02))
    times.set_xticks([2, 3, 5, 10], ["2", "3", "5", "10"])
    times.minorticks_off()
    finish(times, fontsize=8, loc="lower right")
    shard = figures["size"] * 4 / SHARDS / 2**20
    workers = range(len(figures["before"]))
    memory.bar(workers, figures["after"], 0.6, color=SKY, label="peak, less that")
    memory.bar(workers, [b + 2 * shard for b in figures["before"]], 0.6, color=BLUE, label="a shard and a copy")
    memory.bar(workers, figures["before"], 0.6, color=GREY, label="process before")
    memory.set(xlabel="worker", ylabel="MB", ylim=(0, 1.35 * max(figures["after"])))
    memory.set_xticks(list(workers))
    finish(memory, fontsize=8, ncols=2)
    return figure
