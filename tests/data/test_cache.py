"""The block cache: pinned, on disk, or made again; never wrong, never left behind."""

import errno
import os
import threading
import time
import warnings
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from daskdml.data import Block, CacheSpec, Target, _files, _writing, as_dataset, cache_usage, release_cache, stream
from daskdml.data import _cache as cache_module
from daskdml.data import _stream as stream_module
from daskdml.data._buffers import ALIGN, Buffers
from tests.data.containers import P, X, Y, dense

BLOCK = 6 * (P + 1) * 8


@pytest.fixture
def data():
    made = as_dataset(X, Y, target=Target(), block_rows=6)
    yield made
    release_cache(made.token)


@pytest.fixture(autouse=True, params=[0, 2**20], ids=["written beside", "written at once"])
def size_from_which_files_are_written_beside(request, monkeypatch):
    monkeypatch.setattr(cache_module, "_SMALL", request.param)
    # No disk is too slow, but where a test says so.
    monkeypatch.setattr(_writing, "_PATIENCE", 60)
    return request.param


def sources(data, spec, **options):
    found, rows = [], []
    with stream(data, cache=spec, **options) as blocks:
        for block, load in blocks:
            found.append(load.source)
            rows.append(np.column_stack([dense(block.X), block.y]))
    np.testing.assert_array_equal(np.concatenate(rows), np.column_stack([X, Y]))
    return found


def test_everything_fits_in_memory(data):
    spec = CacheSpec(data.token, 10**6)
    assert sources(data, spec) == ["recipe"] * 4
    assert sources(data, spec) == ["memory"] * 4
    assert cache_usage(data.token) == {
        "memory_bytes": 23 * (P + 1) * 8,
        "memory_blocks": 4,
        "disk_bytes": 0,
        "disk_blocks": 0,
    }


def test_the_first_blocks_are_pinned_and_the_rest_are_files(data, tmp_path):
    spec = CacheSpec(data.token, 2 * BLOCK, directory=str(tmp_path))
    for epoch in range(3):
        assert sources(data, spec) == (["memory", "memory", "disk", "disk"] if epoch else ["recipe"] * 4)
    usage = cache_usage(data.token)
    assert (usage["memory_blocks"], usage["disk_blocks"]) == (2, 2)
    assert usage["memory_bytes"] == 2 * BLOCK
    release_cache(data.token)
    assert cache_usage(data.token)["memory_blocks"] == 0
    assert not list(tmp_path.iterdir())


def test_budgets_are_kept(data, tmp_path):
    spec = CacheSpec(data.token, BLOCK, disk_bytes=BLOCK, directory=str(tmp_path))
    sources(data, spec)
    assert sources(data, spec) == ["memory", "disk", "recipe", "recipe"]
    release_cache(data.token)
    spec = CacheSpec(data.token, 0, disk_bytes=0, directory=str(tmp_path))
    sources(data, spec)
    assert sources(data, spec) == ["recipe"] * 4
    assert not list(tmp_path.iterdir())


def test_the_memory_budget_is_the_processs_not_the_data_sets(data):
    other = as_dataset(X, Y, target=Target(), block_rows=6)
    sources(other, CacheSpec(other.token, 3 * BLOCK))
    sources(data, CacheSpec(data.token, 3 * BLOCK, disk_bytes=0))
    assert cache_usage(data.token)["memory_blocks"] == 0
    release_cache(other.token)
    sources(data, CacheSpec(data.token, 3 * BLOCK, disk_bytes=0))
    assert cache_usage(data.token)["memory_blocks"] == 3


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csr_array])
def test_sparse_blocks_and_weights_come_back_from_files(kind, tmp_path):
    data = as_dataset(kind(X), Y, np.arange(23.0), target=Target(np.arange(3)), dtype=np.float32, block_rows=6)
    spec = CacheSpec(data.token, 0, directory=str(tmp_path))
    made = [[b for b, _ in iter_all(data, spec)] for _ in range(2)]
    for first, second in zip(*made, strict=True):
        assert type(second.X) is type(first.X)
        assert (second.X != first.X).nnz == 0
        assert second.X.indices.dtype == np.int32
        assert second.X.has_canonical_format
        np.testing.assert_array_equal(second.y, first.y)
        np.testing.assert_array_equal(second.sample_weight, first.sample_weight)
    release_cache(data.token)


def iter_all(data, spec):
    with stream(data, cache=spec) as blocks:
        yield from blocks


def test_a_block_read_back_is_not_overwritten_while_it_is_held(data, tmp_path):
    spec = CacheSpec(data.token, 0, directory=str(tmp_path))
    sources(data, spec)
    held = [b for b, _ in iter_all(data, spec)]
    np.testing.assert_array_equal(np.concatenate([b.X for b in held]), X)


def test_buffers_are_reused_once_nobody_holds_them():
    buffers = Buffers()
    first = buffers.take(1000)
    address = first.ctypes.data
    view = first[:10].view(np.float16)
    del first
    second = buffers.take(1000)
    other = second.ctypes.data
    assert other != address
    del view, second
    assert buffers.take(990).ctypes.data in (address, other)
    assert buffers.has(990) and buffers.has(1000) and not buffers.has(10**6)
    held = [buffers.take(1000) for _ in range(2)]
    assert not buffers.has(990)
    assert all(b.nbytes >= 1000 and b.ctypes.data % 4096 == 0 for b in held)


def test_blocks_lie_where_earlier_ones_did_also_while_files_are_written(tmp_path):
    rows = 2**17
    frame = dd.from_pandas(pd.DataFrame(np.ones((16 * rows, 10), np.float32)), npartitions=16)
    data = as_dataset(frame, target=None)
    seen = []
    with stream(data, cache=CacheSpec(data.token, 0, directory=str(tmp_path))) as blocks:
        for block, load in blocks:
            assert load.source == "recipe"
            seen.append(block.X.ctypes.data)
            del block
    release_cache(data.token)
    # The caller's, the one that is made, the one that is written, and the one that waits for that.
    assert len(seen) == 16 and len(set(seen)) <= 4


@pytest.fixture
def slow_disk(monkeypatch, size_from_which_files_are_written_beside):
    """Writes that wait to be let go, and the list of those that were begun."""
    if size_from_which_files_are_written_beside:
        pytest.skip("files that are written at once are waited for anyway")
    free, begun, write = threading.Semaphore(0), [], _files.write

    def slow(directory, block, straight):
        begun.append(block.index)
        free.acquire()
        return write(directory, block, straight)

    monkeypatch.setattr(_files, "write", slow)
    monkeypatch.setattr(_writing, "_PATIENCE", 0.01)
    return free, begun


def test_training_does_not_wait_for_a_slow_disk(data, tmp_path, slow_disk):
    free, begun = slow_disk
    spec = CacheSpec(data.token, 0, directory=str(tmp_path))
    with stream(data, cache=spec) as blocks:
        rows = [next(blocks)[0].X for _ in range(4)]
        assert begun == [0]
        # The one under way is waited for at the end, the last that came is not.
        free.release(4)
    np.testing.assert_array_equal(np.concatenate(rows), X)
    kept = cache_usage(data.token)["disk_blocks"]
    assert kept == len(begun) and begun in ([0], [0, 3])
    # What the disk had no time for is made again, and kept then.
    assert sources(data, spec).count("recipe") == 4 - kept
    free.release(4)
    assert sources(data, spec) == ["disk"] * 4
    assert cache_usage(data.token)["disk_bytes"] == sum(p.stat().st_size for p in tmp_path.rglob("*.block"))


def test_a_block_given_up_by_a_slow_disk_counts_no_more_against_its_budget(data, tmp_path, slow_disk):
    free, begun = slow_disk
    two = -(-BLOCK // 64) * 64 * 2
    spec = CacheSpec(data.token, 0, disk_bytes=two, directory=str(tmp_path))
    with stream(data, cache=spec) as blocks:
        for _ in range(4):
            next(blocks)
        free.release(4)
    free.release(8)
    sources(data, spec)
    assert cache_usage(data.token)["disk_blocks"] == 2


def test_a_slow_disk_is_waited_for_where_memory_has_no_room_for_more(data, tmp_path, slow_disk, monkeypatch):
    free, begun = slow_disk
    writing = _writing.Writing(lambda nbytes: False)
    monkeypatch.setattr(stream_module, "Writing", lambda has_room: writing)
    spec = CacheSpec(data.token, 0, directory=str(tmp_path))
    with stream(data, cache=spec) as blocks:
        next(blocks), next(blocks)
        third = threading.Thread(target=next, args=(blocks,))
        third.start()
        third.join(0.3)
        # Two blocks there are already, and one more would be too many: the first is not written yet.
        assert third.is_alive() and begun == [0]
        free.release(4)
        third.join(10)
        assert not third.is_alive()
        next(blocks)
    assert sorted(begun) == [0, 1, 2, 3] and cache_usage(data.token)["disk_blocks"] == 4
    free.release(4)
    assert sources(data, spec) == ["disk"] * 4


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_write_that_fails_does_not_hold_up_the_next():
    writing, done, go = _writing.Writing(), [], threading.Event()

    def fail():
        go.wait(10)
        raise RuntimeError("not an error of the disk")

    def write(name, run):
        writing.begin(_writing.Write(run, lambda: done.append(f"{name} given up")), 1)

    write("first", fail)
    write("second", lambda: done.append("second written"))
    ending = threading.Thread(target=writing.end, daemon=True)
    ending.start()
    go.set()
    ending.join(10)
    assert not ending.is_alive()
    write("third", lambda: done.append("third written"))
    writing.end()
    assert done == ["second given up", "third written"]


@pytest.mark.parametrize("lies", ["anywhere", "at a page"])
@pytest.mark.parametrize("n", [1, 511, 4096, 2**19 - 1, 2**19, 2**20 + 3])
def test_a_file_written_straight_to_the_disk_is_the_same_file(tmp_path, n, lies):
    rng = np.random.default_rng(n)
    start = 0 if lies == "at a page" else ALIGN
    X = Buffers().take(8 * n + ALIGN)[start : start + 8 * n].view(float).reshape(n, 1)
    X[:] = rng.random((n, 1))
    block = Block(3, X, rng.random(n).astype(np.float32), None)
    stored = [_files.write(str(tmp_path), block, straight) for straight in (False, True)]
    assert stored[0].nbytes == stored[1].nbytes and stored[0].layout == stored[1].layout
    assert Path(stored[0].path).read_bytes() == Path(stored[1].path).read_bytes()
    again = _files.read(3, stored[1], Buffers())
    np.testing.assert_array_equal(again.X, block.X)
    np.testing.assert_array_equal(again.y, block.y)


@pytest.mark.parametrize(("start", "copied"), [(0, ALIGN), (ALIGN, 2**20 + ALIGN)])
def test_what_lies_at_a_page_is_written_from_there(tmp_path, start, copied, monkeypatch):
    taken, pieces = [], _files._pieces
    monkeypatch.setattr(_files, "_pieces", lambda *given: (taken.append(n) or n for n in pieces(*given)))
    X = Buffers().take(2**20 + ALIGN)[start : start + 2**20].view(np.float32).reshape(-1, 16)
    X[:] = 1
    stored = _files.write(str(tmp_path), Block(0, X, np.ones(16, np.float32)), straight=True)
    if not taken:
        pytest.skip("no file goes straight to this disk")
    assert sum(taken) == copied
    np.testing.assert_array_equal(_files.read(0, stored, Buffers()).X, X)


@pytest.mark.parametrize("cannot", ["system", "file system"])
def test_where_nothing_goes_straight_to_the_disk_files_are_written_all_the_same(tmp_path, cannot, monkeypatch):
    if cannot == "system":
        monkeypatch.delattr(os, "O_DIRECT", raising=False)
    else:
        given = os.open

        def refuse(path, flags, *mode):
            if flags & getattr(os, "O_DIRECT", 0):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            return given(path, flags, *mode)

        monkeypatch.setattr(os, "open", refuse)
    stored = _files.write(str(tmp_path), Block(0, X), straight=True)
    np.testing.assert_array_equal(_files.read(0, stored, Buffers()).X, X)
    assert [path.name for path in tmp_path.iterdir()] == [Path(stored.path).name]


def test_the_first_files_go_through_the_systems_memory_and_the_others_past_it(data, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "_THROUGH_MEMORY", 2 * BLOCK)
    seen, write = [], _files.write
    monkeypatch.setattr(_files, "write", lambda *given: seen.append(given[-1]) or write(*given))
    spec = CacheSpec(data.token, 0, directory=str(tmp_path))
    assert sources(data, spec) == ["recipe"] * 4
    beside = cache_module._SMALL == 0
    assert seen == [False, False, beside, beside]
    assert sources(data, spec) == ["disk"] * 4


@pytest.fixture
def known_at_once(monkeypatch):
    """A pace is known by the first bytes."""
    monkeypatch.setattr(_writing, "_KNOWN", 1)


def make_slowly(data, monkeypatch):
    kind = type(data.recipes[0])
    resolve = kind.resolve
    monkeypatch.setattr(kind, "resolve", lambda *given: time.sleep(0.1) or resolve(*given))


def test_what_is_made_as_fast_as_a_copy_gets_no_file(data, tmp_path, monkeypatch, known_at_once):
    monkeypatch.setattr(_writing, "_COPIED", 1.0)
    spec = CacheSpec(data.token, 0, directory=str(tmp_path))
    for _ in range(2):
        assert sources(data, spec) == ["recipe"] * 4
    assert not list(tmp_path.iterdir())


def test_what_takes_longer_is_worth_a_slow_disk(data, tmp_path, monkeypatch, known_at_once):
    write = _files.write
    monkeypatch.setattr(_files, "write", lambda *given: time.sleep(0.05) or write(*given))
    make_slowly(data, monkeypatch)
    spec = CacheSpec(data.token, 0, directory=str(tmp_path))
    assert sources(data, spec) == ["recipe"] * 4
    assert sources(data, spec) == ["disk"] * 4


def test_a_full_disk_is_told_once_and_training_goes_on(data, tmp_path, monkeypatch):
    def full(file, view):
        file.write(view[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_files, "_write_all", full)
    spec = CacheSpec(data.token, BLOCK, directory=str(tmp_path))
    with pytest.warns(RuntimeWarning, match="keeps no further blocks on disk.*No space left on device") as caught:
        assert sources(data, spec) == ["recipe"] * 4
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sources(data, spec) == ["memory", "recipe", "recipe", "recipe"]
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_short_file_is_made_again(data, tmp_path):
    spec = CacheSpec(data.token, 0, directory=str(tmp_path))
    sources(data, spec)
    victim = sorted(tmp_path.rglob("1-*.block"))[0]
    os.truncate(victim, 10)
    with pytest.warns(RuntimeWarning, match="has 10 bytes, not"):
        assert sources(data, spec) == ["disk", "recipe", "disk", "disk"]
    assert not victim.exists()


def test_files_that_went_with_their_worker_are_a_miss(data, tmp_path):
    spec = CacheSpec(data.token, 0, directory=str(tmp_path))
    sources(data, spec)
    for path in tmp_path.rglob("*.block"):
        path.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sources(data, spec) == ["recipe"] * 4
    assert sources(data, spec) == ["disk"] * 4


@pytest.mark.parametrize("memory", [10**6, 0], ids=["memory", "disk"])
def test_a_late_task_of_a_fit_that_is_over_leaves_nothing(data, tmp_path, memory):
    spec = CacheSpec(data.token, memory, directory=str(tmp_path), lease="fit-1")
    with stream(data, cache=spec, prefetch=0) as blocks:
        next(blocks)
        release_cache(data.token, "fit-1")
        assert sum(1 for _ in blocks) == 3
    assert sources(data, spec) == ["recipe"] * 4
    assert sources(data, spec) == ["recipe"] * 4
    assert not any(cache_usage(data.token).values())
    assert not os.listdir(tmp_path)
    # Whoever fits the same data set next keeps it.
    spec = CacheSpec(data.token, memory, directory=str(tmp_path), lease="fit-2")
    assert sources(data, spec) == ["recipe"] * 4
    assert "recipe" not in sources(data, spec)


@pytest.mark.parametrize("memory", [10**6, 0], ids=["memory", "disk"])
def test_a_block_that_is_made_while_the_fit_ends_is_not_kept(data, tmp_path, memory):
    cache = cache_module.BlockCache()
    spec = CacheSpec(data.token, memory, directory=str(tmp_path), lease="fit-1")

    def make():
        cache.release(data.token, "fit-1")
        return data.recipes[0].resolve()

    block, source = cache.get(spec, 0, make, Buffers(), None)
    assert (block.n_rows, source) == (6, "recipe")
    assert not any(cache.usage(data.token).values()) and not cache.tokens()
    assert not os.listdir(tmp_path)


def test_what_a_client_that_is_gone_left_is_freed_and_nobody_elses(data, tmp_path):
    other = as_dataset(X, Y, target=Target(), block_rows=6)
    gone = CacheSpec(data.token, 2 * BLOCK, directory=str(tmp_path), lease=f"Client-1/{tmp_path.name}")
    sources(data, gone)
    sources(other, CacheSpec(other.token, 5 * BLOCK, directory=str(tmp_path), lease=f"Client-2/{tmp_path.name}"))
    cache_module.release_abandoned(["Client-1", "Client-2"])
    assert cache_usage(data.token)["memory_blocks"] == 2 and cache_usage(data.token)["disk_blocks"] == 2
    cache_module.release_abandoned(["Client-2"])
    assert not any(cache_usage(data.token).values())
    assert cache_usage(other.token)["memory_blocks"] == 3
    assert sources(data, gone) == ["recipe"] * 4 and not any(cache_usage(data.token).values())
    # Who named no client decides for himself.
    sources(data, CacheSpec(data.token, 0, directory=str(tmp_path)))
    cache_module.release_abandoned([])
    assert cache_usage(data.token)["disk_blocks"] == 4 and not any(cache_usage(other.token).values())


def test_two_threads_that_miss_the_same_block_make_it_once(data):
    made, cache = [], cache_module.BlockCache()
    entered, go = threading.Event(), threading.Event()
    spec = CacheSpec(data.token, 0, disk_bytes=0)

    def make():
        made.append(1)
        entered.set()
        assert go.wait(30)
        return data.recipes[0].resolve()

    results = []
    threads = [
        threading.Thread(target=lambda: results.append(cache.get(spec, 0, make, Buffers(), None))) for _ in range(2)
    ]
    threads[0].start()
    assert entered.wait(30)
    threads[1].start()
    go.set()
    for thread in threads:
        thread.join()
    # The second may have come when all was over; together they never made it at the same time.
    assert len(made) == [source for _, source in results].count("recipe")
    assert len(results) == 2


def test_an_error_while_making_is_everybodys_and_leaves_no_trace(data):
    cache, spec = cache_module.BlockCache(), CacheSpec(data.token, 10**6)

    def fail():
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            cache.get(spec, 0, fail, Buffers(), None)
    assert cache.get(spec, 0, data.recipes[0].resolve, Buffers(), None)[1] == "recipe"


def test_pinning_a_slice_does_not_pin_the_whole(data):
    whole = data.recipes[0].resolve().X
    while whole.base is not None:
        whole = whole.base
    sources(data, CacheSpec(data.token, 10**6))
    with stream(data, cache=CacheSpec(data.token, 10**6)) as blocks:
        block, _ = next(blocks)
    assert not np.shares_memory(block.X, whole)


def test_in_a_worker_files_lie_in_its_local_directory(client, data):
    def walk(recipes, token):
        from distributed import get_worker

        with stream(recipes, cache=CacheSpec(token, 0)) as blocks:
            n = sum(block.n_rows for block, _ in blocks)
        return n, [d for d in os.listdir(get_worker().local_directory) if "daskdml" in d]

    rows, found = client.submit(walk, list(data.recipes), data.token).result()
    assert rows == 23
    assert found == [f"daskdml-blocks-{data.token}-{os.getpid()}"]


def test_what_is_left_is_removed_at_exit(data, monkeypatch):
    sources(data, CacheSpec(data.token, 0))
    place = cache_module._temporary_directory
    assert os.path.isdir(place)
    cache_module._cleanup()
    assert not os.path.exists(place)
    assert cache_usage(data.token)["disk_blocks"] == 0
