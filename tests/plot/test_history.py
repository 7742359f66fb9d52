import sys
import types

import numpy as np
import pytest

from daskdml import plot
from daskdml.monitor import History
from tests.plot.fits import fitted

matplotlib = pytest.importorskip("matplotlib", reason="drawing is the extra `plot`")


def lines(ax):
    return {line.get_label(): line for line in ax.get_lines()}


def test_losses_and_seconds():
    losses, seconds = plot.history(fitted())
    assert list(lines(losses)) == ["loss", "objective (loss + penalty)"]
    np.testing.assert_allclose(lines(losses)["loss"].get_xdata(), [0.5, 1, 1.5, 2, 2.5, 3])
    assert (losses.get_xlabel(), losses.get_ylabel(), losses.get_title()) == ("epoch", "mean a row", "Training")
    assert "seconds" in seconds.get_ylabel()
    assert [text.get_text() for text in seconds.get_legend().get_texts()] == ["computing", "loading", "waiting"]
    tops = {round(bar.get_y() + bar.get_height(), 6) for bar in seconds.containers[-1]}
    assert tops == {1.2}  # two rounds of 0.46 + 0.1 + 0.04


def test_validation_scores_get_a_panel():
    _, scores, _ = plot.history(fitted(scores=True))
    assert scores.get_title() == "Validation"
    np.testing.assert_allclose(scores.get_lines()[0].get_ydata(), [1 / 2, 2 / 3, 3 / 4])


def test_without_a_penalty_there_is_one_line():
    losses, _ = plot.history(fitted(penalty=0.0))
    assert list(lines(losses)) == ["loss"]


def test_one_axes_gets_the_losses():
    _, ax = matplotlib.pyplot.subplots()
    assert plot.history(fitted(scores=True), ax=ax) is ax
    assert ax.get_title() == "Training"


def test_a_row_of_axes_is_filled_and_counted():
    _, axes = matplotlib.pyplot.subplots(1, 2)
    assert [ax.get_title() for ax in plot.history(fitted(), ax=axes)] == ["Training", "Time"]
    with pytest.raises(ValueError, match="3 panels, ax has 2"):
        plot.history(fitted(scores=True), ax=axes)


def test_many_epochs_become_areas():
    _, seconds = plot.history(fitted(epochs=100, rounds=1))
    assert not seconds.containers
    assert len(seconds.collections) == 3


def test_a_frame_will_do():
    assert len(plot.history(fitted().history_)) == 2


def test_an_unfitted_or_empty_one_is_refused():
    with pytest.raises(TypeError, match="fit it first"):
        plot.history(types.SimpleNamespace())
    with pytest.raises(ValueError, match="nothing was trained"):
        plot.history(History().to_frame())


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'daskdml\[plot\]'"):
        plot.history(fitted())
