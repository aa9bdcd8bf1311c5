"""One run of digits and some of its test images as files, for all tests of this room."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

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
    """stdout and stderr of the command line as a process."""
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


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """20 test images of the digits as PNG files: 0.png, ..., 19.png."""
    folder = tmp_path_factory.mktemp("photos")
    for i, image in enumerate(ss.load_data("digits").test.images[:20]):
        Image.fromarray(image[0]).save(folder / f"{i:02}.png")
    return folder
