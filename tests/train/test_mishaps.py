"""What befalls a run from outside: pauses, restarts, moved folders, damaged files. It goes on, or says why not."""

import signal

import pytest

from shakeshake.errors import DONE, INTERRUPTED, explained
from shakeshake.train import checkpoint
from shakeshake.train.distributed import Group
from shakeshake.train.keeper import Stopped
from shakeshake.train.loop import fit, resume, run_path
from shakeshake.train.recipe import Recipe
from shakeshake.train.record import RunDirectory

TINY = Recipe(data="digits", model="shake_resnet8_2x4d", rule="S-S-I", train_size=40, batch_size=20, epochs=2)
TINY = TINY.replace(device="cpu", precision="fp32", crop=1, flip=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "runs" / "digits-S-S-I-1"
    fit(TINY, path, quiet=True)
    return path


@pytest.fixture
def stopped(tmp_path):
    """A run that has one step and a checkpoint."""
    with pytest.raises(Stopped):
        fit(TINY, tmp_path / "stopped", minutes=1e-9, quiet=True)
    return tmp_path / "stopped"


def test_a_night_asleep(stopped):
    """The seconds of an epoch are in its checkpoint, however many they are."""
    state = checkpoint.load(stopped)
    state["trainer"]["seconds"] = 1e6
    checkpoint.save(stopped, state)
    assert resume(stopped, quiet=True)["seconds"] >= 1e6


def test_started_again_after_the_end(finished, monkeypatch):
    """A death while the page is written: torchrun's next try has nothing left to train."""
    monkeypatch.chdir(finished.parent.parent)
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    before = sorted(entry.stat().st_mtime_ns for entry in finished.iterdir())
    for out in (finished, None):
        assert fit(TINY, out, quiet=True)["epochs"] == 2
    assert run_path(TINY, Group(restarts=1)).absolute() == finished
    assert sorted(entry.stat().st_mtime_ns for entry in finished.iterdir()) == before


@pytest.mark.parametrize(("environment", "status"), [({"TORCHELASTIC_RESTART_COUNT": "0"}, DONE), ({}, INTERRUPTED)])
def test_torchrun_does_not_start_again_what_was_asked_to_stop(tmp_path, monkeypatch, capsys, environment, status):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert explained(lambda: fit(TINY, tmp_path / "run", minutes=1e-9, quiet=True)) == status
    assert "stopped after 1e-09 minutes in epoch 1; go on with" in capsys.readouterr().err


def test_no_epoch_after_the_last(tmp_path, monkeypatch):
    """A signal while the last row is written."""
    written = RunDirectory.append_metrics

    def append(run, row):
        written(run, row)
        if row["epoch"] == TINY.epochs:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(RunDirectory, "append_metrics", append)
    with pytest.raises(Stopped, match="by SIGTERM in epoch 2;"):
        fit(TINY, tmp_path / "run", quiet=True)
