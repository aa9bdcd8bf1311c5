"""A run in pieces, each on a machine that keeps nothing but a few small files, ends as one that was left alone."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest

from shakeshake.errors import InputError, RunError
from shakeshake.train import carry
from shakeshake.train import run_directory as record
from shakeshake.train.carry import MIB, pack, unpack

STEPS = 4
TINY = "digits --model shake_resnet8_2x4d --train-size 40 --batch-size 20 --epochs 2 --device cpu --precision fp32"
STOPPED = 130


def shakeshake(*arguments: object, code: int = 0) -> str:
    command = [sys.executable, "-m", "shakeshake", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    run = tmp_path_factory.mktemp("alone") / "run"
    shakeshake("train", *TINY.split(), "--out", run)
    return run


@pytest.mark.slow
def test_pieces_of_one_step(alone, tmp_path):
    """Each piece is over at once, so it is one step long; only the parts go on to the next."""
    run = tmp_path / "run"
    said = shakeshake("train", *TINY.split(), "--out", run, "--minutes", 1e-9, code=STOPPED)
    assert "stopped after 1e-09 minutes in epoch 1" in said
    for piece in range(1, STEPS):
        carried = tmp_path / f"carried {piece}"
        listed = shakeshake("pack", run, carried, "--size", 0.02).splitlines()
        assert 1 < len(listed) <= 8
        assert sorted(map(str, carried.iterdir())) == sorted(listed)
        assert all(part.stat().st_size <= 0.02 * MIB for part in carried.iterdir())
        shutil.rmtree(run)
        shakeshake("unpack", carried, run)
        if piece < STEPS - 1:
            shakeshake("resume", run, "--minutes", 1e-9, code=STOPPED)
    shakeshake("resume", run, "--minutes", 1)
    assert (run / "model.safetensors").read_bytes() == (alone / "model.safetensors").read_bytes()
    assert [row["epoch"] for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())] == [1, 2]
    assert len(json.loads((run / "environment.json").read_text())["resumed"]) == STEPS - 1, "every piece on record"


def test_a_finished_run_is_carried_as_a_finished_run(alone, tmp_path):
    pack(alone, tmp_path / "carried")
    unpack(tmp_path / "carried", tmp_path / "there" / "run")
    assert "test error" in shakeshake("eval", tmp_path / "there" / "run", "--device", "cpu")


@pytest.mark.filterwarnings("ignore:.*going on from checkpoint.previous.pt, which is older")
@pytest.mark.parametrize("harm", ["lost", "cut off"])
def test_the_newest_whole_checkpoint_is_carried(tmp_path, harm):
    """A kill between two renames leaves the older one alone; a disk that is full may leave the newer one in part."""
    run = tmp_path / "run"
    shakeshake("train", *TINY.split(), "--out", run, "--minutes", 1e-9, code=STOPPED)
    shakeshake("resume", run, "--minutes", 1e-9, code=STOPPED)
    older, newer = run / "checkpoint.previous.pt", run / "checkpoint.pt"
    newer.unlink() if harm == "lost" else newer.write_bytes(newer.read_bytes()[:1000])
    pack(run, tmp_path / "carried")
    unpack(tmp_path / "carried", tmp_path / "there")
    assert (tmp_path / "there" / "checkpoint.pt").read_bytes() == older.read_bytes()
    older.write_bytes(b"")
    newer.write_bytes(b"")
    with pytest.raises(RunError, match="no checkpoint can be read"):
        pack(run, tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_disk_that_is_full_leaves_no_parts(alone, tmp_path, monkeypatch):
    def full(path, content, write=record.atomic_write):
        if path.name.startswith("part-2"):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(record, "atomic_write", full)
    with pytest.raises(InputError, match="carried cannot be written: No space left"):
        pack(alone, tmp_path / "carried", size=0.03)
    assert not list((tmp_path / "carried").iterdir())


@pytest.mark.parametrize("content", [b"hello", b""])
def test_parts_that_are_whole_and_no_run(tmp_path, content):
    part = tmp_path / "part-1-of-1"
    part.write_bytes(content + hashlib.sha256(content).digest())
    with pytest.raises(InputError, match="are no run"):
        unpack(tmp_path, tmp_path / "run")
    part.rename(tmp_path / "part-1-of-999999999999")
    with pytest.raises(InputError, match="expected all of one"):
        unpack(tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_missing_damaged_or_too_large_is_said(alone, tmp_path):
    with pytest.raises(InputError, match=r"run: .* takes 0\.\d MiB, expected no more than 2 files of 0\.01 MiB"):
        pack(alone, tmp_path / "large", files=2, size=0.01)
    assert not (tmp_path / "large").exists()
    with pytest.raises(InputError, match="size: got 0 MiB, expected a finite number"):
        pack(alone, tmp_path / "large", size=0)
    parts = pack(alone, tmp_path / "carried", size=0.03)
    with pytest.raises(InputError, match="carried is not empty"):
        pack(alone, tmp_path / "carried")
    with pytest.raises(InputError, match=r"run: .* is there already"):
        unpack(tmp_path / "carried", alone)
    content = parts[1].read_bytes()
    parts[1].write_bytes(content[:100] + b"?" + content[101:])
    with pytest.raises(InputError, match="checksum is wrong"):
        unpack(tmp_path / "carried", tmp_path / "run")
    parts[1].unlink()
    with pytest.raises(InputError, match=r"holds part-1-of-\d, part-3-of"):
        unpack(tmp_path / "carried", tmp_path / "run")
    with pytest.raises(InputError, match="No such file"):
        unpack(tmp_path / "nowhere", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert not list(tmp_path.glob(".*.part"))


def test_what_a_kill_left_does_not_stop_the_next_try(alone, tmp_path):
    (tmp_path / "carried" / ".abc.part").mkdir(parents=True)
    for name in (".part-1-of-3.abc.part", ".abc.part/part-1-of-3"):
        (tmp_path / "carried" / name).write_bytes(b"half")
    parts = pack(alone, tmp_path / "carried")
    assert sorted((tmp_path / "carried").iterdir()) == parts


def test_a_run_that_only_can_be_read(alone, tmp_path, monkeypatch):
    """As on a disk that is mounted read-only, where nothing can be locked and nobody trains."""
    monkeypatch.setattr(carry.os, "access", lambda path, how: how != os.W_OK)
    monkeypatch.setattr(record.RunDirectory, "locked", None)
    pack(alone, tmp_path / "carried")
    unpack(tmp_path / "carried", tmp_path / "run")
    assert (tmp_path / "run" / "result.json").read_bytes() == (alone / "result.json").read_bytes()
