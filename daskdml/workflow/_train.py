"""From files to a saved model."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from daskdml.io import InputError, Table, save_model
from daskdml.io._atomic import check_apart, check_writable
from daskdml.io._paths import files_of
from daskdml.metrics import evaluate
from daskdml.preprocessing import SparseScaler
from daskdml.workflow._estimator import check_params
from daskdml.workflow._fit import Problem, fit_estimator
from daskdml.workflow._models import choose
from daskdml.workflow._options import TrainOptions
from daskdml.workflow._report import report
from daskdml.workflow._sides import declared_kind, layout_of, open_table, pipeline_of, side_of, survey_table
from daskdml.workflow._split import TEST, TRAIN, Layout, PartSurvey
from daskdml.workflow._target import CLASSIFICATION, priors, task_of
from daskdml.workflow._trained import TrainedModel
from daskdml.workflow._units import Units


@dataclass(frozen=True)
class TrainResult:
    """What came of a training; ``test`` is empty without a test part.

    ``train_loss`` is the mean of the model's loss over the rows, of a regression in the target's own units: for
    the default model half the squared error, whose unit is the target's squared.
    """

    rows: int
    features: int
    task: str
    strategy: str
    replicas: int
    epochs: int
    seconds: float
    train_loss: float
    test: dict[str, float]
    baseline: dict[str, float]
    reason: str = ""
    model_name: str = ""
    test_rows: int = 0
    missing_target: int = 0
    rows_per_second: float = 0.0
    output: str | None = None
    report: str | None = None
    model: Any = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The documented keys, as plain types."""
        keys = (
            "rows",
            "features",
            "task",
            "strategy",
            "replicas",
            "epochs",
            "seconds",
            "train_loss",
            "test",
            "baseline",
        )
        return {key: getattr(self, key) for key in keys}


def train(
    data: Any,
    target: str | None = None,
    *,
    output: str | os.PathLike | None = None,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> TrainResult:
    """Train a linear model on files or a Dask DataFrame, and evaluate it on a part held out.

    Two passes besides the epochs: one before, which finds types, categories, means and the classes, and one after
    over the test rows. It runs on the active Dask client, or within this process.

    Parameters
    ----------
    data : path, list of paths, or DataFrame of dask or pandas
        What :func:`daskdml.io.read_table` reads, or a table that Dask has.
    target : str, optional
        The column to learn; needed for all but svmlight files, which have labels.
    output : path, optional
        Where to save the model.
    say : callable, optional
        Told in words what goes on.
    task : {"classification", "regression"}, optional
        Default: text, booleans and at most 50 different whole numbers are classes, all else amounts.
    model : str, optional
        "logistic" (default), "svm", "modified_huber", "perceptron"; "linear" (default), "huber", "svr".
    strategy : {"averaging", "bsp", "ssp", "essp", "asp", "full_batch"}, default "averaging"
    staleness : int, optional
        Of "ssp" and "essp".
    replicas : int, optional
        Default: one for each thread of the cluster.
    epochs : int, default 10
        Passes over the training rows, at most.
    test_size : float, default 0.2
        Fraction of the rows of each part, drawn at random, that is held out; 0 for none.
    seed : int, default 0
    categorical, numeric, drop : sequences of str
        Columns to take as categories although they are numbers; as numbers although they are called identifiers
        (``zoneID``), or although some values of a CSV are no numbers, which are then missing; columns to leave out.
    params : dict
        Further parameters of the estimator, for example ``{"alpha": 1e-4}``. Features and, for a regression, the
        target are standardised: ``alpha`` and learning rates count on that, ``epsilon`` is in the target's units
        (default: a tenth of its standard deviation).
    progress : bool, default False
        Show the estimator's progress bar.
    checkpoint : path or str, optional
        A directory or fsspec URL to save the fit to as it goes on, ``checkpoint_every`` (default "60s"; a time or
        "10 rounds") and at the end.
    resume : bool, default False
        Go on from the newest checkpoint there; the table is surveyed again, and has to be the same.
    report : path, optional
        Where to write a page that tells all of the training, by custom ``*.html``; needs matplotlib.

    Returns
    -------
    TrainResult
        Its ``model`` is a :class:`TrainedModel`.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from daskdml.workflow import train
    >>> x = np.linspace(-1, 1, 200)
    >>> result = train(pd.DataFrame({"x": x, "sign": np.where(x > 0, "plus", "minus")}), "sign", epochs=5)
    >>> result.task, result.test["accuracy"] > 0.9
    ('classification', True)
    """
    settings = _options(target, options)
    started = time.perf_counter()
    if output is not None:
        check_writable(output)
        check_apart(output, files_of(data))
    if settings.report is not None:
        check_apart(settings.report, files_of(data))
        if output is not None and os.path.realpath(settings.report) == os.path.realpath(output):
            raise InputError(f"the model and the report would both be written to {output}; give two names")
    say = say or (lambda text: None)
    table = open_table(data, settings)
    for note in table.notes:
        say(note)
    layout = layout_of(table, settings)
    found = survey_table(table, layout)
    problem, reason, found_layout = _decide(table, layout, found, settings)
    say(f"task: {problem.task} ({reason}); model: {problem.model}")
    pipeline = _pipeline(table, layout, found, settings)
    say(_size(found, pipeline))
    estimator = _fit(table, found_layout, pipeline, problem, settings)
    test, baseline = _evaluate(table, found_layout, pipeline, estimator, found, settings)
    result = _result(problem, estimator, pipeline, found, settings, (test, baseline), time.perf_counter() - started)
    trained = TrainedModel(pipeline, estimator, problem.task, settings.target, record_of(result, estimator))
    if output is not None:
        save_model(trained, output)
    if settings.report is not None:
        report(trained, settings.report)
    return replace(result, model=trained, reason=reason, output=_path(output), report=_path(settings.report))


def _path(path: str | os.PathLike | None) -> str | None:
    return None if path is None else os.fspath(path)


def _options(target: str | None, options: dict[str, Any]) -> TrainOptions:
    known = set(TrainOptions.__dataclass_fields__)
    for name in options:
        if name not in known:
            raise TypeError(
                f"train() got an unexpected keyword argument {name!r}; it is one of {', '.join(sorted(known))}"
            )
    for name in ("categorical", "numeric", "drop"):
        if name in options:
            options[name] = tuple(options[name])
    settings = TrainOptions(target=target, **options)
    settings.check()
    check_params(settings)
    return settings


def _decide(table: Table, layout: Layout, found: PartSurvey, settings: TrainOptions) -> tuple[Problem, str, Layout]:
    kind = declared_kind(table, settings.target)
    task, reason = task_of(found.target, kind, settings.task)
    whole = task == CLASSIFICATION and kind != "text" and found.target.whole
    layout = Layout(layout.kinds, layout.target, layout.holdout, whole=whole)
    name, choice = choose(settings.model, task)
    classes = None
    if task == CLASSIFICATION:
        labels = sorted(found.target.counts)
        classes = np.array([int(v) for v in labels] if whole and not isinstance(labels[0], bool) else labels)
    units = None if task == CLASSIFICATION else Units.of(found.target)
    return Problem(task, name, choice, classes, units), reason, layout


def _pipeline(table: Table, layout: Layout, found: PartSurvey, settings: TrainOptions) -> Any:
    if found.features is None:
        assert found.largest is not None  # a part is a table or sparse rows
        return SparseScaler().fit_largest(found.largest, bool(table.zero_based))
    return pipeline_of(settings).fit_survey(found.features, layout.kinds)


def _fit(table: Table, layout: Layout, pipeline: Any, problem: Problem, settings: TrainOptions) -> Any:
    X, y = side_of(table, replace(layout, units=problem.units), pipeline, TRAIN)
    return fit_estimator(X, y, problem, settings)


def _evaluate(
    table: Table, layout: Layout, pipeline: Any, estimator: Any, found: PartSurvey, settings: TrainOptions
) -> tuple[dict[str, float], dict[str, float]]:
    if not found.test_rows:
        if settings.test_size:
            raise InputError(
                f"none of the {found.target.rows} rows fell into the test part of {settings.test_size:g}; "
                "enlarge --test-size, or set it to 0"
            )
        return {}, {}
    X, y = side_of(table, layout, pipeline, TEST)
    if hasattr(estimator, "classes_"):
        result = evaluate(estimator, X, y, priors=priors(found.target, estimator.classes_))
    else:
        result = evaluate(estimator, X, y, mean=found.target.mean)
    return result.model, result.baseline


def _size(found: PartSurvey, pipeline: Any) -> str:
    width = len(pipeline.get_feature_names_out())
    text = f"{found.target.rows:,} rows to train on, {found.test_rows:,} held out, {width:,} features"
    return text + (f"; {found.target.missing:,} rows without a target left out" if found.target.missing else "")


def _result(
    problem: Problem,
    estimator: Any,
    pipeline: Any,
    found: PartSurvey,
    settings: TrainOptions,
    metrics: tuple[dict[str, float], dict[str, float]],
    seconds: float,
) -> TrainResult:
    history = estimator.history_
    return TrainResult(
        rows=found.target.rows + found.test_rows,
        features=len(pipeline.get_feature_names_out()),
        task=problem.task,
        strategy=settings.strategy,
        replicas=int(estimator.n_replicas_),
        epochs=int(estimator.n_iter_),
        seconds=round(seconds, 3),
        train_loss=float(history["loss"].iloc[-1]),
        test=metrics[0],
        baseline=metrics[1],
        model_name=problem.model,
        test_rows=found.test_rows,
        missing_target=found.target.missing,
        rows_per_second=float(history["rows"].sum() / max(history["seconds"].sum(), 1e-9)),
    )


def record_of(result: TrainResult, estimator: Any) -> dict[str, Any]:
    """What a model file tells of its training."""
    import sklearn

    from daskdml import __version__

    by_epoch = estimator.history_.groupby("epoch")["loss"].last()
    kept = {
        k: v for k, v in asdict(replace(result, model=None)).items() if k not in ("model", "output", "report", "reason")
    }
    versions = {"daskdml": __version__, "scikit-learn": sklearn.__version__, "numpy": np.__version__}
    return {**kept, "loss_by_epoch": [float(v) for v in by_epoch], "versions": versions}
