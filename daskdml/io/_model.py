"""Saving and loading fitted models in a format that executes nothing when it is loaded."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from copy import copy
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd

from daskdml.io._atomic import replacing
from daskdml.io._errors import InputError

# What a file may hold beside the types skops trusts by itself (NumPy's, SciPy's, scikit-learn's). Nothing here
# runs code of the file's choosing when it is rebuilt.
_TRUSTED = (
    "daskdml.workflow:TrainedModel",
    "daskdml.preprocessing:TablePipeline",
    "daskdml.preprocessing:SparseScaler",
    "daskdml.linear_model:SGDClassifier",
    "daskdml.linear_model:SGDRegressor",
    "daskdml.strategies:Averaging",
    "daskdml.strategies:BSP",
    "daskdml.strategies:SSP",
    "daskdml.strategies:ESSP",
    "daskdml.strategies:ASP",
    "daskdml.strategies:FullBatch",
    "daskdml.server:Float16",
    "daskdml.server:TopK",
    "daskdml.server:Add",
    "daskdml.server:Momentum",
    "daskdml.server:AdaGrad",
    "daskdml.server:Adam",
    "daskdml.server:FTRLProximal",
    "dask_ml.preprocessing:StandardScaler",
    "dask_ml.impute:SimpleImputer",
    "numpy:dtype",
)
_FRAME = "__daskdml_frame__"


def save_model(model: Any, path: str | os.PathLike) -> None:
    """Write a fitted model; the file is there whole or not at all.

    Parameters
    ----------
    model : estimator
        Of daskdml or scikit-learn, or what ``daskdml.workflow.train`` returned as ``model``.
    path : path
        By custom ``*.skops``. An existing file is replaced.

    Raises
    ------
    InputError
        Where the model holds objects that :func:`load_model` would refuse (a callback of your own), by name.
    OSError
        Where the disk is full.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklearn.linear_model import LinearRegression
    >>> from daskdml.io import load_model, save_model
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.skops")
    ...     save_model(LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0]), path)
    ...     load_model(path).predict([[2.0]]).round(6).tolist()
    [4.0]
    """
    import skops.io

    data = skops.io.dumps(_walk(model, _freeze), compression=zipfile.ZIP_DEFLATED)
    unknown = _unknown_types(data)
    if unknown:
        raise InputError(
            f"the model holds {', '.join(unknown)}, which could not be loaded safely; "
            "take it out first (of an estimator: set_params(callbacks=None))"
        )
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)


def load_model(path: str | os.PathLike) -> Any:
    """Read a model written by :func:`save_model`; nothing in the file is executed.

    Parameters
    ----------
    path : path
        A file of :func:`save_model`.

    Returns
    -------
    object
        The fitted model.

    Raises
    ------
    InputError
        Where there is no such file, it is no model, or it holds types other than those of daskdml, dask-ml,
        scikit-learn and NumPy.

    Examples
    --------
    >>> from daskdml.io import load_model
    >>> load_model("nowhere.skops")
    Traceback (most recent call last):
        ...
    daskdml.io._errors.InputError: no such model file: nowhere.skops; 'daskdml train' writes one
    """
    import skops.io

    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise InputError(f"no such model file: {path}; 'daskdml train' writes one") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a directory, not a model file; 'daskdml train --output' writes one") from None
    try:
        unknown = _unknown_types(data)
        if unknown:
            raise InputError(
                f"{path} holds {', '.join(unknown)}, which daskdml does not trust; load it only if you know where "
                "it is from, with skops.io.load(path, trusted=[...]) in Python"
            )
        model = skops.io.loads(data, trusted=_trusted_names())
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no model of daskdml ({_short(error)}); 'daskdml train' writes one") from None
    return _walk(model, _thaw)


def _unknown_types(data: bytes) -> list[str]:
    import skops.io

    return sorted(set(skops.io.get_untrusted_types(data=data)) - set(_trusted_names()))


def _trusted_names() -> list[str]:
    names = []
    for entry in _TRUSTED:
        module, _, name = entry.partition(":")
        cls = getattr(import_module(module), name)
        names.append(f"{cls.__module__}.{cls.__qualname__}")
    return names


def _walk(value: Any, convert: Callable[[Any], Any]) -> Any:
    """A shallow-copied ``value`` with ``convert`` applied to it and to what its attributes hold."""
    value = convert(value)
    if type(value).__module__.startswith("daskdml.") and hasattr(value, "__dict__"):
        twin = copy(value)
        for name, held in vars(value).items():
            # Past a frozen dataclass's own __setattr__: the copy is nobody else's yet.
            object.__setattr__(twin, name, _walk(held, convert))
        return twin
    if type(value) in (list, tuple):
        return type(value)(_walk(v, convert) for v in value)
    if type(value) is dict:
        return {k: _walk(v, convert) for k, v in value.items()}
    return value


def _freeze(value: Any) -> Any:
    """Replace DataFrames, which skops would write as calls of pandas' internals, and paths."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, pd.DataFrame):
        return {_FRAME: {str(c): _plain(value[c].to_numpy()) for c in value.columns}}
    return value


def _thaw(value: Any) -> Any:
    if type(value) is dict and set(value) == {_FRAME}:
        return pd.DataFrame(value[_FRAME])
    return value


def _plain(values: np.ndarray) -> Any:
    return values.tolist() if values.dtype == object else values


def _short(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:120]}" if text else type(error).__name__
