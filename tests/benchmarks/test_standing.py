"""Targets beside what was kept."""

import json

import pytest

from benchmarks import _measure, standing


def race(start, sides):
    """Kept figures of a race in which each side reached both targets after so many seconds, or (below 0) gave up."""
    entries = [
        {
            "side": side,
            "start": start,
            "runs": [{"for": [0.02, 0.005, 0.0001], "steps": [[1, 0.1, 9.0], [2, abs(s), 1.0 if s > 0 else 2.0]]}],
        }
        for side, seconds in sides.items()
        for s in seconds
    ]
    return {"workload": {"name": "wide"}, "optimum": 1.0, "full": True, "entries": entries}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(_measure, "RESULTS", tmp_path)
    (tmp_path / "race").mkdir()
    return tmp_path


def put(results, name, figures):
    (results / f"{name}.json").write_text(json.dumps(figures))


def test_the_best_peer_counts_and_who_has_tried_longer_does_not(results):
    sides = {"daskdml, 1": [2.0, 4.0, 3.0], "daskdml, 2": [1.0, -9.0], "A": [6.0, 9.0, 30.0], "B": [-20.0, -21.0]}
    put(results, "race/wide-memory", race("memory", sides))
    lines = list(standing._races(full=True))
    assert [(line.found, line.wanted, line.reached) for line in lines] == [(3.0, 3.0, True)] * 2
    assert lines[0].what == "wide from memory, to 0.50%: A"
    assert not list(standing._races(full=False))


def test_who_never_gets_there_has_tried_at_least_so_long(results):
    sides = {"daskdml, 1": [2.0], "A": [9.0, 30.0], "B": [-8.0, 7.0, -6.5]}
    put(results, "race/wide-memory", race("memory", sides))
    line = next(standing._races(full=True))
    assert (line.what, line.found, line.beyond) == ("wide from memory, to 0.50%: B", 3.25, True)
    assert line.reached and line.cells()[2] == "more than 3.25 times"
    figures = race("files", {"daskdml, 1": [2.0], "Spark": [-4.0], "dask-ml": [-30.0]})
    no_time = {"for": [0.005, 0.0001], "steps": []}
    figures["entries"].append({"side": "dask-ml", "start": "files", "runs": [no_time]})
    put(results, "race/wide-memory", figures)
    spark, dask_ml = list(standing._races(full=True))[:2]
    assert not spark.reached and spark.cells()[2:] == ["more than 2 times", "**short**", "it was given no more time"]
    assert dask_ml.reached and dask_ml.found == 15


def test_from_files_each_peer_counts(results):
    sides = {
        "daskdml, 1": [1.0],
        "Spark MLlib": [30.0],
        "dask-ml, one": [5.0],
        "dask-ml, other": [2.0],
        "PyTorch": [0.5],
    }
    put(results, "race/wide-files", race("files", sides))
    found = {line.what: (line.found, line.reached) for line in standing._races(full=True)}
    assert found["wide from files, to 0.01%: Spark"] == (30.0, True)
    assert found["wide from files, to 0.01%: dask-ml"] == (2.0, False)
    assert len(found) == 4


def test_beside_a_short_race_from_files_stands_what_decoding_takes(results):
    figures = race("files", {"daskdml, 1": [1.0], "dask-ml, one": [2.0]})
    put(results, "race/wide-files", figures)
    assert "decoding is most of one" in next(standing._races(full=True)).why
    put(results, "race/wide-files", figures | {"decoding_seconds": [[0.9, 0.7], [0.8, 0.6], [1.8, 1.6]]})
    assert "in 2.00 s; to decode" in (why := next(standing._races(full=True)).why)
    assert "takes 0.90 s, and 0.70 s with" in why


def test_what_is_short_says_why_and_what_is_not_need_not(results, capsys):
    seconds = {
        "daskdml, 1 worker": 2.0, "daskdml, 2 workers": 1.0, "daskdml, 1 worker of 2 threads": 1.1,
        "plain loop, threads: 2": 0.5, "scikit-learn, 1 core": 7.0,
        "reading rows in that order, threads: 2": 0.1,
    }  # fmt: skip
    cases = [{"case": "dense, hinge", "seconds": {k: [v] for k, v in seconds.items()}}]
    put(results, "workers", {"cases": cases})
    standing.run(full=True)
    page = (results / "standing.md").read_text()
    loop, theirs, pair = (line for line in page.splitlines() if line.startswith("| dense, hinge"))
    assert "| at least 70% | 50% | **short** |" in loop
    assert "| at least 8 times | 7 times | **short** | most rows change nothing" in theirs
    assert pair.endswith("| at least 1.7 times | 2 times | reached |  |")
    assert "1 of 3 reached" in page and "1 of 3 reached" in capsys.readouterr().out


@pytest.mark.parametrize(("reads", "wanted"), [(1.04, 1.25), (0.1, 1.7)])
def test_two_workers_need_not_read_faster_than_memory(results, reads, wanted):
    seconds = {
        "daskdml, 1 worker": 1.3, "daskdml, 2 workers": 1.0, "daskdml, 1 worker of 2 threads": 1.1,
        "reading rows in that order, threads: 2": reads,
    }  # fmt: skip
    cases = [{"case": "dense, hinge, in order", "seconds": {k: [v] for k, v in seconds.items()}}]
    put(results, "workers", {"cases": cases})
    (pair,) = standing._workers(full=True)
    assert (pair.wanted, pair.found) == (wanted, 1.3) and f"are {1.3 / reads:.2f} times" in pair.why


def test_beside_two_workers_that_are_short_stands_who_has_the_processors(results):
    seconds = {"daskdml, 1 worker": 1.0, "daskdml, 2 workers": 0.8, "daskdml, 1 worker of 2 threads": 0.9}
    seconds["reading rows in that order, threads: 2"] = 0.1
    parts = {"driver": [0.01], "scheduler": [0.09], "event loops of workers": [0.06], "tasks on workers": [1.2]}
    cpu = {side: parts | ({"tasks on workers": [1.0]} if "1" in side else {}) for side in seconds if "daskdml" in side}
    case = {"case": "dense, hinge, in order", "seconds": {k: [v] for k, v in seconds.items()}, "cpu": cpu}
    put(results, "workers", {"cases": [case]})
    (pair,) = standing._workers(full=True)
    assert "tasks have 75% and take 1.20 times the CPU time of one worker's, scheduler, driver and event loops 10%" in (
        pair.why
    )


def test_the_kept_figures_of_this_project_are_understood():
    lines = [*standing._workers(True), *standing._races(True), *standing._out_of_core(True)]
    lines += [*standing._overheads(True), *standing._scale_model(True)]
    assert len(lines) > 80 and sum(line.reached for line in lines) > len(lines) / 2
