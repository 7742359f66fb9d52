"""What the SGD estimators share: parameters, state between calls, fitting, lazy prediction."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from functools import cache, cached_property
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.base import BaseEstimator, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from daskdml.checkpoint import Cadence
from daskdml.data import budget_bytes, columns_of, is_in_memory, map_rows, namespace_of, on_host, refuse_dataset
from daskdml.linear_model._device import DEVICES, batch_of, check_device
from daskdml.linear_model._identity import identity_of
from daskdml.linear_model._provenance import provenance_of
from daskdml.linear_model._split import validation_mask
from daskdml.linear_model._training import Distributed, Memory, plain_features, run, seed_of
from daskdml.models import LinearModel
from daskdml.monitor import CallbackList, FitInfo, History, ProgressBar, StoppingRule
from daskdml.monitor._html import fitted_html
from daskdml.monitor.dashboard import page_listeners
from daskdml.numerics import ADAPTIVE, CONSTANT, LOSSES, PENALTIES, SCHEDULES, Settings, State, settle
from daskdml.strategies import (
    Agreed,
    Asynchronous,
    Checkpoint,
    FitStart,
    FullBatch,
    Holdout,
    Schedule,
    Synchronous,
    as_strategy,
)

# scikit-learn's: a sparse row touches the intercept far more often than any of its weights.
SPARSE_INTERCEPT_DECAY = 0.01
# What a running mean of the coefficients is made of, named as in scikit-learn, where training goes on from it.
MEAN_STATE = ("_standard_coef", "_standard_intercept", "_average_coef", "_average_intercept")
_PER_COORDINATE = ("adagrad", "normalized")


class BaseSGD(BaseEstimator):
    """Base of the SGD estimators; not for use by itself."""

    _parameter_constraints: dict = {
        "penalty": [StrOptions({"l2", "l1", "elasticnet"}), None],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "l1_ratio": [Interval(Real, 0, 1, closed="both"), None],
        "fit_intercept": ["boolean"],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left"), None],
        "shuffle": ["boolean"],
        "verbose": ["verbose"],
        "epsilon": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
        "learning_rate": [StrOptions(set(SCHEDULES))],
        "eta0": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, None, None, closed="neither")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "average": [Interval(Integral, 0, None, closed="neither"), "boolean"],
        "coordinate_eta0": [Interval(Real, 0, None, closed="neither")],
        "strategy": [str, Synchronous, Asynchronous],
        "memory_budget": [str, Interval(Integral, 0, None, closed="left"), None],
        "device": [StrOptions(set(DEVICES))],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "device_memory": [str, Interval(Integral, 0, None, closed="left"), None],
        "callbacks": "no_validation",
        "checkpoint": [str, os.PathLike, None],
        "checkpoint_every": [str, Interval(Real, 0, None, closed="left")],
    }

    coef_: Any
    intercept_: Any
    t_: float

    @classmethod
    @cache
    def _get_param_names(cls) -> list[str]:
        # Several times a fit; scikit-learn reads the signature each time, which on few rows takes as long as training.
        return super()._get_param_names()

    def set_params(self, **params: Any) -> BaseSGD:
        """Set parameters, of a strategy that was given by name too: ``set_params(strategy__n_replicas=4)``.

        Returns
        -------
        self
        """
        if any(name.startswith("strategy__") for name in params):
            # What it is called has no parameters to set: the name becomes that strategy's object.
            params["strategy"] = as_strategy(params["strategy"] if "strategy" in params else self.strategy)
        return super().set_params(**params)

    # -- parameters -----------------------------------------------------------------------------------

    def _check_parameters(self, partial: bool = False) -> None:
        """Raise for parameters that do not go together; each by itself was checked before."""
        if self.early_stopping and partial:
            raise ValueError("early_stopping should be False with partial_fit")
        if self.learning_rate == "optimal" and self.alpha == 0:
            raise ValueError(
                "alpha must be > 0 since learning_rate is 'optimal'. alpha is used to compute the optimal learning "
                "rate."
            )
        if self.learning_rate in ("pa1", "pa2"):
            loss = "hinge" if is_classifier(self) else "epsilon_insensitive"
            if self.loss != loss:
                raise ValueError(f"Learning rate '{self.learning_rate}' only works with loss '{loss}'.")
        if self.penalty == "elasticnet" and self.l1_ratio is None:
            raise ValueError("l1_ratio must be set when penalty is 'elasticnet'")
        if self.average and self.learning_rate in _PER_COORDINATE:
            raise ValueError(
                f"average={self.average} needs a scalar learning rate; with learning_rate='{self.learning_rate}' "
                "set average=False"
            )
        chosen = as_strategy(self.strategy)
        if isinstance(chosen, FullBatch) and self.average:
            raise ValueError(
                f"average={self.average} is a mean over many small steps, and strategy={chosen!r} makes few that are "
                "exact: set average=False"
            )
        budget_bytes(self.memory_budget)
        budget_bytes(self.device_memory, "device_memory")
        check_device(self.device, self.batch_size, self.device_memory, self.learning_rate, self.strategy)
        Cadence.of(self.checkpoint_every)

    def _check_goes_on(self) -> None:
        """Raise where one pass over other rows means nothing to the strategy."""
        chosen = as_strategy(self.strategy)
        if isinstance(chosen, Synchronous) and not chosen.goes_on:
            raise ValueError(
                f"partial_fit makes one pass over other rows, and strategy={chosen!r} many over the same: "
                "use fit, with warm_start=True to begin where the last one ended, or strategy='averaging'"
            )

    def _open_checkpoint(self, resume: bool) -> Checkpoint | None:
        """Where the fit is saved, with what is there to be resumed; None without ``checkpoint``."""
        if self.checkpoint is not None:
            return Checkpoint.open(self.checkpoint, self.checkpoint_every, resume)
        if resume:
            raise ValueError(
                "resume=True goes on from a checkpoint, and checkpoint=None: set checkpoint to the directory or URL "
                "that the first fit was given"
            )
        return None

    def _batch(self) -> int:
        return batch_of(self.device, self.batch_size, self.learning_rate, self.strategy)

    def _settings(self, mode: int, is_sparse: bool) -> Settings:
        ratio = {None: 0.0, "l2": 0.0, "l1": 1.0}.get(self.penalty, self.l1_ratio)
        return Settings(
            loss=LOSSES[self.loss].number,
            mode=mode,
            epsilon=float(self.epsilon),
            penalty=PENALTIES["none" if self.penalty is None else self.penalty],
            alpha=float(self.alpha),
            l1_ratio=float(ratio or 0.0),
            schedule=SCHEDULES[self.learning_rate],
            eta0=float(self.coordinate_eta0 if self.learning_rate in _PER_COORDINATE else self.eta0),
            power_t=float(self.power_t),
            fit_intercept=bool(self.fit_intercept),
            intercept_decay=SPARSE_INTERCEPT_DECAY if is_sparse else 1.0,
            average=int(self.average),
        )

    # -- state ----------------------------------------------------------------------------------------

    def _start(self, model: LinearModel, coef_init: Any, intercept_init: Any) -> Agreed:
        """A fresh state, from given coefficients where there are some."""
        state = model.init()
        if coef_init is not None:
            state.coef[...] = self._given(coef_init, state.coef, "coef_init")
        if intercept_init is not None:
            state.intercept[...] = self._given(intercept_init, state.intercept, "intercept_init")
        return Agreed(state)

    @staticmethod
    def _given(value: Any, like: np.ndarray, name: str) -> np.ndarray:
        array = np.asarray(value, dtype=like.dtype)
        single = len(like) == 1 and array.size == like.size
        if array.shape != like.shape and not single:
            raise ValueError(f"Provided {name} does not match dataset: its shape is {array.shape}, not {like.shape}.")
        return array.reshape(like.shape)

    def _resume(self, model: LinearModel) -> Agreed:
        """The state the last call left; its coefficients as they are now, should the user have changed them."""
        state = State(**{name: np.array(value) for name, value in self._optimizer_state.items()})
        coef, intercept = (
            (self._standard_coef, self._standard_intercept) if self.average else (self.coef_, self.intercept_)
        )
        state.coef[...] = np.reshape(coef, state.coef.shape)
        state.intercept[...] = np.reshape(intercept, state.intercept.shape)
        fresh = model.init()
        if model.settings.schedule == CONSTANT:
            # An adaptive rate is where the last call left it; this one is what the parameter says now.
            state.eta[...] = fresh.eta
        # A parameter changed between calls may want arrays that the earlier ones did without.
        kept = {n: v if v.shape == getattr(fresh, n).shape else getattr(fresh, n) for n, v in state._asdict().items()}
        return Agreed(State(**kept), self._strategy_memory)

    @cached_property
    def history_(self) -> pd.DataFrame:
        """A row a round: loss, rows, seconds computing, loading and waiting, bytes."""
        # Made when it is asked for: on few rows a table takes longer than the fit.
        history = self.__dict__.pop("_history", None)
        if history is None:
            raise AttributeError(f"this {type(self).__name__} has no history_: it is not fitted yet")
        return history.to_frame()

    @cached_property
    def replicas_(self) -> pd.DataFrame:
        """A row for each replica and round: worker, begin, seconds computing, loading and waiting, rows, bytes."""
        listener = self.__dict__.pop("_listener", None)
        if listener is None:
            raise AttributeError(f"this {type(self).__name__} has no replicas_: it is not fitted yet")
        return listener.to_replicas()

    def __getstate__(self) -> Any:
        if "_history" in self.__dict__:
            self.history_  # noqa: B018 (the table is what is kept)
        if "_listener" in self.__dict__:
            self.replicas_  # noqa: B018
        return super().__getstate__()

    # -- fitting --------------------------------------------------------------------------------------

    def _train(
        self,
        data: Memory | Distributed,
        model: LinearModel,
        agreed: Agreed,
        epochs: int,
        y: np.ndarray | None,
        checkpoint: Checkpoint | None = None,
        given: dict[str, Any] | None = None,
    ) -> Any:
        """Train, and adopt the result. ``y``: the labels of data in memory, to split them for validation.

        ``given``: what the fit was given beside parameters and data, for a checkpoint to know it again.
        """
        history = History(None if checkpoint is None else checkpoint.history)
        start = self._decide(data, y) if checkpoint is None or checkpoint.start is None else checkpoint.start
        if checkpoint is not None:
            checkpoint.claim(identity_of(self, data, given or {}), start, history)
        schedule = Schedule(
            n_blocks=data.n_blocks,
            n_replicas=data.n_replicas,
            max_epochs=epochs,
            seed=start.seed,
            shuffle=self.shuffle,
            rule=StoppingRule(
                n_problems=model.n_problems,
                tol=self.tol,
                n_iter_no_change=self.n_iter_no_change,
                adaptive=model.settings.schedule == ADAPTIVE,
            ),
            holdout=start.holdout,
            model_bytes=sum(array.nbytes for array in agreed.state),
        )
        bars = [ProgressBar(detail=self.verbose > 1)] if self.verbose else []
        provenance, started = provenance_of(data), time.perf_counter()
        pages = page_listeners(data.client) if isinstance(data, Distributed) else []
        listeners = CallbackList([history, *bars, *pages, *CallbackList(self.callbacks).callbacks])
        trained = run(
            data,
            self.strategy,
            model,
            agreed,
            schedule,
            listeners,
            self._info(data, epochs),
            (self.memory_budget, self.device_memory),
            checkpoint,
        )
        if isinstance(data, Distributed):
            data.refuse_weightless(trained.agreed.state)
        self.__dict__.pop("history_", None)
        self.__dict__.pop("replicas_", None)
        self._history = self._listener = history
        self.n_replicas_ = data.n_replicas
        self.strategy_ = as_strategy(self.strategy)
        self.provenance_ = provenance | {"seconds": time.perf_counter() - started, "reason": trained.reason}
        self.__dict__.pop("trace_", None)
        if trained.trace is not None:
            self.trace_ = trained.trace
        return trained

    def _check_kinds(self, y: Any, sample_weight: Any) -> None:
        """Raise, in memory and of Dask alike, for what cannot be one value a row."""
        if y is None:
            raise ValueError(f"This {type(self).__name__} estimator requires y to be passed, but the target y is None.")
        refuse_dataset(y, "y")
        refuse_dataset(sample_weight, "sample_weight")

    def _decide(self, data: Memory | Distributed, y: np.ndarray | None) -> FitStart:
        """What is drawn once for the whole fit."""
        # Drawn in this order, as scikit-learn does: it shows where random_state is a generator.
        holdout = self._holdout(data, y)
        return FitStart(data.n_replicas, seed_of(self.random_state), holdout, isinstance(data, Memory))

    def _holdout(self, data: Memory | Distributed, y: np.ndarray | None) -> Holdout | None:
        if not self.early_stopping:
            return None
        if isinstance(data, Memory):
            assert y is not None
            weight = data.block.sample_weight
            used = np.ones(len(y), dtype=bool) if weight is None else weight > 0
            mask = validation_mask(y, self.validation_fraction, self.random_state, is_classifier(self), used)
            return Holdout(mask=mask)
        return Holdout(fraction=self.validation_fraction, seed=seed_of(self.random_state))

    def _info(self, data: Memory | Distributed, epochs: int) -> FitInfo:
        client = getattr(data, "client", None)
        return FitInfo(
            estimator=type(self).__name__,
            strategy=as_strategy(self.strategy).name,
            n_replicas=data.n_replicas,
            n_blocks=data.n_blocks,
            n_rows=data.n_rows,
            n_features=data.schema.n_features,
            max_epochs=epochs,
            rounds_per_epoch=1,
            params=self.get_params(deep=False),
            dashboard=getattr(client, "dashboard_link", None) or None,
            staleness=getattr(as_strategy(self.strategy), "staleness", 0),
            loss_scale=getattr(self, "_loss_scale", 1.0),
        )

    def _adopt(self, trained: Any, data: Memory | Distributed, first: bool) -> None:
        """Take the result over as plain NumPy attributes."""
        state = settle(trained.agreed.state)
        n_rows = data.n_rows
        self.n_iter_ = trained.epochs
        self.t_ = (1.0 if first else self.t_) + (trained.rows if n_rows is None else trained.epochs * n_rows)
        self._optimizer_state = state._asdict()
        chosen = as_strategy(self.strategy)
        goes_on = not isinstance(chosen, Synchronous) or chosen.goes_on
        self._strategy_memory = trained.agreed.memory if goes_on else None
        coef, intercept = self._shaped(state.coef), state.intercept.astype(state.coef.dtype)
        for name in MEAN_STATE:
            self.__dict__.pop(name, None)
        if self.average:
            self._standard_coef, self._standard_intercept = coef, intercept
            self._average_coef = self._shaped(state.average_coef)
            self._average_intercept = state.average_intercept.astype(state.coef.dtype)
            if self.average <= state.clock[0] - 1.0:
                coef, intercept = self._average_coef, self._average_intercept
        self.coef_, self.intercept_ = coef, intercept

    def _shaped(self, coef: np.ndarray) -> np.ndarray:
        return coef if is_classifier(self) else coef[0]

    def _warn_of_the_end(self) -> None:
        if self.tol is not None and self.tol > -np.inf and self.n_iter_ == self.max_iter:
            warnings.warn(
                "Maximum number of iteration reached before convergence. Consider increasing max_iter to improve "
                "the fit.",
                ConvergenceWarning,
                stacklevel=3,
            )
        if self.power_t < 0:
            warnings.warn(
                "Negative values for `power_t` are deprecated in version 1.8 and will raise an error in 1.10. "
                "Use values in the range [0.0, inf) instead.",
                FutureWarning,
                stacklevel=3,
            )

    # -- prediction -----------------------------------------------------------------------------------

    def _note_columns(self, X: Any, reset: bool) -> None:
        """Set or check the number and names of features of lazy data, as scikit-learn does for what is in memory."""
        n_features, names = columns_of(X)
        frame: Any = np.empty((1, n_features))
        if names is not None:
            frame = pd.DataFrame(frame, columns=list(names))
        validate_data(self, X=frame, reset=reset, skip_check_array=True)

    def _scores(self, X: Any) -> np.ndarray:
        """Scores of rows in memory, (n,) for a single problem else (n, K)."""
        return _Scores(*self._plain())(X)

    def _map(self, X: Any, function: Any, dtype: Any, columns: Any = None, name: str = "predict") -> Any:
        """Apply a function of scores to X, in X's kind of container."""
        check_is_fitted(self)
        if is_in_memory(X) and not hasattr(X, "dims"):
            X = validate_data(self, plain_features(X), accept_sparse="csr", reset=False)
            return function(self._scores(X))
        self._note_columns(X, reset=False)
        coef, intercept = self._plain()
        if sparse.issparse(coef):
            # Its product with a row skips columns, and so does not show all that is in them.
            return map_rows(X, _Then(_Scores(coef, intercept), function), dtype=dtype, columns=columns, name=name)
        scores = _Scores(coef, intercept) if self.device == "cpu" else _ScoresAnywhere(coef, intercept)
        return map_rows(X, function, dtype=dtype, columns=columns, name=name, scores=scores)

    def _plain(self) -> tuple[np.ndarray, np.ndarray]:
        coef = self.coef_ if sparse.issparse(self.coef_) else np.atleast_2d(self.coef_)
        return coef, np.asarray(self.intercept_)

    def _hand_over(self, plain: Any, names: tuple[str, ...]) -> None:
        """Give a scikit-learn estimator those of the attributes that there are, as copies."""
        for name in names:
            if hasattr(self, name):
                value = getattr(self, name)
                setattr(plain, name, np.array(value) if isinstance(value, np.ndarray) else value)

    # -- the rest of scikit-learn's interface -----------------------------------------------------------

    def densify(self) -> BaseSGD:
        """Make ``coef_`` an ndarray again, after :meth:`sparsify`."""
        check_is_fitted(self)
        if sparse.issparse(self.coef_):
            self.coef_ = self.coef_.toarray()
        return self

    def sparsify(self) -> BaseSGD:
        """Make ``coef_`` a CSR matrix: worth it where more than half of it is zero, as with l1."""
        check_is_fitted(self)
        self.coef_ = sparse.csr_array(np.atleast_2d(self.coef_))
        return self

    def report(self, path: str | os.PathLike, *, title: str | None = None) -> None:
        """Write a page that tells all of the last fit: pictures, parameters, data, cluster, history, scaling.

        One HTML file that loads nothing from anywhere; it needs matplotlib, the extra ``plot``.

        Parameters
        ----------
        path : path
            By custom ``*.html``; there whole or not at all. An existing file is replaced.
        title : str, optional

        Raises
        ------
        ImportError
            Where matplotlib is not installed.
        """
        from daskdml.plot import report

        check_is_fitted(self)
        report(self, path, title=title)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _html_repr(self) -> str:
        return super()._html_repr() + fitted_html(self)


class _Scores:
    """Scores of rows, (n,) for a single problem else (n, K): small, and without the estimator's state."""

    def __init__(self, coef: Any, intercept: np.ndarray):
        self.coef = coef
        self.intercept = intercept

    def __call__(self, X: Any) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # what is not finite in X is told of with its place
            product: Any = X @ self.coef.T
        product = product.toarray() if sparse.issparse(product) else np.asarray(product)
        if product.dtype == np.result_type(product, self.intercept):
            # It is nobody else's.
            product += self.intercept
        else:
            product = product + self.intercept
        return product[:, 0] if product.shape[1] == 1 else product


class _ScoresAnywhere(_Scores):
    """Those of rows on a GPU are made there."""

    def there(self, X: Any) -> np.ndarray:
        """Scores on the host of rows on a device: a few numbers a row come over instead of all its features."""
        xp = namespace_of(X)
        product = xp.matmul(X, xp.asarray(np.ascontiguousarray(self.coef.T)))
        product = np.asarray(on_host(product)) + self.intercept
        return product[:, 0] if product.shape[1] == 1 else product


class _Then:
    """A function of scores as one of rows."""

    def __init__(self, scores: _Scores, function: Callable[[np.ndarray], np.ndarray]):
        self.scores = scores
        self.function = function

    def __call__(self, X: Any) -> np.ndarray:
        return self.function(self.scores(X))


def same(scores: np.ndarray) -> np.ndarray:
    """The scores themselves."""
    return scores
