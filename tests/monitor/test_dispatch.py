import pytest

from daskdml.monitor import Callback, CallbackList, FitEnd, StopTraining
from tests.monitor.events import epoch_end, info, play, round_end

DONE = FitEnd("max_iter", 2, 200, 1.0)


class Recorder(Callback):
    """Notes what it hears, and raises what it was told to raise on one of the events."""

    def __init__(self, **raises):
        self.heard, self.ends, self.raises = [], [], raises

    def _hear(self, name):
        self.heard.append(name)
        if name in self.raises:
            raise self.raises[name]

    def on_fit_start(self, info):
        self._hear("start")

    def on_round_end(self, event):
        self._hear("round")

    def on_epoch_end(self, event):
        self._hear("epoch")

    def on_fit_end(self, event):
        self.ends.append(event)
        self._hear("end")


def test_a_whole_fit_is_heard_in_order():
    listener = Recorder()
    with CallbackList([listener]) as listeners:
        play(listeners, epochs=1)
        listeners.on_fit_end(DONE)
    assert listener.heard == ["start", "round", "round", "epoch", "end"]
    assert listener.ends == [DONE]


def test_no_callbacks_are_fine():
    for none in (None, [], ()):
        with CallbackList(none) as listeners:
            play(listeners)
            listeners.on_fit_end(DONE)


def test_one_callback_needs_no_list():
    listener = Recorder()
    assert CallbackList(listener).callbacks == (listener,)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["tqdm"], r"callbacks\[0\] is 'tqdm'"),
        ([Recorder(), print], r"callbacks\[1\] is <built-in function print>"),
        ([Recorder], r"pass an instance: Recorder\(\)"),
        (3, "list of daskdml.monitor.Callback, got 3"),
    ],
)
def test_a_wrong_callback_is_named(wrong, message):
    with pytest.raises(TypeError, match=message):
        CallbackList(wrong)


def test_a_failure_reaches_the_listeners_once_and_goes_on():
    listener = Recorder()
    with pytest.raises(ZeroDivisionError), CallbackList([listener]) as listeners:
        listeners.on_fit_start(info())
        listeners.on_round_end(round_end())
        listeners.on_epoch_end(epoch_end())
        raise ZeroDivisionError("a block of no rows")
    (end,) = listener.ends
    assert (end.reason, end.epochs, end.rows) == ("failed", 1, 50)
    assert end.error == "ZeroDivisionError: a block of no rows"


def test_an_interrupted_fit_ends_too():
    listener = Recorder()
    with pytest.raises(KeyboardInterrupt), CallbackList([listener]) as listeners:
        listeners.on_fit_start(info())
        raise KeyboardInterrupt
    assert [(end.reason, end.error) for end in listener.ends] == [("failed", "KeyboardInterrupt")]


def test_nothing_is_heard_of_a_fit_that_never_began():
    listener = Recorder()
    with pytest.raises(ValueError), CallbackList([listener]):
        raise ValueError("before the start")
    assert listener.heard == []


def test_a_listener_that_fails_at_the_start_hears_the_end_and_those_after_it_nothing():
    first, after = Recorder(start=OSError("no disk")), Recorder()
    with pytest.raises(OSError, match="no disk"), CallbackList([first, after]) as listeners:
        listeners.on_fit_start(info())
    assert first.heard == ["start", "end"]
    assert after.heard == []


def test_a_wish_to_stop_is_passed_on_after_all_have_heard():
    stopper, after = Recorder(round=StopTraining()), Recorder()
    with CallbackList([stopper, after]) as listeners:
        listeners.on_fit_start(info())
        with pytest.raises(StopTraining):
            listeners.on_round_end(round_end())
        listeners.on_fit_end(FitEnd("stopped", 0, 50, 0.1))
    assert after.heard == ["start", "round", "end"]
    assert stopper.ends[0].reason == "stopped"


def test_an_uncaught_wish_to_stop_is_no_failure():
    stopper = Recorder(epoch=StopTraining())
    with pytest.raises(StopTraining), CallbackList([stopper]) as listeners:
        play(listeners)
    assert [(end.reason, end.error) for end in stopper.ends] == [("stopped", None)]


def test_a_failing_end_does_not_keep_the_others_from_theirs():
    first, second = Recorder(end=RuntimeError("first")), Recorder(end=RuntimeError("second"))
    with pytest.raises(RuntimeError, match="first"), CallbackList([first, second]) as listeners:
        listeners.on_fit_start(info())
        listeners.on_fit_end(DONE)
    assert len(first.ends) == len(second.ends) == 1


def test_a_failing_end_does_not_hide_the_failure_before_it():
    with pytest.raises(ZeroDivisionError) as caught, CallbackList([Recorder(end=RuntimeError("late"))]) as listeners:
        listeners.on_fit_start(info())
        raise ZeroDivisionError
    assert "RuntimeError: late" in caught.value.__notes__[0]


def test_a_fit_left_without_an_end_says_so():
    listener = Recorder()
    with CallbackList([listener]) as listeners:
        listeners.on_fit_start(info())
    assert listener.ends[0].reason == "failed"


def test_a_list_serves_fit_after_fit():
    listener = Recorder()
    listeners = CallbackList([listener])
    for _ in range(2):
        with listeners:
            play(listeners)
            listeners.on_fit_end(DONE)
    assert listener.ends == [DONE, DONE]
