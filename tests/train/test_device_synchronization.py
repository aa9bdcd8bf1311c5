"""Training steps cause no synchronization or transfer between host and device, shown on torch's meta device.

Meta tensors have no values, so reading one raises an error; operations that mix devices are counted.
"""

import contextlib
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from shakeshake.data.registry import load_data
from shakeshake.train import trainer as trainer_module
from shakeshake.train.recipe import Recipe
from shakeshake.train.trainer import Trainer

RECIPE = Recipe(data="digits", model="shake_resnet8_2x16d", train_size=200, batch_size=64, epochs=2, precision="fp32")
EVERYTHING = {
    "ghost_batch_size": 32,
    "ema_decay": 0.9,
    "mixup_alpha": 0.2,
    "cutout_size": 4,
    "crop_padding": 2,
    "flip": True,
    "label_smoothing": 0.1,
    "grad_clip_norm": 1.0,
    "balance": "weight",
}


class Crossings(TorchDispatchMode):
    """Counts operations with tensors on two devices."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation is torch.ops.aten._fused_sgd_.default:
            return None  # knows no meta tensors; changes its first and third argument in place
        result = operation(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)]
        if len({x.device.type for x in tensors}) > 1:
            self.seen[str(operation), tuple(tensors[0].shape)] += 1
        return result


@pytest.mark.parametrize("options", [{}, EVERYTHING, {"balance": "sample"}, {"rule": "S-M3-I"}], ids=str)
def test_training_steps_never_synchronize_with_the_device(monkeypatch, options):
    monkeypatch.setattr(trainer_module, "choose_device", lambda *a: torch.device("meta"))
    monkeypatch.setattr(trainer_module, "seed_generators", lambda *a: None)
    monkeypatch.setattr(trainer_module, "autocast", lambda *a: contextlib.nullcontext())
    trainer = Trainer(RECIPE.replace(**options), load_data("digits", train_size=200))
    batches = trainer.loader.epoch(0)
    with Crossings() as crossings:
        trainer.train_step(next(batches))  # what an epoch needs goes to the device with its first batch
        assert crossings.seen
        crossings.seen.clear()
        for batch in batches:
            trainer.train_step(batch)
    assert trainer.step_in_epoch == trainer.steps_per_epoch == 4
    assert not crossings.seen
