import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import pytest
from distributed import LocalCluster
from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError

from daskdml.workflow import RunError, _session, check_workers, demo, session

HERE = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from daskdml.cli import main; main()"]


def environment(**more):
    return os.environ | {"PYTHONPATH": str(HERE)} | more


def shell(*arguments, **more):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=240, env=environment(**more)
    )


def test_in_a_shell_stdout_has_the_report_and_last_the_json(tmp_path):
    pd.DataFrame({"x": range(200), "y": [0, 1] * 100}).to_csv(tmp_path / "t.csv", index=False)
    options = ["--target", "y", "--epochs", 2, "--workers", 2, "--memory-limit", "1GB", "--json"]
    done = shell("train", tmp_path / "t.csv", *options, "--output", tmp_path / "m.skops")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert told["rows"] == 200 and told["replicas"] == 2
    assert "distributed" not in done.stderr and "Warning" not in done.stderr


def test_in_a_shell_wrong_use_is_one_line(tmp_path):
    done = shell("train", tmp_path / "none.csv", "--target", "y")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("daskdml: no such file: ") and done.stderr.count("\n") == 1


def test_workers_of_another_version_are_refused_before_training(client, monkeypatch):
    check_workers(client)
    monkeypatch.setattr("daskdml.cluster.__version__", "999")
    with pytest.raises(RunError, match=r"has daskdml .* but this process 999; install the same"):
        check_workers(client)


def test_workers_that_lack_daskdml_are_named(client, monkeypatch):
    import pydoc

    monkeypatch.setattr(pydoc, "locate", _nothing)
    with pytest.raises(RunError, match=r"worker .* lacks daskdml; install daskdml=="):
        check_workers(client)


def _nothing(path):
    return None


def test_a_scheduler_is_used_and_left_running():
    with LocalCluster(
        n_workers=1, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=None, memory_limit=0
    ) as cluster:
        with session(scheduler=cluster.scheduler_address) as client:
            assert len(client.nthreads()) == 1
        assert cluster.scheduler.status.name == "running"


@pytest.mark.slow
def test_the_demonstration_trains_out_of_core_and_cleans_up():
    before = set(os.listdir(tempfile.gettempdir()))
    said = []
    result = demo(size="800MB", workers=1, memory_limit="700MB", epochs=1, say=said.append)
    assert result.gigabytes > result.memory_limit_gb and result.restarts == 0
    assert max(result.peak_memory_mb.values()) < 700 * 1.05
    assert result.best_accuracy - 0.01 < result.accuracy < result.best_accuracy + 0.01
    assert any("GB of Parquet" in text for text in said)
    assert {f for f in set(os.listdir(tempfile.gettempdir())) - before if "demo" in f} == set()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demonstration_leaves_nothing(how, tmp_path):
    process = subprocess.Popen(
        [*COMMAND, "demo", "--size", "1GB", "--workers", "1", "--memory-limit", "600MB"],
        env=environment(TMPDIR=str(tmp_path)),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's job in the background is begun with interrupts ignored, and so would be what it begins.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("daskdml-demo-*/*.parquet")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(how)
        _, stderr = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert process.returncode == 130
    assert stderr.strip().splitlines()[-1] == "daskdml: interrupted"
    assert list(tmp_path.glob("daskdml-demo-*")) == []


def _until(stream, mark):
    """Read till the mark: what is waited for has come about."""
    read = b""
    while mark not in read:
        piece = os.read(stream.fileno(), 1 << 16)
        assert piece, read
        read += piece


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["averaging", "asp"])
def test_a_scheduler_killed_during_a_fit_is_named(strategy, tmp_path):
    pd.DataFrame({"x": range(5000), "y": [0, 1] * 2500}).to_csv(tmp_path / "t.csv", index=False)
    code = (
        "import time; from distributed import LocalCluster\n"
        "if __name__ == '__main__':\n"
        "    cluster = LocalCluster(n_workers=1, processes=False, protocol='tcp', host='127.0.0.1', memory_limit=0,"
        " dashboard_address=None)\n"
        "    print(cluster.scheduler_address, flush=True); time.sleep(600)"
    )
    options = ["--target", "y", "--strategy", strategy, "--epochs", "100000", "--param", "tol=null"]
    # What a killed scheduler leaves behind lies in the test's own folder.
    pipes = {"stdout": subprocess.PIPE, "env": environment(TMPDIR=str(tmp_path))}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as scheduler:
        address = scheduler.stdout.readline().decode().strip()
        arguments = ["train", str(tmp_path / "t.csv"), *options, "--scheduler", address]
        with subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, **pipes) as fit:
            try:
                _until(fit.stderr, b"at most 100,000 epochs")
                time.sleep(2.0)
                scheduler.kill()
                _, stderr = fit.communicate(timeout=100)
            finally:
                scheduler.kill()
                fit.kill()
    last = stderr.decode().strip().splitlines()[-1]
    assert fit.returncode == 1 and "0x" not in last
    assert f"daskdml: the connection to the scheduler at {address} was lost: " in last


@pytest.mark.parametrize(
    "error",
    [
        CommClosedError("in <TCP (closed) Scheduler Broadcast>: Stream is closed"),
        OSError("Timed out trying to connect to tcp://127.0.0.1:1 after 30 s"),
        FutureCancelledError("key", "worker lost"),
    ],
)
def test_a_worker_that_ends_is_told_with_the_remedy(error, client):
    with pytest.raises(RunError) as caught, _session._told(client, "300MB"):
        raise error
    assert str(caught.value) == (
        "the connection to a worker was lost; workers end when they use more than their memory limit of 300MB: "
        "raise --memory-limit, or lower --workers"
    )


def test_other_errors_stay_as_they_are(client):
    with pytest.raises(FileNotFoundError, match="x.csv"), _session._told(client, None):
        raise FileNotFoundError(2, "No such file", "x.csv")


def test_in_a_shell_too_little_memory_is_one_line_with_the_remedy(tmp_path):
    pd.DataFrame({"x": range(200), "y": [0, 1] * 100}).to_csv(tmp_path / "t.csv", index=False)
    # What a killed worker leaves is not to be found by others.
    scratch = {"TMPDIR": str(tmp_path), "DASK_TEMPORARY_DIRECTORY": str(tmp_path)}
    options = ["--target", "y", "--workers", 1, "--memory-limit", "300MB", "--quiet"]
    done = shell("train", tmp_path / "t.csv", *options, **scratch)
    # How much a process with its libraries takes, and so whether this is enough, depends on the machine.
    assert done.returncode == 0 or (
        done.returncode == 1 and "raise --memory-limit" in done.stderr and done.stderr.count("\n") == 1
    )
