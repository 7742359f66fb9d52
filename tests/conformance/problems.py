"""Small problems with a known answer, and their Dask shapes."""

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd

ROWS, FEATURES, CHUNK = 2_000, 5, 200
# scikit-learn's own SGDClassifier reaches 0.945 on `binary` with the settings of test_peers.py; 0.98 is the most.
GOOD = 0.93
COEF = np.array([2.0, -1.5, 1.0, 0.5, 0.0])


def features(seed=0, rows=ROWS):
    return np.random.default_rng(seed).standard_normal((rows, FEATURES))


def binary(seed=0, intercept=0.5):
    """Rows on two sides of a plane, one in fifty on the wrong side."""
    X = features(seed)
    y = (X @ COEF + intercept > 0).astype(int)
    flipped = np.random.default_rng(seed + 1).random(ROWS) < 0.02
    return X, np.where(flipped, 1 - y, y)


def three_classes(seed=0):
    """Three clouds, in no order, far enough apart that a linear model is right for nearly all."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, ROWS)
    centres = np.array([[4, 0, 0, 0, 0], [0, 4, 0, 0, 0], [-4, -4, 0, 0, 0]])
    return rng.standard_normal((ROWS, FEATURES)) + centres[y], y


def regression(seed=0, intercept=100.0):
    X = features(seed)
    return X, X @ COEF + intercept + 0.1 * np.random.default_rng(seed + 1).standard_normal(ROWS)


def chunked(X, y, chunk=CHUNK):
    """Both as Dask arrays of the same row chunks."""
    return da.from_array(X, chunks=(chunk, -1)), da.from_array(y, chunks=chunk)


def frame(X, y, partitions=8):
    """A Dask DataFrame with columns a, b, c, d, e and y."""
    table = pd.DataFrame(X, columns=list("abcde")).assign(y=y)
    return dd.from_pandas(table, npartitions=partitions)
