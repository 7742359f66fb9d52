"""A regression is trained on the standardised target; whatever is told of it is in the target's own units."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from daskdml.cli import main
from daskdml.io import load_model
from daskdml.workflow import train
from daskdml.workflow._target import TargetSurvey, survey_target
from daskdml.workflow._units import Units

N = 600
MODELS = ["linear", "huber", "svr"]


def table(scale=1.0, shift=0.0):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 2))
    noise = rng.normal(0, 0.1, N)
    return pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": shift + scale * (x @ [2.0, -1.0] + noise)})


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("scale", "shift"), [(1e5, 2e5), (1e-6, 0.0), (0.1, 1.7e9)])
def test_the_fit_does_not_depend_on_the_units(scale, shift, model):
    plain, other = (train(table(*units), "y", model=model, epochs=5) for units in ((), (scale, shift)))
    assert plain.test["r2"] > 0.97
    assert other.test["r2"] == pytest.approx(plain.test["r2"], abs=1e-3)
    assert other.test["rmse"] == pytest.approx(scale * plain.test["rmse"], rel=0.02)
    power = 1 if model == "svr" else 2
    assert other.train_loss == pytest.approx(scale**power * plain.train_loss, rel=0.02)


@pytest.mark.parametrize("model", MODELS)
def test_the_training_loss_is_that_of_the_estimator_in_the_targets_units(model):
    frame = table(1e3, 5e3)
    result = train(frame, "y", model=model, epochs=5, test_size=0, replicas=1)
    estimator = result.model.estimator
    residual = np.abs(frame["y"] - result.model.predict(frame))
    eps = estimator.epsilon
    loss = {
        "linear": residual**2 / 2,
        "huber": np.where(residual <= eps, residual**2 / 2, eps * residual - eps**2 / 2),
        "svr": np.maximum(residual - eps, 0),
    }[model]
    # Losses are summed while the weights still move.
    assert result.train_loss == pytest.approx(loss.mean(), rel=0.1)
    plain = estimator.to_sklearn()
    X = result.model.pipeline.transform(frame)
    np.testing.assert_allclose(plain.predict(X), result.model.predict(frame), rtol=1e-6)


def test_epsilon_is_given_and_kept_in_the_targets_units():
    wide, narrow = (
        train(table(1e3), "y", model="svr", epochs=3, params={"epsilon": e}).model.estimator for e in (1e9, 10.0)
    )
    assert (wide.epsilon, narrow.epsilon) == (pytest.approx(1e9), pytest.approx(10.0))
    assert np.abs(wide.coef_).max() < 1e-3 and np.abs(narrow.coef_).max() > 1e3


def test_a_saved_model_and_its_predictions_are_in_the_targets_units(tmp_path):
    frame = table(1e5, 2e5)
    frame.to_csv(tmp_path / "t.csv", index=False)
    result = CliRunner().invoke(
        main, ["train", str(tmp_path / "t.csv"), "--target", "y", "--output", str(tmp_path / "m.skops"), "--json"]
    )
    told = json.loads(result.stdout.strip().splitlines()[-1])
    model = load_model(tmp_path / "m.skops")
    error = np.sqrt(((model.predict(frame) - frame["y"]) ** 2).mean())
    assert error == pytest.approx(told["test"]["rmse"], rel=0.2) and error < 2e4
    assert model.estimator.history_["loss"].iloc[-1] == told["train_loss"]


@pytest.mark.parametrize("value", [0.1, 0.0, 12345.678])
def test_a_constant_target_is_predicted_as_it_is(value):
    result = train(table().assign(y=value), "y", task="regression", epochs=2)
    assert result.test["rmse"] == pytest.approx(0, abs=1e-6 + 1e-6 * value)


def test_the_survey_of_parts_is_that_of_the_whole():
    y = np.random.default_rng(0).normal(1e6, 3.0, 1000)
    whole = TargetSurvey()
    for i, part in enumerate(np.split(y, [0, 10, 400])):
        whole.add(survey_target(part, i))
    units = Units.of(whole)
    assert units.mean == pytest.approx(y.mean(), rel=1e-12) and units.scale == pytest.approx(y.std(), rel=1e-9)


def test_progress_tells_the_loss_in_the_targets_units(tmp_path):
    table(1e3, 5e3).to_csv(tmp_path / "t.csv", index=False)
    result = CliRunner().invoke(main, ["train", str(tmp_path / "t.csv"), "--target", "y", "--json"])
    told = json.loads(result.stdout.strip().splitlines()[-1])
    line = next(line for line in result.stderr.splitlines() if line.startswith("SGDRegressor: ") and "loss" in line)
    assert float(line.split("loss ")[1]) == pytest.approx(told["train_loss"], rel=1e-3)
    assert told["train_loss"] > 1e3  # of the standardised target it would be below 1
