"""The kernels of a GPU give the CPU's numbers, and estimators train with them: in numba's simulator, without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def simulated(part):
    """What ``simulated.py`` finds of a part."""
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, Path(__file__).with_name("simulated.py"), part]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_kernels_agree_with_the_cpu():
    found = simulated("kernels")
    assert len(found) > 30
    far = {name: apart for name, apart in found.items() if not apart <= (1e-12 if "float64" in name else 1e-5)}
    assert far == {}


@pytest.mark.slow
def test_every_strategy_trains_on_the_device_as_on_the_host():
    found = simulated("fits")
    assert len(found) == 7
    assert {name: fit["apart"] for name, fit in found.items() if not fit["apart"] < 1e-4} == {}
    for name, fit in found.items():
        if name in ("regressor", "mixed"):
            continue
        # A clock of SSP without rows has none who trained.
        assert max(fit["gpu_replicas"]) == (1 if "in memory" in name or "ssp" in name else 2), name
        assert fit["on_cpu"] == 0 and fit["replicas"] == fit["rows"], name
    # The first of the three blocks fits; from the second epoch on it is there.
    assert found["averaging of Dask ['device_memory']"]["from_device"][0] == 0
    assert found["averaging of Dask ['device_memory']"]["from_device"][-1] > 0
    # The others, which Dask holds, are made and checked once.
    assert found["averaging of Dask ['device_memory']"]["from_memory"][-1] > 0
    assert found["mixed"]["gpu"] == [1, 1]


@pytest.mark.slow
def test_sums_of_a_full_batch_pass_are_those_of_the_cpu():
    found = simulated("passes")
    cases = found["cases"]
    assert len(cases) > 60
    far = {n: case for n, case in cases.items() if not case["apart"] <= (1e-12 if "float64" in n else 2e-6)}
    assert far == {}
    # Of some rows there are other second derivatives than of all, and there are some.
    assert all(case["kept"] for name, case in cases.items() if name.endswith((", by curvature", ", of some rows")))
    assert found["same bits again"]
    for taken, told in found["memory"].values():
        assert taken <= told <= 2 * taken


@pytest.mark.slow
def test_full_batch_descents_on_the_device_end_where_those_on_the_host_do():
    found = simulated("descents")
    assert len(found) == 11
    mixed = found.pop("mixed")
    assert mixed["apart"] < 1e-6 and set(mixed["gpu"]) == {1}
    for name, fit in found.items():
        assert fit["apart"] < 1e-5 and abs(fit["objective"]) < 1e-7, name
        assert abs(fit["passes"][0] - fit["passes"][1]) <= 2, name
        assert len(set(fit["gpu_replicas"])) == 1 and fit["gpu_replicas"][0] >= 1 and fit["on_cpu"] == 0, name
