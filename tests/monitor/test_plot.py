import sys
import types

import numpy as np
import pytest

from daskdml import plot
from daskdml.monitor import History
from tests.monitor.events import epoch_end, info, round_end

matplotlib = pytest.importorskip("matplotlib", reason="drawing is the extra `plot`")


@pytest.fixture(autouse=True)
def no_window():
    matplotlib.use("Agg")
    yield
    matplotlib.pyplot.close("all")


def made(epochs=3, rounds=2, scores=False, penalty=0.1):
    """A fitted thing, as far as pictures look at it."""
    listener = History()
    listener.on_fit_start(info())
    for epoch in range(1, epochs + 1):
        for number in range(rounds):
            loss = 1 / (epoch + number)
            listener.on_round_end(
                round_end(epoch, (epoch - 1) * rounds + number + 1, loss=loss, objective=loss + penalty)
            )
        listener.on_epoch_end(epoch_end(epoch, validation_score=1 - 1 / (epoch + 1) if scores else None))
    return types.SimpleNamespace(history_=listener.to_frame())


def lines(ax):
    return {line.get_label(): line for line in ax.get_lines()}


def test_losses_and_seconds():
    losses, seconds = plot.history(made())
    assert list(lines(losses)) == ["loss", "objective (loss + penalty)"]
    np.testing.assert_allclose(lines(losses)["loss"].get_xdata(), [0.5, 1, 1.5, 2, 2.5, 3])
    assert (losses.get_xlabel(), losses.get_ylabel(), losses.get_title()) == ("epoch", "mean a row", "Training")
    assert "seconds" in seconds.get_ylabel()
    assert [text.get_text() for text in seconds.get_legend().get_texts()] == ["computing", "loading", "waiting"]
    tops = {round(bar.get_y() + bar.get_height(), 6) for bar in seconds.containers[-1]}
    assert tops == {2.0}  # two rounds of 0.6 + 0.3 + 0.1


def test_validation_scores_get_a_panel():
    _, scores, _ = plot.history(made(scores=True))
    assert scores.get_title() == "Validation"
    np.testing.assert_allclose(scores.get_lines()[0].get_ydata(), [1 / 2, 2 / 3, 3 / 4])


def test_without_a_penalty_there_is_one_line():
    losses, _ = plot.history(made(penalty=0.0))
    assert list(lines(losses)) == ["loss"]


def test_one_axes_gets_the_losses():
    _, ax = matplotlib.pyplot.subplots()
    assert plot.history(made(scores=True), ax=ax) is ax
    assert ax.get_title() == "Training"


def test_a_row_of_axes_is_filled_and_counted():
    _, axes = matplotlib.pyplot.subplots(1, 2)
    assert [ax.get_title() for ax in plot.history(made(), ax=axes)] == ["Training", "Time"]
    with pytest.raises(ValueError, match="3 panels, ax has 2"):
        plot.history(made(scores=True), ax=axes)


def test_many_epochs_become_areas():
    _, seconds = plot.history(made(epochs=100, rounds=1))
    assert not seconds.containers
    assert len(seconds.collections) == 3


def test_a_frame_will_do():
    assert len(plot.history(made().history_)) == 2


def test_an_unfitted_or_empty_one_is_refused():
    with pytest.raises(TypeError, match="fit it first"):
        plot.history(types.SimpleNamespace())
    with pytest.raises(ValueError, match="nothing was trained"):
        plot.history(History().to_frame())


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'daskdml\[plot\]'"):
        plot.history(made())
