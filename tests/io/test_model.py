import errno
import os

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import SGDRegressor as Plain

import daskdml.io._atomic as atomic
from daskdml.io import InputError, load_model, save_model
from daskdml.linear_model import SGDClassifier, SGDRegressor


def data():
    X = np.random.default_rng(0).normal(size=(60, 3))
    return X, X @ [1.0, -2.0, 0.5]


@pytest.mark.parametrize(
    "estimator",
    [
        SGDRegressor(max_iter=3, tol=None),
        SGDClassifier(loss="multinomial", max_iter=3, tol=None, learning_rate="adagrad", coordinate_eta0=0.1),
        SGDClassifier(max_iter=3, tol=None, average=True, penalty="elasticnet", random_state=3),
        Plain(max_iter=3, tol=None),
    ],
)
def test_a_model_comes_back_as_it_was(estimator, tmp_path):
    X, y = data()
    if hasattr(estimator, "decision_function") or "Classifier" in type(estimator).__name__:
        y = np.array(["low", "middle", "high"])[np.digitize(y, [-1, 1])]
    estimator.fit(X, y)
    save_model(estimator, tmp_path / "m.skops")
    twin = load_model(tmp_path / "m.skops")
    assert type(twin) is type(estimator)
    np.testing.assert_array_equal(twin.predict(X), estimator.predict(X))
    assert {k: v for k, v in twin.get_params().items() if k != "strategy"} == {
        k: v for k, v in estimator.get_params().items() if k != "strategy"
    }
    if hasattr(estimator, "history_"):
        pd.testing.assert_frame_equal(twin.history_, estimator.history_)
        twin.partial_fit(X, y)  # the optimizer's state came along
    assert os.listdir(tmp_path) == ["m.skops"]


class Trap:
    """Would be called when an unsafe loader rebuilds it."""

    def __reduce__(self):
        return (print, ("executed",))


def test_unknown_types_are_refused_by_name(tmp_path, capsys):
    path = tmp_path / "trap.skops"
    path.write_bytes(skops.io.dumps({"a": Trap(), "b": pytest.MonkeyPatch()}))
    with pytest.raises(InputError, match=r"holds .*MonkeyPatch.*, which daskdml does not trust"):
        load_model(path)
    assert capsys.readouterr().out == ""


class Watcher:
    def on_fit_start(self, info):
        pass


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    X, y = data()
    model = SGDRegressor(max_iter=1, tol=None).fit(X, y)
    model.note = Watcher()
    with pytest.raises(InputError, match="Watcher, which could not be loaded safely"):
        save_model(model, tmp_path / "m.skops")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"PK nonsense", b"hello"])
def test_a_file_that_is_no_model_is_refused(content, tmp_path):
    (tmp_path / "m.skops").write_bytes(content)
    with pytest.raises(InputError, match="is no model of daskdml"):
        load_model(tmp_path / "m.skops")


def test_a_full_disk_leaves_the_old_model_and_nothing_else(tmp_path, monkeypatch):
    X, y = data()
    path = tmp_path / "m.skops"
    save_model(Plain(max_iter=1, tol=None).fit(X, y), path)
    before = path.read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="the disk of .* is full: .*m.skops was not written"):
        save_model(Plain(max_iter=2, tol=None).fit(X, y), path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["m.skops"]


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    with pytest.raises(InputError, match="there is no directory"):
        save_model(Plain(), tmp_path / "no" / "m.skops")
    with pytest.raises(InputError, match="is a directory"):
        save_model(Plain(), tmp_path)
