"""From a user's data to row blocks: adapters, recipes, the block cache, prefetch and the memory budget."""

from daskdml.data._block import Block, Recipe, Schema, Target
from daskdml.data._buffers import empty_rows
from daskdml.data._cache import CacheSpec, cache_usage, release_abandoned, release_cache
from daskdml.data._checks import namespace_of
from daskdml.data._dataset import Dataset, as_dataset
from daskdml.data._decode import on_host, rows_of
from daskdml.data._device import CardInfo, DeviceSpec, card_info, device_usage, plan_device, require_cards
from daskdml.data._distinct import codes_in, distinct
from daskdml.data._held import HeldSpec
from daskdml.data._labels import label_counts
from daskdml.data._leases import new_lease
from daskdml.data._map import columns_of, map_rows
from daskdml.data._memory import MemoryPlan, WorkerMemory, budget_bytes, plan_memory, row_bytes, worker_memory
from daskdml.data._parquet import parquet_batches, parquet_rows, parquet_runs
from daskdml.data._sources import any_weight, is_in_memory, refuse_dataset
from daskdml.data._stream import Load, stream
from daskdml.data._waiting import explained, fatal_blocks, remedy, trouble, wait_for
from daskdml.data._zarr import read_region

__all__ = [
    "Block",
    "CacheSpec",
    "CardInfo",
    "Dataset",
    "DeviceSpec",
    "HeldSpec",
    "Load",
    "MemoryPlan",
    "Recipe",
    "Schema",
    "Target",
    "WorkerMemory",
    "any_weight",
    "as_dataset",
    "budget_bytes",
    "cache_usage",
    "card_info",
    "codes_in",
    "columns_of",
    "device_usage",
    "distinct",
    "empty_rows",
    "explained",
    "fatal_blocks",
    "is_in_memory",
    "label_counts",
    "map_rows",
    "new_lease",
    "namespace_of",
    "on_host",
    "parquet_batches",
    "parquet_rows",
    "parquet_runs",
    "plan_device",
    "plan_memory",
    "read_region",
    "refuse_dataset",
    "release_abandoned",
    "release_cache",
    "remedy",
    "require_cards",
    "row_bytes",
    "rows_of",
    "stream",
    "trouble",
    "wait_for",
    "worker_memory",
]
