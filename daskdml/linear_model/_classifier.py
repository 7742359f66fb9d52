"""SGDClassifier."""

from __future__ import annotations

import os
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import SGDClassifier as PlainClassifier
from sklearn.utils import compute_class_weight
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from daskdml.data import Block, Schema, Target, distinct, is_in_memory, label_counts, on_host
from daskdml.linear_model._base import MEAN_STATE, BaseSGD, same
from daskdml.linear_model._device import require_device
from daskdml.linear_model._labels import Labels
from daskdml.linear_model._probability import PROBABILITIES
from daskdml.linear_model._training import (
    Distributed,
    Memory,
    distribute,
    plain_features,
    stays_in_process,
)
from daskdml.metrics import accuracy_score
from daskdml.models import LinearModel, problems_of
from daskdml.numerics import BINARY, LOSSES, ONE_VERSUS_ALL, SOFTMAX
from daskdml.strategies import FitStart


def _gives_probabilities(self: SGDClassifier) -> bool:
    if self.loss not in PROBABILITIES:
        raise AttributeError(f"probability estimates are not available for loss={self.loss!r}")
    return True


class SGDClassifier(ClassifierMixin, BaseSGD):
    """Linear classifier trained by SGD, on data in memory or larger than it.

    The parameters, defaults and results are those of :class:`sklearn.linear_model.SGDClassifier`; what is new is
    said below. X and y may be NumPy, pandas, SciPy sparse, Dask or xarray objects. Dask data are trained on
    where they lie, block by block, by as many replicas as ``strategy`` has, and predictions of them are lazy.
    With data in memory and no active Dask client there is one replica, in this process.

    Parameters
    ----------
    loss : str, default "hinge"
        scikit-learn's names, and "multinomial": the softmax, all classes together (with two classes that is
        "log_loss").
    penalty : {"l2", "l1", "elasticnet"} or None, default "l2"
    alpha : float, default 1e-4
        Strength of the penalty: the objective is the mean loss + ``alpha`` times the penalty.
    l1_ratio : float, default 0.15
    fit_intercept : bool, default True
    max_iter : int, default 1000
        Passes over the data.
    tol : float or None, default 1e-3
    shuffle : bool, default True
        Visit blocks, and the rows of each, in a new random order in every epoch.
    verbose : int, default 0
        1 shows a progress bar with epoch, loss, rows/s and time left; a line now and then where standard error is no
        terminal. From 2 on there is also a line for each epoch, and for rounds, that tells where the time went.
    epsilon : float, default 0.1
    n_jobs : int or None, default None
        Threads that one replica uses for its one-versus-all problems.
    random_state : int, RandomState or None, default None
        With an integer, a fit depends on the data, this seed and the number of replicas only.
    learning_rate : str, default "optimal"
        scikit-learn's names, and "adagrad" and "normalized": a rate for each coordinate,
        ``coordinate_eta0`` over the root of its summed squared gradients. "normalized" is also invariant to
        the scale of every feature, so raw columns train without tuning; ``alpha`` still weighs the
        coefficients as they are.
    eta0 : float, default 0.01
    power_t : float, default 0.5
    early_stopping : bool, default False
        Hold out ``validation_fraction`` of the rows (of each block), and stop by their score.
    validation_fraction : float, default 0.1
    n_iter_no_change : int, default 5
    class_weight : dict, "balanced" or None, default None
    warm_start : bool, default False
    average : bool or int, default False
    coordinate_eta0 : float, default 0.5
        The rate "adagrad" and "normalized" start from, in place of ``eta0``.
    strategy : str or strategy object, default "averaging"
        How replicas are kept in step: "averaging" or "bsp"; "ssp", "essp" or "asp" on a parameter server; "full_batch"
        for Newton's method or L-BFGS in place of SGD; or an object such as ``Averaging(n_replicas=4,
        rounds_per_epoch=2)``. The parameters of one are set as ``strategy__n_replicas=4``, also where it is given by
        name.
    memory_budget : int, str or None, default None
        Bytes of memory the block cache may take on each worker, as "200MB"; by default what is left under
        half of the worker's limit.
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
        Listeners of the fit.
    checkpoint : path or str, optional
        A directory, or a URL that fsspec knows, in which ``fit`` keeps how far it has come, for ``fit(...,
        resume=True)``. A place holds the checkpoints of one fit: a fit that resumes nothing replaces what is there
        with its first save. What a callback stops, or something kills, can go on; ``partial_fit`` saves nothing.
    checkpoint_every : float or str, default "60s"
        How often: seconds, a time with its unit as "5 minutes", or rounds as "10 rounds"; and at the end.

    Attributes
    ----------
    coef_ : ndarray of shape (1 or n_classes, n_features)
    intercept_ : ndarray of shape (1 or n_classes,)
    classes_ : ndarray of shape (n_classes,)
    n_iter_ : int
    t_ : float
        Rows visited, plus 1.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where X has names.
    history_ : DataFrame
        A row a round: loss, rows, seconds computing, loading and waiting, bytes.
    replicas_ : DataFrame
        A row for each replica and round, the last 100,000: :class:`daskdml.monitor.ReplicaRound`.
    n_replicas_ : int
    strategy_ : strategy object
    provenance_ : dict
        Of the last call: "begun" (seconds since 1970), "seconds", "reason" (why it ended), and dicts "data" (blocks,
        rows, features, dtype, bytes; None where not known), "cluster" (workers, threads, hosts, memory limit of the
        smallest worker in bytes) and "versions".

    References
    ----------
    Duchi, Hazan, Singer 2011 (adagrad); Ross, Mineiro, Langford 2013 (normalized); Stich 2019 (averaging).

    Examples
    --------
    >>> import numpy as np
    >>> from daskdml.linear_model import SGDClassifier
    >>> X = np.array([[-1.0, -1.0], [-2.0, -1.0], [1.0, 1.0], [2.0, 1.0]])
    >>> clf = SGDClassifier(loss="log_loss", random_state=0).fit(X, ["no", "no", "yes", "yes"])
    >>> clf.predict([[-0.8, -1.0], [3.0, 2.0]]).tolist()
    ['no', 'yes']
    """

    loss_functions = tuple(LOSSES)

    _parameter_constraints: dict = {
        **BaseSGD._parameter_constraints,
        "loss": [StrOptions(set(LOSSES))],
        "n_jobs": [Integral, None],
        "class_weight": [StrOptions({"balanced"}), dict, None],
    }

    def __init__(
        self,
        loss: str = "hinge",
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
        n_jobs: int | None = None,
        random_state: Any = None,
        learning_rate: str = "optimal",
        eta0: float = 0.01,
        power_t: float = 0.5,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        class_weight: Any = None,
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
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.learning_rate = learning_rate
        self.eta0 = eta0
        self.power_t = power_t
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.class_weight = class_weight
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
    ) -> SGDClassifier:
        """Train from the start, or from the given coefficients.

        Parameters
        ----------
        X : array, DataFrame, sparse matrix or xarray object of shape (n_samples, n_features)
            In memory or of Dask, chunked as it likes; of unknown lengths too.
        y : text, whole numbers or booleans of shape (n_samples,), in any of these containers
        coef_init : ndarray of shape (n_classes, n_features), optional
        intercept_init : ndarray of shape (n_classes,), optional
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
        data, labels = self._data(X, y, sample_weight, None, first=True, start=start)
        given["classes"] = labels.classes
        if labels.counts is not None:
            given["rows of each class"] = labels.counts
        model = self._model(data.schema, labels)
        agreed = self._start(model, coef_init, intercept_init)
        trained = self._train(data, model, agreed, self.max_iter, labels.y, checkpoint, given)
        self.classes_ = labels.classes
        self._adopt(trained, data, first=True)
        self._warn_of_the_end()
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> SGDClassifier:
        """Go on training with one pass over X; the optimizer's state is kept between calls.

        Parameters
        ----------
        X, y, sample_weight : as in :meth:`fit`
        classes : array of shape (n_classes,), optional
            All labels there will be; needed in the first call.

        Returns
        -------
        self
        """
        first = getattr(self, "coef_", None) is None
        self._check_goes_on()
        if first:
            self._check_parameters(partial=True)
            if self.class_weight == "balanced":
                raise ValueError(
                    "class_weight 'balanced' is not supported for partial_fit. In order to use 'balanced' weights, use "
                    "compute_class_weight('balanced', classes=classes, y=y). In place of y you can use a large enough "
                    "sample of the full training set target to properly estimate the class frequency distributions. "
                    "Pass the resulting weights as the class_weight parameter."
                )
        known = Labels.known(self, classes)
        data, labels = self._data(X, y, sample_weight, known, first=first)
        model = self._model(data.schema, labels)
        agreed = self._start(model, None, None) if first else self._resume(model)
        trained = self._train(data, model, agreed, 1, labels.y)
        self.classes_ = labels.classes
        self._adopt(trained, data, first=first)
        return self

    def decision_function(self, X: Any) -> Any:
        """Scores: positive means the greater of two classes.

        Returns
        -------
        array of shape (n_samples,) or (n_samples, n_classes)
            NumPy for what is in memory; else lazy, in the kind of container X is.
        """
        check_is_fitted(self)
        many = self.classes_.size > 2
        return self._map(X, same, self._score_dtype(X), list(self.classes_) if many else None, "decision_function")

    def predict(self, X: Any) -> Any:
        """The class of each row.

        Returns
        -------
        array of shape (n_samples,)
            NumPy for what is in memory; else lazy: a Dask array, a Series with the DataFrame's index, or a
            DataArray with the samples' coordinates.
        """
        check_is_fitted(self)
        return self._map(X, _Label(self.classes_), self.classes_.dtype)

    @available_if(_gives_probabilities)
    def predict_proba(self, X: Any) -> Any:
        """Probabilities of the classes; for the losses log_loss, multinomial and modified_huber.

        Returns
        -------
        array of shape (n_samples, n_classes)
            Columns in the order of ``classes_``; in memory or lazy, as X is.
        """
        check_is_fitted(self)
        function = PROBABILITIES["log_loss" if self._is_binary() and self.loss == "multinomial" else self.loss]
        return self._map(X, function, self._score_dtype(X), list(self.classes_), "predict_proba")

    @available_if(_gives_probabilities)
    def predict_log_proba(self, X: Any) -> Any:
        """The logarithm of :meth:`predict_proba`; modified_huber's zeros become -inf."""
        return np.log(self.predict_proba(X))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Mean accuracy, a float also for lazy data, which are read once."""
        if is_in_memory(X) and is_in_memory(y):
            return super().score(X, y, sample_weight)
        return accuracy_score(y, self.predict(X), sample_weight=sample_weight)

    def to_sklearn(self) -> Any:
        """The same classifier as a plain scikit-learn estimator, for where daskdml is not installed.

        Returns
        -------
        sklearn.linear_model.SGDClassifier or LogisticRegression
            The latter for ``loss="multinomial"``. Learning rates that scikit-learn lacks become "constant", and
            matter only if its training goes on.
        """
        check_is_fitted(self)
        if self.loss == "multinomial" and not self._is_binary():
            plain: Any = LogisticRegression(fit_intercept=self.fit_intercept)
        else:
            known = PlainClassifier().get_params()
            params = {k: v for k, v in self.get_params(deep=False).items() if k in known}
            if self.learning_rate in ("adagrad", "normalized"):
                params["learning_rate"] = "constant"
            if self.loss == "multinomial":
                params["loss"] = "log_loss"
            plain = PlainClassifier(**params)
            plain.t_ = self.t_
            self._hand_over(plain, MEAN_STATE)
        self._hand_over(plain, ("coef_", "intercept_", "classes_", "n_features_in_", "feature_names_in_"))
        plain.n_iter_ = self.n_iter_
        return plain

    # -- from labels to codes -------------------------------------------------------------------------

    def _is_binary(self) -> bool:
        return len(self.classes_) == 2

    def _score_dtype(self, X: Any) -> np.dtype:
        return np.result_type(self.coef_.dtype, self.intercept_.dtype)

    def _data(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        classes: np.ndarray | None,
        first: bool,
        start: FitStart | None = None,
    ) -> tuple[Memory | Distributed, Labels]:
        """The data as blocks, and what is known of the labels."""
        y, sample_weight = on_host(y), on_host(sample_weight)
        self._check_kinds(y, sample_weight)
        if stays_in_process(self.strategy, X, y, sample_weight, start=start):
            require_device(self.device)
            return self._memory(plain_features(X), y, sample_weight, classes, first)
        self._note_columns(X, reset=first)
        dtype = None if first else self.coef_.dtype
        # Labels are counted after this, because it refuses what does not fit in memory.
        data = distribute(self.strategy, X, y, sample_weight, Target(), dtype, start, self.memory_budget, self.device)
        counts = None
        if classes is None:
            classes, counts = label_counts(y, client=data.client)
        labels = Labels(np.asarray(classes), counts)
        labels.check()
        return replace(data, dataset=data.dataset.with_target(Target(labels.classes))), labels

    def _memory(
        self, X: Any, y: Any, sample_weight: Any, classes: np.ndarray | None, first: bool
    ) -> tuple[Memory, Labels]:
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            dtype=[np.float64, np.float32] if first else [self.coef_.dtype],
            order="C",
            accept_large_sparse=False,
            reset=first,
        )
        if y.dtype.kind not in "iub":
            # Whole numbers are always classes; finding that out takes as long as counting them.
            check_classification_targets(y)
        if classes is None:
            classes = distinct(y)
        labels = Labels(classes, None, y)
        labels.check()
        weight = None
        if sample_weight is not None:
            weight = _check_sample_weight(
                sample_weight, X, dtype=X.dtype, allow_all_zero_weights=bool(self.early_stopping)
            )
        if hasattr(X, "sum_duplicates"):
            X = labels.canonical(X)
        block = Block(0, X, labels.codes(X.dtype), weight)
        return Memory(block, Schema(X.shape[1], X.dtype, not isinstance(X, np.ndarray))), labels

    def _model(self, schema: Schema, labels: Labels) -> LinearModel:
        n_classes = len(labels.classes)
        if n_classes == 2:
            mode = BINARY
        else:
            mode = SOFTMAX if self.loss == "multinomial" else ONE_VERSUS_ALL
        settings = self._settings(mode, schema.sparse)
        if self.loss == "multinomial" and mode == BINARY:
            settings = settings._replace(loss=LOSSES["log_loss"].number)
        weights = self._weights(labels)
        positive, negative = weights, np.ones(n_classes)
        if mode == BINARY:
            positive, negative = weights[1:], weights[:1]
        return LinearModel(
            settings=settings,
            n_outputs=problems_of(mode, n_classes),
            n_features=schema.n_features,
            dtype=np.dtype(schema.dtype),
            positive_weight=positive,
            negative_weight=negative,
            threads=effective_n_jobs(self.n_jobs),
            batch=self._batch(),
            device=self.device,
        )

    def _weights(self, labels: Labels) -> np.ndarray:
        """Class weights, in the order of the classes."""
        if self.class_weight == "balanced" and labels.counts is not None:
            return labels.counts.sum() / (len(labels.counts) * labels.counts)
        seen = labels.classes if labels.y is None or self.class_weight is None else labels.y
        return np.asarray(compute_class_weight(self.class_weight, classes=labels.classes, y=seen), dtype=float)


class _Label:
    """The class of each row of scores."""

    def __init__(self, classes: np.ndarray):
        self.classes = classes

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        # Bytes as positions, and take: an index of eight bytes a row would be written and read for nothing.
        codes = (scores > 0).view(np.int8) if scores.ndim == 1 else scores.argmax(axis=1)
        return self.classes.take(codes)
