"""Chunks of a GPU are predicted where they lie: by a library that stands in for CuPy, without a GPU."""

import sys
from types import ModuleType

import array_api_strict
import dask.array as da
import numpy as np
import pytest

from daskdml.linear_model import SGDClassifier
from daskdml.linear_model._base import _Scores, _ScoresAnywhere

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 3)).astype("f4")


class Fake:
    """An array that cannot be taken for NumPy's, and counts what leaves its device."""

    left = 0

    def __init__(self, array):
        self.array = array
        self.ndim, self.shape, self.dtype, self.nbytes = array.ndim, array.shape, array.dtype, array.nbytes

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __array_namespace__(self):
        return sys.modules["cupy"]

    def __getitem__(self, key):
        return Fake(self.array[key])

    def astype(self, dtype, order="C", copy=True):
        return Fake(self.array.astype(dtype, order=order, copy=copy))

    def get(self):
        Fake.left += self.array.size
        return self.array


Fake.__module__ = "cupy._core.core"


@pytest.fixture
def there(monkeypatch):
    cupy = ModuleType("cupy")
    cupy.asarray = Fake
    cupy.matmul = lambda a, b: Fake(a.array @ b.array)
    monkeypatch.setitem(sys.modules, "cupy", cupy)

    def lazy(values):
        host = da.from_array(values, chunks=(20, values.shape[1]))
        return host.map_blocks(Fake, dtype=values.dtype, meta=np.empty((0, 0), values.dtype))

    return lazy


def fitted(n_classes, device="auto"):
    y = X[:, :n_classes].argmax(axis=1) if n_classes > 2 else (X[:, 0] > 0).astype(int)
    return SGDClassifier("log_loss", device=device, max_iter=2, tol=None, random_state=0).fit(X, y)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("method", ["predict", "decision_function", "predict_proba"])
def test_scores_only_leave_the_device(there, method, n_classes):
    clf = fitted(n_classes)
    expected = getattr(clf, method)(X)
    lazy = getattr(clf, method)(there(X))
    Fake.left = 0
    found = lazy.compute(scheduler="sync")
    assert Fake.left == len(X) * (1 if n_classes == 2 else n_classes)
    assert type(found) is np.ndarray and found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_with_the_cpu_all_is_copied(there):
    clf = fitted(2, "cpu")
    lazy = clf.predict(there(X))
    Fake.left = 0
    assert np.array_equal(lazy.compute(scheduler="sync"), clf.predict(X))
    assert Fake.left == X.size


def test_what_is_not_finite_is_told_of_with_its_block(there):
    bad = X.copy()
    bad[45, 1] = np.nan
    with pytest.raises(ValueError, match=r"NaN.*block 2|block 2.*NaN"):
        fitted(2).predict(there(bad)).compute(scheduler="sync")


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_scores_ask_no_more_than_the_array_standard_has(dtype):
    coef, intercept = RNG.standard_normal((2, 3)).astype(dtype), RNG.standard_normal(2).astype(dtype)
    found = _ScoresAnywhere(coef, intercept).there(array_api_strict.asarray(X))
    np.testing.assert_allclose(found, _Scores(coef, intercept)(X), rtol=1e-5)
