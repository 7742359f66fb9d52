"""What a fit may take of a cluster's memory."""

from __future__ import annotations

from typing import Any

from distributed import Client

from daskdml.data import (
    CacheSpec,
    CardInfo,
    Dataset,
    DeviceSpec,
    HeldSpec,
    MemoryPlan,
    card_info,
    explained,
    plan_device,
    plan_memory,
    release_abandoned,
    worker_memory,
)
from daskdml.models import Model

__all__ = ["budget", "device_budget", "explained"]


def budget(
    client: Client,
    data: Dataset,
    model: Model,
    memory_budget: int | str | None,
    lease: str,
    reads_once: bool = False,
    beside: int = 0,
) -> tuple[MemoryPlan, CacheSpec | HeldSpec]:
    """The memory plan of the fit, and the block cache it allows, kept until ``lease`` ends.

    Of chunks that are in memory already, what is remembered of them. Blocks are kept for a fit that reads them again:
    one that does not would find new memory for each, where it can use that of the last again. ``beside``: what the fit
    likes to keep in each process besides.
    """
    _free_abandoned(client)
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
        beside=beside,
    )
    if not data.cacheable:
        return plan, HeldSpec(data.token, lease)
    memory_bytes, disk_bytes = (0, 0) if reads_once else (plan.cache_bytes, None)
    return plan, CacheSpec(token=data.token, memory_bytes=memory_bytes, disk_bytes=disk_bytes, lease=lease)


def device_budget(
    client: Client, data: Dataset, model: Model, device_memory: int | str | None, lease: str, sums_bytes: int = 0
) -> DeviceSpec | None:
    """What blocks may take of the workers' GPUs; None where the model is trained on CPUs, or no worker has one.

    ``sums_bytes`` is what the strategy takes there beside what training takes.
    """
    if not model.on_device:
        return None
    found = client.run(card_info)
    threads = client.nthreads()
    return plan_device(
        data.token,
        [info for info in found.values() if isinstance(info, CardInfo)],
        data.schema,
        data.max_block_rows,
        model.device_bytes(data.schema.sparse) + sums_bytes,
        threads=max((threads.get(a, 1) for a, info in found.items() if isinstance(info, CardInfo)), default=1),
        budget=device_memory,
        lease=lease,
    )


def _free_abandoned(client: Client) -> None:
    """Have the workers forget blocks that are kept for clients that are gone.

    Whoever restarts a notebook in the middle of a fit would find the memory of the workers taken by its own past.
    """
    client.run(release_abandoned, client.run_on_scheduler(_clients), on_error="ignore")


def _clients(dask_scheduler: Any) -> list[str]:
    return list(dask_scheduler.clients)
