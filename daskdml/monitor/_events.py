"""What a fit tells its listeners while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class FitInfo:
    """What is known when a fit starts; None where it is not known (unknown chunk sizes).

    ``staleness`` is by how many rounds the fastest replica may be ahead of the slowest, None for no bound.
    ``epochs_done`` and ``rows_done`` are what was trained before, where a fit is resumed. Losses and objectives that
    are told, times ``loss_scale``, are in the units of the target: it is 1 where those were trained on.
    """

    estimator: str
    strategy: str
    n_replicas: int
    n_blocks: int
    n_rows: int | None
    n_features: int
    max_epochs: int
    rounds_per_epoch: int
    params: dict[str, Any] = field(default_factory=dict)
    dashboard: str | None = None
    epochs_done: int = 0
    rows_done: int = 0
    staleness: int | None = 0
    loss_scale: float = 1.0


@dataclass(frozen=True)
class RoundEnd:
    """One synchronisation: the replicas trained, and now agree.

    ``epoch`` and ``round`` count from 1, ``round`` over the whole fit. ``loss`` is the mean training loss a row,
    each row's taken just before it was learnt from; ``objective`` adds the penalty. Seconds are summed over the
    replicas, except ``seconds``, the wall time of the round. ``bytes`` are bytes of data read: recipe and cache.

    With a parameter server a round is a clock, ended when the last replica has finished it. ``gate_seconds`` were spent
    waiting for slower replicas, ``sent_bytes`` and ``received_bytes`` went between replicas and server.
    ``staleness_histogram[k]`` counts the reads of parameters whose slowest replica was k clocks behind;
    ``retries`` messages were sent again, ``reassigned`` parts were trained by another worker than their own, and
    ``recoveries`` times something that a worker had held was replaced.

    ``blocks_from_device`` lay on a GPU already, and ``gpu_replicas`` of the replicas trained on one.
    With a parameter server ``largest_share`` is the part of the epoch's rows that one replica has at most: 1 over their
    number, or more where its worker is faster than others.
    """

    epoch: int
    round: int
    loss: float
    objective: float
    rows: int
    seconds: float
    compute_seconds: float
    load_seconds: float
    wait_seconds: float
    bytes: int
    blocks_from_recipe: int = 0
    blocks_from_memory: int = 0
    blocks_from_disk: int = 0
    gate_seconds: float = 0.0
    sent_bytes: int = 0
    received_bytes: int = 0
    staleness_mean: float = 0.0
    staleness_max: int = 0
    staleness_histogram: tuple[int, ...] = ()
    retries: int = 0
    reassigned: int = 0
    recoveries: int = 0
    blocks_from_device: int = 0
    gpu_replicas: int = 0
    largest_share: float = 0.0


@dataclass(frozen=True, slots=True)
class ReplicaRound:
    """What one replica did in one round: its tasks in it, or with a parameter server its clock.

    ``replica`` counts from 0, ``round`` and ``epoch`` from 1. It comes once for each replica and round, before the
    round's own :class:`RoundEnd`; with a parameter server as soon as the replica is done, so that those ahead are heard
    before the round is over. Nothing comes of a part whose report was lost with its worker.

    ``worker`` is the address of the worker that did most of it; None in the process that called ``fit``. ``begin`` is
    in seconds since the fit began, on the clock of the process that called ``fit``: a worker's clock is trusted where
    what it says can be true, and moved as little as needed where it cannot. ``seconds`` is from there to the end of
    training.

    Of them ``compute_seconds`` were spent in the kernels and ``wait_seconds`` waiting for blocks, which took
    ``load_seconds`` to read or make beside the training. ``gate_seconds`` went in waiting for slower replicas; without
    a server after ``seconds``, until the last one was done. ``communicate_seconds`` is reading parameters from the
    server and waiting for updates to leave; without a server the time of the task that makes one of what all bring.

    ``rows`` were visited, ``bytes`` of data read; ``sent_bytes`` and ``received_bytes`` went between the replica's
    process and the server, ``shard_bytes[k]`` of them to and from shard k. Parameters were at most ``staleness`` clocks
    behind. ``reassigned`` parts were trained in the place of the replica's own runner. The worker's block cache then
    held ``cache_memory_bytes`` and ``cache_disk_bytes``. ``gpu`` is 1 where it trained on a GPU, else 0.
    With a parameter server ``share`` is the part of the epoch's rows that is this replica's.
    """

    replica: int
    round: int
    epoch: int
    worker: str | None
    begin: float
    seconds: float
    compute_seconds: float
    load_seconds: float
    wait_seconds: float
    gate_seconds: float = 0.0
    communicate_seconds: float = 0.0
    rows: int = 0
    bytes: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    staleness: int = 0
    reassigned: int = 0
    cache_memory_bytes: int = 0
    cache_disk_bytes: int = 0
    shard_bytes: tuple[int, ...] = ()
    gpu: int = 0
    share: float = 0.0


@dataclass(frozen=True)
class Recovery:
    """Something that a worker had held was lost and replaced, ``seconds`` after the fit began; ``what`` says it."""

    seconds: float
    what: str


@dataclass(frozen=True)
class ServerStart:
    """A parameter server holds the model: ``shard_bytes[k]`` are the bytes of shard k. Told again after a new start."""

    shard_bytes: tuple[int, ...]


@dataclass(frozen=True)
class EpochEnd:
    """One pass over the data. ``validation_score`` is None without early stopping."""

    epoch: int
    loss: float
    objective: float
    rows: int
    seconds: float
    validation_score: float | None = None
    learning_rate: float | None = None


@dataclass(frozen=True, eq=False)
class EpochsEnd:
    """Several epochs of one round each, from epoch ``first`` on, of data in memory: what RoundEnd and EpochEnd say.

    ``loss``, ``objective`` and ``learning_rate`` have one entry an epoch; the rest holds for each of them.
    """

    first: int
    loss: npt.NDArray[np.float64]
    objective: npt.NDArray[np.float64]
    learning_rate: npt.NDArray[np.float64]
    rows: int
    seconds: float
    bytes: int


@dataclass(frozen=True)
class FitEnd:
    """The fit is over: ``reason`` is 'converged', 'max_iter', 'stopped' (by a callback) or 'failed'."""

    reason: str
    epochs: int
    rows: int
    seconds: float
    error: str | None = None
