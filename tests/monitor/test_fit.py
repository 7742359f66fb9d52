"""Listeners of real fits: in the process, and on a cluster."""

import copy
import pickle
import sys
import timeit

import dask.array as da
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import SGDClassifier as PlainClassifier

from daskdml.linear_model import SGDClassifier, SGDRegressor
from daskdml.monitor import Callback, History, ProgressBar, StopTraining


class Recorder(Callback):
    def __init__(self, stop_after=None, fail_after=None):
        self.stop_after, self.fail_after = stop_after, fail_after
        self.infos, self.rounds, self.epochs, self.ends = [], [], [], []

    def on_fit_start(self, info):
        self.infos.append(info)

    def on_round_end(self, event):
        self.rounds.append(event)

    def on_epoch_end(self, event):
        self.epochs.append(event)
        if event.epoch == self.stop_after:
            raise StopTraining
        if event.epoch == self.fail_after:
            raise OSError("the log is full")

    def on_fit_end(self, event):
        self.ends.append(event)


def problem():
    X = np.random.default_rng(0).standard_normal((600, 3))
    return X, (X[:, 0] > 0).astype(int)


def classifier(*callbacks, **parameters):
    return SGDClassifier(**{"max_iter": 4, "tol": None, "random_state": 0, "callbacks": list(callbacks)} | parameters)


@pytest.fixture(params=["in memory", "on a cluster"])
def data(request):
    X, y = problem()
    if request.param == "in memory":
        return X, y
    request.getfixturevalue("client")
    return da.from_array(X, chunks=(100, 3)), da.from_array(y, chunks=100)


def test_the_events_of_a_fit_and_history_agree(data):
    listener, history = Recorder(), History()
    clf = classifier(listener, history).fit(*data)
    (info,), (end,) = listener.infos, listener.ends
    assert (info.estimator, info.strategy, info.n_rows, info.n_features) == ("SGDClassifier", "averaging", 600, 3)
    assert info.n_replicas == clf.n_replicas_
    assert (end.reason, end.epochs, end.rows) == ("max_iter", 4, 2400)
    assert [event.epoch for event in listener.epochs] == [1, 2, 3, 4]
    assert [event.rows for event in listener.epochs] == [600] * 4
    assert sum(event.rows for event in listener.rounds) == 2400
    assert clf.history_.equals(history.to_frame())
    assert clf.history_["loss"].iloc[-1] < clf.history_["loss"].iloc[0]
    assert (clf.history_["objective"] >= clf.history_["loss"]).all()


def test_a_callback_stops_a_fit_and_what_was_learnt_is_kept(data):
    listener = Recorder(stop_after=2)
    clf = classifier(listener, max_iter=50).fit(*data)
    assert clf.n_iter_ == 2
    assert [(end.reason, end.epochs) for end in listener.ends] == [("stopped", 2)]
    assert clf.score(*data) > 0.9
    assert np.array_equal(clf.coef_, classifier(max_iter=2).fit(*data).coef_)


def test_a_callback_that_fails_ends_the_fit_with_its_error(data):
    listener = Recorder(fail_after=1)
    with pytest.raises(OSError, match="the log is full"):
        classifier(listener).fit(*data)
    assert [end.reason for end in listener.ends] == ["failed"]
    assert "the log is full" in listener.ends[0].error


def test_a_wrong_callback_is_named_before_anything_is_trained(data):
    with pytest.raises(TypeError, match=r"callbacks\[0\] is 'tqdm'"):
        classifier("tqdm").fit(*data)


def test_convergence_is_told(data):
    listener = Recorder()
    clf = classifier(listener, tol=0.05, n_iter_no_change=2, max_iter=500).fit(*data)
    assert clf.n_iter_ < 500
    assert listener.ends[0].reason == "converged"


def test_verbose_shows_a_progress_bar(data, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    classifier(verbose=1).fit(*data)
    shown = capsys.readouterr().err
    assert "SGDClassifier: 100%" in shown
    assert "epoch=4/4" in shown


def test_verbose_writes_lines_where_there_is_no_terminal(data, capsys):
    classifier(verbose=1).fit(*data)
    assert [line.split(" after")[0] for line in capsys.readouterr().err.splitlines()][-1] == "SGDClassifier: ended"
    classifier(verbose=2).fit(*data)
    assert capsys.readouterr().err.count("\nSGDClassifier: epoch ") == 4


def test_an_estimator_with_callbacks_is_cloned(data):
    clf = clone(classifier(ProgressBar(leave=False), History())).fit(*data)
    assert len(clf.history_) == 4


def test_validation_scores_stand_in_the_history(data):
    X, y = data
    reg = SGDRegressor(early_stopping=True, max_iter=3, tol=None, random_state=0).fit(X, y)
    assert reg.history_["validation_score"].notna().sum() == reg.n_iter_
    assert reg.history_["learning_rate"].notna().sum() == reg.n_iter_


def test_a_fitted_estimator_shows_its_fit_in_a_notebook(data):
    clf = classifier()
    assert "daskdml-fit" not in clf._repr_html_()
    clf.fit(*data)
    assert "daskdml-fit" in clf._repr_html_()
    assert "daskdml-fit" in clf._repr_mimebundle_()["text/html"]


def test_the_table_is_made_when_it_is_asked_for_and_kept_in_copies():
    clf = SGDClassifier(max_iter=3, tol=None)
    assert not hasattr(clf, "history_")
    clf.fit(np.eye(4), [0, 1, 0, 1])
    assert "history_" not in vars(clf)
    for other in (pickle.loads(pickle.dumps(clf)), copy.deepcopy(clf), clf):
        assert other.history_["epoch"].tolist() == [1, 2, 3]
    assert clf.history_ is clf.history_
    clf.set_params(max_iter=1).partial_fit(np.eye(4), [0, 1, 0, 1])
    assert len(clf.history_) == 1


def test_fits_of_few_rows_cost_little_beside_their_epochs():
    """Of what surrounds the training, nothing may grow with what is only looked at later."""
    X, y = np.random.default_rng(0).standard_normal((100, 5)), np.arange(100) % 2
    clf, plain = SGDClassifier(random_state=0), PlainClassifier(random_state=0)
    seconds = {}
    for one in (clf, plain):
        one.partial_fit(X, y, classes=[0, 1])
        seconds[one] = min(timeit.repeat(lambda one=one: one.partial_fit(X, y), number=10, repeat=10))
    # About twice; a table a call would make it ten times.
    assert seconds[clf] < 5 * seconds[plain]
