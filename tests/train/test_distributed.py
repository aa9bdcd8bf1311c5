"""Distributed training matches one process, restarts after a crash, and resumes with another number of processes."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import wait_for
from shakeshake.data.dataset import Split
from shakeshake.data.loader import Augmentation, Loader
from shakeshake.data.registry import load_data
from shakeshake.errors import InputError, RunError
from shakeshake.train.distributed import DistContext, distributed_context
from shakeshake.train.recipe import Recipe
from shakeshake.train.trainer import Trainer

RECIPE = (
    "digits --model shake_resnet8_2x4d --train-size 80 --batch-size 40 --precision fp32 --device cpu --crop-padding 1"
)


def processes(count: int, command: str, *more: object, restarts: int = 0) -> subprocess.Popen:
    program = ["-m", "shakeshake", *command.split(), *map(str, more)]
    if count > 1:
        launcher = f"-m torch.distributed.run --standalone --nproc-per-node {count} --max-restarts {restarts}"
        program = [*launcher.split(), *program]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *program], stderr=subprocess.PIPE, text=True, env=environment)


def finish(process: subprocess.Popen) -> str:
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return said


def curve(run: Path) -> list[float]:
    return [json.loads(line)["train_loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_processes_match_one_process_with_ghost_batches(tmp_path, count):
    """Without random coefficients, processes and ghost batches differ only by rounding."""
    recipe = f"train {RECIPE} --rule E-E-B --epochs 4 --ghost-batch-size {40 // count}"
    finish(processes(1, recipe, "--out", tmp_path / "one"))
    said = finish(processes(count, recipe, "--out", tmp_path / "several"))
    assert curve(tmp_path / "several") == pytest.approx(curve(tmp_path / "one"), abs=1e-5)
    assert said.count("epoch 4/4") == 1, "only one process prints progress"
    assert json.loads((tmp_path / "several" / "environment.json").read_text())["processes"] == count


def worker(out: Path, rank: int) -> int:
    """Return the pid of a process of the run, found by its arguments and environment."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            started = (entry / "cmdline").read_bytes().split(b"\0")
            if str(out).encode() in started and f"RANK={rank}".encode() in (entry / "environ").read_bytes().split(
                b"\0"
            ):
                return int(entry.name)
    raise AssertionError(f"no process {rank} of {out}")


@pytest.mark.slow
def test_killed_process_restarts_and_training_is_bit_identical(tmp_path):
    """torchrun restarts all processes, which resume from the last checkpoint."""
    recipe = f"train {RECIPE} --rule S-S-I --epochs 20 --checkpoint-interval-s 0 --eval-every 20"
    out = tmp_path / "killed"
    process = processes(2, recipe, "--out", out, restarts=1)
    wait_for(out / "checkpoint.previous.pt", process)
    os.kill(worker(out, 1), signal.SIGKILL)
    finish(process)
    assert json.loads((out / "environment.json").read_text())["resumed"][0]["at_step"] > 0
    finish(processes(2, recipe, "--out", tmp_path / "alone"))
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "alone" / "model.safetensors").read_bytes()
    assert curve(out) == curve(tmp_path / "alone")


@pytest.mark.slow
def test_run_of_two_processes_resumes_with_one(tmp_path):
    recipe = f"train {RECIPE} --rule E-E-B --epochs 40 --ghost-batch-size 20 --eval-every 40"
    out = tmp_path / "stopped"
    process = processes(2, recipe, "--out", out)
    wait_for(out / "metrics.jsonl", process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert "shakeshake: stopped by SIGTERM" in said, said
    step = torch.load(out / "checkpoint.pt", weights_only=True)["trainer"]["epoch"]
    assert 0 < step < 40
    finish(processes(1, "resume", out))
    finish(processes(1, recipe, "--out", tmp_path / "one"))
    # Rounding differs from the step on at which the run changed hands, and training lets it grow.
    assert curve(out) == pytest.approx(curve(tmp_path / "one"), abs=1e-3)


OWN_SCRIPT = """
import os, sys
from pathlib import Path
import shakeshake as ss

recipe = ss.Recipe(data="digits", model="shake_resnet8_2x4d", train_size=80, batch_size=40, epochs=2, device="cpu")
try:
    ss.fit(recipe, sys.argv[1], minutes=float(sys.argv[2]), quiet=True)
except KeyboardInterrupt:
    pass
Path(sys.argv[1], "threads" + os.environ["RANK"]).write_text(
    " ".join(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))
)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads have names on Linux")
@pytest.mark.parametrize("minutes", [60, 1e-9], ids=["finished", "stopped"])
def test_fit_leaves_no_thread_of_the_process_group(tmp_path, minutes):
    """A remaining thread could need Python while the interpreter shuts down, which sometimes aborts the process."""
    (tmp_path / "own.py").write_text(OWN_SCRIPT)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, str(tmp_path / "own.py"), str(tmp_path / "run"), str(minutes)]
    subprocess.run(command, check=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
    assert (tmp_path / "run" / "result.json").exists() == (minutes > 1)
    for rank in range(2):
        assert "gloo" not in (tmp_path / "run" / f"threads{rank}").read_text()


def some_trainer(rule: str) -> Trainer:
    recipe = Recipe(data="digits", model="shake_resnet8_2x4d", rule=rule, batch_size=40, precision="fp32", device="cpu")
    return Trainer(recipe, load_data("digits", train_size=80))


def test_processes_draw_different_coefficients():
    losses = []
    for rank in (0, 1, 1):
        trainer = some_trainer("S-S-I")
        trainer.dist = dataclasses.replace(trainer.dist, rank=rank)
        trainer.train_step(next(trainer.loader.epoch(0)))
        losses.append(float(trainer.loss_per_step[0]))
    assert losses[0] != losses[1] == losses[2]


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_shards_concatenate_to_the_whole_batch(mixup):
    random = np.random.default_rng(0)
    split = Split(random.integers(0, 256, (23, 3, 8, 8), dtype=np.uint8), random.integers(0, 5, 23))

    def loader(rank: int, size: int) -> Loader:
        how = Augmentation(flip=True, crop_padding=2, cutout_size=3, mixup_alpha=mixup)
        return Loader(split, (120.0,) * 3, (60.0,) * 3, batch_size=10, augmentation=how, rank=rank, size=size)

    whole = list(loader(0, 1).epoch(3))
    pieces = zip(*(loader(rank, 3).epoch(3) for rank in range(3)), strict=True)
    for one, some in zip(whole, pieces, strict=True):
        assert torch.equal(one.images, torch.cat([piece.images for piece in some]))
        assert torch.equal(one.labels, torch.cat([piece.labels for piece in some]))
        assert {piece.total for piece in some} == {len(one.labels)}
        if mixup:
            assert torch.equal(one.labels_b, torch.cat([piece.labels_b for piece in some]))


def test_batch_with_fewer_images_than_processes_is_refused():
    recipe = Recipe(data="digits", model="shake_resnet8_2x4d", batch_size=39, device="cpu")
    with pytest.raises(
        InputError, match=r"batch_size: with 39 .* has 2 images, expected at least one for each of 4 processes"
    ):
        Trainer(recipe, load_data("digits", train_size=80), DistContext(size=4))


TORCHRUN = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


def set_environment(monkeypatch, **changes: str | None) -> None:
    for name, value in {**TORCHRUN, **changes}.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)


def test_single_restarted_process_reports_its_restarts(monkeypatch):
    set_environment(monkeypatch, WORLD_SIZE="1", RANK="0", LOCAL_RANK="0", TORCHELASTIC_RESTART_COUNT="2")
    with distributed_context() as dist:
        assert (dist.size, dist.restarts) == (1, 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE: got 'abc', expected 1 or more, as torchrun sets it"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE: got '', expected 1 or more"),
        ({"RANK": "2"}, "RANK: got '2', expected 0 to 1"),
        ({"RANK": None}, "RANK: got '', expected 0 to 1"),
        ({"MASTER_ADDR": None}, "MASTER_ADDR: is not set but WORLD_SIZE is"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT: got 'http', expected 0 to 65535"),
    ],
)
def test_invalid_torchrun_variables_are_reported(monkeypatch, changes, said):
    set_environment(monkeypatch, **changes)
    with pytest.raises(InputError, match=said), distributed_context():
        pass


def test_default_signal_handlers_are_active_during_rendezvous(monkeypatch):
    """The rendezvous waits in C++ for minutes, during which Python's handlers would not run."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    seen = []

    def rendezvous(*a, **k):
        seen.extend(signal.getsignal(number) for number in numbers)
        raise torch.distributed.DistNetworkError("nobody is there")

    monkeypatch.setattr(torch.distributed, "rendezvous", rendezvous)
    set_environment(monkeypatch)
    before = [signal.getsignal(number) for number in numbers]
    with (
        pytest.raises(RunError, match="process 1 of 2 has not found the others: nobody is there"),
        distributed_context(),
    ):
        pass
    assert seen == [signal.SIG_DFL] * 2
    assert [signal.getsignal(number) for number in numbers] == before
