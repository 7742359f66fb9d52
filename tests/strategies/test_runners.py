"""Runners that are gone stay gone, whichever ledger hands out the work."""

from types import SimpleNamespace

from daskdml.server import Changes
from daskdml.strategies._runners import Runners, _Running


class Group:
    """Notes what a ledger is told."""

    def __init__(self):
        self.directory = SimpleNamespace(ledger="first")
        self.told = []

    def ledger(self, method, *args):
        self.told.append((self.directory.ledger, method, *args))


def test_a_ledger_that_takes_anothers_place_hears_who_is_gone(monkeypatch):
    runners = Runners(None, SimpleNamespace(self_contained=True), "token", str)
    group = runners._group = Group()
    runners._lanes = 2
    monkeypatch.setattr(runners, "_spawn", lambda lane: None)
    runners._running = {4: _Running(0, "a", SimpleNamespace(status="finished")), 5: _Running(1, "a", pending())}
    present = Changes(present={"a"})
    runners.tend(present)
    first = [call for call in group.told if call[1:] == ("leave", 4)]
    assert first and not any(call[2] == 5 for call in group.told)
    group.told.clear()
    runners.tend(present)
    assert not group.told
    group.directory.ledger = "second"
    runners.tend(present)
    assert group.told == [("second", "leave", 4)]
    runners.tend(present)
    assert len(group.told) == 1


def pending():
    return SimpleNamespace(status="pending")
