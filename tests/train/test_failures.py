"""Restarts, moved folders, damaged files and full disks: the run resumes or raises an error with the reason."""

import contextlib
import errno
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from helpers import TINY
from shakeshake.errors import InputError, RunError
from shakeshake.train import checkpoint
from shakeshake.train import fit as loop
from shakeshake.train.checkpointer import Stopped
from shakeshake.train.distributed import DistContext
from shakeshake.train.fit import fit, resume, run_path
from shakeshake.train.run_directory import RunBusy, RunDirectory
from shakeshake.utils.console import EXIT_INTERRUPTED, EXIT_OK, run_cli

RECIPE = TINY.replace(rule="S-S-I", train_size=40)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with one checkpoint after its first step and one at its end."""
    path = tmp_path_factory.mktemp("finished") / "runs" / "digits-S-S-I-1"
    with pytest.raises(Stopped):
        fit(RECIPE, path, minutes=1e-9, quiet=True)
    resume(path, quiet=True)
    return path


@pytest.fixture
def stopped(tmp_path):
    """A run stopped after one step, with a checkpoint."""
    with pytest.raises(Stopped):
        fit(RECIPE, tmp_path / "stopped", minutes=1e-9, quiet=True)
    return tmp_path / "stopped"


def test_seconds_of_an_interrupted_epoch_are_kept(stopped):
    """The checkpoint stores the seconds spent in the current epoch."""
    state = checkpoint.load(stopped)
    state["trainer"]["seconds"] = 1e6
    checkpoint.save(stopped, state)
    assert resume(stopped, quiet=True).seconds >= 1e6


def test_restart_after_the_last_epoch_changes_nothing(finished, monkeypatch):
    """torchrun restarts a process that was killed while it wrote the report, with nothing left to train."""
    monkeypatch.chdir(finished.parent.parent)
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    before = sorted(entry.stat().st_mtime_ns for entry in finished.iterdir())
    for out in (finished, None):
        assert fit(RECIPE, out, quiet=True).epochs == 2
    assert run_path(RECIPE, DistContext(restarts=1)).absolute() == finished
    assert sorted(entry.stat().st_mtime_ns for entry in finished.iterdir()) == before


@pytest.mark.parametrize(
    ("environment", "status"), [({"TORCHELASTIC_RESTART_COUNT": "0"}, EXIT_OK), ({}, EXIT_INTERRUPTED)]
)
def test_exit_status_of_a_stopped_run_prevents_torchrun_restarts(tmp_path, monkeypatch, capsys, environment, status):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert run_cli(lambda: fit(RECIPE, tmp_path / "run", minutes=1e-9, quiet=True)) == status
    assert "stopped after 1e-09 minutes in epoch 1; resume with" in capsys.readouterr().err


def test_signal_during_the_last_epoch_starts_no_further_epoch(tmp_path, monkeypatch):
    """The signal arrives while the last row of metrics is written."""
    written = RunDirectory.append_metrics

    def append(run, row):
        written(run, row)
        if row.epoch == RECIPE.epochs:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(RunDirectory, "append_metrics", append)
    with pytest.raises(Stopped, match="by SIGTERM in epoch 2;"):
        fit(RECIPE, tmp_path / "run", quiet=True)


def test_damaged_checkpoint_never_replaces_the_good_previous_one(stopped, monkeypatch):
    with pytest.raises(Stopped):
        resume(stopped, minutes=1e-9, quiet=True)
    (stopped / checkpoint.NAME).write_bytes(b"damaged")
    good = (stopped / checkpoint.PREVIOUS).read_bytes()
    replaced = os.replace

    def killed(source, target):
        if Path(target).name == checkpoint.NAME:
            raise SystemExit  # between the two renames of the next save
        replaced(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.warns(UserWarning, match="which is older"), pytest.raises(SystemExit):
        resume(stopped, minutes=1e-9, quiet=True)
    monkeypatch.undo()
    assert (stopped / checkpoint.PREVIOUS).read_bytes() == good
    assert resume(stopped, quiet=True).epochs == 2


ROWS = {
    "garbage between": lambda rows: [rows[0], '{"epo', "[" * 100_000, rows[1]],
    "twice": lambda rows: [rows[0], rows[0], rows[1]],
    "no fields": lambda rows: ['{"epoch": 1}', rows[1]],
    "no last one": lambda rows: rows[:1],
    "not a number": lambda rows: [rows[0], rows[1].replace('"seconds": ', '"seconds": NaN, "was": ')],
    "empty": lambda rows: [],
}


@pytest.mark.filterwarnings("ignore:.*checkpoint.pt has epochs that metrics.jsonl lacks; using checkpoint.previous.pt")
@pytest.mark.parametrize("harm", ROWS)
def test_damaged_metrics_are_restored_on_resume(finished, tmp_path, harm):
    """Missing rows are computed again from the previous checkpoint where possible."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").unlink()
    rows = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("".join(row + "\n" for row in ROWS[harm](rows)))
    again = resume(run, quiet=True)
    assert again.last_error == result["last_error"]
    assert again.epochs == 2
    kept = [json.loads(row)["epoch"] for row in (run / "metrics.jsonl").read_text().splitlines()]
    assert kept == [1, 2]


def test_missing_metrics_are_reported_and_training_continues(finished, tmp_path, caplog):
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    for name in ("result.json", checkpoint.PREVIOUS):
        (run / name).unlink()
    (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text().splitlines()[1] + "\n")
    assert resume(run, quiet=True).epochs == 2
    assert "metrics.jsonl lacks epoch 1; training continues without" in caplog.text


def test_resume_without_metrics_of_the_last_epoch_raises(finished, tmp_path):
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    for name in ("result.json", "metrics.jsonl", checkpoint.PREVIOUS):
        (run / name).unlink()
    with pytest.raises(
        RunError, match=r"metrics.jsonl lacks epoch 1, 2, including the last one; restore the file, or remove"
    ):
        resume(run, quiet=True)


@pytest.mark.parametrize("content", ["{", "[]", '{"resumed": 3}'])
def test_damaged_environment_record_is_replaced(stopped, content):
    (stopped / "environment.json").write_text(content)
    assert resume(stopped, quiet=True).epochs == 2
    assert "torch" in (stopped / "environment.json").read_text()


def test_second_run_in_one_folder_is_refused(finished, tmp_path, monkeypatch):
    """The second run appears after the first has checked the folder, while it reads its images."""
    build = loop.Trainer

    def slow(*arguments, **options):
        shutil.copytree(finished, tmp_path / "run", dirs_exist_ok=True)
        return build(*arguments, **options)

    monkeypatch.setattr(loop, "Trainer", slow)
    with pytest.raises(InputError, match="holds a finished run"):
        fit(RECIPE.replace(seed=1), tmp_path / "run", quiet=True)
    assert outcome(tmp_path / "run") == outcome(finished)

    def busy(*arguments, **options):
        held.enter_context(RunDirectory(tmp_path / "other").locked())
        return build(*arguments, **options)

    monkeypatch.setattr(loop, "Trainer", busy)
    with contextlib.ExitStack() as held, pytest.raises(RunBusy):
        fit(RECIPE, tmp_path / "other", quiet=True)
    assert [entry.name for entry in (tmp_path / "other").iterdir()] in ([".lock"], [])


def outcome(run: Path) -> list[bytes]:
    return [(run / name).read_bytes() for name in ("recipe.json", "result.json", "metrics.jsonl", "model.safetensors")]


def test_runs_without_out_get_separate_folders_and_invalid_ones_leave_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [run_path(RECIPE, DistContext()).name for _ in range(2)] == ["digits-S-S-I-1", "digits-S-S-I-2"]
    with pytest.raises(InputError, match="batch_size"):
        fit(RECIPE.replace(batch_size=5000), quiet=True)
    with pytest.raises(InputError, match="minutes"):
        fit(RECIPE, minutes=-1.0, quiet=True)
    assert len(list(Path("runs").iterdir())) == 2, "invalid arguments leave no folder"


@pytest.mark.parametrize("replaced", [False, True])
def test_moving_a_run_during_training_stops_it_and_it_can_be_resumed(tmp_path, monkeypatch, replaced):
    """A new run at the old path receives none of the rows and checkpoints of the moved run."""
    run, there = tmp_path / "run", tmp_path / "there"

    def move(*_, **__):
        run.rename(there)
        if replaced:
            shutil.copytree(there, run)

    monkeypatch.setattr(loop.TensorBoard, "on_epoch_end", move)
    with pytest.raises(RunError, match="run was moved or removed during training"):
        fit(RECIPE, run, quiet=True)
    assert run.exists() == replaced
    assert not replaced or [entry.name for entry in run.glob("*.pt")] == []
    assert len((there / "metrics.jsonl").read_text().splitlines()) == 1
    monkeypatch.undo()
    assert resume(there, quiet=True).epochs == 2


def test_full_disk_is_reported_once(tmp_path, monkeypatch):
    """TensorBoard's writer thread must not print a traceback in addition, which pytest would turn into an error."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", full)
    with pytest.raises(RunError, match="cannot be written: No space left on device"):
        fit(RECIPE, tmp_path / "run", quiet=True)
