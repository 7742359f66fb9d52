"""What rounds cost, by who pays for it."""

import psutil
import pytest

from benchmarks import _rounds
from benchmarks._apart import PARTS, apart


@pytest.mark.slow
def test_driver_scheduler_and_workers_are_told_apart():
    (figure,) = _rounds.separate([(_rounds.AVERAGING, 2, 20)])
    cost = _rounds.parts_cost(figure)
    assert tuple(cost) == PARTS and all(seconds > 0 for seconds in cost.values())
    assert len(_rounds._parts_row(figure)) == len(_rounds.APART_HEADINGS)


@pytest.mark.slow
def test_nothing_of_a_cluster_apart_is_left():
    with apart(2) as parts:
        assert len(parts.client.nthreads()) == 2
        pids = parts.scheduler.pid, parts.workers.pid
        assert len({*pids, psutil.Process().pid}) == 3
    assert not any(psutil.pid_exists(pid) for pid in pids)
