from types import SimpleNamespace

import pytest

from daskdml.data import _allocator


def callbacks(dask_worker):
    return [name for name in dask_worker.periodic_callbacks if name == _allocator._NAME]


def test_a_worker_with_a_limit_is_watched_once(process_client):
    client = process_client(1, memory_limit="1GB")
    for _ in range(2):
        client.run(lambda dask_worker: _allocator.settle(dask_worker))
    (found,) = client.run(callbacks).values()
    assert len(found) == 1


@pytest.mark.parametrize(("limit", "large"), [(7e8, 4 * 2**20), (1e9, 32 * 2**20)])
def test_what_decoding_takes_is_kept_where_there_is_room(monkeypatch, limit, large):
    seen = []
    monkeypatch.setattr(_allocator, "return_large_allocations", seen.append)
    loop = SimpleNamespace(add_callback=lambda *given: None)
    _allocator.settle(
        SimpleNamespace(memory_manager=SimpleNamespace(memory_limit=limit), periodic_callbacks={}, loop=loop)
    )
    assert seen == [large]


def test_a_worker_without_a_limit_is_left_as_it_is():
    worker = SimpleNamespace(memory_manager=SimpleNamespace(memory_limit=None), periodic_callbacks={})
    _allocator.settle(worker)
    assert not worker.periodic_callbacks


@pytest.mark.parametrize(
    ("resident", "nbytes", "trims"), [(90, 2**30, 1), (50, 2**30, 0), (90, 100, 0)], ids=["full", "room", "small"]
)
def test_memory_is_returned_near_the_limit_only(monkeypatch, resident, nbytes, trims):
    calls = []
    monkeypatch.setattr(_allocator, "_resident", lambda: resident)
    monkeypatch.setattr(_allocator, "_libc", lambda: SimpleNamespace(malloc_trim=calls.append))
    _allocator.give_back(100, nbytes)
    assert len(calls) == trims
