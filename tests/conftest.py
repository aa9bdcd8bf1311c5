"""Fixtures of several areas: a finished run on digits, and the command line as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import shakeshake as ss
from shakeshake.train.recipe import Recipe

DIGITS = Recipe(
    data="digits",
    model="shake_resnet8_2x4d",
    epochs=2,
    batch_size=50,
    lr=0.05,
    flip=False,
    crop_padding=1,
    device="cpu",
    precision="fp32",
)


def run_command(*arguments: object, code: int = 0, stdin: bytes = b"", cwd: Path | None = None) -> tuple[str, str]:
    """Run the command line as a process; check its exit status; return stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "shakeshake", *map(os.fspath, map(_argument, arguments))],
        capture_output=True,
        timeout=300,
        check=False,
        input=stdin,
        cwd=cwd,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == code, out + err
    assert "Traceback" not in err, err
    return out, err


def _argument(value: object) -> str | Path:
    return value if isinstance(value, Path) else str(value)


@pytest.fixture(scope="session")
def shakeshake() -> Callable[..., tuple[str, str]]:
    return run_command


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "digits"
    ss.fit(DIGITS, path, quiet=True)
    return path
