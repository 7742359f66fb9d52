import json

import numpy as np
import pandas as pd
import pytest
import zarr
from click.testing import CliRunner

from daskdml.cli import main
from daskdml.io import load_model

N = 400


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "size": rng.normal(50, 9, N),
            "colour": rng.choice(["red", "green", "blue"], N),
            "gap": np.where(rng.random(N) < 0.2, np.nan, rng.normal(size=N)),
        }
    )
    score = (frame["size"] - 50) / 9 + 2.0 * (frame["colour"] == "red")
    frame["kind"] = np.where(score > 2, "high", np.where(score > 0, "middle", "low"))
    frame["side"] = np.where(score > 0.5, 1, 0)
    frame["amount"] = 3 * score + rng.normal(0, 0.1, N)
    return frame


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def trained(*arguments, epochs=5):
    result = run("train", *arguments, "--json", "--epochs", epochs)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.strip().splitlines()[-1])


def to_csv(frame, folder):
    frame.to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


def to_parquet(frame, folder):
    frame.to_parquet(folder / "t.parquet", index=False, row_group_size=90)
    return folder / "t.parquet"


def to_zarr(frame, folder):
    group = zarr.open_group(folder / "t.zarr", mode="w")
    numbers = frame.select_dtypes("number")
    for name in numbers:
        group.create_array(name, data=numbers[name].to_numpy(), chunks=(128,))
    return folder / "t.zarr"


KEYS = ["rows", "features", "task", "strategy", "replicas", "epochs", "seconds", "train_loss", "test", "baseline"]


@pytest.mark.parametrize("write", [to_csv, to_parquet])
def test_train_predict_and_inspect(write, table, tmp_path):
    path, model = write(table, tmp_path), tmp_path / "m.skops"
    told = trained(path, "--target", "kind", "--drop", "side", "--drop", "amount", "--output", model)
    assert list(told) == KEYS
    assert told["rows"] == N and told["task"] == "classification" and told["features"] == 5
    assert told["test"]["accuracy"] > told["baseline"]["accuracy"] + 0.2
    assert told["test"]["log_loss"] < told["baseline"]["log_loss"]

    out = tmp_path / "p.parquet"
    assert run("predict", model, path, "--output", out, "--proba").exit_code == 0
    got = pd.read_parquet(out)
    assert list(got) == ["prediction", "proba_high", "proba_low", "proba_middle"] and len(got) == N
    np.testing.assert_allclose(got.iloc[:, 1:].sum(axis=1), 1, atol=1e-5)
    assert (got["prediction"] == table["kind"]).mean() > 0.8  # the order of the rows is kept
    np.testing.assert_array_equal(got["prediction"], load_model(model).predict(table))

    shown = run("inspect", model, "--json")
    found = json.loads(shown.stdout.strip().splitlines()[-1])
    assert found["classes"] == ["high", "low", "middle"] and found["columns"] == ["size", "colour", "gap"]
    assert found["training"]["rows"] == N and len(found["training"]["loss_by_epoch"]) == told["epochs"]
    assert "colour=red" in shown.stdout and "daskdml" in found["versions"]


def test_regression_on_zarr_to_csv(table, tmp_path):
    path, model = to_zarr(table, tmp_path), tmp_path / "m.skops"
    told = trained(path, "--target", "amount", "--output", model, "--param", "coordinate_eta0=0.5", "--seed", 3)
    assert told["task"] == "regression" and told["test"]["rmse"] < told["baseline"]["rmse"]
    assert run("predict", model, path, "--output", tmp_path / "p.csv").exit_code == 0
    assert len(pd.read_csv(tmp_path / "p.csv")) == N


def test_svmlight_needs_no_target(tmp_path):
    rng = np.random.default_rng(0)
    lines = [f"{'+1' if a else '-1'} {1 + a}:1 {3 + b}:1" for a, b in rng.integers(0, 2, (300, 2))]
    (tmp_path / "a").write_text("\n".join(lines) + "\n")
    told = trained(tmp_path / "a", "--output", tmp_path / "m.skops", "--model", "svm")
    assert told["features"] == 4 and told["test"]["accuracy"] == 1 and "log_loss" not in told["test"]
    (tmp_path / "b").write_text("1 1:1\n-1 2:1 9:1\n")
    assert run("predict", tmp_path / "m.skops", tmp_path / "b", "--output", tmp_path / "p.csv").exit_code == 0
    assert pd.read_csv(tmp_path / "p.csv")["prediction"].tolist() == [-1, 1]


@pytest.mark.parametrize(
    ("target", "options", "task"),
    [
        ("side", (), "classification"),
        ("kind", (), "classification"),
        ("amount", (), "regression"),
        ("side", ("--task", "regression"), "regression"),
    ],
)
def test_the_task_follows_from_the_target(target, options, task, table, tmp_path):
    told = trained(to_csv(table[["size", "colour", target]], tmp_path), "--target", target, *options)
    assert told["task"] == task


def test_many_whole_numbers_are_amounts_and_the_choice_is_told(tmp_path):
    pd.DataFrame({"x": range(300), "y": range(300)}).to_csv(tmp_path / "t.csv", index=False)
    result = run("train", tmp_path / "t.csv", "--target", "y", "--epochs", 1)
    assert "task: regression (the target has whole numbers, more than 50 different ones)" in result.stderr


@pytest.mark.parametrize("write", [to_csv, to_parquet])
@pytest.mark.parametrize("gaps", [False, True])
def test_whole_numbers_stored_as_floats_are_classes(write, gaps, table, tmp_path):
    sides = table["side"].astype(float)
    frame = table[["size", "colour"]].assign(side=sides.where(table.index % 7 > 0) if gaps else sides)
    path = write(frame, tmp_path)
    result = run("train", path, "--target", "side", "--epochs", 2, "--output", tmp_path / "m.skops")
    assert "task: classification (the target has whole numbers, 2 different ones)" in result.stderr
    assert load_model(tmp_path / "m.skops").estimator.classes_.tolist() == [0, 1]
    run("predict", tmp_path / "m.skops", path, "--output", tmp_path / "p.csv")
    assert set((tmp_path / "p.csv").read_text().split()[1:]) == {"0", "1"}


@pytest.mark.parametrize("strategy", ["averaging", "bsp"])
def test_strategy_replicas_and_seed_are_honoured(strategy, table, tmp_path):
    path = to_parquet(table, tmp_path)
    arguments = (path, "--target", "amount", "--drop", "kind", "--strategy", strategy, "--replicas", 3)
    first, second, other = (trained(*arguments, "--seed", seed, epochs=1) for seed in (0, 0, 1))
    assert first["strategy"] == strategy and first["replicas"] == 3
    assert first["test"] == second["test"] and first["train_loss"] == second["train_loss"]
    assert first["test"] != other["test"]


def test_quiet_says_nothing_and_no_test_part_is_no_test(table, tmp_path):
    result = run("train", to_csv(table, tmp_path), "--target", "kind", "--quiet", "--epochs", 1)
    assert (result.exit_code, result.output) == (0, "")
    assert trained(to_csv(table, tmp_path), "--target", "kind", "--test-size", 0)["test"] == {}


def test_rows_without_a_target_are_left_out(table, tmp_path):
    frame = table.assign(kind=table["kind"].where(table.index % 4 > 0))
    assert trained(to_csv(frame, tmp_path), "--target", "kind")["rows"] == N - N // 4


@pytest.mark.parametrize(("target", "replicas"), [("kind", 2), ("amount", 1)])
def test_resume_goes_on_from_the_checkpoint(target, replicas, table, tmp_path):
    path = to_csv(table, tmp_path)
    common = (path, "--target", target, "--replicas", replicas)
    saving = (*common, "--checkpoint", tmp_path / "run", "--checkpoint-every", "1 round")
    trained(*common, "--output", tmp_path / "whole.skops", epochs=6)
    trained(*saving, epochs=2)
    told = trained(*saving, "--resume", "--output", tmp_path / "resumed.skops", epochs=6)
    assert told["epochs"] == 6
    whole, resumed = (load_model(tmp_path / f"{name}.skops").estimator for name in ("whole", "resumed"))
    assert (whole.coef_ == resumed.coef_).all() and (whole.intercept_ == resumed.intercept_).all()
    assert whole.history_["loss"].equals(resumed.history_["loss"])

    other = run("train", *saving, "--resume", "--seed", 4)
    assert other.exit_code == 2 and "is of another fit: random_state was 0 and is 4" in other.stderr


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--resume",), "--resume needs --checkpoint"),
        (("--checkpoint", "c", "--checkpoint-every", "often"), "'often' is no interval"),
        (("--checkpoint", "nowhere://c"), "nowhere://c"),
    ],
)
def test_checkpoints_that_cannot_be(options, complaint, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("train", to_csv(table, tmp_path), "--target", "amount", *options)
    assert result.exit_code == 2 and complaint in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("strategy", ["ssp", "essp", "asp"])
def test_strategies_on_the_parameter_server(strategy, table, tmp_path):
    staleness = [] if strategy == "asp" else ["--staleness", 2]
    told = trained(to_parquet(table, tmp_path), "--target", "kind", "--strategy", strategy, *staleness, "--replicas", 2)
    assert told["strategy"] == strategy and told["replicas"] == 2
    assert told["test"]["accuracy"] > told["baseline"]["accuracy"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--strategy", "asp", "--staleness", 2), "a staleness is for the strategies ssp and essp, not for 'asp'"),
        (("--strategy", "ssp", "--staleness", -1), "the staleness is -1; it must be at least 0"),
    ],
)
def test_a_staleness_that_cannot_be(options, complaint, table, tmp_path):
    result = run("train", to_csv(table, tmp_path), "--target", "amount", *options)
    assert result.exit_code == 2 and complaint in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_the_help_shows_its_examples_line_by_line():
    lines = [line.strip() for line in run("--help").stdout.splitlines()]
    assert "daskdml train covtype.parquet --target Cover_Type --output model.skops" in lines
    assert "daskdml demo" in lines and not any("\\b" in line for line in lines)


def with_a_stray_value(folder, where=7):
    rng = np.random.default_rng(0)
    size = rng.normal(size=2000)
    frame = pd.DataFrame({"size": size.astype(str), "amount": 3 * size})
    frame.loc[where, "size"] = "oops"
    frame.to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


def test_a_column_of_numbers_with_a_stray_value_is_said_to_be_taken_as_text(tmp_path):
    result = run("train", with_a_stray_value(tmp_path), "--target", "amount", "--epochs", 1)
    told = [line for line in result.stderr.splitlines() if "oops" in line]
    assert result.exit_code == 0 and told == [
        "column 'size' is taken as text, for 1 of 2,000 values looked at is no number, the first 'oops'; "
        "to have numbers, and such values as missing, give --numeric size"
    ]


@pytest.mark.parametrize("where", [7, 1999])
def test_numeric_takes_stray_values_as_missing(where, tmp_path):
    path, model = with_a_stray_value(tmp_path, where), tmp_path / "m.skops"
    told = trained(path, "--target", "amount", "--numeric", "size", "--output", model)
    assert told["features"] == 1 and told["rows"] == 2000 and told["test"]["r2"] > 0.95
    assert run("predict", model, path, "--output", tmp_path / "p.csv").exit_code == 0
    assert len(pd.read_csv(tmp_path / "p.csv")) == 2000
    found = run("train", path, "--target", "size", "--numeric", "size", "--json", "--epochs", 1)
    assert json.loads(found.stdout.splitlines()[-1])["rows"] == 1999


def test_text_is_text_and_no_note_is_made_of_it(table, tmp_path):
    path = to_csv(table, tmp_path)
    assert "taken as text" not in run("train", path, "--target", "amount", "--epochs", 1).stderr
    refused = run("train", path, "--target", "amount", "--numeric", "colour")
    assert refused.exit_code == 2 and "--numeric colour: 400 of 400 values looked at are no numbers" in refused.stderr
    other = run("train", to_parquet(table, tmp_path), "--target", "amount", "--numeric", "colour")
    assert other.exit_code == 2 and "leave out --numeric colour" in other.stderr


def test_a_report_of_a_training_and_of_a_saved_model(table, tmp_path):
    pytest.importorskip("matplotlib")
    path, model = to_csv(table[["size", "colour", "amount"]], tmp_path), tmp_path / "m.skops"
    shown = run("train", path, "--target", "amount", "--output", model, "--report", tmp_path / "a.html", "--epochs", 3)
    assert shown.exit_code == 0 and f"all about the training is in {tmp_path / 'a.html'}" in shown.stdout
    again = run("report", model, "--output", tmp_path / "b.html")
    assert again.exit_code == 0 and "b.html" in again.stdout
    first, second = ((tmp_path / name).read_text() for name in ("a.html", "b.html"))
    assert first == second
    for part in ("<h1>Linear regression of amount</h1>", "rows held out", "rmse", "The best answer without features"):
        assert part in first, part
    # In the units of the target, as everything that is told of a regression.
    assert f"{load_model(model).estimator.history_['loss'].iloc[-1]:.4g}" in first
