"""The recipe of one block: a small graph, and how its result is decoded and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from dask._task_spec import GraphNode
from dask.typing import Key

from daskdml.data._block import Block, Schema, Target
from daskdml.data._checks import all_finite_there, check_finite, check_length, place, target_values, weight_values
from daskdml.data._decode import column, device_matrix, matrix, on_host
from daskdml.data._graph import run
from daskdml.numerics import card


@dataclass(frozen=True)
class Decoding:
    """What all recipes of a data set share: from raw chunks to checked blocks."""

    token: str
    n_blocks: int
    schema: Schema
    target: Target | None
    # A number given as sample_weight, the same for every row.
    weight: float | None = None
    # Whether what lies on a GPU stays there, where this process trains on that.
    on_device: bool = False

    def block(self, index: int, x: Any, y: Any, w: Any) -> Block:
        where, schema = place(index, self.n_blocks), self.schema
        kept = device_matrix(x, schema.dtype) if self.on_device and not schema.sparse and card() is not None else None
        X = matrix(x, schema.dtype, schema.sparse, where) if kept is None else kept
        if X.shape[1] != schema.n_features:
            raise ValueError(
                f"X has {X.shape[1]} columns in block {index}, but {schema.n_features} were expected; "
                "every block must have the same columns"
            )
        rows = X.shape[0]
        if kept is None:
            check_finite(X if isinstance(X, np.ndarray) else X.data, "X", where, _names(X, schema))
        elif not all_finite_there(X):
            check_finite(on_host(X), "X", where, schema.feature_names)
        target = weight = None
        if y is not None:
            labels = column(y)
            check_length(rows, len(labels), "y", where)
            target = target_values(labels, self.target or Target(), schema.dtype, where)
        if w is not None:
            weights = column(w)
            check_length(rows, len(weights), "sample_weight", where)
            weight = weight_values(weights, schema.dtype, where)
        elif self.weight is not None:
            weight = np.full(rows, self.weight, schema.dtype)
        return Block(index, X, target, weight)


def _names(X: Any, schema: Schema) -> tuple[str, ...] | None:
    return schema.feature_names if isinstance(X, np.ndarray) else None


class BlockRecipe:
    """How to make one block, wherever it is needed (see :class:`daskdml.data.Recipe`).

    Its graph is reachable by attribute only, so Dask does not take the keys in it for dependencies.
    """

    __slots__ = ("_decoding", "_given", "_graph", "_outputs", "index", "rows")

    def __init__(
        self,
        index: int,
        rows: int | None,
        graph: Mapping[Key, GraphNode],
        given: Sequence[Key],
        outputs: Sequence[Key | None],
        decoding: Decoding,
    ):
        self.index = index
        self.rows = rows
        # In the order in which the nodes run.
        self._graph = dict(graph)
        self._given = tuple(given)
        self._outputs = tuple(outputs)
        self._decoding = decoding

    @property
    def token(self) -> str:
        """The token of the data set this block belongs to."""
        return self._decoding.token

    @property
    def given(self) -> tuple[Key, ...]:
        """Keys of the values that :meth:`resolve` wants as ``inputs``, in their order."""
        return self._given

    def decoded(self, decoding: Decoding) -> BlockRecipe:
        """The same raw chunks, turned into a block in another way."""
        return BlockRecipe(self.index, self.rows, self._graph, self._given, self._outputs, decoding)

    def resolve(self, inputs: Sequence[Any] = ()) -> Block:
        """Make the block.

        Parameters
        ----------
        inputs : sequence
            The values of the futures that ``Dataset.inputs`` gave for this block.
        """
        if len(inputs) != len(self._given):
            raise ValueError(
                f"block {self.index} needs {len(self._given)} inputs but got {len(inputs)}: "
                "pass the values of Dataset.inputs(client, index)"
            )
        try:
            raw = self._raw(inputs)
        except Exception as error:
            error.add_note(f"while making block {self.index} of the data")
            raise
        if self.rows is not None and raw[0].shape[0] != self.rows:
            raise ValueError(f"block {self.index} of X has {raw[0].shape[0]} rows but its chunks say {self.rows}")
        return self._decoding.block(self.index, *raw)

    def _raw(self, inputs: Sequence[Any]) -> list[Any]:
        """Run the graph, dropping each intermediate value after its last use."""
        return run(self._graph, dict(zip(self._given, inputs, strict=True)), self._outputs)

    def __dask_tokenize__(self) -> tuple[str, str, int]:
        return ("daskdml-recipe", self.token, self.index)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.index, self.rows, self._graph, self._given, self._outputs, self._decoding)

    def __repr__(self) -> str:
        return f"<Recipe of block {self.index}: {len(self._graph)} nodes, {len(self._given)} inputs>"
