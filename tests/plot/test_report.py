"""The page that tells all of a fit."""

import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from daskdml import plot
from daskdml.io import load_model, save_model
from daskdml.linear_model import SGDClassifier
from daskdml.strategies import SSP

VOID = {"meta", "br"}


class Reader(HTMLParser):
    """What a page holds; sees that its elements are closed in turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open and data.strip():
            self.words.append(data.strip())

    def of(self, tag):
        return [attrs for found, attrs in self.tags if found == tag]


@pytest.fixture(scope="module")
def problem():
    X = np.random.default_rng(0).standard_normal((400, 3))
    return X, np.where(X[:, 0] > 0, "<script>alert(1)</script>", "b & c")


@pytest.fixture(scope="module")
def fits(cluster, problem):
    """One of tasks and one on the parameter server."""
    import dask.array as da
    from distributed import Client

    X, y = (da.from_array(a, chunks=(100, *a.shape[1:])) for a in problem)
    common = {"max_iter": 3, "tol": None, "random_state": 0}
    with Client(cluster):
        return {
            "averaging": SGDClassifier(early_stopping=True, **common).fit(X, y),
            "ssp": SGDClassifier(strategy=SSP(2, clock_rows=50), **common).fit(X, y),
        }


def read(clf, folder, **options):
    path = folder / "fit.html"
    clf.report(path, **options)
    assert [found.name for found in folder.iterdir()] == ["fit.html"]
    return Reader(path.read_text("utf-8")), path.read_text("utf-8")


@pytest.mark.parametrize("name", ["averaging", "ssp"])
def test_it_tells_all_of_the_fit(name, fits, tmp_path):
    clf = fits[name]
    page, _ = read(clf, tmp_path)
    words = " ".join(page.words)
    pictures = {attrs["aria-label"].split(",")[0].split(":")[0] for attrs in page.of("svg")}
    assert len(pictures) == (5 if name == "ssp" else 4)
    assert ("met at the end of each round" in words) == (name == "averaging")
    for part in (
        f"SGDClassifier by {type(clf.strategy_).__name__}",
        "random_state",
        "workers 2",
        "scikit-learn",
        "from their source",
        f"{clf.history_['loss'].iloc[-1]:.4g}",
        "all epochs were run",
        "at least half of their time is used",
    ):
        assert part in words, part


def test_it_is_self_contained(fits, tmp_path):
    page, text = read(fits["ssp"], tmp_path)
    assert {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object"} == set()
    addresses = [v for _, attrs in page.tags for k, v in attrs.items() if k in ("src", "href", "xlink:href")]
    assert addresses and all(address.startswith("#") for address in addresses)
    assert not re.findall(r"url\((?!#)", text) and "@import" not in text
    assert "default-src 'none'" in page.of("meta")[-1]["content"]
    # What is referred to is there, once.
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    referred = {a[1:] for a in addresses} | set(re.findall(r"url\(#([^)]+)\)", text))
    assert referred <= set(ids)


def test_everything_is_escaped(problem, tmp_path):
    X, y = problem
    clf = SGDClassifier(max_iter=2, tol=None).fit(X, y)
    attack = "<script>alert(2)</script>"
    page, text = read(clf, tmp_path, title=attack)
    assert "<script" not in text
    assert attack in page.words
    assert any("<script>alert(1)</script>" in word for word in page.words)


def test_it_is_read_in_light_and_dark_and_without_eyes(fits, tmp_path):
    page, text = read(fits["averaging"], tmp_path)
    assert "prefers-color-scheme: dark" in text
    assert page.of("html")[0]["lang"] == "en"
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in page.of("svg"))
    # No ink of its own: text, lines and bars take the page's.
    body = text.split("</style>", 1)[1]
    colours = set(re.findall(r"(?:fill|stroke): ?(#[0-9a-fA-F]{6})", body))
    assert colours <= {"#ffffff", "#cccccc"}, colours
    names = set(re.findall(r"var\((--\w+)\)", body))
    dark = text.split("prefers-color-scheme: dark", 1)[1].split("}}", 1)[0]
    assert names and all(f"{name}:" in dark for name in names)


def test_tables_have_heads_and_captions(fits, tmp_path):
    page, _ = read(fits["ssp"], tmp_path)
    assert len(page.of("caption")) == len(page.of("table")) >= 8
    assert all(attrs["scope"] in ("row", "col") for attrs in page.of("th"))


def test_of_a_fit_in_memory_no_scaling_is_guessed(problem, tmp_path):
    page, _ = read(SGDClassifier(max_iter=2, tol=None).fit(*problem), tmp_path)
    words = " ".join(page.words)
    assert "so nothing is estimated" in words and "none: within one process" in words


def test_a_long_history_is_told_by_epoch(problem, tmp_path):
    page, _ = read(SGDClassifier(max_iter=300, tol=None).fit(*problem), tmp_path)
    assert any("A line an epoch" in word and "the last 200" in word for word in page.words)
    assert len(page.of("tr")) < 700


def test_a_saved_model_gives_the_same_page(fits, tmp_path):
    clf = fits["ssp"]
    (tmp_path / "before").mkdir()
    (tmp_path / "after").mkdir()
    save_model(clf, tmp_path / "m.skops")
    before, after = (
        read(model, tmp_path / folder)[0]
        for model, folder in ((clf, "before"), (load_model(tmp_path / "m.skops"), "after"))
    )
    assert before.words == after.words


def test_it_is_there_whole_or_not_at_all(fits, tmp_path, monkeypatch):
    path = tmp_path / "fit.html"
    path.write_text("before")
    monkeypatch.setattr("daskdml.plot._report.page", lambda *_: (_ for _ in ()).throw(OSError("broken")))
    with pytest.raises(OSError, match="broken"):
        fits["ssp"].report(path)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_what_is_missing_is_said(fits, tmp_path, monkeypatch):
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        SGDClassifier().report(tmp_path / "fit.html")
    with pytest.raises(ValueError, match="there is no directory"):
        fits["ssp"].report(tmp_path / "none" / "fit.html")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'daskdml\[plot\]'"):
        plot.report(fits["ssp"], tmp_path / "fit.html")
