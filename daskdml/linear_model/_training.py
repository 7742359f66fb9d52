"""From an estimator's data to a trained state: where, with how many replicas, in which blocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import issparse

from daskdml.cluster import LOST, check_workers, connection_lost, current_client, embedded
from daskdml.data import Block, Dataset, Schema, Target, any_weight, as_dataset, is_in_memory
from daskdml.data._decode import check_columns, float_dtype, is_sparse, matrix, on_host
from daskdml.data._sources import features
from daskdml.linear_model._device import require_device
from daskdml.models import LinearModel
from daskdml.monitor import CallbackList, FitInfo
from daskdml.numerics import card
from daskdml.strategies import (
    Agreed,
    Asynchronous,
    AsynchronousFit,
    Averaging,
    Checkpoint,
    DaskRunner,
    FitStart,
    InMemory,
    LocalRunner,
    Schedule,
    Synchronous,
    Trained,
    as_strategy,
    runs_ahead,
    train,
    train_ahead,
)

# Of the workers' memory, and of their GPUs'.
Budgets = tuple[int | str | None, int | str | None]


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

    def runner(self, strategy: Synchronous, model: LinearModel, budgets: Budgets, reads_once: bool) -> LocalRunner:
        here = card() if model.on_device else None
        return LocalRunner(strategy, model, InMemory(self.block if here is None else here.put(self.block)))


@dataclass(frozen=True, eq=False)
class Distributed:
    """Blocks on a cluster."""

    dataset: Dataset
    client: Any
    n_replicas: int
    sample_weight: Any = None

    def refuse_weightless(self, state: Any) -> None:
        """Raise where nothing was learnt because no row has a weight."""
        # Weights of Dask are read with the rows; a pass over them alone is worth it only where nothing came of them.
        if self.sample_weight is None or state.coef.any() or state.intercept.any():
            return
        if not any_weight(self.sample_weight, self.client):
            raise weightless()

    @property
    def schema(self) -> Schema:
        return self.dataset.schema

    @property
    def n_blocks(self) -> int:
        return self.dataset.n_blocks

    @property
    def n_rows(self) -> int | None:
        return self.dataset.n_rows

    def runner(self, strategy: Synchronous, model: LinearModel, budgets: Budgets, reads_once: bool) -> DaskRunner:
        return DaskRunner(strategy, model, self.dataset, self.client, *budgets, reads_once)


def stays_in_process(strategy: str | Synchronous | Asynchronous, *arrays: Any, start: FitStart | None = None) -> bool:
    """Whether a fit needs no cluster: data in memory, no active client, one replica; or a ``start`` without one."""
    chosen = as_strategy(strategy)
    chosen.check_replicas()
    if not all(a is None or is_in_memory(a) for a in arrays) or chosen.n_replicas not in (None, 1):
        return False
    if isinstance(chosen, Asynchronous) and chosen.needs_server:
        return False
    return current_client() is None if start is None else start.in_process


def working_client() -> Any:
    """The active client, or the embedded cluster's; its workers are there, and have this version of daskdml."""
    client = current_client() or embedded()
    check_workers(client)
    return client


def distribute(
    strategy: str | Synchronous | Asynchronous,
    X: Any,
    y: Any,
    sample_weight: Any,
    target: Target,
    dtype: Any = None,
    start: FitStart | None = None,
    memory_budget: Any = None,
    device: str = "cpu",
) -> Distributed:
    """The data as blocks for the active cluster, or the embedded one; for as many replicas as ``start`` had.

    What cannot fit in the workers is refused here, before anything is read.
    """
    if sample_weight is not None and is_in_memory(sample_weight) and not any_weight(sample_weight):
        raise weightless()
    client = working_client()
    require_device(device, client)
    wanted = as_strategy(strategy).n_replicas
    if wanted is None:
        wanted = max(1, sum(client.nthreads().values())) if start is None else start.n_replicas
    dataset = as_dataset(
        X,
        y,
        sample_weight,
        target=target,
        dtype=dtype,
        client=client,
        n_blocks=wanted,
        memory_budget=memory_budget,
    )
    return Distributed(dataset if device == "cpu" else dataset.staying_on_device(), client, wanted, sample_weight)


def weightless() -> ValueError:
    """scikit-learn's error for weights that are all zero."""
    return ValueError("Sample weights must contain at least one non-zero number.")


def seed_of(random_state: Any) -> int:
    """A 31-bit seed drawn from ``random_state`` as scikit-learn understands it."""
    from sklearn.utils import check_random_state

    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def run(
    data: Memory | Distributed,
    strategy: str | Synchronous | Asynchronous,
    model: LinearModel,
    agreed: Agreed,
    schedule: Schedule,
    listeners: CallbackList,
    info: FitInfo,
    budgets: Budgets,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Train ``model`` on ``data``, closing what was opened whatever happens."""
    chosen = as_strategy(strategy)
    chosen.check(model)
    if isinstance(chosen, Asynchronous):
        if isinstance(data, Distributed):
            fit = AsynchronousFit(chosen, model, data.dataset, data.client, *budgets)
            with _connected(data), closing(fit), _not_lost(checkpoint):
                return fit.train(agreed, schedule, listeners, info, checkpoint)
        # One replica has nobody to wait for: that is plain SGD.
        chosen = Averaging(n_replicas=1)
    if isinstance(data, Memory) and checkpoint is None and runs_ahead(chosen, model, data.block, schedule, listeners):
        return train_ahead(model, data.block, agreed, schedule, listeners, info)
    once = _reads_once(chosen, schedule)
    with _connected(data), closing(data.runner(chosen, model, budgets, once)) as runner, _not_lost(checkpoint):
        return train(chosen, model, runner, agreed, schedule, listeners, info, checkpoint)


def _reads_once(strategy: Synchronous, schedule: Schedule) -> bool:
    """Whether no block is read a second time: one epoch, of one round, after which no rows are held out to be scored.

    Rounds within an epoch may cut a block in two.
    """
    whole = isinstance(strategy, Averaging) and strategy.rounds_per_epoch == 1
    return whole and schedule.max_epochs == 1 and schedule.holdout is None


@contextmanager
def _connected(data: Memory | Distributed) -> Iterator[None]:
    """Of a lost scheduler Dask tells in the words of whatever request was under way."""
    try:
        yield
    except LOST as error:
        lost = connection_lost(data.client) if isinstance(data, Distributed) else None
        if lost is None:
            raise
        raise lost from error


@contextmanager
def _not_lost(checkpoint: Checkpoint | None) -> Iterator[None]:
    """Whatever breaks a fit off, the end of its last epoch can be gone on from."""
    try:
        yield
    except BaseException:
        if checkpoint is not None:
            checkpoint.save_kept()
        raise


def plain_features(X: Any) -> Any:
    """X in memory as scikit-learn takes it: a labelled array becomes a matrix, samples first; pydata/sparse SciPy's."""
    X = on_host(X)
    if is_sparse(X) and not issparse(X):
        return matrix(X, float_dtype([X.dtype]))
    if issparse(X) and X.format == "csr":
        check_columns(X)
    return features(X).data if hasattr(X, "dims") else X
