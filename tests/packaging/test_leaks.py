"""The check for leaks can fail: each kind of thing left behind is seen."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from tests import leaks
from tests.leaks import Leftovers


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(leaks, "PATIENCE", 0.1)


def test_nothing_is_nothing():
    assert Leftovers.now().remaining() == []


def test_a_thread_is_seen():
    before, go = Leftovers.now(), threading.Event()
    thread = threading.Thread(target=go.wait, name="forgotten")
    thread.start()
    assert before.remaining() == ["threads ['forgotten']"]
    go.set()
    thread.join()
    assert before.remaining() == []


def test_a_process_is_seen():
    before = Leftovers.now()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        (found,) = before.remaining()
        assert found.startswith(f"processes ['{process.pid} ")
        process.communicate(b"\n")
    assert before.remaining() == []


def test_a_port_is_seen():
    before = Leftovers.now()
    with socket.create_server(("127.0.0.1", 0)) as server:
        (found,) = before.remaining()
        assert str(server.getsockname()[1]) in found


def test_a_file_is_seen():
    before = Leftovers.now()
    with tempfile.NamedTemporaryFile(prefix="forgotten") as file:
        assert before.remaining() == [f"temporary files ['{file.name}']"]


def test_a_lock_without_its_directory_is_left_to_the_next_worker():
    directory = Path(tempfile.gettempdir(), "dask-scratch-space", "worker-forgotten")
    before = Leftovers.now()
    directory.mkdir(parents=True)
    lock = directory.with_suffix(".dirlock")
    lock.touch()
    try:
        assert str(lock) in " ".join(before.remaining())
        directory.rmdir()
        assert before.remaining() == []
    finally:
        lock.unlink()


def test_a_cluster_is_seen_and_its_closing_too():
    before = Leftovers.now()
    with LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as cluster, Client(cluster):
        found = " ".join(before.remaining())
        assert "IO loop" in found
        assert "open clients" in found
        assert "dask-scratch-space" in found
    leaks.PATIENCE = 5
    assert before.remaining() == []


def test_a_worker_that_was_forked_is_seen_and_the_server_that_forked_it_is_not(process_client):
    process_client(1).close()
    before = Leftovers.now()
    client = process_client(1)
    (pid,) = client.run(os.getpid).values()
    found = " ".join(before.remaining())
    assert re.search(rf"processes .*\b{pid} ", found)
    client.close()
    assert before.remaining() == []
