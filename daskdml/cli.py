"""The command line: ``daskdml train | predict | inspect | report | demo``. It parses, calls workflow, and prints."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from daskdml import _reports
from daskdml._version import __version__

_WRONG_USE, _FAILED, _INTERRUPTED = 2, 1, 130


def _fail(error: BaseException, status: int, debug: bool) -> None:
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    if isinstance(error, OSError) and not isinstance(error, TimeoutError) and error.strerror:
        text = error.strerror + (f": {error.filename}" if error.filename else "")
    # Where it happened: the block, of an error that reading or computing the user's data met.
    text = "; ".join([text, *getattr(error, "__notes__", ())])
    click.echo(f"daskdml: {text}", err=True)
    sys.exit(status)


def _reported(command: Callable[..., None]) -> Callable[..., None]:
    """Every failure becomes one line on stderr and an exit status: 2 for wrong use, 1 for a failed run."""

    @click.option("--debug", is_flag=True, help="Show the traceback of an error, and all warnings and logs.")
    @functools.wraps(command)
    def run(debug: bool, **options: Any) -> None:
        _end_on_terminate()
        try:
            if not debug:
                _be_quiet()
            with _logged(debug, bool(options.get("quiet"))):
                command(**options)
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            click.echo("daskdml: interrupted", err=True)
            sys.exit(_INTERRUPTED)
        except Exception as error:
            from daskdml.io import InputError

            _fail(error, _WRONG_USE if isinstance(error, InputError) else _FAILED, debug)

    return run


@contextmanager
def _logged(debug: bool, quiet: bool) -> Iterator[None]:
    """What daskdml logs, on stderr: warnings; with --debug everything, with --quiet errors alone."""
    import logging

    class Echo(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            click.echo(f"daskdml: {record.getMessage()}", err=True)

    logger, handler = logging.getLogger("daskdml"), Echo()
    before = logger.level
    logger.setLevel(logging.DEBUG if debug else logging.ERROR if quiet else logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _end_on_terminate() -> None:
    """A polite kill takes the way of Ctrl-C: clusters are closed and temporary files removed."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: the caller handles its own signals
        pass


def _be_quiet() -> None:
    """Dask tells its life in logs and warnings; what concerns the user is raised or printed."""
    import logging
    import warnings

    import dask

    warnings.simplefilter("ignore")
    # Worker processes inherit both.
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    dask.config.set({"logging": {"distributed": "critical", "distributed.client": "critical", "bokeh": "critical"}})
    for name in ("distributed", "bokeh", "tornado", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _teller(quiet: bool) -> Callable[[str], None]:
    return (lambda text: None) if quiet else (lambda text: click.echo(text, err=True))


def _cluster_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option(
            "--scheduler", metavar="ADDRESS", help="Use the Dask cluster at this address, as tcp://host:8786."
        ),
        click.option("--memory-limit", metavar="BYTES", help="Memory of each of those processes, as 700MB."),
        click.option(
            "--workers", type=int, metavar="N", help="Start N worker processes. Default: threads in this one."
        ),
    ):
        command = option(command)
    return command


# click keeps the lines of a paragraph that begins with a backspace character as they are.
_EXAMPLES = """Train linear models on data larger than memory, with Dask.

\b
daskdml train covtype.parquet --target Cover_Type --output model.skops
daskdml predict model.skops new.parquet --output predictions.parquet
daskdml demo
"""


@click.group(help=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="daskdml")
def main() -> None:
    """The group of commands; its help is ``_EXAMPLES``."""


@main.command()
@click.argument("files", nargs=-1, required=True)
@click.option("--target", metavar="COLUMN", help="The column (or Zarr variable) to learn; svmlight has its own labels.")
@click.option("--task", type=click.Choice(["classification", "regression"]), help="Default: by the target's values.")
@click.option(
    "--model", metavar="NAME", help="logistic (default), svm, modified_huber, perceptron; linear (default), huber, svr."
)
@click.option(
    "--strategy",
    type=click.Choice(["averaging", "bsp", "ssp", "essp", "asp", "full_batch"]),
    default="averaging",
    show_default=True,
    help="How replicas are kept in step.",
)
@click.option("--staleness", type=int, metavar="N", help="Clocks the fastest replica may be ahead, with ssp and essp.")
@click.option("--replicas", type=int, metavar="N", help="Logical workers of the strategy. Default: one a thread.")
@click.option("--epochs", type=int, default=10, show_default=True, help="Passes over the training rows, at most.")
@click.option("--test-size", type=float, default=0.2, show_default=True, help="Fraction of the rows held out.")
@click.option(
    "--categorical", multiple=True, metavar="COLUMN", help="Take a column of numbers as categories; repeatable."
)
@click.option(
    "--numeric",
    multiple=True,
    metavar="COLUMN",
    help="Take a column as numbers: called an ID, or with other values in a CSV, then missing; repeatable.",
)
@click.option("--drop", multiple=True, metavar="COLUMN", help="Leave a column out; repeatable.")
@click.option(
    "--param", multiple=True, metavar="NAME=VALUE", help="A parameter of the estimator, as alpha=1e-4; repeatable."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--output", metavar="FILE", help="Save the model here, as model.skops.")
@click.option("--report", metavar="FILE", help="Write a page that tells all of the training here, as fit.html.")
@click.option("--checkpoint", metavar="DIR", help="Save the fit here as it goes on; a directory or an fsspec URL.")
@click.option(
    "--checkpoint-every",
    default="60s",
    show_default=True,
    metavar="INTERVAL",
    help="A time as 30s or '5 minutes', or '10 rounds'.",
)
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint in --checkpoint.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line on stdout.")
@click.option("--quiet", is_flag=True, help="No progress and no words; only errors, and the JSON if asked for.")
@_cluster_options
@_reported
def train(
    files: tuple[str, ...],
    workers: int | None,
    memory_limit: str | None,
    scheduler: str | None,
    as_json: bool,
    quiet: bool,
    param: tuple[str, ...],
    **options: Any,
) -> None:
    """Train on FILES: CSV, Parquet, Zarr or svmlight files, directories or globs of them."""
    params = dict(map(_parameter, param))
    from daskdml import workflow

    with workflow.session(workers, memory_limit, scheduler):
        result = workflow.train(list(files), params=params, say=_teller(quiet), progress=not quiet, **options)
    if not quiet:
        click.echo(_reports.training_report(result))
    if as_json:
        click.echo(_json_line(result.to_json()))


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE, as alpha=1e-4", param_hint="--param")
    try:
        return name, json.loads({"True": "true", "False": "false", "None": "null"}.get(value, value))
    except ValueError:
        return name, value


@main.command()
@click.argument("model")
@click.argument("files", nargs=-1, required=True)
@click.option("--output", required=True, metavar="FILE", help="Where to write: *.parquet or *.csv.")
@click.option("--proba", is_flag=True, help="Also write the probability of each class.")
@click.option("--quiet", is_flag=True, help="No words; only errors.")
@_cluster_options
@_reported
def predict(
    model: str,
    files: tuple[str, ...],
    output: str,
    proba: bool,
    quiet: bool,
    workers: int | None,
    memory_limit: str | None,
    scheduler: str | None,
) -> None:
    """Predict FILES with a MODEL of 'daskdml train', row by row in their order."""
    from daskdml import workflow

    with workflow.session(workers, memory_limit, scheduler):
        result = workflow.predict(model, list(files), output, proba=proba)
    if not quiet:
        click.echo(f"{result.rows:,} predictions in {result.output} ({', '.join(result.columns)})")


@main.command()
@click.argument("model")
@click.option("--top", type=int, default=10, show_default=True, help="How many of the largest weights to list.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line on stdout.")
@click.option("--quiet", is_flag=True, help="No words; only errors, and the JSON if asked for.")
@_reported
def inspect(model: str, top: int, as_json: bool, quiet: bool) -> None:
    """Tell what is in a MODEL file: task, columns, parameters, training, largest weights."""
    from daskdml import workflow

    found = workflow.inspect(model, top)
    if not quiet:
        click.echo(_reports.inspection_report(found))
    if as_json:
        click.echo(_json_line(found.to_json()))


@main.command()
@click.argument("model")
@click.option("--output", required=True, metavar="FILE", help="Where to write, as fit.html.")
@click.option("--quiet", is_flag=True, help="No words; only errors.")
@_reported
def report(model: str, output: str, quiet: bool) -> None:
    """Write a page that tells all of the training of a MODEL file: pictures, results, cost, more workers."""
    from daskdml import workflow

    workflow.report(model, output)
    if not quiet:
        click.echo(f"all about the training of {model} is in {output}")


@main.command()
@click.option("--size", default="1.5GB", show_default=True, help="Of the data set that is generated.")
@click.option("--workers", type=int, default=2, show_default=True, help="Worker processes.")
@click.option("--memory-limit", default="700MB", show_default=True, help="Memory of each worker.")
@click.option("--epochs", type=int, default=3, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line on stdout.")
@click.option("--quiet", is_flag=True, help="No words; only errors, and the JSON if asked for.")
@_reported
def demo(as_json: bool, quiet: bool, **options: Any) -> None:
    """Train on a generated data set larger than the workers' memory, and tell what happened."""
    from daskdml import workflow

    result = workflow.demo(say=_teller(quiet), progress=not quiet, **options)
    if not quiet:
        click.echo(_reports.demo_report(result))
    if as_json:
        click.echo(_json_line(result.to_json()))


def _json_line(value: dict[str, Any]) -> str:
    return json.dumps(value, allow_nan=True, default=str)
