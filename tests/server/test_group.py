"""Shards and ledger as actors of real worker processes: second copies, losses, moves."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from daskdml.cluster import retire
from daskdml.server import (
    Group,
    Ledger,
    Lost,
    Partition,
    Push,
    Refused,
    Remote,
    Shard,
    Table,
    Ticket,
    Unreachable,
    Update,
    VectorClock,
)
from daskdml.server._actors import ShardHost

TABLES = (Table("w", 5000, "float64"),)
ONES = {"w": Update(np.ones(2500))}


@pytest.fixture
def start(process_client):
    """Make a group of two shards, with all second copies in place."""
    groups = []

    def make(n_workers=3, **options):
        client = process_client(n_workers)
        client.wait_for_workers(n_workers)
        group = Group(client, **options)
        groups.append(group)
        values = Partition(TABLES, 2).cut({"w": np.zeros(5000)})
        shards = [Shard(i, v, TABLES, VectorClock(range(2)), staleness=None) for i, v in enumerate(values)]
        group.start(shards, Ledger(2, 1, None))
        return client, group

    yield make
    for group in groups:
        group.close()


def push(group, clock, lane=0, runner=0, shard=0):
    return group.push(shard, Push(0, runner, Ticket(1, clock, lane), ONES))


def kill(client, address):
    pids = client.run(os.getpid, workers=[address])
    os.kill(pids[address], signal.SIGKILL)


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_copies_are_on_different_workers_and_many(start):
    _, group = start()
    directory = group.directory
    assert None not in directory.backups
    assert all(a.address != b.address for a, b in zip(directory.primaries, directory.backups, strict=True))
    assert len({ref.address for ref in directory.primaries}) == 2


def test_no_acknowledged_update_is_lost_and_none_counts_twice(start):
    client, group = start()
    first = group.directory.primaries[0]
    for clock in range(10):
        push(group, clock)
    kill(client, first.address)
    for clock in range(5, 20):
        push(group, clock)
    view = group.views()[0]["w"]
    assert (view == 20).all()
    assert group.directory.primaries[0] != first
    until(lambda: group.tend() and None not in group.directory.backups)


def test_an_answer_does_not_wait_for_what_only_the_driver_can_mend(start):
    client, group = start()
    primary, backup = group.directory.primaries[0], group.directory.backups[0]
    push(group, 0)
    kill(client, backup.address)
    # Until it is told to go on without a second copy, the primary keeps this update, and whoever asks, waiting.
    pushed = Remote(client).start(primary, "push", Push(0, 0, Ticket(1, 1, 0), ONES))
    time.sleep(0.1)
    began = time.monotonic()
    assert (group.snapshot()[0]["values"]["w"] >= 1).all()
    assert time.monotonic() - began < 10, "a call's own time-out is 30 s"
    assert pushed.result(10).status == "applied"
    assert group.directory.backups[0] != backup


def test_a_backup_knows_who_brought_a_duplicate(start):
    client, group = start()
    for runner in (0, 1):
        push(group, 0, runner=runner)
    first = group.directory.primaries[0]
    group.move_off(first.address)
    view = Remote(client).call(group.directory.primaries[0], "pull", None, None)
    assert view.runners == {0: 1, 1: 1}


def test_a_replaced_primary_serves_nobody(start):
    client, group = start()
    first, backup = group.directory.primaries[0], group.directory.backups[0]
    remote = Remote(client)
    remote.call(backup, "promote", 1000)
    with pytest.raises((Refused, Unreachable)):
        remote.call(first, "push", Push(0, 0, Ticket(1, 0, 0), ONES))
    with pytest.raises((Refused, Unreachable)):
        remote.call(first, "pull", None, None)
    assert (remote.call(backup, "pull", None, None).values["w"] == 0).all()


def test_the_ledger_is_made_again_from_the_shards(start):
    client, group = start()
    group.ledger("open", 1, 0, 3)
    claim = group.ledger("claim", 7, 0, [], 1.0)
    for shard in (0, 1):
        group.push(shard, Push(0, 7, claim.ticket, ONES))
    kill(client, group.directory.ledger.address)
    until(lambda: group.tend() and group.ledger("claim", 8, 0, [], 0.1).ticket is not None)
    # What the shards have applied is not handed out again.
    assert group.ledger("claim", 9, 0, [], 0.1).ticket != claim.ticket


def test_without_a_second_copy_the_loss_is_told(start):
    client, group = start(2, backups=0)
    kill(client, group.directory.primaries[0].address)
    with pytest.raises(Lost, match="no other worker has a copy"):
        until(lambda: group.tend() and False, 10)


def test_a_worker_is_emptied_and_retired(start):
    client, group = start()
    for clock in range(3):
        push(group, clock)
    address = group.directory.primaries[0].address
    over = threading.Event()

    def tend():
        while not over.wait(0.02):
            group.tend()

    tending = threading.Thread(target=tend)
    tending.start()
    try:
        assert retire(address, client) == [address]
    finally:
        over.set()
        tending.join()
    assert all(ref.address != address for ref in group.directory.hosts)
    assert (group.views()[0]["w"] == 3).all()


def test_an_attempt_to_retire_a_worker_succeeds_when_repeated(start):
    client, group = start()
    address = group.directory.primaries[0].address
    assert address not in client.retire_workers([address])
    until(lambda: group.tend() and all(ref.address != address for ref in group.directory.hosts))
    # As adapt() does: it asks again until Dask agrees.
    until(lambda: address in client.retire_workers([address]))


def test_an_actor_that_is_not_wanted_any_more_before_it_began_does_not_bind_its_worker(start):
    client, group = start()
    addresses = [address for address in client.nthreads() if address != group.directory.primaries[0].address]
    refs = [group._begin(ShardHost, address) for address in addresses]
    for ref in refs:
        group._forget(ref)
    until(lambda: group.tend() and not group._unwanted)

    def counted(dask_scheduler):
        return {ts.key for ws in dask_scheduler.workers.values() for ts in ws.actors}

    until(lambda: not {ref.key for ref in refs} & client.run_on_scheduler(counted))


def test_with_one_worker_about_to_leave_nothing_is_put_on_it(start):
    client, group = start(2)
    address = group.directory.primaries[0].address
    group.move_off(address)
    for _ in range(20):
        group.tend()
        time.sleep(0.02)
    assert all(ref.address != address for ref in group.directory.hosts)


def test_reports_move_with_the_ledger(start):
    client, group = start()
    group.ledger("open", 1, 0, 3)
    ticket = group.ledger("claim", 7, 0, [], 1.0).ticket
    group.ledger("done", 7, ticket, "what it did")
    old = group.directory.ledger
    group.move_off(old.address)
    assert group.directory.ledger != old
    assert group.news(1.0).done == [(ticket, "what it did")]
    # What is done stays so.
    assert group.ledger("claim", 7, 0, [], 1.0).ticket != ticket
