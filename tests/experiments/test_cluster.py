"""Cells on a real Ray cluster of two nodes, one of which is killed in the middle."""

import os
import socket
import subprocess
import sys

import pytest

pytest.importorskip("ray")

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ray_start(*arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "start", *map(str, arguments), "--disable-usage-stats"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
