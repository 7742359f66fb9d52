"""What the page knows of fits: fed by events, no cluster."""

import pickle
import time

import msgpack
import numpy as np
import pytest

from daskdml.monitor import EpochEnd, Recovery, ReplicaRound, RoundEnd, ServerStart
from daskdml.monitor.dashboard import FitStore, Series, _views
from daskdml.monitor.dashboard._messages import FORMAT, described, packed
from daskdml.monitor.dashboard._plots import PLOTS
from tests.monitor.events import epoch_end, info, replica_round, round_end

KINDS = {RoundEnd: "round", ReplicaRound: "replica", EpochEnd: "epoch", Recovery: "recovery", ServerStart: "server"}


VIEWS = "loss validation clocks bound staleness time_spent rates shards caches marks paces".split()


def message(*events, fit="a", client="c", at=None, **more):
    """As a client sends it, once over the wire; event k is heard k seconds after the beginning."""
    facts = described(info(**{"n_replicas": 2, "staleness": 2} | more.pop("facts", {})))
    lines = [packed(KINDS[type(event)], second, event) for second, event in enumerate(events)]
    sent = {"format": FORMAT, "fit": fit, "client": client, "facts": facts, "events": lines}
    sent |= {"at": len(events) if at is None else at} | more
    return msgpack.loads(msgpack.dumps(sent), use_list=False)


def stored(*events, **more):
    store = FitStore()
    store.handle(message(*events, **more), now=100.0)
    return store.find()


def test_a_curve_keeps_its_ends_and_its_shape():
    curve = Series(2, most=64)
    for k in range(10_001):
        curve.add(k, k**2)
        assert len(curve.columns()[0]) <= 65
    x, y = curve.columns()
    assert (x[0], x[-1]) == (0, 10_000) and len(curve) == 10_001
    assert (y == x**2).all() and 16 <= len(x) and np.diff(x[:-1]).std() == 0


def test_a_curve_of_nothing_has_its_columns():
    assert [column.tolist() for column in Series(3).columns()] == [[], [], []]


def test_what_is_told_is_shown():
    fit = stored(
        ServerStart((100, 300)),
        replica_round(0, 1, shard_bytes=(10, 40), cache_memory_bytes=5, cache_disk_bytes=6),
        replica_round(1, 1, shard_bytes=(1, 2), begin=0.5),
        round_end(1, 1, loss=np.float32(0.5), staleness_histogram=(3, 1)),
        round_end(1, 2, loss=0.25, staleness_histogram=(1, 0, 2)),
        epoch_end(1, validation_score=0.9),
        Recovery(2.5, "a shard replaced"),
        totals={"rows": 100, "rounds": 2, "bytes": 2400, "recoveries": 1},
    )
    assert _views.loss(fit)["loss"].tolist() == [0.5, 0.25] and _views.loss(fit)["epoch"].tolist() == [0.5, 1.0]
    assert _views.validation(fit)["score"].tolist() == [0.9]
    assert _views.staleness(fit) == {"lag": [0, 1, 2], "reads": [4, 1, 2]}
    shards = _views.shards(fit)
    assert (shards["shard"], shards["nbytes"], shards["traffic"]) == (["1", "0"], [300, 100], [42, 11])
    assert _views.caches(fit)["memory"] == [5, 0] and _views.caches(fit)["disk"] == [6, 0]
    assert _views.marks(fit) == {"at": [2.5], "kind": ["recovery"], "what": ["a shard replaced"]}
    assert (fit.totals["rows"], fit.epoch, fit.running) == (100, 1, True)


def test_time_is_divided_as_it_was_spent():
    fit = stored(replica_round(0, compute_seconds=3.0, wait_seconds=1.0, gate_seconds=4.0, communicate_seconds=2.0))
    spent = _views.time_spent(fit)
    assert [spent[name] for name in _views.SPENT] == [[30.0], [10.0], [40.0], [20.0]]
    assert spent["load"] == [2.0] and spent["seconds"] == [10.0]


def test_the_bound_is_the_slowest_clock_and_the_staleness():
    fit = stored(*(replica_round(r, n, begin=t) for r, n, t in [(0, 1, 0), (1, 1, 1), (0, 2, 2), (0, 3, 3), (1, 2, 4)]))
    bound = _views.bound(fit)
    # Both have finished clock 1 after 1.5 s, and clock 2 after 4.5 s.
    assert bound == {"at": [1.5, 4.5, 4.5], "clock": [4, 5, 5]}
    clocks = _views.clocks(fit)
    assert clocks["clock"] == [[1, 2, 3], [1, 2]] and clocks["at"][1] == [1.5, 4.5]


def test_without_a_bound_none_is_drawn():
    assert _views.bound(stored(replica_round(0), replica_round(1), facts={"staleness": None}))["at"] == []


def test_the_straggler_is_who_takes_much_longer_for_a_row():
    usual = [replica_round(r, n, rows=100, compute_seconds=0.1, wait_seconds=0.0) for r in range(3) for n in (1, 2)]
    assert _views.straggler(stored(*usual)) is None
    slow = replica_round(3, 1, rows=100, compute_seconds=0.2, wait_seconds=0.2, worker="tcp://slow:1")
    found = _views.straggler(stored(*usual, slow))
    assert (found.replica, found.worker, round(found.times, 6)) == (3, "tcp://slow:1", 4.0)
    # What a helper trains in its place does not make it fast.
    helped = replica_round(3, 2, rows=900, compute_seconds=0.1, worker="tcp://fast:1", reassigned=1)
    fit = stored(*usual, slow, helped)
    assert _views.straggler(fit) == found and fit.counts["reassigned"] == 1
    assert _views.paces(fit)["slow"] == [False, False, False, True]


def test_rates_and_their_limit():
    rounds = [round_end(1, n, rows=1000, bytes=10**9, compute_seconds=0.5, load_seconds=0.25) for n in range(1, 11)]
    store = FitStore()
    store.handle(message(*rounds), now=0.0, threads=1)
    fit = store.find()
    assert _views.rates(fit)["rows"][1:].tolist() == [1000.0] * 9
    assert _views.rates(fit)["gigabytes"][1:].tolist() == [1.0] * 9
    # Two replicas on one thread: half a second for a thousand rows and a gigabyte.
    assert _views.limits(fit) == (2000.0, 2.0)
    store.handle(message(at=10), now=0.0, threads=8)
    assert _views.limits(fit) == (4000.0, 4.0)


def test_a_fit_that_becomes_faster_is_not_above_its_limit():
    # Two replicas that compute all the time, a second a round.
    slow = [round_end(1, n, rows=100, bytes=10**8, compute_seconds=2.0) for n in range(1, 11)]
    fast = [round_end(2, n, rows=1000, bytes=10**9, compute_seconds=2.0) for n in range(11, 21)]
    fit = stored(*slow, *fast)
    assert _views.limits(fit) == (1000.0, 1.0)
    assert _views.rates(fit)["rows"][1:].max() == 1000.0 and _views.rates(fit)["gigabytes"][1:].max() == 1.0


def test_nothing_is_drawn_of_a_fit_that_has_only_begun():
    fit = stored()
    for name in VIEWS:
        assert all(len(column) == 0 for column in getattr(_views, name)(fit).values()), name
    assert _views.limits(fit) is None and _views.straggler(fit) is None


def test_fits_are_told_apart_and_the_newest_that_runs_is_found():
    store = FitStore(kept=3)
    for fit, client in (("a", "x"), ("b", "y"), ("c", "x")):
        store.handle(message(round_end(loss=ord(fit)), fit=fit, client=client), now=0.0)
    assert [f.loss.last[2] for f in store.fits] == [97.0, 98.0, 99.0] and store.find().id == "c"
    store.handle(message(fit="c", end="converged"), now=1.0)
    assert store.find().id == "b" and store.find("c").state == "converged"
    # The one that is over makes room, and its place among the labels is taken again.
    place = store.find("c").slot
    store.handle(message(fit="d"), now=2.0)
    assert [fit.id for fit in store.fits] == ["a", "b", "d"] and store.find("d").slot == place
    store.on_client_gone("x")
    assert [fit.running for fit in store.fits] == [False, True, False] or not store.find("a").running


def test_of_a_fit_that_ended_the_reason_is_kept():
    fit = stored(round_end(), end="failed", error="ValueError: X has <b>NaN</b>")
    assert (fit.state, fit.error, fit.running) == ("failed", "ValueError: X has <b>NaN</b>", False)


def test_workers_that_come_and_go_are_marked_in_fits_that_run():
    store = FitStore()
    store.handle(message(replica_round(0, cache_memory_bytes=7), fit="a", at=5.0), now=1000.0)
    store.handle(message(fit="over", end="max_iter"), now=1000.0)
    store.on_worker("tcp://10.0.0.0:1", joined=False, now=1002.0)
    (mark,) = store.find("a").marks
    assert (mark.at, mark.kind, mark.what) == (7.0, "worker left", "tcp://10.0.0.0:1")
    assert _views.caches(store.find("a"))["worker"] == [] and not store.find("over").marks
    # A report that was on its way brings it back no more, but its return does.
    late = message(replica_round(0, cache_memory_bytes=7), fit="a", at=8.0)
    store.handle(late, now=1003.0)
    assert _views.caches(store.find("a"))["worker"] == []
    store.on_worker("tcp://10.0.0.0:1", joined=True, now=1004.0)
    store.handle(late, now=1005.0)
    assert _views.caches(store.find("a"))["worker"] == ["10.0.0.0:1"]


def test_another_format_is_refused():
    with pytest.raises(ValueError, match="format 1, got 2"):
        FitStore().handle(message() | {"format": 2}, now=0.0)


@pytest.mark.parametrize("replicas", [4, 2000])
def test_a_hundred_thousand_events_take_little_time_and_memory(replicas):
    store, each = FitStore(), 500
    facts = {"n_replicas": replicas}
    began = time.perf_counter()
    for first in range(0, 100_000, each):
        events = [
            replica_round((first + k) % replicas, (first + k) // replicas + 1, begin=float(first + k), reassigned=k % 2,
                          worker=f"tcp://w:{k}", shard_bytes=(8,) * 4)
            for k in range(each - 2)
        ]  # fmt: skip
        ends = [round_end(1, first + 1, staleness_histogram=(1,) * 400), Recovery(float(first), "x" * 50)]
        store.handle(message(*events, *ends, at=float(first), facts=facts), now=float(first))
    spent = time.perf_counter() - began
    fit = store.find()
    drawn = time.perf_counter()
    views = [getattr(_views, name)(fit) for name in VIEWS]
    drawn = time.perf_counter() - drawn
    assert len(pickle.dumps(fit.__dict__ | {"_marks": None})) < 2**21
    assert max(len(column) for view in views for column in view.values()) <= 6_100
    assert fit.counts["recovery"] == 200 and fit.counts["reassigned"] > 40_000
    # The making of the events and of the messages is counted too; a scheduler does neither.
    assert spent < 20 and drawn < 1


def test_losses_are_in_the_units_of_the_target():
    fit = stored(round_end(1, 1, loss=0.25), facts={"loss_scale": 100.0})
    assert fit.loss.last[-1] == 25.0


def test_a_page_is_sent_what_has_changed_only():
    store = FitStore()
    told = [
        ServerStart((100, 300)),
        *(replica_round(r, 1, shard_bytes=(10, 40), cache_memory_bytes=5) for r in range(2)),
        round_end(1, 1, staleness_histogram=(2,)),
        Recovery(1.5, "a shard replaced"),
    ]
    store.handle(message(*told), now=100.0)
    plots, changed = {name: make() for name, make in PLOTS.items()}, []
    for name, plot in plots.items():
        for renderer in plot.figure.renderers:
            renderer.data_source.on_change("data", lambda attr, old, new, name=name: changed.append(name))
    assert sent(store, plots, changed) == set(plots)
    assert sent(store, plots, changed) == set()
    later = message(*(replica_round(r, 2) for r in range(2)), round_end(1, 2, staleness_histogram=(0, 2)))
    store.handle(later, now=103.0)
    assert {"loss", "clocks", "staleness", "replicas"} <= sent(store, plots, changed) <= set(plots) - {"recoveries"}


def sent(store, plots, changed):
    """Of which plots the data are sent when the page is brought up to date."""
    changed.clear()
    for plot in plots.values():
        plot.update(store.find())
    return set(changed)
