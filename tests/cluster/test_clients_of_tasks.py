"""A client that a task asks for ends with the workers of its process."""

import subprocess
import sys

import pytest

# A process of its own: Dask closes such clients with the last worker of a process, and tests have a cluster of theirs.
SCRIPT = """
import sys
import threading
from distributed import Client, LocalCluster
from distributed.worker import Worker
from daskdml.cluster import client_of_task

def asked():
    return client_of_task().id

asking = int(sys.argv[1])
with (
    LocalCluster(n_workers=3, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
    Client(cluster, set_as_default=False) as client,
):
    workers = [worker.address for worker in cluster.workers.values()]
    first = client.submit(asked, workers=[workers[asking]], pure=False).result()
    # One serves all workers of a process.
    assert client.submit(asked, workers=[workers[asking - 1]], pure=False).result() == first
    (made,) = [c for c in Worker._initialized_clients if c.id == first]
    assert made.status == "running"
assert made.status == "closed", made.status
assert not [t for t in threading.enumerate() if t.name == "IO loop"]
"""


@pytest.mark.parametrize("asking", [0, 1, 2])
def test_whichever_worker_asked(asking):
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(asking)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
