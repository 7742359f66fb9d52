"""The kernels of a GPU give the CPU's numbers, and estimators train with them: in numba's simulator, without a GPU."""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def simulated():
    """What ``simulated.py`` prints of a part; both parts begin at once, since each takes a core for a minute."""
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(Path(__file__).with_name("simulated.py"))]
    with ExitStack() as stack:
        processes = {}
        for part in ("kernels", "fits"):
            out, err = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2))
            process = subprocess.Popen([*command, part], env=environment, stdout=out, stderr=err, cwd=ROOT)
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes[part] = process, out, err

        def found(part):
            process, out, err = processes[part]
            code = process.wait(280)
            for file in (out, err):
                file.seek(0)
            assert code == 0, err.read()[-3000:]
            return json.loads(out.read().splitlines()[-1])

        yield found


@pytest.mark.slow
def test_the_device_gives_what_the_host_gives(simulated):
    kernels_agree_with_the_cpu(simulated("kernels"))
    every_strategy_trains_on_the_device_as_on_the_host(simulated("fits"))


def kernels_agree_with_the_cpu(found):
    assert len(found) > 30
    far = {name: apart for name, apart in found.items() if not apart <= (1e-12 if "float64" in name else 1e-5)}
    assert far == {}


def every_strategy_trains_on_the_device_as_on_the_host(found):
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
