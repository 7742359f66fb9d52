import numpy as np
import pytest

from daskdml.monitor import FitEnd, History
from tests.monitor.events import epoch_end, info, play, round_end

COLUMNS = (
    "round epoch loss objective rows seconds compute_seconds load_seconds wait_seconds bytes "
    "blocks_from_recipe blocks_from_memory blocks_from_disk gate_seconds sent_bytes received_bytes staleness_mean "
    "staleness_max staleness_histogram retries reassigned recoveries blocks_from_device gpu_replicas largest_share "
    "validation_score learning_rate"
).split()
WHOLE = (
    "round epoch rows bytes blocks_from_recipe blocks_from_memory blocks_from_disk sent_bytes received_bytes "
    "staleness_max retries reassigned recoveries blocks_from_device gpu_replicas"
).split()
TYPES = dict.fromkeys(WHOLE, "int64") | {"staleness_histogram": "object"}


def types(frame):
    return {name: str(dtype) for name, dtype in frame.dtypes.items()}


def test_columns_and_types_are_the_same_empty_and_full():
    history = History()
    empty = history.to_frame()
    play(history)
    full = history.to_frame()
    assert list(empty.columns) == list(full.columns) == COLUMNS
    assert len(empty) == 0
    assert types(empty) == types(full) == {name: TYPES.get(name, "float64") for name in COLUMNS}


def test_every_round_is_a_line():
    history = History()
    play(history, epochs=3)
    frame = history.to_frame()
    assert frame["round"].tolist() == [1, 2, 3, 4, 5, 6]
    assert frame["epoch"].tolist() == [1, 1, 2, 2, 3, 3]
    assert frame["blocks_from_recipe"].tolist() == [3] * 6
    assert frame["rows"].sum() == 300


def test_what_belongs_to_an_epoch_stands_on_its_last_round():
    history = History()
    history.on_fit_start(info())
    history.on_round_end(round_end(1, 1))
    history.on_round_end(round_end(1, 2))
    history.on_epoch_end(epoch_end(1, validation_score=0.9))
    history.on_round_end(round_end(2, 3))
    frame = history.to_frame()
    np.testing.assert_array_equal(frame["validation_score"], [np.nan, 0.9, np.nan])
    assert frame["learning_rate"].isna().all()


def test_a_second_fit_starts_anew():
    history = History()
    play(history)
    history.on_fit_end(FitEnd("max_iter", 2, 200, 2.0))
    assert len(history.to_frame()) == 4
    play(history, epochs=1)
    assert history.to_frame()["round"].tolist() == [1, 2]


def test_an_epoch_without_a_round_is_refused():
    with pytest.raises(RuntimeError, match="epoch 3"):
        History().on_epoch_end(epoch_end(3))


def test_a_frame_is_a_copy():
    history = History()
    play(history)
    frame = history.to_frame()
    frame.loc[0, "loss"] = 99.0
    assert history.to_frame().loc[0, "loss"] == 0.7
