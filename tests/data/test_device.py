"""Blocks on a GPU: what is planned, what is kept, how it is moved. A fake card stands in for one."""

import gc
import sys
from types import ModuleType, SimpleNamespace

import array_api_strict
import numpy as np
import pytest
from numba import cuda as _cuda  # noqa: F401 (imported before a test puts other modules in its place)

from daskdml.data import (
    CacheSpec,
    CardInfo,
    DeviceSpec,
    Schema,
    Target,
    as_dataset,
    cache_usage,
    device_usage,
    on_host,
    plan_device,
    release_cache,
    require_cards,
    stream,
)
from daskdml.data import _stream as streaming
from daskdml.data._checks import all_finite_there
from daskdml.data._decode import column, device_matrix, matrix
from daskdml.data._device import DeviceTier
from daskdml.numerics import DenseRows, DeviceBlock
from daskdml.numerics.cuda import Mover

GB = 2**30
F4 = np.dtype("f4")


def card_of(pid=1, name="card 0", free=10 * GB, host="a"):
    return CardInfo(host, pid, name, free, 80 * GB)


# -- planning ------------------------------------------------------------------------------------------


def plan(*cards, rows=1_000_000, **kwargs):
    return plan_device("t", cards, Schema(100, F4), rows, 0, **kwargs)


def test_what_is_left_beside_two_blocks_is_kept():
    spec = plan(card_of())
    assert spec.cache_bytes == int(0.9 * 10 * GB) - 2 * 1_000_000 * 102 * 4
    assert spec.max_block_bytes >= 1_000_000 * 102 * 4


def test_processes_that_share_a_card_divide_it_and_threads_do_not():
    alone = plan(card_of(1), card_of(2, "card 1"))
    shared = plan(card_of(1), card_of(2))
    assert plan(card_of(1), card_of(1)) == alone
    assert shared.cache_bytes < alone.cache_bytes / 1.8


def test_the_card_with_least_decides():
    assert plan(card_of(1), card_of(2, "card 1", free=2 * GB)) == plan(card_of(2, "card 1", free=2 * GB))


def test_a_block_that_has_no_room_is_refused_with_the_rows_that_would_have():
    with pytest.raises(
        ValueError, match=r"block 0 needs 38.91 MiB on the GPU, .* rechunk X to at most \d+ rows"
    ) as told:
        plan(card_of(free=2**24), rows=100_000)
    rows = int(str(told.value).split("at most ")[1].split()[0])
    assert plan(card_of(free=2**24), rows=rows).max_block_bytes >= rows * 408


def test_of_blocks_of_unknown_size_each_is_checked():
    spec = plan(card_of(free=10**6), rows=None)
    block = SimpleNamespace(index=3, nbytes=10**6, n_rows=1000)
    with pytest.raises(ValueError, match=r"block 3 needs .* at most 225 rows"):
        spec.check(block)


def test_a_declared_budget_is_kept_and_one_that_is_too_large_refused():
    assert plan(card_of(), budget="1GB").cache_bytes == 10**9
    assert plan(card_of(), budget=0).cache_bytes == 0
    with pytest.raises(ValueError, match="device_memory='20GB' is more than a worker's share"):
        plan(card_of(), budget="20GB")
    with pytest.raises(ValueError, match="device_memory must be a number of bytes"):
        plan(card_of(), budget="much")


def test_without_cards_there_is_no_plan_and_cuda_is_refused():
    assert plan() is None
    with pytest.raises(RuntimeError, match=r"none of 2 workers has one that can be used \(a: no driver\)"):
        require_cards({"a": "no driver", "b": "no numba"})
    assert require_cards({"a": "no driver", "b": card_of()}) == [card_of()]


# -- what stays ----------------------------------------------------------------------------------------


def test_the_first_that_fit_stay_and_nothing_is_evicted():
    tier, spec = DeviceTier(), DeviceSpec("t", 100, 100)
    promised = [tier.reserve(spec, i, size) for i, size in enumerate((60, 60, 30, 20, 10))]
    assert promised == [True, False, True, False, True]
    assert not tier.reserve(spec, 0, 60)
    tier.cancel("t", 0)
    assert tier.reserve(spec, 5, 60)


def test_the_budget_is_the_processs_not_the_data_sets():
    tier = DeviceTier()
    assert tier.reserve(DeviceSpec("a", 100, 100), 0, 80)
    assert not tier.reserve(DeviceSpec("b", 100, 100), 0, 80)
    tier.release("a")
    assert tier.reserve(DeviceSpec("b", 100, 100), 0, 80)


def test_a_block_that_comes_after_the_release_is_not_kept():
    tier, spec = DeviceTier(), DeviceSpec("t", 100, 100)
    tier.reserve(spec, 0, 10)
    tier.release("t")
    tier.fill("t", SimpleNamespace(index=0))
    assert tier.get("t", 0) is None


def test_nothing_is_kept_for_a_fit_that_is_over():
    tier, spec = DeviceTier(), DeviceSpec("t", 100, 100, lease="fit-1")
    assert tier.reserve(spec, 0, 10)
    tier.release("t", "fit-1")
    assert not tier.reserve(spec, 1, 10)
    assert tier.reserve(DeviceSpec("t", 100, 100, lease="fit-2"), 1, 10)


def test_what_a_client_that_is_gone_left_on_the_card_is_freed():
    tier = DeviceTier()
    assert tier.reserve(DeviceSpec("a", 100, 100, lease="Client-1/fit"), 0, 80)
    tier.release_abandoned(["Client-1"])
    assert not tier.reserve(DeviceSpec("b", 100, 100, lease="Client-2/fit"), 0, 80)
    tier.release_abandoned(["Client-2"])
    assert tier.reserve(DeviceSpec("b", 100, 100, lease="Client-2/fit"), 0, 80)


class FakeCard:
    """Rows stay where they are; it is noted what came."""

    def __init__(self):
        self.came = []

    def put(self, block, kept=False):
        self.came.append(block.index)
        weight = np.empty(0, block.y.dtype)
        return DeviceBlock(block.index, DenseRows(block.X), block.y, weight, block.X.shape, 0.0, self)


@pytest.fixture
def fake_card(monkeypatch):
    found = FakeCard()
    monkeypatch.setattr(streaming, "card", lambda: found)
    return found


@pytest.fixture
def data():
    X = np.arange(40, dtype="f4").reshape(10, 4)
    made = as_dataset(X, np.arange(10.0), target=Target(), dtype=F4, block_rows=2)
    yield made
    release_cache(made.token)


def sources(data, spec, memory=1000):
    with stream(data, cache=CacheSpec(data.token, memory, disk_bytes=0), device=spec) as blocks:
        return [(block.index, load.source) for block, load in blocks]


def test_a_block_is_on_the_card_or_in_the_host_cache_not_in_both(data, fake_card):
    # A block has 2 rows of 4 features and a target: 40 bytes.
    spec = DeviceSpec(data.token, 90, 1000)
    assert [source for _, source in sources(data, spec)] == ["recipe"] * 5
    assert device_usage(data.token) == {"device_bytes": 80, "device_blocks": 2}
    assert cache_usage(data.token)["memory_blocks"] == 3
    assert sources(data, spec) == [(0, "device"), (1, "device"), (2, "memory"), (3, "memory"), (4, "memory")]
    # What stays came once, the others come each time.
    assert fake_card.came == [0, 1, 2, 3, 4, 2, 3, 4]
    release_cache(data.token)
    assert device_usage(data.token)["device_blocks"] == 0


def test_without_a_card_here_the_device_is_nothing(data, monkeypatch):
    monkeypatch.setattr(streaming, "card", lambda: None)
    with stream(data, device=DeviceSpec(data.token, 1000, 1000)) as blocks:
        assert all(isinstance(block.X, np.ndarray) for block, _ in blocks)


def test_a_block_that_could_not_be_moved_is_not_promised_room(data, fake_card, monkeypatch):
    def fails(block, kept):
        raise MemoryError("the card is full")

    monkeypatch.setattr(fake_card, "put", fails)
    spec = DeviceSpec(data.token, 1000, 1000)
    with pytest.raises(MemoryError, match="the card is full"):
        sources(data, spec)
    monkeypatch.undo()
    monkeypatch.setattr(streaming, "card", lambda: fake_card)
    sources(data, spec)
    assert device_usage(data.token)["device_blocks"] == 5


def test_a_block_that_is_too_large_is_named(data, fake_card):
    with pytest.raises(ValueError, match="block 0 needs 40 B on the GPU"):
        sources(data, DeviceSpec(data.token, 0, 39))


# -- moving --------------------------------------------------------------------------------------------


class SlowBus:
    """A bus that copies when somebody waits: a buffer that is written to before that spoils what was sent."""

    def __init__(self):
        self.under_way = []
        self.most = 0
        self.log = []

    def empty(self, shape, dtype):
        return np.full(shape, 99, dtype)

    def page_locked(self, nbytes):
        self.log.append(("buffer", nbytes))
        return np.zeros(nbytes, np.uint8)

    def send(self, source, target, start):
        self.log.append(("send", start))
        copy = SimpleNamespace(source=source, target=target.reshape(-1), start=start)
        copy.wait = lambda: self.arrive(copy)
        self.under_way.append(copy)
        self.most = max(self.most, len(self.under_way))
        return copy

    def arrive(self, copy):
        # In the order in which they were sent.
        while any(other is copy for other in self.under_way):
            first = self.under_way.pop(0)
            first.target[first.start : first.start + first.source.size] = first.source


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4"])
@pytest.mark.parametrize("size", [0, 1, 8, 17, 100])
def test_every_byte_arrives_though_buffers_are_used_again(size, dtype):
    bus = SlowBus()
    array = np.arange(size, dtype=dtype).reshape(-1, 1)
    assert np.array_equal(Mover(bus, stage_bytes=64).move(array), array)
    assert bus.under_way == []


@pytest.mark.parametrize("size", [1, 17, 1000])
def test_every_byte_arrives_that_several_threads_copy(size):
    bus = SlowBus()
    array = np.arange(size, dtype="f4")
    assert np.array_equal(Mover(bus, stage_bytes=64, threads=3).move(array), array)
    assert bus.under_way == []


class LockingBus(SlowBus):
    def __init__(self, locks=True):
        super().__init__()
        self.locks = locks

    def lock(self, address, nbytes):
        self.log.append(("lock", address, nbytes))
        return self.locks

    def unlock(self, address):
        self.log.append(("unlock", address))


def test_what_the_host_keeps_is_locked_once_and_unlocked_before_its_memory_is_given_back():
    bus = LockingBus()
    mover = Mover(bus, stage_bytes=2**20)
    array = np.arange(2**19, dtype="f4")
    address = array.ctypes.data
    # A view, and one that came from another process: the memory is that array's.
    for view in (array, array.reshape(2**10, -1)[2:9], np.frombuffer(memoryview(array), "f4")):
        assert np.array_equal(mover.move(view, kept=True), view)
    assert [entry for entry in bus.log if entry[0] != "send"] == [("lock", address, 2**21)]
    del array, view
    gc.collect()
    assert bus.log[-1] == ("unlock", address)


@pytest.mark.parametrize("why", ["small", "bytes", "refused"])
def test_what_cannot_be_locked_goes_through_buffers(why):
    bus = LockingBus(locks=why != "refused")
    array = np.arange(2**10 if why == "small" else 2**19, dtype="f4")
    if why == "bytes":
        array = np.frombuffer(array.tobytes(), "f4")
    assert np.array_equal(Mover(bus, stage_bytes=2**20).move(array, kept=True), array)
    del array
    assert [entry[0] for entry in bus.log if "lock" in entry[0]] == (["lock"] if why == "refused" else [])
    assert any(entry[0] == "buffer" for entry in bus.log)


def test_one_buffer_is_filled_while_the_other_is_sent():
    bus = SlowBus()
    mover = Mover(bus, stage_bytes=64)
    mover.move(np.arange(100, dtype="f4"))
    mover.move(np.arange(100, dtype="f8"))
    assert bus.most == 2
    assert [entry for entry in bus.log if entry[0] == "buffer"] == [("buffer", 64)] * 2


# -- what lies on a card already -----------------------------------------------------------------------


@pytest.fixture
def cupy(monkeypatch):
    """A library by that name whose arrays are in the host's memory, and cannot be taken for NumPy's."""

    class Fake:
        def __init__(self, array):
            self.array = array
            self.ndim, self.shape, self.dtype, self.nbytes = array.ndim, array.shape, array.dtype, array.nbytes

        def __array__(self, *args, **kwargs):
            raise TypeError("Implicit conversion to a NumPy array is not allowed")

        def get(self):
            return self.array

        def astype(self, dtype, order, copy):
            return self if self.dtype == dtype else Fake(self.array.astype(dtype, order=order))

        def reshape(self, *shape):
            return Fake(self.array.reshape(*shape))

    # As CuPy's, up to 14.2: they do not name their library.
    Fake.__module__ = "cupy._core.core"
    library = ModuleType("cupy")
    library.all, library.isfinite = np.all, lambda fake: np.isfinite(fake.array)
    monkeypatch.setitem(sys.modules, "cupy", library)
    return Fake


def test_arrays_of_a_card_come_to_the_host_where_the_cpu_trains(cupy):
    X = np.arange(6.0).reshape(3, 2)
    assert on_host(cupy(X)) is X and on_host(X) is X
    assert matrix(cupy(X), np.dtype("f4")).dtype == np.float32
    assert column(cupy(X[:, :1])).tolist() == [0.0, 2.0, 4.0]


def test_arrays_of_a_card_stay_where_the_card_trains(cupy):
    X = cupy(np.ones((3, 2), "f4"))
    assert device_matrix(X, F4) is X
    assert device_matrix(cupy(np.ones(3, "f4")), F4).shape == (3, 1)
    assert device_matrix(np.ones((3, 2)), F4) is None
    with pytest.raises(ValueError, match="Complex data not supported"):
        device_matrix(cupy(np.ones((3, 2), complex)), F4)


def test_a_frame_of_a_card_goes_by_its_library(monkeypatch, cupy):
    class Frame:
        def to_pandas(self):
            return "frame"

        def to_cupy(self):
            return cupy(np.ones((2, 2), "f8"))

    Frame.__module__ = "cudf.core.dataframe"
    assert on_host(Frame()) == "frame"
    assert device_matrix(Frame(), F4).dtype == np.float32


@pytest.mark.parametrize("value, finite", [(1.0, True), (np.nan, False), (np.inf, False)])
def test_whether_all_is_finite_is_asked_in_the_arrays_own_library(value, finite):
    assert all_finite_there(array_api_strict.asarray([[0.0, value]])) is finite
