"""Training steps under torch.compile, including their random coefficients."""

import pytest
import torch
import torch._inductor.config as inductor

from helpers import TINY
from shakeshake.data.registry import load_data
from shakeshake.errors import InputError
from shakeshake.train.trainer import Trainer

SMALL = TINY.replace(train_size=80, batch_size=40, ghost_batch_size=20, lr=0.1)


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", train_size=80)


def epoch(trainer: Trainer) -> torch.Tensor:
    """Train one epoch and return the loss of each step."""
    for batch in trainer.loader.epoch(trainer.epoch, trainer.step_in_epoch):
        trainer.train_step(batch)
    return trainer.loss_per_step.clone()


def test_compiled_training_matches_eager_training(digits):
    plain, fast = (Trainer(SMALL.replace(rule="E-E-I", compile_mode=mode), digits) for mode in ("none", "default"))
    assert torch.allclose(epoch(plain), epoch(fast), atol=1e-5)
    for (name, a), b in zip(plain.network.state_dict().items(), fast.network.state_dict().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-5), name


def test_compiled_steps_draw_new_coefficients_determined_by_seed_and_step(digits):
    recipe = SMALL.replace(rule="S-S-I", compile_mode="default")
    one, other, again = (Trainer(recipe.replace(seed=s, lr=1e-30, ghost_batch_size=None), digits) for s in (0, 1, 0))
    other.network.load_state_dict(one.network.state_dict())
    batch = next(one.loader.epoch(0))
    losses = []
    for trainer in (one, other, again):
        for _ in range(2):
            trainer.train_step(batch)
        losses += trainer.loss_per_step.tolist()
    assert losses[:2] == losses[4:], "one seed, one sequence"
    assert len(set(losses)) == 4, "weights and images are the same: coefficients alone differ"


def test_compile_failure_is_reported_before_training(digits, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # where nothing has been compiled yet
    torch.compiler.reset()
    told = r"compile_mode: got 'default', but torch.compile does not work here .*no-such"
    with inductor.patch({"cpp.cxx": ("no-such-compiler",)}), pytest.raises(InputError, match=told):
        Trainer(SMALL.replace(compile_mode="default"), digits)
