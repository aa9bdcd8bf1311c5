"""Parts of a batch at once, as on a GPU: the same as one after the other, each with what is its own."""

import copy

import pytest
import torch

from shakeshake import ShakeRule, create_model
from shakeshake.data.registry import load_data
from shakeshake.train.ghost_batch_norm import in_parts
from shakeshake.train.recipe import Recipe
from shakeshake.train.trainer import Trainer

# The last batch, of 30 images, has parts of 15; those of the first have 17, 17 and 16.
UNEVEN = Recipe(
    data="digits", model="shake_resnet8_2x4d", rule="E-E-I", train_size=80, epochs=1, batch_size=50, ghost_batch_size=20
).replace(crop_padding=1, flip=False, precision="fp32", device="cpu", mixup_alpha=0.5, balance="weight")


def test_weights_and_statistics_are_those_of_parts_one_after_the_other():
    data = load_data("digits", train_size=80)
    after, at_once = (Trainer(UNEVEN, data) for _ in range(2))
    in_parts(at_once.network, at_once.part)
    at_once.part = None
    for trainer in (after, at_once):
        for batch in trainer.loader.epoch(0):
            trainer.train_step(batch)
    assert torch.allclose(after.losses, at_once.losses, atol=1e-5)
    expected = after.network.state_dict()
    for name, value in at_once.network.state_dict().items():
        assert torch.allclose(value, expected[name], atol=1e-5), name


@pytest.mark.parametrize("rule", ["S-S-B", "S-K-B", "E-S-B", "S-0.7-B", "S-E-B[0.4,0.6]"])
def test_a_batch_of_the_rule_is_a_part(rule, monkeypatch):
    """Coefficients at level Batch are drawn for each part, and used for its images."""
    drawn = []
    draw = ShakeRule.draw
    monkeypatch.setattr(ShakeRule, "draw", lambda *a, **k: drawn.append(draw(*a, **k)) or drawn[-1])
    network = create_model("shake_resnet8_2x4d", rule=rule).double()
    slow, x = copy.deepcopy(network), torch.randn(5, 3, 8, 8, dtype=torch.double)
    in_parts(network, 2)
    y = network(x)
    weights = torch.randn_like(y)
    (y * weights).sum().backward()
    assert [tuple(alpha.shape) for alpha, _ in drawn] == [(3, 2)] * 3, "a row for each part, in each of three blocks"
    shaken = [rows[rule.startswith("E")][:, 0] for rows in drawn]
    assert len(torch.cat(shaken).unique()) == 9, "fresh for every block and part"
    for number, part in enumerate((slice(0, 2), slice(2, 4), slice(4, 5))):
        rows = iter([(alpha[number], beta[number]) for alpha, beta in drawn])
        monkeypatch.setattr(ShakeRule, "draw", lambda *a, rows=rows, **k: next(rows))
        expected = slow(x[part])
        assert torch.allclose(y[part], expected, atol=1e-9)
        (expected * weights[part]).sum().backward()
    for (name, p), q in zip(network.named_parameters(), slow.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, atol=1e-9), name


def test_in_evaluation_and_without_parts_it_is_the_network_as_it_was():
    network, x = create_model("shake_resnet8_2x4d", rule="S-S-B"), torch.randn(6, 3, 8, 8)
    torch.manual_seed(0)
    whole = network(x)
    for images, same in ((2, False), (None, True)):
        in_parts(network, images)
        torch.manual_seed(0)
        assert torch.equal(network(x), whole) is same
    evaluated = network.eval()(x)
    in_parts(network, 2)
    assert torch.equal(network(x), evaluated)


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-4), (torch.bfloat16, 5e-2)])
def test_batch_normalisation_as_it_is_compiled(dtype, within):
    """It is written out there: values, gradients, running statistics."""
    torch.manual_seed(0)
    x = (3 * torch.randn(6, 16, 4, 4) + 1).to(dtype)
    weights, scale = torch.randn_like(x), torch.rand(16) + 0.5
    found = []
    for of_parts in (False, True):
        bn = torch.nn.BatchNorm2d(16)
        bn.weight.data.copy_(scale)
        given = x.clone().requires_grad_()
        if of_parts:
            in_parts(bn, 2)
            y = torch.compile(bn)(given)
        else:
            y = torch.cat([bn(part) for part in given.split(2)])
        (y * weights).sum().backward()
        found.append((y, given.grad, bn.weight.grad, bn.bias.grad, *bn.buffers()))
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.allclose(ours.double(), theirs.double(), rtol=within, atol=within)
