"""Training on CUDA: agreement with the CPU and bit-identical resume."""

import pytest
import torch

from shakeshake import ShakeRule
from shakeshake.data.registry import load_data
from shakeshake.train.recipe import Recipe
from shakeshake.train.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, there is none"),
]

RECIPE = Recipe(data="digits", model="shake_resnet8_2x16d", rule="S-S-I", train_size=200, epochs=2, batch_size=64)


def train(trainer: Trainer, steps: int) -> None:
    while steps:
        for batch in trainer.loader.epoch(trainer.epoch, trainer.step_in_epoch):
            trainer.train_step(batch)
            steps -= 1
            if not steps:
                break
        if trainer.step_in_epoch == trainer.steps_per_epoch:
            trainer.finish_epoch()
            trainer.start_epoch()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resume_on_cuda_is_bit_identical(precision):
    data = load_data("digits", train_size=200)
    recipe = RECIPE.replace(device="cuda", precision=precision)
    alone = Trainer(recipe, data)
    train(alone, 7)
    broken = Trainer(recipe, data)
    train(broken, 3)
    again = Trainer(recipe.replace(), data)
    again.load_state_dict(broken.state_dict())
    train(again, 4)
    for (name, a), b in zip(alone.network.state_dict().items(), again.network.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_coefficients_are_drawn_on_the_cuda_device():
    alpha, beta = ShakeRule.parse("S-M3-I").draw(4, 2, device="cuda")
    assert alpha.is_cuda
    assert beta.is_cuda


@pytest.mark.filterwarnings("ignore:TensorFloat32")  # torch's advice, when it compiles
@pytest.mark.parametrize("compile", ["none", "reduce-overhead"])
def test_training_on_cuda_matches_training_on_cpu(compile, monkeypatch):
    """CUDA processes all microbatches at once, the CPU one after the other; also with CUDA graphs."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    data = load_data("digits", train_size=200)
    recipe = RECIPE.replace(rule="E-E-I", precision="fp32", ghost_batch_size=32, compile_mode=compile, lr=0.05)
    cpu = Trainer(recipe.replace(device="cpu", compile_mode="none"), data)
    cuda = Trainer(recipe.replace(device="cuda"), data)
    cuda.network.load_state_dict(cpu.network.state_dict())
    train(cpu, 6)
    train(cuda, 6)
    for trainer in (cpu, cuda):
        assert trainer.epoch == 1
    torch.testing.assert_close(cuda.losses.cpu(), cpu.losses, rtol=0.0, atol=1e-3)
