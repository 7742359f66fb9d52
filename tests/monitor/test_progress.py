import copy
import io
import pickle
import sys
import threading
import types

import pytest
import tqdm.notebook

from daskdml.monitor import CallbackList, FitEnd, ProgressBar
from daskdml.monitor._progress import _bar_class
from daskdml.monitor._tally import Tally, clock, short
from tests.monitor.events import epoch_end, info, play, round_end


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self):
        return True


def last_line(screen):
    return screen.getvalue().rstrip("\n").split("\r")[-1]


def test_it_counts_rows_and_shows_speed_loss_epoch_and_time_left():
    screen = Screen()
    bar = ProgressBar(file=screen)
    play(bar, epochs=2)
    bar._bar.refresh()
    line = last_line(screen)
    assert "SGDClassifier:  50%" in line
    assert "200/400" in line
    assert "rows/s" in line
    assert "epoch=2/4, loss=0.7" in line
    assert "<" in line  # elapsed<left
    bar.on_fit_end(FitEnd("converged", 2, 200, 1.0))
    assert "100%" in last_line(screen)


def test_it_counts_epochs_where_rows_are_not_known():
    screen = Screen()
    bar = ProgressBar(file=screen)
    bar.on_fit_start(info(n_rows=None))
    bar.on_round_end(round_end(rows=5000, seconds=0.5))
    bar.on_epoch_end(epoch_end())
    bar._bar.refresh()
    line = last_line(screen)
    assert "1/4" in line
    assert "rows=10k/s" in line
    bar.on_fit_end(FitEnd("max_iter", 4, 400, 1.0))


def test_a_failure_closes_the_bar_where_it_stood():
    screen = Screen()
    bar = ProgressBar(file=screen)
    with pytest.raises(ZeroDivisionError), CallbackList([bar]) as listeners:
        play(listeners, epochs=1)
        raise ZeroDivisionError
    assert bar._bar is None
    assert "100/400" in last_line(screen)
    assert screen.getvalue().endswith("\n")


def test_a_bar_that_does_not_stay_is_wiped():
    screen = Screen()
    bar = ProgressBar(file=screen, leave=False)
    play(bar)
    bar.on_fit_end(FitEnd("max_iter", 2, 200, 1.0))
    assert last_line(screen).replace("\x1b[A", "").strip() == ""  # the cursor goes back up


def test_it_starts_no_thread():
    before = threading.active_count()
    bar = ProgressBar(file=Screen())
    bar.on_fit_start(info())
    assert threading.active_count() == before
    bar.on_fit_end(FitEnd("max_iter", 0, 0, 0.0))


def test_it_is_copied_and_pickled_at_rest_and_at_work():
    bar = ProgressBar(file=sys.stderr, leave=False)
    assert copy.deepcopy(bar).file is sys.stderr
    bar = ProgressBar(leave=False)
    bar._bar = object()
    assert pickle.loads(pickle.dumps(bar)).leave is False


def told(bar, **end):
    play(bar)
    bar.on_fit_end(FitEnd(**{"reason": "converged", "epochs": 2, "rows": 200, "seconds": 1.0} | end))
    return bar.file.getvalue()


def test_a_log_file_gets_lines_and_no_control_characters():
    text = told(ProgressBar(file=io.StringIO()))
    assert all(line.isprintable() for line in text.splitlines()) and "\r" not in text
    first, last = text.splitlines()  # within ten seconds nothing else
    assert "100 rows of 3 features in 5 blocks, 2 replicas (averaging), at most 4 epochs" in first
    assert "converged after 2 epochs, 1 s, 200 rows/s; loss 0.7" in last


def test_lines_come_now_and_then_and_seldom_in_a_long_fit(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("daskdml.monitor._progress.time", types.SimpleNamespace(monotonic=lambda: now[0]))
    bar = ProgressBar(file=io.StringIO(), every=10)
    bar.on_fit_start(info(n_rows=10**7, max_epochs=1, rounds_per_epoch=10**6))
    at = []
    for number in range(1, 40_000):
        now[0] += 1.0
        before = len(bar.file.getvalue())
        bar.on_round_end(round_end(1, number, rows=10))
        if len(bar.file.getvalue()) > before:
            at.append(now[0])
    assert at[:3] == [10, 20, 30]
    assert 1_500 < at[-1] - at[-2] < 2_500
    assert len(at) < 150
    assert "1:40 so far" in bar.file.getvalue() and "10 rows/s" in bar.file.getvalue()


def test_time_left_is_to_the_last_epoch_that_there_may_be():
    for rows in (100, None):
        tally = Tally(info(n_rows=rows), 0.0)
        tally.add(round_end(rows=100))
        assert tally.left(1.0) == (3.0 if rows else None)
        tally.end_epoch(epoch_end())
        assert tally.left(1.0) == 3.0
    resumed = Tally(info(epochs_done=3, rows_done=300), 0.0)
    resumed.add(round_end(4, rows=50))
    assert resumed.left(1.0) == 1.0


def test_staleness_is_shown_where_there_is_some():
    screen = Screen()
    bar = ProgressBar(file=screen)
    bar.on_fit_start(info())
    bar.on_round_end(round_end(staleness_mean=1.25, staleness_max=3, staleness_histogram=(1, 1, 1, 1)))
    assert "staleness=1.2 (max 3)" in bar._bar.postfix
    bar.on_fit_end(FitEnd("failed", 0, 0, 1.0))


@pytest.mark.parametrize("screen", [Screen, io.StringIO])
def test_detail_tells_of_epochs_and_rounds(screen, monkeypatch):
    monkeypatch.setattr("daskdml.monitor._progress._ROUND_SECONDS", 0.0)
    text = told(ProgressBar(file=screen(), detail=True))
    assert "epoch 2/4: loss 0.7, objective 0.8, 100 rows in 1 s, learning rate 0.05" in text
    assert text.count("round ") == 4
    assert "computing 0.6 s, loading 0.3 s, waiting for blocks 0.1 s" in text
    assert "blocks 3 read, 0 from memory, 0 from disk, 1.2kB" in text


def test_a_loss_is_told_in_the_units_of_the_target():
    bar = ProgressBar(file=io.StringIO(), every=0.0)
    bar.on_fit_start(info(loss_scale=100.0))
    bar.on_round_end(round_end(loss=0.7))
    assert "loss 70" in bar.file.getvalue()
    bar.on_fit_end(FitEnd("failed", 0, 50, 1.0, "broken"))
    assert "failed after 0 epochs, 1 s, 50 rows/s: broken" in bar.file.getvalue()


def test_numbers_are_short():
    assert [short(a) for a in (0, 999.4, 1234, 99_960, 1e7, 5e15)] == ["0", "999", "1.23k", "100k", "10M", "5e+03T"]
    assert [clock(s) for s in (0, 61, 3600)] == ["0:00", "1:01", "1:00:00"]


def test_a_notebook_with_widgets_gets_a_widget(monkeypatch):
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert issubclass(_bar_class(None), tqdm.notebook.tqdm)
    assert not issubclass(_bar_class(io.StringIO()), tqdm.notebook.tqdm)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not issubclass(_bar_class(None), tqdm.notebook.tqdm)
