import errno
import os

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import daskdml.io._atomic as atomic
from daskdml import workflow
from daskdml.cli import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"x": np.arange(200.0), "y": np.arange(200) % 2, "one": 1, "word": ["a", "b"] * 100})
    frame["x2"] = frame["x"].where(frame["x"] != 170, np.inf)
    frame.to_csv("good.csv", index=False)
    frame.to_parquet("good.parquet", index=False)
    (tmp_path / "ragged.csv").write_text("x,y\n1,2\n3\n4,5\n")
    (tmp_path / "empty.csv").write_text("x,y\n")
    (tmp_path / "labels").write_text("1 1:1\n-1 2:1\n" * 9)
    (tmp_path / "fake.skops").write_text("no model")
    return tmp_path


def refused(*arguments):
    """The exit status and the one line on stderr; nothing may be left behind."""
    before = sorted(os.listdir())
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert sorted(os.listdir()) == before
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.exit_code, result.stderr


WRONG_USE = [
    (("train", "none.csv", "--target", "y"), "no such file: none.csv"),
    (("train", "*.none", "--target", "y"), "no file matches '*.none'"),
    (("train", "good.csv"), "Name it with --target"),
    (("train", "good.csv", "--target", "Y"), "no column 'Y' in good.csv; did you mean 'y'?"),
    (("train", "ragged.csv", "--target", "y"), "ragged.csv, line 3: 1 fields where there should be 2"),
    (("train", "empty.csv", "--target", "y"), "no rows"),
    (("train", "labels", "--target", "y"), "leave out --target"),
    (("train", "good.csv", "--target", "y", "--drop", "z"), "no column 'z'"),
    (("train", "good.csv", "--target", "y", "--categorical", "z"), "no column 'z'"),
    (("train", "good.csv", "--target", "one", "--drop", "x2"), "only one class, 1"),
    (("train", "good.parquet", "--target", "y"), "column 'x2' holds an infinity in block"),
    (("train", "good.csv", "--target", "word", "--task", "regression", "--drop", "x2"), "the target is text"),
    (("train", "good.csv", "--target", "y", "--drop", "x2", "--model", "linear"), "is for regression"),
    (("train", "good.csv", "--target", "y", "--model", "forest", "--drop", "x2"), "unknown model 'forest'"),
    (("train", "good.csv", "--target", "y", "--test-size", "1"), "is not a fraction"),
    (("train", "good.csv", "--target", "y", "--epochs", "0"), "0 epochs are none"),
    (("train", "good.csv", "--target", "y", "--replicas", "0"), "0 replicas are none"),
    (("train", "good.csv", "--target", "y", "--seed", "-1"), "the seed -1 is negative"),
    (("train", "good.csv", "--target", "y", "--output", "no/m.skops"), "there is no directory"),
    (("train", "good.csv", "--target", "y", "--workers", "0"), "--workers 0 is less than 1"),
    (("train", "good.csv", "--target", "y", "--memory-limit", "much"), "'much' is no amount of memory"),
    (("train", "good.csv", "--target", "y", "--memory-limit", "10MB"), "too little"),
    (
        ("train", "good.csv", "--target", "y", "--workers", "1", "--scheduler", "tcp://127.0.0.1:1"),
        "leave out --workers",
    ),
    (
        ("train", "good.csv", "--target", "y", "--param", "alhpa=1"),
        "no parameter 'alhpa' in the model; did you mean 'alpha'?",
    ),
    (("train", "good.csv", "--target", "y", "--param", "foo=1"), "validation_fraction, warm_start"),
    (("train", "good.csv", "--target", "y", "--param", "alpha=abc"), "'alpha' parameter"),
    (("train", "good.csv", "--target", "y", "--param", "learning_rate=fast"), "Got 'fast' instead"),
    (("train", "good.csv", "--target", "y", "--param", "strategy=foo"), "use --strategy"),
    (("train", "good.csv", "--target", "y", "--param", "max_iter=3"), "use --epochs"),
    (("train", "good.csv", "--target", "y", "--param", "callbacks=3"), "3"),
    (("train", "good.csv", "--target", "y", "--param", "average=true"), "average=True needs a scalar learning rate"),
    (
        ("train", "good.csv", "--target", "y", "--param", "memory_budget=much"),
        "memory_budget must be a number of bytes",
    ),
    (("train", "good.csv", "--target", "y", "--task", "regression", "--param", "loss=hinge"), "Got 'hinge' instead"),
    (("train", "good.csv", "--target", "y", "--seed", "99999999999"), "from 0 to 4294967295"),
    (("predict", "none.skops", "good.csv", "--output", "p.csv"), "no such model file: none.skops"),
    (("predict", "fake.skops", "good.csv", "--output", "p.csv"), "fake.skops is no model of daskdml"),
    (("predict", "fake.skops", "good.csv", "--output", "p.txt"), "unknown ending"),
    (("train", "good.csv", "--target", "y", "--report", "no/r.html"), "there is no directory"),
    (("train", "good.csv", "--target", "y", "--report", "good.csv"), "the output would replace it"),
    (("train", "good.csv", "--target", "y", "--report", "m", "--output", "./m"), "both be written to"),
    (("report", "fake.skops", "--output", "r.html"), "fake.skops is no model of daskdml"),
    (("report", "fake.skops", "--output", "fake.skops"), "the output would replace it"),
    (("report", "none.skops", "--output", "r.html"), "no such model file"),
    (("inspect", "fake.skops"), "fake.skops is no model of daskdml"),
    (("demo", "--size", "100MB"), "fit in the workers' memory"),
    (("demo", "--size", "lots"), "write an amount of memory"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG_USE, ids=[m for _, m in WRONG_USE])
def test_wrong_use_is_one_line_and_status_2(arguments, message, folder):
    status, stderr = refused(*arguments, *(["--quiet"] if arguments[0] != "predict" else []))
    assert message in stderr
    assert (status, stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    "option", ["alpha=abc", "learning_rate=fast", "strategy=foo", "callbacks=3", "foo=1", "penalty=l3", "epsilon=-1"]
)
def test_parameters_are_checked_before_any_data_are_read(option, folder, monkeypatch):
    def read(*_):
        raise AssertionError("the data were opened")

    monkeypatch.setattr("daskdml.workflow._train.open_table", read)
    status, stderr = refused("train", "good.csv", "--target", "y", "--quiet", "--param", option)
    name, value = option.split("=")
    assert (status, stderr.count("\n")) == (2, 1) and name in stderr and (value in stderr or name == "foo")


def test_a_parameter_of_one_task_is_refused_for_the_other(folder):
    common = ("train", "good.csv", "--drop", "x2", "--quiet", "--param", "class_weight=balanced")
    assert CliRunner().invoke(main, [*common, "--target", "y"]).exit_code == 0
    assert refused(*common, "--target", "x")[0] == 2


@pytest.mark.parametrize("arguments", [("train",), ("train", "x.csv", "--tartget", "y"), ("trian",)])
def test_wrong_options_are_status_2(arguments, folder):
    assert refused(*arguments)[0] == 2


def test_a_scheduler_that_does_not_answer_is_a_failed_run(folder, monkeypatch):
    monkeypatch.setattr("daskdml.workflow._session._TIMEOUT", 1)
    status, stderr = refused("train", "good.csv", "--target", "y", "--scheduler", "tcp://127.0.0.1:1")
    assert status == 1 and stderr.count("\n") == 1 and "no scheduler answers at tcp://127.0.0.1:1" in stderr


def test_a_model_for_other_columns_names_the_one_that_is_missing(folder):
    frame = pd.read_csv("good.csv").drop(columns="x2")
    frame.to_csv("train.csv", index=False)
    assert CliRunner().invoke(main, ["train", "train.csv", "--target", "y", "--output", "m.skops"]).exit_code == 0
    frame.rename(columns={"word": "wrod"}).to_csv("other.csv", index=False)
    status, stderr = refused("predict", "m.skops", "other.csv", "--output", "p.parquet")
    assert status == 2 and "no column 'word' in other.csv; did you mean 'wrod'?" in stderr
    status, stderr = refused("predict", "m.skops", "labels", "--output", "p.parquet")
    assert status == 2 and "svmlight" in stderr


def test_a_bad_line_in_the_middle_of_a_prediction_leaves_no_file(folder):
    frame = pd.read_csv("good.csv")[["x", "y"]]
    frame.to_csv("train.csv", index=False)
    assert CliRunner().invoke(main, ["train", "train.csv", "--target", "y", "--output", "m.skops"]).exit_code == 0
    lines = ["x,y", *(["1.5,0"] * 600_000)]
    lines[100_000] = "1.5"
    (folder / "late.csv").write_text("\n".join(lines))
    status, stderr = refused("predict", "m.skops", "late.csv", "--output", "p.csv")
    assert status == 2 and "late.csv, line 100001: 1 fields where there should be 2" in stderr


@pytest.mark.parametrize("way", ["itself", "link", "hard link", "link to it as data"])
@pytest.mark.parametrize("command", ["train", "predict"])
def test_the_output_never_replaces_what_is_read(command, way, folder, monkeypatch):
    monkeypatch.setattr("daskdml.workflow._train.open_table", None)
    data = output = "good.csv"
    if way == "link":
        output = "link.csv"
        os.symlink("good.csv", output)
    elif way == "hard link":
        output = "link.csv"
        os.link("good.csv", output)
    elif way == "link to it as data":
        data = "link.csv"
        os.symlink("good.csv", data)
    before = (folder / "good.csv").read_bytes()
    status, stderr = refused(
        *(("train", data, "--target", "y") if command == "train" else ("predict", "fake.skops", data)),
        *("--output", output),
    )
    assert (status, stderr.count("\n")) == (2, 1) and "the output would replace it" in stderr
    assert (folder / "good.csv").read_bytes() == before


def test_an_output_that_is_no_file_is_refused_before_training(folder, monkeypatch):
    monkeypatch.setattr("daskdml.workflow._train.open_table", None)
    os.mkfifo("pipe.csv")
    for output in ("/dev/null", "pipe.csv", str(folder)):
        status, stderr = refused("train", "good.csv", "--target", "y", "--output", output)
        assert (status, stderr.count("\n")) == (2, 1) and "give the name of a file" in stderr
    assert refused("predict", "fake.skops", "good.csv", "--output", "pipe.csv")[0] == 2


def test_a_link_stays_a_link_and_its_file_is_replaced(folder):
    (folder / "models").mkdir()
    (folder / "models" / "old.skops").write_text("old")
    os.symlink("models/old.skops", "m.skops")
    common = ("train", "good.csv", "--target", "y", "--drop", "x2", "--quiet", "--output", "m.skops")
    assert CliRunner().invoke(main, common).exit_code == 0
    assert os.path.islink("m.skops") and os.readlink("m.skops") == "models/old.skops"
    assert (folder / "models" / "old.skops").read_bytes()[:2] == b"PK"
    assert os.listdir("models") == ["old.skops"]


def test_a_full_disk_is_a_failed_run_and_leaves_nothing(folder, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    status, stderr = refused("train", "good.csv", "--target", "y", "--drop", "x2", "--output", "m.skops", "--quiet")
    assert status == 1 and stderr.count("\n") == 1 and "is full" in stderr


@pytest.mark.parametrize("error", [ValueError("no such zone: Q"), OSError(errno.EIO, "Input/output error", "part.7")])
def test_the_block_in_which_it_happened_is_told_on_the_same_line(error, folder, monkeypatch):
    def fails(*_, **__):
        error.add_note("while making block 17 of the data")
        raise error

    monkeypatch.setattr(workflow, "train", fails)
    status, stderr = refused("train", "good.csv", "--target", "y")
    assert (status, stderr.count("\n")) == (1, 1)
    assert stderr.endswith("; while making block 17 of the data\n") and error.args[-1] in stderr


def test_debug_shows_the_traceback(folder):
    result = CliRunner().invoke(main, ["train", "none.csv", "--target", "y", "--debug"])
    assert result.exit_code == 2 and "Traceback" in result.stderr and "InputError" in result.stderr


def test_a_report_without_matplotlib_is_refused_before_the_training(folder, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    status, text = refused("train", "good.csv", "--target", "y", "--drop", "x2", "--report", "r.html")
    assert status == 2 and "pip install 'daskdml[plot]'" in text
