"""The limits that data out of core are measured against read the same rows, all of them."""

import numpy as np
import pytest

from benchmarks.out_of_core import _limits
from benchmarks.out_of_core._files import FORMATS, PLANTED, check_room, forget, resident, write
from benchmarks.out_of_core._report import budget, reads_back, shares, text
from benchmarks.out_of_core._run import Size, measure


@pytest.fixture(scope="module", params=FORMATS)
def files(request, tmp_path_factory):
    return write(request.param, str(tmp_path_factory.mktemp("rows") / "rows"), 20e6, 1)


def test_a_full_disk_is_told_before_anything_is_written(tmp_path):
    with pytest.raises(OSError, match="GB free, but the files and the cache need"):
        check_room(str(tmp_path), 1e18)


def test_files_hold_the_planted_rows(files):
    X, y = (np.asarray(part.compute()) for part in files.open())
    assert X.shape == (files.rows, PLANTED.n_features)
    assert X.dtype == np.float32
    right = ((X[: files.scored] @ PLANTED.weights > 0) == y[: files.scored]).sum()
    # A score of nearly 0 may have another sign in another order of its sum.
    assert abs(right - files.right) <= 3


def test_each_limit_reads_every_row(files):
    _limits._prepare(files, 0, 1)
    assert _limits._decode(0, 1) == files.block_bytes
    assert sum(_limits._few_lines(files, i, 2) for i in range(2)) == files.block_bytes
    assert sum(_limits._read(files.paths, i, 2) for i in range(2)) == sum(
        len(open(path, "rb").read()) for path in files.paths
    )


def test_what_is_written_to_know_the_limit_is_gone_afterwards(tmp_path):
    with _limits.Processes(1) as processes:
        found = _limits.writing(processes, str(tmp_path), 50e6)
    assert found["bytes"] == 2 * _limits._WRITTEN
    assert list(tmp_path.iterdir()) == []


def test_the_page_cache_is_looked_into_and_emptied(files):
    for path in files.paths:
        open(path, "rb").read()
    assert resident(files.paths) == pytest.approx(1, abs=0.05)
    forget(files.paths)
    # A file system may keep them all the same, as one in memory does.
    assert 0 <= resident(files.paths) <= 1


def test_an_epoch_is_set_beside_reading_back_only_where_it_reads_back():
    def read(epoch, nbytes):
        return {"before_epoch": epoch, "cold": False, "resident": 1.0, "seconds": 1.0, "bytes": nbytes}

    few, most = read(2, 4e6), read(3, 98e6)
    assert reads_back({"block_bytes": [100e6] * 3, "reads": [few, most]}) == [most]


@pytest.mark.slow
def test_a_fit_is_set_beside_its_limits(files):
    if files.kind != "parquet":
        pytest.skip("differs from Parquet in the files, which another test reads")
    found = measure(files, Size(20e6, "700MB", 3, frozenset({3}), 2))
    seen = shares(found)
    assert {"first", "first of both", "once", "possible", "computing"} <= set(seen)
    assert found["once"]["cached_files"] == 0 and 0 < seen["possible"] < 1
    assert seen["first of both"] > seen["first"]
    assert max(found["fit"]["peak_bytes"]) < found["fit"]["limit"]
    assert found["fit"]["restarts"] == 0
    assert budget(found) > 200e6
    assert "first epoch at" in text({"formats": {files.kind: found}})
