"""What a fit may take of a cluster's memory."""

from __future__ import annotations

from distributed import Client

from daskdml.data import CacheSpec, Dataset, MemoryPlan, explained, plan_memory, worker_memory
from daskdml.models import Model

__all__ = ["budget", "explained"]


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
