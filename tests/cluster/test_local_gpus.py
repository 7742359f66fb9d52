"""``local(gpus=...)`` without a GPU: what it asks of dask-cuda, and what it says where that is absent."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import dask
import pytest
from distributed import LocalCluster

from daskdml import cluster


@pytest.fixture
def dask_cuda(monkeypatch):
    """A dask_cuda whose cluster notes what it was given, and is one of threads."""
    module = ModuleType("dask_cuda")
    module.given = []

    def start(**kwargs):
        environ = dask.config.get("distributed.nanny.pre-spawn-environ")
        module.given.append((kwargs, environ.get("NUMBA_CUDA_MEMORY_MANAGER")))
        return LocalCluster(n_workers=1, processes=False, dashboard_address=kwargs["dashboard_address"], memory_limit=0)

    module.LocalCUDACluster = start
    monkeypatch.setitem(sys.modules, "dask_cuda", module)
    return module


QUIET = {"dashboard_address": "127.0.0.1:0"}


def test_a_worker_for_each_gpu_or_for_the_first_so_many(dask_cuda):
    for gpus in (True, 2):
        with cluster.local(gpus=gpus, **QUIET) as client:
            assert client.submit(sum, [1, 2]).result() == 3
            started = client.cluster
        assert started.status.name == "closed"
    (every, memory), (two, _) = dask_cuda.given
    assert "n_workers" not in every and two["n_workers"] == 2 and memory is None


def test_numba_is_told_of_a_pool(dask_cuda):
    with cluster.local(gpus=1, rmm_pool_size="1GB", device_memory_limit="2GB", **QUIET):
        pass
    ((given, memory),) = dask_cuda.given
    assert given["rmm_pool_size"] == "1GB" and given["device_memory_limit"] == "2GB"
    assert memory == "rmm.allocators.numba"


@pytest.mark.parametrize("there", [True, False])
def test_ucx_where_it_is_installed_and_workers_are_several(dask_cuda, monkeypatch, there):
    monkeypatch.setattr(cluster, "find_spec", lambda name: ModuleSpec(name, None) if there else None)
    for gpus, given in ((2, {}), (1, {}), (2, {"protocol": "tcp"})):
        with cluster.local(gpus=gpus, **QUIET, **given):
            pass
    protocols = [given.get("protocol") for given, _ in dask_cuda.given]
    assert protocols == [("ucx" if there else None), None, "tcp"]


def test_without_dask_cuda_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask_cuda", None)
    with pytest.raises(ImportError, match=r"local\(gpus=True\) needs dask-cuda .* pip install 'daskdml\[gpu\]'"):
        cluster.local(gpus=True)


@pytest.mark.parametrize("gpus, workers, message", [(0, None, "at least 1, got 0"), (True, 2, "leave n_workers=2 out")])
def test_a_number_that_is_none_is_refused(gpus, workers, message):
    with pytest.raises(ValueError, match=message):
        cluster.local(workers, gpus=gpus)
