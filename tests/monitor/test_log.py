"""What a fit writes to the logger ``daskdml``."""

import logging
import subprocess
import sys

import pytest

from daskdml.monitor import CallbackList, FitEnd, Recovery
from tests.monitor.events import info, play, round_end


def logged(caplog, level):
    caplog.set_level(level, "daskdml")
    with CallbackList() as listeners:
        play(listeners)
        listeners.on_recovery(Recovery(1.5, "shard 0 was lost"))
        listeners.on_round_end(round_end(3, 5, recoveries=1))
        listeners.on_fit_end(FitEnd("max_iter", 2, 250, 2.0))
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_beginning_end_and_recovery(caplog):
    first, recovery, last = logged(caplog, logging.INFO)
    assert first == (
        "INFO",
        "SGDClassifier: 100 rows of 3 features in 5 blocks, 2 replicas (averaging), at most 4 epochs",
    )
    assert recovery == ("WARNING", "shard 0 was lost (1.5 s after the fit began)")
    assert last == ("INFO", "SGDClassifier: ended after 2 epochs, 2 s, 125 rows/s; loss 0.7")


def test_rounds_and_epochs_for_who_looks_for_a_bug(caplog):
    found = [text for level, text in logged(caplog, logging.DEBUG) if level == "DEBUG"]
    assert sum(text.startswith("round") for text in found) == 5
    assert sum(text.startswith("epoch") for text in found) == 2


def test_a_failure_is_told_with_its_error(caplog):
    caplog.set_level(logging.INFO, "daskdml")
    with pytest.raises(ZeroDivisionError), CallbackList() as listeners:
        listeners.on_fit_start(info(dashboard="http://127.0.0.1:8787/status"))
        raise ZeroDivisionError("by nothing")
    texts = [record.getMessage() for record in caplog.records]
    assert "http://127.0.0.1:8787/status" in texts[1]
    assert "failed after 0 epochs" in texts[2] and "ZeroDivisionError: by nothing" in texts[2]


def test_a_fit_in_memory_runs_ahead_and_is_logged(caplog):
    from daskdml.linear_model import SGDClassifier

    caplog.set_level(logging.INFO, "daskdml")
    SGDClassifier(max_iter=3, tol=None, random_state=0).fit([[0.0], [1.0]] * 20, [0, 1] * 20)
    assert [r.getMessage().split(",")[0] for r in caplog.records] == [
        "SGDClassifier: 40 rows of 1 feature in 1 block",
        "SGDClassifier: ended after 3 epochs",
    ]


def test_who_configures_no_logging_sees_none():
    code = "import logging, daskdml; logging.getLogger('daskdml').error('not to be seen')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout + done.stderr == ""
