"""What is measured is kept, and what was kept can be drawn again without measuring."""

import json
import shutil
import types

import pytest

from benchmarks import _measure, _plots
from benchmarks.__main__ import NAMES

KEPT = [name for name in NAMES if (_measure.RESULTS / f"{name}.json").exists()]


@pytest.mark.parametrize("name", KEPT)
def test_kept_figures_are_drawn_again(name, tmp_path):
    pytest.importorskip("matplotlib")
    for suffix in ("json", "md"):
        shutil.copy(_measure.RESULTS / f"{name}.{suffix}", tmp_path)
    _plots.redraw(name, tmp_path)
    drawn = tmp_path / f"{name}.png"
    assert drawn.exists() == (f"({name}.png)" in (tmp_path / f"{name}.md").read_text())
    assert not drawn.exists() or drawn.stat().st_size < 150_000


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    def picture(figures):
        figure, (ax,) = _plots.panels(1)
        ax.plot(figures["values"])
        return figure

    monkeypatch.setattr(_measure, "RESULTS", tmp_path)
    monkeypatch.setattr(_plots, "import_module", lambda name: types.SimpleNamespace(picture=picture, CAPTION="values"))
    return tmp_path


def test_a_quick_run_replaces_nothing_of_a_full_one(benchmark):
    pytest.importorskip("matplotlib")
    _measure.keep("some", {"values": [1, 2]}, "full", full=True)
    _measure.keep("some", {"values": [3]}, "quick", full=False)
    assert json.loads((benchmark / "some.json").read_text())["values"] == [1, 2]
    assert _measure.kept("some", full=False)["values"] == [3]
    assert (benchmark / "some.md").read_text().endswith("full\n\n![values](some.png)\n")
    assert (benchmark / "quick" / "some.png").exists()


def test_without_matplotlib_nothing_is_drawn(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(_plots, "find_spec", lambda name: None)
    _measure.keep("some", {"values": [1]}, "text", full=True)
    assert "some: not drawn, matplotlib is not installed" in capsys.readouterr().out
    assert not (benchmark / "some.png").exists()
    assert "png" not in (benchmark / "some.md").read_text()
