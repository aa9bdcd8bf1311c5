"""Building the kernels without a compiler or cache, and with a damaged cached library."""

import os
import subprocess
import sys

import pytest

from shakeshake.kernels import build


@pytest.mark.parametrize("broken", [{"SHAKESHAKE_KERNELS": "0"}, {"PATH": ""}, {"XDG_CACHE_HOME": "/dev/null"}])
def test_networks_train_with_plain_operations_without_kernels(broken, tmp_path):
    """A reason is given for disabled kernels, a missing compiler and an unwritable cache."""
    code = """
import torch
from shakeshake import create_model, kernels
from shakeshake.kernels import build
net = create_model("shake_resnet8_2x16d")
assert not kernels.is_converted(kernels.convert(net)) and build.unavailable_reason()
net(torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)).sum().backward()
print(build.unavailable_reason())
"""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), **broken}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


@pytest.fixture
def small_library(monkeypatch, tmp_path):
    """Compile a single function, to save time."""
    if build.load_library() is None:
        pytest.skip(f"no kernels: {build.unavailable_reason()}")
    (tmp_path / "one.cpp").write_text('extern "C" int one() { return 1; }')
    monkeypatch.setattr(build, "SOURCES", (tmp_path / "one.cpp",))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "shakeshake" / "kernels"


@pytest.mark.parametrize("size", [0, 5000])
def test_truncated_library_is_compiled_again(small_library, size):
    """Loading it would crash the process at the first missing page."""
    assert build._load.__wrapped__().one() == 1
    (kept,) = small_library.iterdir()
    whole = kept.read_bytes()
    (small_library / "copy").write_bytes(whole[:size])
    os.replace(small_library / "copy", kept)
    assert build._load.__wrapped__().one() == 1
    assert [entry.read_bytes() for entry in small_library.iterdir()] == [whole]


def test_user_without_home_directory_gets_a_reason(small_library, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user that the system does not know
    assert "no home directory" in build._load.__wrapped__()
