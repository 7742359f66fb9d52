"""SGDRegressor."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from sklearn.base import RegressorMixin, _fit_context
from sklearn.linear_model import SGDRegressor as PlainRegressor
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from daskdml.data import Block, Schema, Target, is_in_memory, on_host
from daskdml.linear_model._base import MEAN_STATE, BaseSGD, same
from daskdml.linear_model._device import require_device
from daskdml.linear_model._labels import Labels
from daskdml.linear_model._training import Distributed, Memory, distribute, plain_features, stays_in_process
from daskdml.metrics import r2_score
from daskdml.models import LinearModel
from daskdml.numerics import LOSSES, REGRESSION
from daskdml.strategies import FitStart

_LOSSES = {name for name, loss in LOSSES.items() if loss.regression}


class SGDRegressor(RegressorMixin, BaseSGD):
    """Linear regression trained by SGD, on data in memory or larger than it.

    The parameters, defaults and results are those of :class:`sklearn.linear_model.SGDRegressor`; what is new, and the
    data it takes, is as in :class:`daskdml.linear_model.SGDClassifier`.

    Parameters
    ----------
    loss : {"squared_error", "huber", "epsilon_insensitive", "squared_epsilon_insensitive"}, default "squared_error"
    penalty : {"l2", "l1", "elasticnet"} or None, default "l2"
    alpha : float, default 1e-4
    l1_ratio : float, default 0.15
    fit_intercept : bool, default True
    max_iter : int, default 1000
        Passes over the data.
    tol : float or None, default 1e-3
    shuffle : bool, default True
    verbose : int, default 0
        1 shows a progress bar with epoch, loss, rows/s and time left; a line now and then where standard error is no
        terminal. From 2 on there is also a line for each epoch, and for rounds, that tells where the time went.
    epsilon : float, default 0.1
        Of huber and the epsilon-insensitive losses, in units of the target.
    random_state : int, RandomState or None, default None
    learning_rate : str, default "invscaling"
        scikit-learn's names, and "adagrad" and "normalized".
    eta0 : float, default 0.01
    power_t : float, default 0.25
    early_stopping : bool, default False
    validation_fraction : float, default 0.1
    n_iter_no_change : int, default 5
    warm_start : bool, default False
    average : bool or int, default False
    coordinate_eta0 : float, default 0.5
        The rate "adagrad" and "normalized" start from, in place of ``eta0``.
    strategy : str or strategy object, default "averaging"
        "averaging", "bsp", "ssp", "essp", "asp", "full_batch", or an object such as ``Averaging(n_replicas=4)``.
    memory_budget : int, str or None, default None
    device : {"cpu", "cuda", "auto"}, default "cpu"
        "cuda" trains on the GPU of each worker that has one, and fails where none has; "auto" does the same and fails
        nowhere. What is found changes speed and rounding, not the steps: workers without a GPU take the same batches.
    batch_size : int or "auto", default "auto"
        Rows of a step, along their mean gradient. "auto" is 1, row after row, with ``device="cpu"``, else 4,096; BSP,
        FullBatch but for its warm-up, and strategies whose server has an optimizer, have batches of their own.
    device_memory : int, str or None, default None
        Bytes of a GPU in which each worker keeps blocks between epochs, as "20GB"; by default what is left there.
        Only with ``device="cuda"`` or ``"auto"``.
    callbacks : list of daskdml.monitor.Callback, optional
    checkpoint : path or str, optional
        A directory, or a URL that fsspec knows, in which ``fit`` keeps how far it has come, for ``fit(...,
        resume=True)``. A place holds the checkpoints of one fit: a fit that resumes nothing replaces what is there
        with its first save. What a callback stops, or something kills, can go on; ``partial_fit`` saves nothing.
    checkpoint_every : float or str, default "60s"
        How often: seconds, a time with its unit as "5 minutes", or rounds as "10 rounds"; and at the end.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,)
    intercept_ : ndarray of shape (1,)
    n_iter_, t_, n_features_in_, feature_names_in_, history_, replicas_, n_replicas_, strategy_, provenance_
        As in :class:`daskdml.linear_model.SGDClassifier`.

    Examples
    --------
    >>> import numpy as np
    >>> from daskdml.linear_model import SGDRegressor
    >>> X = np.linspace(-1, 1, 200).reshape(-1, 1)
    >>> reg = SGDRegressor(learning_rate="adagrad", random_state=0).fit(X, 3 * X[:, 0] + 1)
    >>> bool(abs(reg.predict([[0.5]])[0] - 2.5) < 0.05)
    True
    """

    _parameter_constraints: dict = {**BaseSGD._parameter_constraints, "loss": [StrOptions(_LOSSES)]}

    def __init__(
        self,
        loss: str = "squared_error",
        *,
        penalty: str | None = "l2",
        alpha: float = 0.0001,
        l1_ratio: float | None = 0.15,
        fit_intercept: bool = True,
        max_iter: int = 1000,
        tol: float | None = 1e-3,
        shuffle: bool = True,
        verbose: int = 0,
        epsilon: float = 0.1,
        random_state: Any = None,
        learning_rate: str = "invscaling",
        eta0: float = 0.01,
        power_t: float = 0.25,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        warm_start: bool = False,
        average: bool | int = False,
        coordinate_eta0: float = 0.5,
        strategy: Any = "averaging",
        memory_budget: int | str | None = None,
        device: str = "cpu",
        batch_size: int | str = "auto",
        device_memory: int | str | None = None,
        callbacks: Any = None,
        checkpoint: str | os.PathLike | None = None,
        checkpoint_every: float | str = "60s",
    ):
        self.loss = loss
        self.penalty = penalty
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol
        self.shuffle = shuffle
        self.verbose = verbose
        self.epsilon = epsilon
        self.random_state = random_state
        self.learning_rate = learning_rate
        self.eta0 = eta0
        self.power_t = power_t
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.average = average
        self.coordinate_eta0 = coordinate_eta0
        self.strategy = strategy
        self.memory_budget = memory_budget
        self.device = device
        self.batch_size = batch_size
        self.device_memory = device_memory
        self.callbacks = callbacks
        self.checkpoint = checkpoint
        self.checkpoint_every = checkpoint_every

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Any,
        y: Any,
        coef_init: Any = None,
        intercept_init: Any = None,
        sample_weight: Any = None,
        *,
        resume: bool = False,
    ) -> SGDRegressor:
        """Train from the start, or from the given coefficients.

        Parameters
        ----------
        X : array, DataFrame, sparse matrix or xarray object of shape (n_samples, n_features)
            In memory or of Dask, chunked as it likes; of unknown lengths too.
        y : numbers of shape (n_samples,), in any of these containers
        coef_init : ndarray of shape (n_features,), optional
        intercept_init : ndarray of shape (1,), optional
        sample_weight : array of shape (n_samples,), optional
        resume : bool, default False
            Go on from the newest checkpoint in ``checkpoint``, in this process or another; from the start
            where there is none. The result is that of the fit had it not been interrupted, bit for bit.
            ``max_iter`` may be larger than it was.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For data that cannot be trained on; of Dask data the block is named. For a checkpoint of a fit with
            other parameters, data or model (:class:`daskdml.checkpoint.CheckpointError`), naming the difference.
        """
        self._check_parameters()
        checkpoint = self._open_checkpoint(resume)
        given = {"coef_init": coef_init, "intercept_init": intercept_init, "sample_weight": sample_weight is not None}
        if self.warm_start and getattr(self, "coef_", None) is not None:
            coef_init = self.coef_ if coef_init is None else coef_init
            intercept_init = self.intercept_ if intercept_init is None else intercept_init
        start = None if checkpoint is None else checkpoint.start
        data, target = self._data(X, y, sample_weight, first=True, start=start)
        model = self._model(data.schema)
        agreed = self._start(model, coef_init, intercept_init)
        trained = self._train(data, model, agreed, self.max_iter, target, checkpoint, given)
        self._adopt(trained, data, first=True)
        self._warn_of_the_end()
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> SGDRegressor:
        """Go on training with one pass over X; the optimizer's state is kept between calls.

        Parameters
        ----------
        X, y, sample_weight : as in :meth:`fit`

        Returns
        -------
        self
        """
        first = getattr(self, "coef_", None) is None
        self._check_goes_on()
        if first:
            self._check_parameters(partial=True)
        data, target = self._data(X, y, sample_weight, first=first)
        model = self._model(data.schema)
        agreed = self._start(model, None, None) if first else self._resume(model)
        trained = self._train(data, model, agreed, 1, target)
        self._adopt(trained, data, first=first)
        return self

    def predict(self, X: Any) -> Any:
        """The predicted target of each row.

        Returns
        -------
        array of shape (n_samples,)
            NumPy for what is in memory; else lazy: a Dask array, a Series with the DataFrame's index, or a
            DataArray with the samples' coordinates.
        """
        check_is_fitted(self)
        return self._map(X, same, np.result_type(self.coef_.dtype, self.intercept_.dtype))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R^2, a float also for lazy data, which are read once."""
        if is_in_memory(X) and is_in_memory(y):
            return super().score(X, y, sample_weight)
        return r2_score(y, self.predict(X), sample_weight=sample_weight)

    def to_sklearn(self) -> Any:
        """The same regressor as a plain scikit-learn estimator, for where daskdml is not installed.

        Returns
        -------
        sklearn.linear_model.SGDRegressor
            Learning rates that scikit-learn lacks become "constant", and matter only if its training goes on.
        """
        check_is_fitted(self)
        known = PlainRegressor().get_params()
        params = {k: v for k, v in self.get_params(deep=False).items() if k in known}
        if self.learning_rate in ("adagrad", "normalized"):
            params["learning_rate"] = "constant"
        plain = PlainRegressor(**params)
        self._hand_over(plain, ("coef_", "intercept_", "n_features_in_", "feature_names_in_"))
        self._hand_over(plain, MEAN_STATE)
        plain.t_, plain.n_iter_ = self.t_, self.n_iter_
        return plain

    def _data(
        self, X: Any, y: Any, sample_weight: Any, first: bool, start: FitStart | None = None
    ) -> tuple[Memory | Distributed, np.ndarray | None]:
        """The data as blocks, and the target where it is in memory."""
        y, sample_weight = on_host(y), on_host(sample_weight)
        self._check_kinds(y, sample_weight)
        if not stays_in_process(self.strategy, X, y, sample_weight, start=start):
            self._note_columns(X, reset=first)
            dtype = None if first else self.coef_.dtype
            target = Target()
            given = (dtype, start, self.memory_budget, self.device)
            return distribute(self.strategy, X, y, sample_weight, target, *given), None
        require_device(self.device)
        X, y = validate_data(
            self,
            plain_features(X),
            y,
            accept_sparse="csr",
            dtype=[np.float64, np.float32] if first else [self.coef_.dtype],
            order="C",
            y_numeric=True,
            accept_large_sparse=False,
            reset=first,
        )
        if hasattr(X, "sum_duplicates"):
            X = Labels.canonical(X)
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=X.dtype)
        y = np.ascontiguousarray(y, dtype=X.dtype)
        return Memory(Block(0, X, y, weight), Schema(X.shape[1], X.dtype, not isinstance(X, np.ndarray))), y

    def _model(self, schema: Schema) -> LinearModel:
        return LinearModel(
            settings=self._settings(REGRESSION, schema.sparse),
            n_outputs=1,
            n_features=schema.n_features,
            dtype=np.dtype(schema.dtype),
            positive_weight=np.ones(1),
            negative_weight=np.ones(1),
            batch=self._batch(),
            device=self.device,
        )
