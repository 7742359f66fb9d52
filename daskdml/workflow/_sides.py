"""The table of a training: its columns, the pass that surveys it, and its two sides as lazy arrays."""

from __future__ import annotations

from typing import Any

import dask
import numpy as np
from dask.delayed import delayed

from daskdml.io import InputError, Table, read_table
from daskdml.preprocessing import TablePipeline
from daskdml.preprocessing._columns import CATEGORY, kind_of
from daskdml.workflow._options import TrainOptions
from daskdml.workflow._split import Features, HoldOut, Labels, Layout, PartSurvey, merge, survey_part

_FAN_IN = 16


def open_table(data: Any, settings: TrainOptions) -> Table:
    """The table of ``data`` with the columns that are wanted, all checked to be there."""
    if hasattr(data, "columns"):
        table = Table.from_frame(data)
        return table if not settings.drop else Table.from_frame(data[_kept(table, settings)])
    how: dict[str, Any] = {"text": settings.categorical, "numeric": settings.numeric}
    table = read_table(data, **how)
    if table.sparse:
        if settings.target is not None:
            raise InputError(f"{table.source} is svmlight, whose labels come first in each line; leave out --target")
        if settings.categorical or settings.numeric or settings.drop:
            raise InputError(
                f"{table.source} is svmlight, which has no named columns; leave out --categorical, --numeric and --drop"
            )
        return table
    kept = _kept(table, settings)
    return table if not settings.drop else read_table(data, columns=kept, **how)


def _kept(table: Table, settings: TrainOptions) -> list[str]:
    table.check_columns([*settings.drop, *settings.categorical, *settings.numeric])
    return [c for c in table.columns if c not in settings.drop]


def layout_of(table: Table, settings: TrainOptions) -> Layout:
    holdout = HoldOut(settings.test_size, settings.seed)
    if table.sparse:
        return Layout({}, None, holdout)
    if settings.target is None:
        shown = ", ".join(table.columns[:12])
        raise InputError(f"which column is to be learnt? Name it with --target; {table.source} has {shown}")
    table.check_columns([settings.target, *settings.categorical, *settings.numeric])
    if settings.target in settings.categorical:
        raise InputError(f"--categorical names the target {settings.target!r}; use --task classification for that")
    features = table.meta[[c for c in table.meta.columns if c != settings.target]]
    return Layout(pipeline_of(settings).kinds(features), settings.target, holdout)


def pipeline_of(settings: TrainOptions) -> TablePipeline:
    """The pipeline of the features, not fitted; options may name the target too, which it does not see."""
    numeric = tuple(name for name in settings.numeric if name != settings.target)
    return TablePipeline(categorical=settings.categorical, numeric=numeric)


def survey_table(table: Table, layout: Layout) -> PartSurvey:
    """One pass over the table, merged by a tree of tasks."""
    one, many = delayed(survey_part, pure=False), delayed(merge, pure=False)
    found = [one(part, i, layout) for i, part in enumerate(table.parts)]
    while len(found) > 1:
        found = [many(found[i : i + _FAN_IN]) for i in range(0, len(found), _FAN_IN)]
    result: PartSurvey = dask.compute(found[0])[0]
    if not result.target.rows and not result.target.missing:
        raise InputError(f"{table.source} holds no rows to train on; give more, or a smaller test part")
    return result


def declared_kind(table: Table, target: str | None) -> str:
    """'text' (or booleans: names too) or 'number', by the dtype of the target."""
    if target is None:
        return "number"
    kind = table.meta[target].dtype
    if kind_of(kind) == CATEGORY or str(kind) in ("bool", "boolean"):
        categories = getattr(kind, "categories", None)
        return "text" if categories is None or not np.issubdtype(categories.dtype, np.number) else "number"
    return "number"


def side_of(table: Table, layout: Layout, pipeline: Any, side: str) -> tuple[Any, Any]:
    """Lazy X and y of the rows that are trained on or held out: one block a part, nothing read yet."""
    import dask.array as da
    from scipy import sparse

    width = len(pipeline.get_feature_names_out())
    kind = np.empty((0, 0), np.float32)
    empty = sparse.csr_matrix(kind) if pipeline.sparse_output_ else kind
    features, labels = delayed(Features(layout, pipeline, side), pure=True), delayed(Labels(layout, side), pure=True)
    xs = [
        da.from_delayed(features(p, i), (np.nan, width), dtype=np.float32, meta=empty)
        for i, p in enumerate(table.parts)
    ]
    dtype = _label_dtype(table, layout)
    # The estimator counts the labels before it trains: let it read them alone where the format allows.
    narrow = table if layout.target is None else table.only([layout.target])
    ys = [da.from_delayed(labels(p, i), (np.nan,), dtype=dtype) for i, p in enumerate(narrow.parts)]
    return da.concatenate(xs, allow_unknown_chunksizes=True), da.concatenate(ys, allow_unknown_chunksizes=True)


def _label_dtype(table: Table, layout: Layout) -> np.dtype:
    if layout.whole:
        return np.dtype(np.int64)
    if layout.target is None:
        return np.dtype(np.float64)
    dtype = table.meta[layout.target].dtype
    if kind_of(dtype) == CATEGORY:
        return np.dtype(object)
    return np.dtype(bool) if str(dtype) in ("bool", "boolean") else np.dtype(np.float64)
