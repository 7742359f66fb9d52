"""The figure promised for MNIST: a softmax over its pixels, and no worse with more replicas."""

import gzip

import dask.array as da
import numpy as np
import pytest

from daskdml import Averaging
from daskdml.linear_model import SGDClassifier

pytestmark = [pytest.mark.data, pytest.mark.slow]


def idx(path):
    """An array of bytes in the IDX format."""
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        raw = file.read()
    shape = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def images_and_digits(folder, part):
    images, digits = (idx(next(folder.glob(f"{part}-{kind}*"))) for kind in ("images", "labels"))
    return images.reshape(len(images), -1).astype(np.float32) / 255, digits


def test_mnist_by_replicas(shared_data):
    X, y = images_and_digits(shared_data / "mnist", "train")
    test = images_and_digits(shared_data / "mnist", "t10k")
    rows = -(-len(X) // 16)
    X, y = da.from_array(X, chunks=(rows, -1)), da.from_array(y, chunks=rows)
    found = {}
    for n in (1, 8):
        strategy = Averaging(n_replicas=n)
        clf = SGDClassifier(loss="multinomial", max_iter=20, tol=None, random_state=0, strategy=strategy).fit(X, y)
        assert clf.n_replicas_ == n
        found[n] = clf.score(*test)
    assert found[1] >= 0.915 and min(found.values()) >= found[1] - 0.01, found
