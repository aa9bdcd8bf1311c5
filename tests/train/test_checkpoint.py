"""Checkpoints are written atomically, and a damaged one falls back to the previous one."""

import os
from pathlib import Path

import pytest
import torch

from shakeshake.errors import RunError
from shakeshake.train import checkpoint
from shakeshake.utils.files import atomic_write


def state(n):
    return {"n": n, "tensor": torch.full((100,), float(n))}


def test_checkpoint_round_trips_and_loads_with_plain_torch_load(tmp_path):
    checkpoint.save(tmp_path, state(1))
    checkpoint.save(tmp_path, state(2))
    assert checkpoint.load(tmp_path)["n"] == 2
    assert torch.load(tmp_path / checkpoint.NAME, weights_only=True)["n"] == 2, "a file that torch reads"
    assert torch.load(tmp_path / checkpoint.PREVIOUS, weights_only=True)["n"] == 1, "the one before is kept"
    assert checkpoint.load(tmp_path / "nothing here") is None


@pytest.mark.parametrize("damage", ["cut off", "one bit", "empty"])
def test_damaged_checkpoint_falls_back_to_the_previous_one_with_a_warning(tmp_path, damage):
    checkpoint.save(tmp_path, state(1))
    checkpoint.save(tmp_path, state(2))
    path = tmp_path / checkpoint.NAME
    content = bytearray(path.read_bytes())
    if damage == "one bit":
        content[len(content) // 2] ^= 1
    path.write_bytes({"cut off": content[:-100], "one bit": content, "empty": b""}[damage])
    with pytest.warns(UserWarning, match=r"checkpoint\.pt.*damaged.*checkpoint\.previous\.pt"):
        assert checkpoint.load(tmp_path)["n"] == 1
    (tmp_path / checkpoint.PREVIOUS).write_bytes(b"also broken")
    with pytest.raises(RunError, match="no checkpoint can be read"):
        checkpoint.load(tmp_path)


def test_failed_write_keeps_the_existing_checkpoint(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, state(1))

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path, state(2))
    assert checkpoint.load(tmp_path)["n"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == [checkpoint.NAME], "nothing half-written stays"


def test_atomic_write_replaces_the_file_atomically(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")
    replace = os.replace

    def look_then_replace(new, old):
        assert path.read_text() == "old"
        assert Path(new).read_text() == "new"
        replace(new, old)

    monkeypatch.setattr(os, "replace", look_then_replace)
    inode = path.stat().st_ino
    atomic_write(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_ino != inode, "a new file, not the old one overwritten"


def test_previous_checkpoint_loads_if_the_newest_is_missing(tmp_path):
    """The process was killed between the two renames of save()."""
    checkpoint.save(tmp_path, state(1))
    os.replace(tmp_path / checkpoint.NAME, tmp_path / checkpoint.PREVIOUS)
    assert checkpoint.load(tmp_path)["n"] == 1
