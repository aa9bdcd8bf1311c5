"""The fused SGD step against torch.optim.SGD."""

import itertools

import pytest
import torch
from torch import nn

from helpers import python
from shakeshake.train.sgd import SGD


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, True), (0.9, False), (0.0, False)])
def test_matches_torch_sgd(momentum, nesterov):
    def network() -> nn.Module:
        torch.manual_seed(0)
        return (
            nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 5))
            .double()
            .to(memory_format=torch.channels_last)
        )

    theirs, ours = network(), network()
    how = {"momentum": momentum, "nesterov": nesterov, "weight_decay": 1e-2}
    reference, optimizer = torch.optim.SGD(theirs.parameters(), lr=1.0, **how), SGD(ours.parameters(), **how)
    for step, lr in enumerate((0.1, 0.05, 0.2)):
        x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step)).double()
        for net in (theirs, ours):
            net(x).square().mean().backward()
        if step == 1:  # as an operation may leave it
            ours[0].weight.grad = ours[0].weight.grad.contiguous()
        reference.param_groups[0]["lr"] = lr
        reference.step()
        optimizer.step(lr)
        reference.zero_grad()
        optimizer.zero_grad()
    for a, b in itertools.zip_longest(theirs.parameters(), ours.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        assert b.grad is None


def test_step_does_not_import_the_compiler():
    """Importing the compiler takes longer than everything else before the first step."""
    program = (
        "import sys; from shakeshake.data.registry import load_data; from shakeshake.train.recipe import Recipe; "
        "from shakeshake.train.trainer import Trainer; "
        "recipe = Recipe(data='digits', model='shake_resnet8_2x4d', epochs=1, device='cpu'); "
        "trainer = Trainer(recipe, load_data('digits')); trainer.train_step(next(trainer.loader.epoch(0))); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    python("-c", program)
