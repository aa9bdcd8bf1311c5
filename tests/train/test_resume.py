"""Killed and resumed runs end with the same weights and metrics, bit for bit, as uninterrupted ones."""

import contextlib
import json
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from helpers import TINY_OPTIONS, finish, python, shakeshake_output, start, wait_for
from shakeshake.train import checkpoint

HERE = Path(__file__).parent
TIMES = ("seconds", "images_per_second", "peak_memory")  # the only figures that may differ


def outcome(run: Path) -> tuple[bytes, list[dict], dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((run / "result.json").read_text())
    rows, result = ([{k: v for k, v in row.items() if k not in TIMES} for row in some] for some in (rows, [result]))
    return (run / "model.safetensors").read_bytes(), rows, result[0]


def start_training(out: Path, *more: object, **options) -> subprocess.Popen[str]:
    recipe = [*TINY_OPTIONS, "--rule", "S-S-I", "--train-size", 60, "--epochs", 3, "--checkpoint-interval-s", 0]
    return start("-m", "shakeshake", "train", "digits", *recipe, "--out", out, *more, **options)


def stamp(run: Path) -> int:
    """Return the modification time of the newest checkpoint, or 0 while it is being renamed."""
    times = [0]
    for entry in run.glob("checkpoint*.pt"):
        with contextlib.suppress(FileNotFoundError):
            times.append(entry.stat().st_mtime_ns)
    return max(times)


def check_crashes(out: Path, first: int, last: int, stride: int) -> int:
    stdout, _ = finish(start(HERE / "crash.py", out, first, last, stride), timeout=500)
    told = json.loads(stdout)
    alone = outcome(out / "alone")
    for name in told["killed"]:
        assert outcome(out / name) == alone, f"{name} differs from the uninterrupted run"
        assert not list((out / name).glob(".*.part")), "partial files are removed"
    assert told["killed"]
    return told["points"]


def test_resume_is_bit_identical_after_sigkill_at_some_writes(tmp_path):
    """Before and after every ninth fsync, rename or removal of a file."""
    assert check_crashes(tmp_path, 1, 10_000, 9) > 40


@pytest.mark.slow
def test_resume_is_bit_identical_after_sigkill_at_every_write(tmp_path):
    check_crashes(tmp_path, 2, 10_000, 2)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """An uninterrupted run of three epochs."""
    run = tmp_path_factory.mktemp("alone") / "run"
    finish(start_training(run))
    return run


@pytest.mark.slow
def test_resume_is_bit_identical_after_sigkill_at_random_times(tmp_path, alone):
    process = start_training(tmp_path / "killed")
    wait_for(tmp_path / "killed" / checkpoint.NAME, process)
    moments = random.Random(0)
    for _ in range(3):
        time.sleep(moments.uniform(0.0, 0.1))
        process.kill()
        process.communicate()
        before = stamp(tmp_path / "killed")
        process = start("-m", "shakeshake", "resume", tmp_path / "killed")
        while process.poll() is None and stamp(tmp_path / "killed") == before:
            time.sleep(0.001)
    finish(process)
    assert outcome(tmp_path / "killed") == outcome(alone)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_a_checkpoint_and_exits_with_130(tmp_path, number):
    run = tmp_path / "run"
    process = start_training(run, "--epochs", 10_000, "--checkpoint-interval-s", 3600)
    wait_for(run / "metrics.jsonl", process)
    began = time.monotonic()
    process.send_signal(number)
    _, message = finish(process, code=130)
    assert time.monotonic() - began < 10
    assert f"shakeshake resume {run}" in message
    state = checkpoint.load(run)["trainer"]
    assert state["epoch"] >= len((run / "metrics.jsonl").read_text().splitlines()) - 1


def test_resume_is_bit_identical_after_a_damaged_checkpoint(tmp_path, alone):
    """The run reports the damage and resumes from the previous checkpoint."""
    run = shutil.copytree(alone, tmp_path / "hurt")
    (run / "result.json").unlink()
    (run / checkpoint.NAME).write_bytes((run / checkpoint.NAME).read_bytes()[:-7])
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 4, "st')
    (run / "model.safetensors").unlink()
    assert "damaged" in shakeshake_output("resume", run)
    assert outcome(run) == outcome(alone)


def test_full_disk_stops_the_run_and_resume_is_bit_identical(tmp_path, alone):
    run = tmp_path / "run"
    size = (alone / checkpoint.NAME).stat().st_size
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))  # noqa: E731
    _, message = finish(start_training(run, preexec_fn=limit), code=1)
    assert f"{run} cannot be written: File too large" in message
    assert not list(run.glob("*.part"))
    assert not list(run.glob(".*.part"))
    shakeshake_output("resume", run)
    assert outcome(run) == outcome(alone)


def test_divergence_is_reported_with_its_step_and_keeps_a_finite_checkpoint(tmp_path):
    run = tmp_path / "run"
    _, message = finish(start_training(run, "--epochs", 50, "--lr", 1e18), code=1)
    assert re.search(r"epoch \d+, .*step \d+ of 3: .* (is|not) ", message)
    assert "--lr" in message
    state = checkpoint.load(run)
    assert all(torch.isfinite(t).all() for t in state["trainer"]["network"].values())
    assert not (run / "result.json").exists()


def test_second_process_cannot_train_the_same_run(tmp_path):
    run = tmp_path / "run"
    process = start_training(run, "--epochs", 10_000)
    wait_for(run / checkpoint.NAME, process)
    assert "another process" in shakeshake_output("resume", run, code=2)
    process.kill()
    process.communicate()


def test_fit_from_python_is_bit_identical_to_the_command(tmp_path, alone):
    code = (
        "import json, sys; from shakeshake import Recipe, fit; "
        "fit(Recipe.from_dict(json.load(open(sys.argv[1] + '/recipe.json'))), sys.argv[2], quiet=True)"
    )
    python("-c", code, alone, tmp_path / "again")
    assert outcome(tmp_path / "again") == outcome(alone)


def test_run_recorded_before_new_recipe_fields_resumes_but_an_edited_one_does_not(tmp_path, alone):
    """recipe.json and the checkpoint lack newer fields, whose defaults reproduce the old behaviour."""
    run = shutil.copytree(alone, tmp_path / "old")
    (run / "result.json").unlink()
    (run / checkpoint.PREVIOUS).replace(run / checkpoint.NAME)
    young = ("schedule", "milestones", "gamma", "nesterov", "first_epoch_lr")
    state, recipe = checkpoint.load(run), json.loads((run / "recipe.json").read_text())
    state["recipe"] = {name: value for name, value in state["recipe"].items() if name not in young}
    checkpoint.save(run, state)
    (run / "recipe.json").write_text(json.dumps(recipe | {"schedule": "steps"}))
    assert "schedule: " in shakeshake_output("resume", run, code=2)
    (run / "recipe.json").write_text(json.dumps({k: v for k, v in recipe.items() if k not in young}))
    shakeshake_output("resume", run)
    assert outcome(run) == outcome(alone)
