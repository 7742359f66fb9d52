"""What a fit may take of a cluster's memory, and what it says when a worker died of it."""

from __future__ import annotations

from distributed import Client, KilledWorker

from daskdml.data import CacheSpec, Dataset, MemoryPlan, plan_memory, worker_memory
from daskdml.models import Model


def explained(error: BaseException) -> BaseException:
    """The user's error as it is; a killed worker with its likely reason."""
    if isinstance(error, KilledWorker):
        return RuntimeError(
            f"workers died {error.allowed_failures + 1} times while running {error.task}, the last one "
            f"{error.last_worker.address}: most often a block does not fit in the worker's memory; "
            "rechunk to smaller blocks, give memory_budget, or give workers more memory"
        )
    return error


def budget(
    client: Client, data: Dataset, model: Model, memory_budget: int | str | None
) -> tuple[MemoryPlan, CacheSpec | None]:
    """The memory plan of the fit, and the block cache it allows."""
    memory = worker_memory(client)
    state_bytes = sum(array.nbytes for array in model.init())
    plan = plan_memory(
        data.schema,
        data.max_block_rows,
        state_bytes,
        memory.limits,
        memory.baselines,
        threads=memory.threads,
        budget=memory_budget,
    )
    if not data.cacheable:
        return plan, None
    return plan, CacheSpec(token=data.token, memory_bytes=plan.cache_bytes)
