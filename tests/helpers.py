"""Shared by several test files: Python programs and `shakeshake` as processes, a tiny recipe, random images."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shakeshake.train.recipe import Recipe

TINY = Recipe(
    data="digits",
    model="shake_resnet8_2x4d",
    train_size=60,
    epochs=2,
    batch_size=20,
    flip=False,
    crop_padding=1,
    device="cpu",
    precision="fp32",
)
TINY_OPTIONS = ["--model", "shake_resnet8_2x4d", "--batch-size", "20", "--epochs", "1"]
TINY_OPTIONS += ["--precision", "fp32", "--device", "cpu"]


def start(*arguments: object, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    """Start Python with these arguments, and ``env`` in addition to this process's environment."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
        **options,
    )


def finish(process: subprocess.Popen[str], code: int = 0, timeout: float = 300) -> tuple[str, str]:
    """Wait for a process of ``start``, check its exit status and return stdout and stderr.

    Usage errors (status 2) have to be one line on stderr.
    """
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == code, out + err
    assert "Traceback" not in err, err
    assert code != 2 or len(err.strip().splitlines()) == 1, err
    return out, err


def python(*arguments: object, code: int = 0, **options: Any) -> tuple[str, str]:
    """Run Python with these arguments; return stdout and stderr."""
    return finish(start(*arguments, **options), code)


def shakeshake(*arguments: object, code: int = 0, **options: Any) -> tuple[str, str]:
    """Run a `shakeshake` command as a process; return stdout and stderr."""
    return python("-m", "shakeshake", *arguments, code=code, **options)


def shakeshake_output(*arguments: object, code: int = 0, **options: Any) -> str:
    """Run a `shakeshake` command as a process; return stdout followed by stderr."""
    return "".join(shakeshake(*arguments, code=code, **options))


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Wait until a running process has written a file."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)


def write_npz(path: Path, **changes: object) -> Path:
    """Write 60 training and 30 test images of random pixels, (8, 8), in three classes; None leaves an array out."""
    random = np.random.default_rng(0)
    arrays = {
        "x_train": random.integers(0, 256, (60, 8, 8), dtype=np.uint8),
        "y_train": np.arange(60) % 3,
        "x_test": random.integers(0, 256, (30, 8, 8), dtype=np.uint8),
        "y_test": np.arange(30) % 3,
    }
    np.savez(path, **{name: value for name, value in (arrays | changes).items() if value is not None})
    return path


def overflow(browser: Any) -> int:
    """Return by how many pixels the page is wider than the window of a selenium browser."""
    return browser.execute_script("const page = document.documentElement; return page.scrollWidth - page.clientWidth")
