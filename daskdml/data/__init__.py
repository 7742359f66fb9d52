"""From a user's data to row blocks: adapters, recipes, the block cache, prefetch and the memory budget."""

from daskdml.data._block import Block, Recipe, Schema, Target
from daskdml.data._cache import CacheSpec, cache_usage, release_cache
from daskdml.data._dataset import Dataset, as_dataset
from daskdml.data._labels import label_counts
from daskdml.data._map import columns_of, map_rows
from daskdml.data._memory import MemoryPlan, WorkerMemory, plan_memory, worker_memory
from daskdml.data._sources import is_in_memory
from daskdml.data._stream import Load, stream

__all__ = [
    "Block",
    "CacheSpec",
    "Dataset",
    "Load",
    "MemoryPlan",
    "Recipe",
    "Schema",
    "Target",
    "WorkerMemory",
    "as_dataset",
    "cache_usage",
    "columns_of",
    "is_in_memory",
    "label_counts",
    "map_rows",
    "plan_memory",
    "release_cache",
    "stream",
    "worker_memory",
]
