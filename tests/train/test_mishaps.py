"""What befalls a run from outside: pauses, restarts, moved folders, damaged files. It goes on, or says why not."""

import pytest

from shakeshake.train import checkpoint
from shakeshake.train.keeper import Stopped
from shakeshake.train.loop import fit, resume
from shakeshake.train.recipe import Recipe

TINY = Recipe(data="digits", model="shake_resnet8_2x4d", rule="S-S-I", train_size=40, batch_size=20, epochs=2)
TINY = TINY.replace(device="cpu", precision="fp32", crop=1, flip=False)


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
    assert resume(stopped, quiet=True)["seconds"] > 1e6
