"""What is refused, alike in memory and of Dask."""

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sparse
import xarray as xr

from daskdml.linear_model import SGDClassifier, SGDRegressor

ESTIMATORS = pytest.mark.parametrize("estimator", [SGDClassifier, SGDRegressor])
X, Y = np.random.default_rng(0).standard_normal((60, 3)), np.arange(60) % 2
LAZY_X, LAZY_Y = da.from_array(X, chunks=(20, 3)), da.from_array(Y, chunks=20)


@ESTIMATORS
def test_a_frame_without_rows(estimator):
    frame = dd.from_pandas(pd.DataFrame({"a": [1.0, 2.0], "y": [0, 1]}), npartitions=2)
    frame = frame[frame["a"] > 5]
    with pytest.raises(ValueError, match=r"^Found array with 0 sample\(s\) .*no block .*has a row"):
        estimator().fit(frame[["a"]], frame["y"])


@ESTIMATORS
@pytest.mark.parametrize("weight", [np.zeros(60), [0] * 60, da.zeros(60, chunks=20), 0.0], ids=repr)
@pytest.mark.parametrize("rows", [X, LAZY_X], ids=["memory", "Dask"])
def test_no_row_has_a_weight(estimator, rows, weight):
    with pytest.raises(ValueError, match="^Sample weights must contain at least one non-zero number.$"):
        estimator(max_iter=2).fit(rows, Y, sample_weight=weight)


@ESTIMATORS
@pytest.mark.parametrize("rows", [X, LAZY_X], ids=["memory", "Dask"])
def test_no_y(estimator, rows):
    message = f"^This {estimator.__name__} estimator requires y to be passed, but the target y is None.$"
    with pytest.raises(ValueError, match=message):
        estimator().fit(rows, None)


@ESTIMATORS
@pytest.mark.parametrize("lazy", [False, True])
def test_a_dataset_of_several_variables_is_no_y(estimator, lazy):
    y = xr.Dataset({"label": ("sample", LAZY_Y if lazy else Y)})
    with pytest.raises(TypeError, match="^y is an xarray Dataset, .* pass one of its variables, 'label'"):
        estimator().fit(LAZY_X if lazy else X, y)
    estimator(max_iter=1, tol=None).fit(LAZY_X if lazy else X, y["label"])


@ESTIMATORS
def test_delayed_values_say_what_is_accepted(estimator):
    later = dask.delayed(np.ones)((60, 3))
    with pytest.raises(TypeError, match=r"^X is a dask.delayed.Delayed, but a dask Array or DataFrame is expected"):
        estimator().fit(later, Y)
    with pytest.raises(TypeError, match=r"^y is a Delayed\w*, but a dask Array or Series is expected"):
        estimator().fit(LAZY_X, dask.delayed(Y))


@ESTIMATORS
def test_pydata_sparse_in_memory_is_that_of_scipy(estimator):
    X = sparse.random((60, 3), density=0.5, random_state=0)
    csr = sp.csr_matrix(X.todense())
    model, other = estimator(random_state=0).fit(X, Y), estimator(random_state=0).fit(csr, Y)
    assert (model.coef_ == other.coef_).all()
    assert (model.predict(X) == other.predict(csr)).all()
    assert model.score(X, Y) == other.score(csr, Y)


@pytest.mark.parametrize("sparsified", [False, True])
@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_prediction_refuses_what_is_not_finite_also_where_a_coefficient_is_zero(value, kind, sparsified):
    X = np.random.default_rng(0).standard_normal((40, 3)).astype("f4")
    clf = SGDClassifier(loss="log_loss", random_state=0).fit(X, X[:, 0] > 0)
    clf.coef_[:, 1] = 0
    if sparsified:
        clf.sparsify()
    X[25, 1] = value
    lazy = da.from_array(X, chunks=(20, 3))
    if kind == "sparse":
        lazy = lazy.map_blocks(sp.csr_array, dtype="f4", meta=sp.csr_array((0, 0), dtype="f4"))
    for method in ("predict", "predict_proba", "decision_function"):
        with pytest.raises(ValueError, match="block 1"):
            getattr(clf, method)(lazy).compute(scheduler="sync")


def test_scores_too_large_for_their_dtype_are_no_reason_to_refuse_rows():
    X = np.full((4, 2), 1e30, "f4")
    clf = SGDClassifier(loss="log_loss", random_state=0).fit(np.eye(2, dtype="f4"), [0, 1])
    clf.coef_ = np.full((1, 2), 1e30, "f4")
    with np.errstate(over="ignore"):
        assert clf.predict(da.from_array(X, chunks=(2, 2))).compute(scheduler="sync").tolist() == [1, 1, 1, 1]
