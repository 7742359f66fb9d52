"""A store keeps the last checkpoints whole: torn files, crashes while writing, strange places."""

import io
import logging
import uuid

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from daskdml.checkpoint import Cadence, CheckpointError, CheckpointStore
from daskdml.checkpoint import _store as module
from daskdml.checkpoint._payload import read_payload, write_payload

DTYPES = st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_, ">f4", "U3"]).map(np.dtype)
ARRAYS = DTYPES.flatmap(lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)))
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
KEYED = st.text(max_size=5)
PAYLOADS = st.recursive(
    PLAIN | ARRAYS,
    lambda held: st.lists(held) | st.lists(held).map(tuple) | st.dictionaries(KEYED, held),
    max_leaves=10,
)


@pytest.fixture(params=["directory", "memory"])
def url(request, tmp_path):
    if request.param == "directory":
        yield str(tmp_path / "not yet" / "there")
        return
    place = f"memory://{uuid.uuid4().hex}"
    yield place
    fs, folder = fsspec.core.url_to_fs(place)
    if fs.exists(folder):
        fs.rm(folder, recursive=True)


def files(url):
    fs, folder = fsspec.core.url_to_fs(url)
    return sorted(path.rsplit("/", 1)[-1] for path in fs.ls(folder, detail=False))


def damage(url, change):
    """Change the bytes of the newest checkpoint."""
    fs, folder = fsspec.core.url_to_fs(url)
    path = f"{folder}/{files(url)[-1]}"
    fs.pipe_file(path, change(fs.cat_file(path)))


def written(payload):
    file = io.BytesIO()
    write_payload(file, payload)
    return file.getvalue()


def same(a, b):
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or a != a)


@settings(max_examples=60, deadline=None)
@given(PAYLOADS)
def test_what_was_written_is_read(payload):
    assert same(payload, read_payload(io.BytesIO(written(payload))))


def test_arrays_of_any_layout_come_back_and_can_be_written_to():
    array = np.arange(24.0).reshape(4, 6)
    for view in (array.T, array[::2, 1::2], np.asfortranarray(array)):
        found = read_payload(io.BytesIO(written({"x": view})))["x"]
        assert (found == view).all()
        found += 1


def test_any_damage_is_noticed():
    whole = written({"epoch": 3, "weights": np.arange(5.0)})
    for at in range(len(whole)):
        for torn in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]):
            with pytest.raises(CheckpointError):
                read_payload(io.BytesIO(torn))
    with pytest.raises(CheckpointError):
        read_payload(io.BytesIO(whole + b"more"))


@pytest.mark.parametrize(
    ("payload", "place"),
    [
        ({"a": [1, {2}]}, r"payload\['a'\]\[1\] is a set"),
        ({"a": np.array([None])}, r"payload\['a'\] is an array of object"),
        ({3: 1}, "has the key 3"),
    ],
)
def test_what_would_need_pickle_is_refused(payload, place, url):
    store = CheckpointStore(url)
    with pytest.raises(TypeError, match=place):
        store.save(payload)
    assert store.latest() is None and files(url) == []


def test_the_last_two_are_kept(url):
    store = CheckpointStore(url)
    assert store.latest() is None
    for epoch in range(12):
        store.save({"epoch": epoch})
    assert files(url) == ["checkpoint-00000011.ckpt", "checkpoint-00000012.ckpt"]
    assert CheckpointStore(url).latest() == {"epoch": 11}


@pytest.mark.parametrize("change", [lambda b: b[:-7], lambda b: b"", lambda b: b[:40] + b"\0" + b[41:]])
def test_a_torn_file_falls_back_to_the_one_before(change, url, caplog):
    store = CheckpointStore(url)
    for epoch in range(3):
        store.save({"epoch": epoch, "weights": np.ones(9)})
    damage(url, change)
    again = CheckpointStore(url)
    with caplog.at_level(logging.WARNING, "daskdml"):
        assert again.latest()["epoch"] == 1
    assert "checkpoint-00000003.ckpt" in caplog.text and "damaged" in caplog.text
    # The damaged one is not among the two that are kept, and its number is not used again.
    again.save({"epoch": 2})
    assert files(url) == ["checkpoint-00000002.ckpt", "checkpoint-00000004.ckpt"]


def test_nothing_whole_is_an_error_and_not_a_beginning(url):
    CheckpointStore(url).save({"epoch": 1})
    damage(url, lambda b: b[:-1])
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints in .* can be read"):
        CheckpointStore(url).latest()


@pytest.mark.parametrize("after", [0, 30, 200])
def test_a_crash_in_mid_write_leaves_the_previous_whole(after, url, monkeypatch):
    store = CheckpointStore(url)
    store.save({"epoch": 1})

    def crash(file, payload):
        file.write(written(payload)[:after])
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_payload", crash)
    with pytest.raises(KeyboardInterrupt):
        store.save({"epoch": 2, "weights": np.ones(50)})
    monkeypatch.undo()
    assert CheckpointStore(url).latest() == {"epoch": 1}
    assert files(url) == ["checkpoint-00000001.ckpt"]


def test_what_a_killed_writer_left_is_cleared_away(tmp_path):
    (tmp_path / ".checkpoint-abc").write_bytes(b"half")
    store = CheckpointStore(tmp_path)
    assert store.latest() is None
    store.save({"epoch": 1})
    assert files(str(tmp_path)) == ["checkpoint-00000001.ckpt"]


def test_a_new_fit_replaces_the_old_one_with_its_first_save(url):
    old = CheckpointStore(url)
    for epoch in range(2):
        old.save({"fit": "old", "epoch": epoch})
    new = CheckpointStore(url)
    new.begin()
    assert CheckpointStore(url).latest()["fit"] == "old"
    new.save({"fit": "new"})
    assert len(files(url)) == 1 and CheckpointStore(url).latest() == {"fit": "new"}


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "model.skops").write_text("mine")
    store = CheckpointStore(tmp_path)
    store.save({"epoch": 1})
    store.clear()
    assert files(str(tmp_path)) == ["model.skops"]


def test_a_place_that_cannot_be_is_told_at_once(tmp_path):
    with pytest.raises(ValueError, match="nowhere://x"):
        CheckpointStore("nowhere://x")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        CheckpointStore(tmp_path / "file").prepare()


@pytest.mark.parametrize(
    ("every", "cadence"),
    [
        (60, Cadence(None, 60.0)),
        (np.float32(0.5), Cadence(None, 0.5)),
        ("90s", Cadence(None, 90.0)),
        ("5 minutes", Cadence(None, 300.0)),
        ("1 round", Cadence(1)),
        ("10 rounds", Cadence(10)),
        ("10rounds", Cadence(10)),
    ],
)
def test_cadences(every, cadence):
    assert Cadence.of(every) == cadence


@pytest.mark.parametrize("every", [-1, True, None, np.inf, np.nan, "0 rounds", "often", "-3s", "", [1], "ten rounds"])
def test_what_is_no_cadence(every):
    with pytest.raises(ValueError, match="is no interval: give seconds as 60"):
        Cadence.of(every)


def test_when_a_cadence_is_due():
    assert [Cadence.of("3 rounds").due(n, 1e9) for n in (2, 3, 4)] == [False, True, True]
    assert [Cadence.of("3s").due(10**9, n) for n in (2.9, 3.0)] == [False, True]
