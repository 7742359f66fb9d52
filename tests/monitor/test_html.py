from html.parser import HTMLParser

import dask.array as da
import numpy as np
import pytest
from sklearn.base import BaseEstimator

from daskdml.data import as_dataset
from daskdml.monitor import History
from daskdml.monitor._html import fitted_html
from daskdml.strategies import STRATEGIES
from tests.monitor.events import info, round_end

VOID = {"line", "polyline"}


class Checker(HTMLParser):
    """Collects text, and sees that every element is closed in its turn."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


class Fitted(BaseEstimator):
    def __init__(self, loss="hinge", alpha=1e-4, callbacks=None, power=np.nan):
        self.loss, self.alpha, self.callbacks, self.power = loss, alpha, callbacks, power

    def told(self, losses=(0.9, 0.5, 0.4), **attributes):
        listener = History()
        listener.on_fit_start(info())
        for epoch, loss in enumerate(losses, start=1):
            listener.on_round_end(round_end(epoch, epoch, loss=loss, objective=loss + 0.1))
        self.history_ = listener.to_frame()
        vars(self).update(attributes)
        return self


def read(html):
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    return checker


def test_an_unfitted_estimator_says_nothing():
    assert fitted_html(Fitted()) == ""


def test_it_tells_how_the_fit_went():
    clf = Fitted(alpha=0.01).told(
        strategy_="averaging", n_replicas_=4, n_features_in_=54, classes_=np.array(["cat", "dog"])
    )
    text = " ".join(read(fitted_html(clf)).text)
    for part in ("alpha=0.01", "averaging", "replicas 4", "features 54", "2: cat, dog", "50 in the last epoch",
                 "150 in all", "epochs 3", "0.4 (objective 0.5)", "from 0.9 to 0.4"):  # fmt: skip
        assert part in text, part
    assert "loss='hinge'" not in text
    assert "power" not in text


def test_everything_is_escaped():
    attack = "<script>alert('x')</script>"
    clf = Fitted(loss=attack).told(classes_=np.array([attack, "b"]), strategy_=attack)
    html = fitted_html(clf)
    assert "<script" not in html
    assert {tag for tag, _ in read(html).tags} <= {
        "div", "style", "table", "tbody", "tr", "th", "td", "svg", "title", "line", "polyline",
    }  # fmt: skip


def test_it_loads_nothing_from_elsewhere():
    html = fitted_html(Fitted().told())
    assert "http" not in html
    assert "url(" not in html


def test_the_line_falls_as_the_loss_does():
    tags = read(fitted_html(Fitted().told((1.0, 0.5, 0.25, 0.0)))).tags
    points = next(attrs["points"] for tag, attrs in tags if tag == "polyline")
    heights = [float(point.split(",")[1]) for point in points.split()]
    assert heights == sorted(heights)  # downwards on a screen


def test_a_loss_that_is_flat_short_or_not_finite_does_no_harm():
    for losses in ((), (0.5,), (0.5, 0.5), (0.5, np.inf, np.nan, 0.4)):
        html = fitted_html(Fitted().told(losses))
        read(html)
        assert "nan" not in html.split("<polyline")[-1]
    assert "polyline points" not in fitted_html(Fitted().told((0.5,)))


def test_long_things_are_cut_short():
    clf = Fitted(loss="x" * 5000).told(losses=np.linspace(1, 0, 5000), classes_=np.arange(1000))
    html = fitted_html(clf)
    assert "1,000: 0, 1, 2, 3, 4, 5, ..." in html
    assert len(html) < 10_000


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_says_what_it_promises(name):
    html = STRATEGIES[name](n_replicas=12)._repr_html_()
    text = " ".join(read(html[html.index('<div class="daskdml-fit">') :]).text)
    assert "replicas 12" in text
    waits = {"ssp": "at most 3 clocks ahead", "essp": "at most 3 clocks ahead", "asp": "nobody waits"}
    assert waits.get(name, "wait for each other") in text
    assert ("the same bits" in text) == (name in ("averaging", "bsp", "full_batch"))


def test_staleness_0_is_exact():
    assert "the same bits" in STRATEGIES["ssp"](staleness=0)._repr_html_()


def test_a_data_set_says_what_is_known_of_it():
    whole = as_dataset(da.ones((1000, 10), chunks=(400, 10)), target=None)
    text = " ".join(read(whole._repr_html_()).text)
    for part in (
        "3: 3 made where they are needed",
        "1,000, at most 400 a block",
        "10 of float64",
        "78.12 kiB, at most 31.25",
    ):
        assert part in text, part
    rows = da.ones((1000, 10), chunks=(400, 10))
    unknown = as_dataset(rows[rows[:, 0] > 0], target=None)
    text = " ".join(read(unknown._repr_html_()).text)
    assert "not known before they are read" in text and "80 B a row" in text
