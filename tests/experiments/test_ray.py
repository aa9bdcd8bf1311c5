"""Runs on a real Ray cluster of two nodes, one of which is killed."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers import finish, python, shakeshake, start

pytest.importorskip("ray")

EPOCHS = 500
# Ray must not send usage statistics, nor take minutes to notice a dead node.
RAY = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_health_check_period_ms": "1000"}
RAY |= {"RAY_health_check_timeout_ms": "1000", "RAY_health_check_failure_threshold": "3"}
RAY |= {"RAY_AUTH_MODE": "disabled"}  # otherwise Ray asks for a token that another cluster left in the home folder


def node(log: Path, *arguments: object) -> subprocess.Popen:
    command = [str(Path(sys.executable).parent / "ray"), "start", *map(str, arguments), "--num-cpus", "1", "--block"]
    with log.open("w") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env=RAY)


def descendants(pid: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    return [pid, *(one for child in children.get(pid, []) for one in descendants(child))]


def kill_all(process: subprocess.Popen) -> None:
    for pid in descendants(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def cluster(tmp_path) -> Iterator[tuple[str, subprocess.Popen]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    quiet = ("--include-dashboard", "false", "--object-store-memory", 100_000_000)
    short = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # the path of a socket in it has to fit into 107 bytes
    head = node(tmp_path / "head.log", "--head", "--port", port, "--temp-dir", short, *quiet)
    second = None
    try:
        end = time.monotonic() + 60
        while True:  # until it answers
            assert head.poll() is None, (tmp_path / "head.log").read_text()
            assert time.monotonic() < end
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        second = node(tmp_path / "second.log", "--address", f"127.0.0.1:{port}", "--object-store-memory", 100_000_000)
        yield f"127.0.0.1:{port}", second
    finally:
        for process in (second, head):
            if process is not None:
                kill_all(process)
        shutil.rmtree(short, ignore_errors=True)


@pytest.mark.slow
def test_a_run_whose_node_dies_is_resumed_on_the_other(cluster, tmp_path):
    address, second = cluster
    out = tmp_path / "out"
    options = ["--scale", "smoke", "--epochs", EPOCHS, "--checkpoint-interval-s", 0.5, "--eval-every", 100]
    options += ["--engine", "ray", "--address", address, "--out", out]
    runner = start("-m", "shakeshake", "reproduce", "correlation", *options, env=RAY)
    cells = [out / "cells" / f"digits-shake_resnet8_2x4d-{rule}-seed0" for rule in ("E-E-B", "S-S-I")]
    end = time.monotonic() + 120
    while not all((cell / "checkpoint.pt").exists() for cell in cells):  # one run on each node
        assert runner.poll() is None, runner.communicate()
        assert time.monotonic() < end, list(out.rglob("*"))
        time.sleep(0.05)
    assert not any((cell / "result.json").exists() for cell in cells), "too fast for this test: raise EPOCHS"
    kill_all(second)
    finish(runner)
    resumed = [json.loads((cell / "environment.json").read_text()).get("resumed") for cell in cells]
    assert sorted(len(again or ()) for again in resumed) == [0, 1], "one was cut off, the other was not"
    (again,) = (again for again in resumed if again)
    assert again[0]["at_step"] > 0, "from its checkpoint, not from the start"
    for cell in cells:
        rows = [json.loads(line) for line in (cell / "metrics.jsonl").read_text().splitlines()]
        assert [row["epoch"] for row in rows] == list(range(1, EPOCHS + 1))
    assert {c["n"] for c in json.loads((out / "correlation.json").read_text())["cells"]} == {1}


def test_an_address_that_does_not_answer_is_a_usage_error(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{probe.getsockname()[1]}"
        for address, sentence in (
            (dead, f"address: no Ray cluster answers at {dead}"),
            ("nowhere", "address: got 'nowhere'"),
        ):
            command = ["reproduce", "correlation", "--scale", "smoke", "--engine", "ray", "--address", address]
            _, err = shakeshake(*command, "--out", tmp_path / "out", code=2, env=RAY)
            assert sentence in err


@pytest.mark.slow
def test_modules_next_to_the_images_are_not_executed_on_the_cluster(tmp_path):
    """A user's folder may have a statistics.py. The path of the images is relative to it."""
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 255, (40, 8, 8), dtype=np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "mine.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    for name in ("statistics", "random"):
        (tmp_path / f"{name}.py").write_text(f"open('{tmp_path}/executed-{name}', 'w').close()\nraise SystemExit\n")
    options = ["--engine", "ray", "--rules", "S-S-I", "--seeds", "1", "--model", "shake_resnet8_2x4d", "--epochs", "1"]
    python("-P", "-m", "shakeshake", "compare", "mine.npz", *options, "--out", "out", cwd=tmp_path, env=RAY)
    assert not list(tmp_path.glob("executed-*"))
