"""Where an estimator trains, and in which batches, without a GPU."""

import dask.array as da
import numpy as np
import pytest

from daskdml import BSP, SSP
from daskdml.data import Schema
from daskdml.linear_model import SGDClassifier, SGDRegressor
from daskdml.linear_model._device import AUTO_BATCH
from daskdml.linear_model._labels import Labels
from daskdml.numerics import card
from daskdml.server import AdaGrad

pytestmark = pytest.mark.skipif(card() is not None, reason="this process has a GPU")


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 5))
    return X, (X[:, 0] + 0.3 * rng.standard_normal(200) > 0).astype(int)


def fitted(data, cls=SGDClassifier, **params):
    return cls(**{"max_iter": 5, "tol": None, "random_state": 0} | params).fit(*data)


def lazy(data):
    return tuple(da.from_array(a, chunks=(50, *a.shape[1:])) for a in data)


@pytest.mark.parametrize("of", [tuple, lazy])
def test_cuda_without_a_gpu_is_one_error_before_anything_is_read(data, of):
    X, y = of(data)
    if of is lazy:
        X = X.map_blocks(_never, meta=np.empty((0, 0)))
    with pytest.raises(RuntimeError, match=r"device='cuda' needs a GPU, and none of \d+ workers has one") as told:
        fitted((X, y), device="cuda")
    assert "dask cuda worker" in str(told.value) and told.value.__cause__ is None


def _never(block):
    raise AssertionError("a block was made")


@pytest.mark.parametrize("of", [tuple, lazy])
@pytest.mark.parametrize("cls", [SGDClassifier, SGDRegressor])
def test_auto_takes_the_same_batches_on_the_cpu(data, of, cls):
    auto = fitted(of(data), cls, device="auto", batch_size=32)
    assert np.array_equal(auto.coef_, fitted(of(data), cls, batch_size=32).coef_)
    assert auto.history_["gpu_replicas"].tolist() == [0] * 5
    assert auto.replicas_["gpu"].sum() == auto.history_["blocks_from_device"].sum() == 0


def test_the_batch_of_auto_depends_on_parameters_alone(data):
    assert np.array_equal(fitted(data, device="auto").coef_, fitted(data, batch_size=AUTO_BATCH).coef_)
    assert np.array_equal(fitted(data, batch_size="auto").coef_, fitted(data, batch_size=1).coef_)
    assert np.array_equal(
        fitted(data, device="auto", learning_rate="normalized").coef_, fitted(data, learning_rate="normalized").coef_
    )


def test_a_batch_of_all_rows_is_a_step_of_bsp(data):
    batch = fitted(data, batch_size=200, shuffle=False, max_iter=3, loss="log_loss")
    bsp = fitted(data, strategy=BSP(rounds_per_epoch=1), shuffle=False, max_iter=3, loss="log_loss")
    assert np.array_equal(batch.coef_, bsp.coef_)
    assert batch.history_["objective"].tolist() == bsp.history_["objective"].tolist()


@pytest.mark.parametrize(
    "params",
    [{"average": True}, {"penalty": "l1"}, {"learning_rate": "normalized"}, {"loss": "multinomial"}],
    ids=str,
)
def test_batches_learn(data, params):
    X, y = data[0], data[1] + (data[0][:, 1] > 0)
    given = {"batch_size": 20, "max_iter": 20, "learning_rate": "invscaling", "eta0": 1.0}
    assert fitted((X, y), **given | params).score(X, y) > 0.6


def test_threads_change_no_bit_of_a_batch(data):
    X, y = data[0], data[1] + (data[0][:, 1] > 0)
    assert np.array_equal(fitted((X, y), batch_size=16).coef_, fitted((X, y), batch_size=16, n_jobs=3).coef_)


@pytest.mark.parametrize(
    "params, message",
    [
        ({"device": "gpu"}, "The 'device' parameter"),
        ({"batch_size": 0}, "The 'batch_size' parameter"),
        ({"batch_size": "small"}, "The 'batch_size' parameter"),
        ({"device_memory": "much"}, "device_memory must be a number of bytes"),
        ({"device_memory": "1GB"}, "device_memory='1GB' is memory of a GPU, and device='cpu' uses none"),
        ({"device": "auto", "batch_size": 1}, "batch_size=1 leaves a GPU nothing to do side by side"),
        ({"device": "cuda", "learning_rate": "normalized"}, "learning_rate='normalized' has no kernel for a GPU"),
        ({"learning_rate": "pa1", "batch_size": 8}, "learning_rate='pa1' is a rule for single rows"),
        ({"strategy": "bsp", "batch_size": 8}, "batch_size=8 has no meaning with strategy=BSP"),
        ({"strategy": SSP(optimizer=AdaGrad()), "batch_size": 8}, "batch_size=8 has no meaning with strategy=SSP"),
    ],
)
def test_what_does_not_go_together_is_refused(data, params, message):
    with pytest.raises(ValueError, match=message):
        fitted(data, **params)


def test_working_memory_on_a_card_grows_with_the_blocks_of_the_grid_for_dense_rows_only():
    model = SGDClassifier(device="auto")._model(Schema(2**20, np.dtype("f4")), Labels(np.arange(2), None))
    assert model.on_device and model.batch == AUTO_BATCH
    assert model.device_bytes(sparse=True) < 50e6 < 8e9 < model.device_bytes(sparse=False)
