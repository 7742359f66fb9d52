"""Clocks, staleness, cost and comparisons: what is drawn, and the same as tables."""

import types

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex

from daskdml import plot
from daskdml.monitor._axes import BLUE, VERMILION
from daskdml.plot import tables
from tests.plot.fits import fitted, total


def bars(ax):
    """(row, begin, end, colour) of each bar of a timeline."""
    for found in ax.collections:
        if isinstance(found, PolyCollection):
            colour = to_hex(found.get_facecolor()[0]).upper()
            for path in found.get_paths():
                (begin, low), (end, high) = path.vertices.min(axis=0), path.vertices.max(axis=0)
                yield round((low + high) / 2), round(begin, 6), round(end, 6), colour


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


# -- clocks -------------------------------------------------------------------------------------------------


def test_who_computed_and_who_waited():
    table = tables.clocks(fitted())
    assert total(table, replica=0, part="computing") == pytest.approx(6 * 0.08)
    assert total(table, replica=1, part="computing") == pytest.approx(6 * 0.38)
    assert total(table, replica=0, part="waiting for replicas") == pytest.approx(6 * 0.3)
    assert total(table, replica=1, part="waiting for replicas") == 0


@pytest.mark.parametrize("served", [False, True])
def test_parts_follow_each_other(served):
    table = tables.clocks(fitted(served=served))
    first = table[(table["replica"] == 0) & (table["round"] == 1)]
    np.testing.assert_allclose(first["begin"].iloc[1:], (first["begin"] + first["seconds"]).iloc[:-1])
    # At the server it waits before it trains, in a round of tasks afterwards.
    order = first["part"].tolist()
    waits_first = order.index("waiting for replicas") < order.index("computing")
    assert waits_first == served


def test_the_timeline_has_the_bars_of_the_table():
    clf = fitted()
    ax = plot.clocks(clf)
    drawn = {(row, begin) for row, begin, _, colour in bars(ax) if colour == BLUE}
    table = tables.clocks(clf)
    computing = table[table["part"] == "computing"]
    assert drawn == {(r, round(b, 6)) for r, b in zip(computing["replica"], computing["begin"], strict=True)}
    assert {row for row, *_, colour in bars(ax) if colour == VERMILION} == {0}
    assert legend(ax) == ["computing", "waiting for blocks", "waiting for replicas", "communicating"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0  (…0:4000)", "1  (…1:4001)"]
    assert ax.get_title() == "Replicas, rounds 1 to 6" and "seconds" in ax.get_xlabel()


def test_rounds_are_chosen():
    ax = plot.clocks(fitted(), rounds=(3, 4))
    assert ax.get_title() == "Replicas, rounds 3 to 4"
    assert min(begin for _, begin, *_ in bars(ax)) == 1.0
    with pytest.raises(ValueError, match="rounds 7 to 9; the fit has told of rounds 1 to 6"):
        plot.clocks(fitted(), rounds=(7, 9))


def test_of_a_long_fit_the_end_is_drawn():
    ax = plot.clocks(fitted(epochs=300, rounds=4, replicas=2))
    assert ax.get_title() == "Replicas, rounds 201 to 1200"


def test_who_has_no_replicas_is_told():
    with pytest.raises(TypeError, match="fit it first"):
        plot.clocks(types.SimpleNamespace())
    with pytest.raises(ValueError, match="nothing is known of single replicas"):
        plot.clocks(fitted().replicas_.iloc[:0])


# -- staleness ----------------------------------------------------------------------------------------------


def test_staleness_is_counted_and_its_bound_drawn():
    clf = fitted(served=True)
    assert tables.staleness(clf)["reads"].tolist() == [6, 0, 6]
    ax = plot.staleness(clf)
    assert [bar.get_height() for bar in ax.patches] == [50, 0, 50]
    assert sorted(legend(ax)) == ["12 reads, mean 1.00", "bound: at most 3"]
    (line,) = ax.get_lines()
    assert line.get_xdata()[0] == 3.5
    assert ax.get_xlim()[1] > 3.5


def test_without_a_server_there_is_no_staleness():
    with pytest.raises(ValueError, match="none is behind"):
        plot.staleness(fitted())


# -- cost ---------------------------------------------------------------------------------------------------


def test_the_parts_are_all_the_time_there_was():
    clf = fitted()
    table = tables.cost(clf)
    shared = table[table["share"].notna()]
    assert shared["share"].sum() == pytest.approx(1.0)
    # Six rounds of half a second, by two replicas.
    assert shared["seconds"].sum() == pytest.approx(6.0)
    assert table.loc["waiting for replicas", "seconds"] == pytest.approx(6 * 0.3)
    assert table.loc["reading", "bytes"] == clf.history_["bytes"].sum()


def test_bytes_have_a_unit_and_every_bar_its_figure():
    seconds, nbytes = plot.cost(fitted(served=True))
    assert nbytes.get_xlabel() == "kB"
    assert {text.get_text() for text in nbytes.texts} == {" 7.2kB", " 12kB", " 18kB"}
    assert [label.get_text() for label in seconds.get_yticklabels()][:2] == ["computing", "waiting for blocks"]
    assert " beside" in [text.get_text() for text in seconds.texts]


# -- comparisons --------------------------------------------------------------------------------------------


def test_losses_side_by_side():
    fits = [fitted(), fitted(served=True, penalty=0.0)]
    by_time, by_epoch = plot.compare(fits, ["rounds", "clocks"])
    assert legend(by_time) == ["rounds", "clocks"]
    assert by_time.get_xlabel() == "seconds" and by_epoch.get_xlabel() == "epochs"
    np.testing.assert_allclose(by_time.get_lines()[0].get_xdata(), np.arange(1, 7) / 2)
    np.testing.assert_allclose(by_epoch.get_lines()[0].get_xdata(), np.arange(1, 7) / 2)
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in by_time.get_lines()}
    assert len(looks) == 2


def test_names_are_made_where_none_are_given():
    assert tables.compare([fitted(), fitted(served=True)])["name"].unique().tolist() == [
        "Averaging, 2 replicas",
        "SSP(3), 2 replicas",
    ]
    twice = tables.compare([fitted(), fitted()])["name"].unique().tolist()
    assert twice == ["1: Averaging, 2 replicas", "2: Averaging, 2 replicas"]


def test_names_that_do_not_fit_are_refused():
    for clfs, names in (([], None), ([fitted()], ["a", "b"]), ([fitted(), fitted()], ["a", "a"])):
        with pytest.raises(ValueError, match="empty|different names"):
            plot.compare(clfs, names)


def test_an_axes_of_the_callers_is_used():
    from matplotlib.figure import Figure

    for draw in (plot.clocks, plot.staleness, plot.cost, lambda clf, ax: plot.compare([clf], ax=ax)):
        ax = Figure().subplots()
        assert draw(fitted(served=True), ax=ax) is ax
        assert ax.get_title() and ax.get_xlabel()
    with pytest.raises(ValueError, match="2 panels, ax has 3"):
        plot.cost(fitted(), Figure().subplots(1, 3))
