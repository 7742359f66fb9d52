"""Blocks that end the workers which make them."""

from __future__ import annotations

import dask
from distributed import Client

from daskdml.data import Dataset, MemoryPlan, explained, fatal_blocks, remedy


def told(error: BaseException, client: Client, data: Dataset, plan: MemoryPlan) -> BaseException:
    """An error of a task; a killed worker with the block that it was making."""
    return explained(error, _worst(client, data)[0], plan.max_block_bytes, _row_bytes(data, plan))


def give_up_on_fatal_blocks(client: Client, data: Dataset, plan: MemoryPlan) -> None:
    """Raise where one block has ended as many workers as Dask lets one task end: it would end the next one too."""
    what, deaths = _worst(client, data)
    if deaths > dask.config.get("distributed.scheduler.allowed-failures"):
        fits = remedy(plan.max_block_bytes, _row_bytes(data, plan))
        raise RuntimeError(f"workers died {deaths} times while making {what}: {fits}") from None


def _worst(client: Client, data: Dataset) -> tuple[str | None, int]:
    """The blocks that workers most often ended with, in words, and how often."""
    found = fatal_blocks(client, data.token).most_common(2)
    worst = [block for block, deaths in found if deaths == found[0][1]]
    if not worst:
        return None, 0
    return "block " + " or ".join(map(str, sorted(worst))), found[0][1]


def _row_bytes(data: Dataset, plan: MemoryPlan) -> int:
    return 0 if data.schema.sparse else plan.row_bytes
