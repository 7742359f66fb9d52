"""A data set as the strategies see it: an aligned list of row blocks, none of them made yet."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
from dask._task_spec import DataNode, GraphNode
from dask.typing import Key
from dask.utils import format_bytes

from daskdml.data._align import align, chunk_lengths
from daskdml.data._block import Schema, Target
from daskdml.data._futures import FutureInputs
from daskdml.data._graph import materialise, reductions, repeats, split
from daskdml.data._memory import check_column, check_merge, plan_memory, worker_memory
from daskdml.data._recipe import BlockRecipe, Decoding
from daskdml.data._sources import Source, features, per_row, schema_of

# Literal data above this size goes to the cluster once, not with every task that needs it.
_SCATTER_BYTES = 64 * 2**10


class Dataset:
    """Aligned row blocks of X, y and sample_weight; made by :func:`as_dataset`.

    Attributes
    ----------
    recipes : tuple of Recipe
        One for each block, in the order of the rows. A block may turn out to have 0 rows.
    schema : Schema
        Columns, and the dtype of the blocks.
    n_rows : int or None
        None where the chunks' lengths are unknown.
    self_contained : bool
        Whether ``recipe.resolve()`` needs no ``inputs``, for every block.
    cacheable : bool
        Whether keeping resolved blocks saves anything: not where the chunks lie in the cluster's memory already
        and are used as they are.
    token : str
        Unique to this data set; names its blocks in caches.
    """

    def __init__(self, recipes: Sequence[BlockRecipe], decoding: Decoding, futures: FutureInputs, cacheable: bool):
        self.recipes = tuple(recipes)
        self.schema: Schema = decoding.schema
        self.target: Target | None = decoding.target
        self.token = decoding.token
        self.cacheable = cacheable
        self._decoding = decoding
        self._futures = futures
        # Asked for in every round, and there may be many blocks.
        self._self_contained = not any(r.given for r in self.recipes)
        self._at_hand = futures.ready({key for r in self.recipes for key in r.given})

    @property
    def n_blocks(self) -> int:
        return len(self.recipes)

    @property
    def n_rows(self) -> int | None:
        total = 0
        for recipe in self.recipes:
            if recipe.rows is None:
                return None
            total += recipe.rows
        return total

    @property
    def max_block_rows(self) -> int | None:
        """Rows of the largest block; None where unknown."""
        return None if self.n_rows is None else max(r.rows or 0 for r in self.recipes)

    @property
    def self_contained(self) -> bool:
        return self._self_contained

    @property
    def at_hand(self) -> bool:
        """Whether nothing has to be computed for :meth:`inputs`: they are on the cluster for as long as this exists."""
        return self._at_hand

    def inputs(self, client: Any, *blocks: int) -> tuple[Any, ...]:
        """Futures of what ``recipes[index].resolve`` needs, block after block; nothing for a self-contained one.

        Chunks that share upstream work are submitted here: call it for a bounded window of blocks ahead, and
        drop the futures when a block is done. Blocks submitted together share that work.
        """
        return self._futures.of(client, [key for index in blocks for key in self.recipes[index].given])

    def forget_lost(self) -> None:
        """Let go of inputs that were lost with a worker; :meth:`inputs` makes them again."""
        self._futures.forget_lost()

    def travelling_inputs(self, client: Any) -> Any:
        """For long tasks that fetch the inputs of their blocks themselves: an object with ``of(client, given)``.

        Needed where the data set is not ``self_contained``, and of use only while the data set is kept alive.
        """
        return self._futures.travelling(client)

    def with_target(self, target: Target) -> Dataset:
        """The same blocks with y written as ``target`` says, which need not be known when memory is checked."""
        decoding = replace(self._decoding, target=target)
        return Dataset([r.decoded(decoding) for r in self.recipes], decoding, self._futures, self.cacheable)

    def staying_on_device(self) -> Dataset:
        """The same blocks; X of chunks that lie on a GPU stays there where the process trains on that."""
        decoding = replace(self._decoding, on_device=True)
        return Dataset([r.decoded(decoding) for r in self.recipes], decoding, self._futures, self.cacheable)

    def describe(self) -> dict[str, Any]:
        """What is known without reading any data."""
        return {
            "blocks": self.n_blocks,
            "rows": self.n_rows,
            "features": self.schema.n_features,
            "dtype": str(self.schema.dtype),
            "sparse": self.schema.sparse,
            "self_contained": self.self_contained,
            "cacheable": self.cacheable,
        }

    def _repr_html_(self) -> str:
        """What a notebook shows: blocks, rows, bytes, and where blocks come from and are kept."""
        from daskdml.monitor._html import facts_html

        given = sum(1 for recipe in self.recipes if recipe.given)
        alone = self.n_blocks - given
        places = [f"{alone:,} made where they are needed"] if alone else []
        places += [f"{given:,} from chunks on the cluster"] if given else []
        kept = "in the workers' memory up to memory_budget, beyond that on their disks"
        facts = [
            ("blocks", f"{self.n_blocks:,}: {', '.join(places) or 'none'}"),
            ("rows", self._spoken_rows()),
            ("features", f"{self.schema.n_features:,} of {np.dtype(self.schema.dtype).name}"),
            ("bytes", self._spoken_bytes()),
            (
                "kept for later epochs",
                kept if self.cacheable else "nowhere: the chunks are in memory and used as they are",
            ),
        ]
        return facts_html("data set of row blocks", facts)

    def _spoken_rows(self) -> str:
        if self.n_rows is None:
            return "not known before they are read"
        return f"{self.n_rows:,}, at most {self.max_block_rows:,} a block"

    def _spoken_bytes(self) -> str:
        row = self.schema.n_features * np.dtype(self.schema.dtype).itemsize
        if self.schema.sparse:
            return "sparse: not known before they are read"
        if self.n_rows is None:
            return f"{format_bytes(row)} a row"
        return f"{format_bytes(row * self.n_rows)}, at most {format_bytes(row * (self.max_block_rows or 0))} a block"

    def __repr__(self) -> str:
        return f"<Dataset {', '.join(f'{k}={v}' for k, v in self.describe().items())}>"


def as_dataset(
    X: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    target: Target | None,
    dtype: Any = None,
    client: Any = None,
    block_rows: int | None = None,
    n_blocks: int | None = None,
    memory_budget: int | str | None = None,
) -> Dataset:
    """Divide X, y and sample_weight into the same row blocks, without reading them.

    Parameters
    ----------
    X : array, DataFrame, sparse matrix or xarray object, in memory or of Dask
        Blocks are its chunks; in-memory rows are cut. Unknown chunk sizes are fine.
    y, sample_weight : one value a row, in any of these forms, optional
        Chunked as they like: block i meets block i where the number of chunks agrees and the lengths do not
        contradict; otherwise they are rechunked to X's rows, for which unknown lengths are computed.
    target : Target or None
        How y is written in a block; None without y.
    dtype : float32 or float64, optional
        The default keeps float32 where no column would lose by it, else takes float64.
    client : distributed.Client, optional
        Given, in-memory data are cut into several blocks, which :meth:`Dataset.inputs` sends to the cluster.
    block_rows, n_blocks : int, optional
        For in-memory data: rows of a block, or how many blocks to make at least (default: one for each
        thread of the cluster) of at most some megabytes.
    memory_budget : int or str, optional
        With a ``client``: what its workers' block caches are to take, for the check that blocks fit beside them.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError, TypeError
        For what can be told without reading: lengths, shapes, dtypes, chunks larger than the workers of ``client``
        have memory for. The rest is found by ``resolve``.

    Examples
    --------
    >>> import dask.array as da
    >>> data = as_dataset(da.ones((6, 2), chunks=(4, 1)), target=None)
    >>> [recipe.resolve().X.shape for recipe in data.recipes]
    [(4, 2), (2, 2)]
    """
    constant = float(sample_weight) if isinstance(sample_weight, Real) and not isinstance(sample_weight, bool) else None
    source = features(X)
    schema = schema_of(source, _checked_dtype(dtype))
    if source.merged:
        check_merge(source.lengths, schema, client)
    others = [
        None if y is None else per_row(y, "y"),
        None if sample_weight is None or constant is not None else per_row(sample_weight, "sample_weight"),
    ]
    if client is not None:
        _check_memory(source, others, schema, client, memory_budget)
    parts = align(source, others, client, block_rows, n_blocks or _threads(client))
    lengths = chunk_lengths(parts[0])
    decoding = Decoding(uuid.uuid4().hex, len(lengths), schema, target, None if constant == 1 else constant)
    return _planned(source, parts, lengths, decoding, client)


def _check_memory(X: Source, others: list[Source | None], schema: Schema, client: Any, budget: Any) -> None:
    """Raise for chunks that do not fit in a worker, before any is read; of unknown lengths each is seen as it comes."""
    memory = worker_memory(client)
    rows = None if X.lengths is None else max(X.lengths, default=0)
    largest = 0 if X.lengths is None else X.lengths.index(rows or 0)
    # The model is not known yet: its share is checked when it is.
    plan = plan_memory(
        schema,
        rows,
        0,
        memory.limits,
        memory.baselines,
        threads=memory.threads,
        budget=budget,
        largest=largest,
    )
    for source in others:
        dtype = getattr(source.data, "dtype", None) if source is not None and source.lazy else None
        # Text of any length has no size of an entry.
        itemsize = getattr(dtype, "itemsize", None)
        if source is not None and itemsize is not None:
            check_column(source.name, source.lengths, itemsize, plan)


def _checked_dtype(dtype: Any) -> np.dtype | None:
    if dtype is not None and np.dtype(dtype) not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
    return None if dtype is None else np.dtype(dtype)


def _threads(client: Any) -> int:
    return 1 if client is None else max(1, sum(client.nthreads().values()))


def _planned(
    source: Source, parts: list[Any], lengths: tuple[int | None, ...], decoding: Decoding, client: Any
) -> Dataset:
    """Cut the joint graph into recipes, at the keys that are kept as futures."""
    graph, keys = _graph_of(parts, decoding.token)
    present = [k for k in keys if k is not None]
    blocks = list(zip(*present, strict=True))
    literals = {k: n.value for k, n in graph.items() if isinstance(n, DataNode)}
    literal = {} if client is None else _large(literals)
    boundary = set(literal)
    held: set[Key] = set()
    if repeats(graph, blocks, boundary):
        held = reductions(graph, blocks)
        boundary |= held
        for part in present:
            if repeats(graph, [(k,) for k in part], boundary):
                boundary |= set(part)
    recipes = []
    for i, rows in enumerate(lengths):
        order, given = split(graph, blocks[i], boundary)
        outputs = [None if k is None else k[i] for k in keys]
        recipes.append(BlockRecipe(i, rows, {k: graph[k] for k in order}, given, outputs, decoding))
    futures = FutureInputs(graph, literal, held, [p for p in parts if not isinstance(p, list)])
    ready = all(k not in graph or k in literals for k in present[0])
    as_is = ready and getattr(source.data, "dtype", None) == decoding.schema.dtype
    return Dataset(recipes, decoding, futures, cacheable=not as_is)


def _graph_of(parts: list[Any], token: str) -> tuple[dict[Key, GraphNode], list[list[Key] | None]]:
    """The graph of the lazy parts together, and in-memory pieces as nodes of their own."""
    lazy = [p for p in parts if p is not None and not isinstance(p, list)]
    graph, lazy_keys = materialise(lazy) if lazy else ({}, [])
    found = iter(lazy_keys)
    keys: list[list[Key] | None] = []
    for name, part in zip(("X", "y", "weight"), parts, strict=True):
        if isinstance(part, list):
            own: list[Key] = [(f"daskdml-{name}-{token}", i) for i in range(len(part))]
            graph.update((k, DataNode(k, piece)) for k, piece in zip(own, part, strict=True))
            keys.append(own)
        else:
            keys.append(None if part is None else next(found))
    return graph, keys


def _large(literals: dict[Key, Any]) -> dict[Key, Any]:
    from dask.sizeof import sizeof

    return {k: v for k, v in literals.items() if sizeof(v) >= _SCATTER_BYTES}
