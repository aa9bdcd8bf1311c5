"""A finished run on digits for the tests of several packages."""

from __future__ import annotations

from pathlib import Path

import pytest

import shakeshake as ss
from helpers import TINY

DIGITS = TINY.replace(train_size=None, batch_size=50, lr=0.05)


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "digits"
    ss.fit(DIGITS, path, quiet=True)
    return path
