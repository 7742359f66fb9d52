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
from tests.monitor.events import epoch_end, info, play, round_end


def last_line(screen):
    return screen.getvalue().rstrip("\n").split("\r")[-1]


def test_it_counts_rows_and_shows_speed_loss_epoch_and_time_left():
    screen = io.StringIO()
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
    screen = io.StringIO()
    bar = ProgressBar(file=screen)
    bar.on_fit_start(info(n_rows=None))
    bar.on_round_end(round_end(rows=5000, seconds=0.5))
    bar.on_epoch_end(epoch_end())
    bar._bar.refresh()
    line = last_line(screen)
    assert "1/4" in line
    assert "rows=10.0k/s" in line
    bar.on_fit_end(FitEnd("max_iter", 4, 400, 1.0))


def test_a_failure_closes_the_bar_where_it_stood():
    screen = io.StringIO()
    bar = ProgressBar(file=screen)
    with pytest.raises(ZeroDivisionError), CallbackList([bar]) as listeners:
        play(listeners, epochs=1)
        raise ZeroDivisionError
    assert bar._bar is None
    assert "100/400" in last_line(screen)
    assert screen.getvalue().endswith("\n")


def test_a_bar_that_does_not_stay_is_wiped():
    screen = io.StringIO()
    bar = ProgressBar(file=screen, leave=False)
    play(bar)
    bar.on_fit_end(FitEnd("max_iter", 2, 200, 1.0))
    assert last_line(screen).strip() == ""


def test_it_starts_no_thread():
    before = threading.active_count()
    bar = ProgressBar(file=io.StringIO())
    bar.on_fit_start(info())
    assert threading.active_count() == before
    bar.on_fit_end(FitEnd("max_iter", 0, 0, 0.0))


def test_it_is_copied_and_pickled_at_rest_and_at_work():
    bar = ProgressBar(file=sys.stderr, leave=False)
    assert copy.deepcopy(bar).file is sys.stderr
    bar = ProgressBar(leave=False)
    bar._bar = object()
    assert pickle.loads(pickle.dumps(bar)).leave is False


def test_a_notebook_with_widgets_gets_a_widget(monkeypatch):
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert issubclass(_bar_class(None), tqdm.notebook.tqdm)
    assert not issubclass(_bar_class(io.StringIO()), tqdm.notebook.tqdm)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not issubclass(_bar_class(None), tqdm.notebook.tqdm)
