"""Predictions of a saved model for files, row by row in their order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
import pandas as pd
from dask.delayed import delayed

from daskdml.io import InputError, Table, load_model, read_table
from daskdml.io._atomic import check_apart, check_writable, replacing
from daskdml.io._paths import files_of
from daskdml.workflow._trained import TrainedModel

# Parts predicted at a time for each thread: two keep it busy while one is written.
_AHEAD = 2


@dataclass(frozen=True)
class PredictResult:
    """How many rows were predicted, and where the predictions are."""

    rows: int
    output: str
    columns: tuple[str, ...]


def predict(
    model: Any,
    data: Any,
    output: str | os.PathLike,
    *,
    proba: bool = False,
    say: Callable[[str], None] | None = None,
) -> PredictResult:
    """Predict files (or a DataFrame) with a trained model and write a file of as many rows, in the same order.

    Parameters
    ----------
    model : path or TrainedModel
        What ``train`` saved or returned as ``model``.
    data : path, list of paths or DataFrame
        With the columns the model was trained on; others are left alone.
    output : path
        ``*.parquet`` or ``*.csv``; there whole or not at all.
    proba : bool, default False
        Add a column of probabilities for each class.
    say : callable, optional
        Told in words what goes on.

    Returns
    -------
    PredictResult

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np, pandas as pd
    >>> from daskdml.workflow import predict, train
    >>> table = pd.DataFrame({"x": np.linspace(-1, 1, 100)}).assign(y=lambda t: 2 * t.x + 0.5)
    >>> model = train(table, "y", epochs=5, test_size=0).model
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = predict(model, table, os.path.join(folder, "out.parquet"))
    >>> result.rows, result.columns
    (100, ('prediction',))
    """
    output = os.fspath(output)
    write = _writer_of(output)
    check_writable(output)
    check_apart(output, [*files_of(data), *([] if isinstance(model, TrainedModel) else [os.fspath(model)])])
    trained = model if isinstance(model, TrainedModel) else load_trained(model)
    if proba:
        _check_proba(trained)
    table = open_for(trained, data)
    names: tuple[str, ...] = ()
    rows = 0
    with replacing(output) as temporary, write(temporary) as sink:
        for frame in _frames(trained, table, proba):
            sink(frame)
            rows += len(frame)
            names = tuple(frame.columns)
            if say is not None:
                say(f"{rows:,} rows predicted")
    return PredictResult(rows, output, names)


def load_trained(path: Any) -> TrainedModel:
    """The trained model of a file; refused where the file holds a bare estimator, which knows no columns."""
    model = load_model(path)
    if not isinstance(model, TrainedModel):
        raise InputError(
            f"{path} holds a {type(model).__name__} without the pipeline from files to features; "
            "use daskdml.io.load_model in Python, or a model of 'daskdml train'"
        )
    return model


def open_for(trained: TrainedModel, data: Any) -> Table:
    """The table of ``data`` with just the columns the model needs."""
    if hasattr(data, "columns"):
        table = Table.from_frame(data)
        return Table.from_frame(data[trained.features_of(table)])
    text = () if trained.sparse else tuple(trained.pipeline.categories_)
    if trained.sparse and read_kind(data) == "svmlight":
        scaler = trained.pipeline
        return read_table(data, n_features=scaler.n_features_in_, zero_based=scaler.zero_based_)
    table = read_table(data)
    names = trained.features_of(table)
    return read_table(data, columns=names, text=text, numeric=trained.pipeline.numeric)


def read_kind(data: Any) -> str:
    """The format of the first file."""
    from daskdml.io._paths import expand, sniff

    return sniff(expand(data)[0])


def _check_proba(trained: TrainedModel) -> None:
    if trained.task != "classification":
        raise InputError("a regression has no probabilities; leave out --proba")
    if not hasattr(trained.estimator, "predict_proba"):
        raise InputError(
            f"a model with loss {trained.estimator.loss!r} has no probabilities; train one with --model logistic"
        )


def _frames(trained: TrainedModel, table: Table, proba: bool) -> Iterator[pd.DataFrame]:
    """Predictions part by part, a bounded number of parts at a time."""
    task = delayed(_Predict(trained, proba), pure=False)
    step = _AHEAD * _threads()
    for start in range(0, table.n_parts, step):
        yield from dask.compute(*[task(part) for part in table.parts[start : start + step]])


def _threads() -> int:
    from daskdml.cluster import current_client

    client = current_client()
    return (os.cpu_count() or 1) if client is None else max(1, sum(client.nthreads().values()))


@dataclass(frozen=True)
class _Predict:
    trained: TrainedModel
    proba: bool

    def __call__(self, part: Any) -> pd.DataFrame:
        X = self.trained.pipeline.transform(part[0] if self.trained.sparse else part)
        estimator = self.trained.estimator
        if not X.shape[0]:
            return self._empty()
        values = {"prediction": estimator.predict(X)}
        if self.proba:
            odds = estimator.predict_proba(X)
            values |= {f"proba_{c}": odds[:, i] for i, c in enumerate(estimator.classes_)}
        return pd.DataFrame(values)

    def _empty(self) -> pd.DataFrame:
        classes = getattr(self.trained.estimator, "classes_", np.empty(0))
        frame = pd.DataFrame({"prediction": classes[:0]})
        return frame.assign(**{f"proba_{c}": np.empty(0) for c in classes}) if self.proba else frame


def _writer_of(output: str) -> Callable[[str], Any]:
    name = output.lower()
    if name.endswith((".parquet", ".pq")):
        return _ParquetSink
    if name.endswith((".csv", ".csv.gz")):
        return _CsvSink
    raise InputError(f"--output {output} has an unknown ending; write to *.parquet or *.csv")


class _ParquetSink:
    """Appends frames as row groups."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._writer: Any = None

    def __enter__(self) -> Callable[[pd.DataFrame], None]:
        return self._write

    def _write(self, frame: pd.DataFrame) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._writer is None:
            # A first part without rows has no dtype for text: the schema must not depend on it.
            table = pa.Table.from_pandas(frame, preserve_index=False)
            self._writer = pq.ParquetWriter(self._path, table.schema)
        self._writer.write_table(pa.Table.from_pandas(frame, schema=self._writer.schema, preserve_index=False))

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()


class _CsvSink:
    """Appends frames as lines; the first one brings the header."""

    def __init__(self, path: str) -> None:
        import gzip

        self._file = gzip.open(path, "wt") if path.endswith(".gz") else open(path, "w")  # noqa: SIM115
        self._started = False

    def __enter__(self) -> Callable[[pd.DataFrame], None]:
        return self._write

    def _write(self, frame: pd.DataFrame) -> None:
        frame.to_csv(self._file, index=False, header=not self._started)
        self._started = True

    def __exit__(self, *error: object) -> None:
        self._file.close()
