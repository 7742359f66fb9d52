"""From an estimator's data to a trained state: where, with how many replicas, in which blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from daskdml.cluster import check_workers, current_client, embedded
from daskdml.data import Block, Dataset, Schema, Target, as_dataset, is_in_memory
from daskdml.data._sources import features
from daskdml.models import LinearModel
from daskdml.monitor import CallbackList, FitInfo
from daskdml.strategies import (
    Agreed,
    DaskRunner,
    InMemory,
    LocalRunner,
    Schedule,
    Synchronous,
    Trained,
    as_strategy,
    train,
)


@dataclass(frozen=True, eq=False)
class Memory:
    """Data in memory, for one replica and no cluster: one block."""

    block: Block
    schema: Schema
    n_replicas: int = 1
    n_blocks: int = 1

    @property
    def n_rows(self) -> int:
        return self.block.n_rows

    def runner(self, strategy: Synchronous, model: LinearModel, memory_budget: Any) -> LocalRunner:
        return LocalRunner(strategy, model, InMemory(self.block))


@dataclass(frozen=True, eq=False)
class Distributed:
    """Blocks on a cluster."""

    dataset: Dataset
    client: Any
    n_replicas: int

    @property
    def schema(self) -> Schema:
        return self.dataset.schema

    @property
    def n_blocks(self) -> int:
        return self.dataset.n_blocks

    @property
    def n_rows(self) -> int | None:
        return self.dataset.n_rows

    def runner(self, strategy: Synchronous, model: LinearModel, memory_budget: Any) -> DaskRunner:
        return DaskRunner(strategy, model, self.dataset, self.client, memory_budget)


def stays_in_process(strategy: str | Synchronous, *arrays: Any) -> bool:
    """Whether a fit needs no cluster: data in memory, no active client, one replica."""
    return (
        all(a is None or is_in_memory(a) for a in arrays)
        and current_client() is None
        and as_strategy(strategy).n_replicas in (None, 1)
    )


def working_client() -> Any:
    """The active client, or the embedded cluster's; its workers are there, and have this version of daskdml."""
    client = current_client() or embedded()
    check_workers(client)
    return client


def distribute(
    strategy: str | Synchronous, X: Any, y: Any, sample_weight: Any, target: Target, dtype: Any = None
) -> Distributed:
    """The data as blocks for the active cluster, or the embedded one."""
    client = working_client()
    wanted = as_strategy(strategy).n_replicas or max(1, sum(client.nthreads().values()))
    dataset = as_dataset(X, y, sample_weight, target=target, dtype=dtype, client=client, n_blocks=wanted)
    return Distributed(dataset, client, wanted)


def seed_of(random_state: Any) -> int:
    """A 31-bit seed drawn from ``random_state`` as scikit-learn understands it."""
    from sklearn.utils import check_random_state

    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def run(
    data: Memory | Distributed,
    strategy: str | Synchronous,
    model: LinearModel,
    agreed: Agreed,
    schedule: Schedule,
    listeners: CallbackList,
    info: FitInfo,
    memory_budget: Any,
) -> Trained:
    """Train ``model`` on ``data``, closing what was opened whatever happens."""
    chosen = as_strategy(strategy)
    chosen.check(model)
    runner = data.runner(chosen, model, memory_budget)
    try:
        return train(chosen, model, runner, agreed, schedule, listeners, info)
    finally:
        runner.close()


def plain_features(X: Any) -> Any:
    """X in memory as scikit-learn takes it: a labelled array becomes a matrix or a DataFrame, samples first."""
    return features(X).data if hasattr(X, "dims") else X
