"""What a fit says when the cluster is gone, or loses the parameters again and again."""

from types import SimpleNamespace

import pytest
from distributed.client import CancelledFuturesGroup, FuturesCancelledError

from daskdml.strategies import DaskRunner, _dask


@pytest.fixture(autouse=True)
def no_fatal_block(monkeypatch):
    monkeypatch.setattr(_dask, "give_up_on_fatal_blocks", lambda *_: None)


def runner(status):
    """A runner whose every epoch is lost, with a client of this status."""
    one = object.__new__(DaskRunner)
    one.client = SimpleNamespace(status=status, scheduler=SimpleNamespace(address="tcp://there:8786"))
    one.attempts, one.data, one.plan, one._chains = [], None, None, []

    def lost(*_):
        one.attempts.append(1)
        raise FuturesCancelledError([CancelledFuturesGroup([], "lost")])

    one._epoch, one._job_again = lost, lambda: None
    one.told = []
    one.on_loss = one.told.append
    return one


@pytest.mark.parametrize("status", ["connecting", "closed"])
def test_a_lost_scheduler_is_named_at_once(status):
    one = runner(status)
    with pytest.raises(RuntimeError, match="connection to the scheduler at tcp://there:8786 was lost") as caught:
        one.epoch(None, [], None, None)
    assert len(one.attempts) == 1 and "0x" not in str(caught.value)


def test_an_epoch_lost_too_often_is_told_without_objects():
    one = runner("running")
    with pytest.raises(RuntimeError, match="lost the parameters of this epoch 6 times, the limit") as caught:
        one.epoch(None, [], None, None)
    assert len(one.attempts) == 6 and len(one.told) == 5 and "0x" not in str(caught.value)
