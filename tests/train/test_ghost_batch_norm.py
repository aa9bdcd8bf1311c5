"""Ghost batch norm computes what a loop over the microbatches computes."""

import copy

import pytest
import torch

from shakeshake import ShakeRule, ShakeShake, create_model, register_rule
from shakeshake.data.registry import load_data
from shakeshake.train.ghost_batch_norm import GhostBatchNorm2d, GhostShakeShake, convert_ghost_batch_norm
from shakeshake.train.recipe import Recipe
from shakeshake.train.trainer import Trainer

# The last batch, of 30 images, has microbatches of 15; the first one has 17, 17 and 16.
UNEVEN = Recipe(
    data="digits", model="shake_resnet8_2x4d", rule="E-E-I", train_size=80, epochs=1, batch_size=50, ghost_batch_size=20
).replace(crop_padding=1, flip=False, precision="fp32", device="cpu", mixup_alpha=0.5, balance="weight")


def test_training_equals_a_loop_over_the_microbatches():
    data = load_data("digits", train_size=80)
    looped, at_once = (Trainer(UNEVEN, data) for _ in range(2))
    convert_ghost_batch_norm(at_once.network, at_once.microbatch_size)
    at_once.microbatch_size = None
    for trainer in (looped, at_once):
        for batch in trainer.loader.epoch(0):
            trainer.train_step(batch)
    assert torch.allclose(looped.loss_per_step, at_once.loss_per_step, atol=1e-5)
    expected = looped.network.state_dict()
    for name, value in at_once.network.state_dict().items():
        assert torch.allclose(value, expected[name], atol=1e-5), name


@pytest.mark.parametrize("rule", ["S-S-B", "S-K-B", "E-S-B", "S-0.7-B", "S-E-B[0.4,0.6]"])
def test_level_batch_draws_coefficients_per_microbatch(rule, monkeypatch):
    drawn = []
    draw = ShakeRule.draw
    monkeypatch.setattr(ShakeRule, "draw", lambda *a, **k: drawn.append(draw(*a, **k)) or drawn[-1])
    network = create_model("shake_resnet8_2x4d", rule=rule).double()
    slow, x = copy.deepcopy(network), torch.randn(5, 3, 8, 8, dtype=torch.double)
    convert_ghost_batch_norm(network, 2)
    y = network(x)
    weights = torch.randn_like(y)
    (y * weights).sum().backward()
    assert [tuple(alpha.shape) for alpha, _ in drawn] == [(3, 2)] * 3, (
        "a row for each microbatch, in each of three blocks"
    )
    shaken = [rows[rule.startswith("E")][:, 0] for rows in drawn]
    assert len(torch.cat(shaken).unique()) == 9, "fresh for every block and microbatch"
    for number, microbatch in enumerate((slice(0, 2), slice(2, 4), slice(4, 5))):
        rows = iter([(alpha[number], beta[number]) for alpha, beta in drawn])
        monkeypatch.setattr(ShakeRule, "draw", lambda *a, rows=rows, **k: next(rows))
        expected = slow(x[microbatch])
        assert torch.allclose(y[microbatch], expected, atol=1e-9)
        (expected * weights[microbatch]).sum().backward()
    for (name, p), q in zip(network.named_parameters(), slow.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, atol=1e-9), name


def test_evaluation_and_size_none_match_the_plain_network():
    network, x = create_model("shake_resnet8_2x4d", rule="S-S-B"), torch.randn(6, 3, 8, 8)
    torch.manual_seed(0)
    whole = network(x)
    for images, same in ((2, False), (None, True)):
        convert_ghost_batch_norm(network, images)
        torch.manual_seed(0)
        assert torch.equal(network(x), whole) is same
    evaluated = network.eval()(x)
    convert_ghost_batch_norm(network, 2)
    assert torch.equal(network(x), evaluated)


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-4), (torch.bfloat16, 5e-2)])
def test_compiled_batch_norm_equals_a_loop_over_the_microbatches(dtype, within):
    torch.manual_seed(0)
    x = (3 * torch.randn(6, 16, 4, 4) + 1).to(dtype)
    weights, scale = torch.randn_like(x), torch.rand(16) + 0.5
    found = []
    for ghost in (False, True):
        bn = torch.nn.BatchNorm2d(16)
        bn.weight.data.copy_(scale)
        given = x.clone().requires_grad_()
        if ghost:
            bn = convert_ghost_batch_norm(bn, 2)
            y = torch.compile(bn)(given)
        else:
            y = torch.cat([bn(images) for images in given.split(2)])
        (y * weights).sum().backward()
        found.append((y, given.grad, bn.weight.grad, bn.bias.grad, *bn.buffers()))
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.allclose(ours.double(), theirs.double(), rtol=within, atol=within)


def test_conversion_keeps_names_and_can_be_repeated_and_undone():
    network = create_model("shake_resnet8_2x4d", rule="S-S-B")
    before, parameters = {name: type(m) for name, m in network.named_modules()}, dict(network.named_parameters())
    assert convert_ghost_batch_norm(network, 2) is network
    assert list(network.state_dict()) == list(create_model("shake_resnet8_2x4d").state_dict())
    assert all(p is parameters[name] for name, p in network.named_parameters())
    convert_ghost_batch_norm(network, 3)
    assert {m.size for m in network.modules() if isinstance(m, GhostBatchNorm2d | GhostShakeShake)} == {3}
    convert_ghost_batch_norm(network, None)
    assert {name: type(m) for name, m in network.named_modules()} == before


@pytest.mark.parametrize("per_image", [False, True])
def test_registered_rules_are_drawn_for_each_microbatch(per_image):
    sizes = []

    def draw(images, branches, *, device, generator):
        sizes.append(images)
        value = torch.tensor([float(len(sizes)), 1 - float(len(sizes))])
        return (value.expand(images, 2), value.expand(images, 2)) if per_image else (value, value)

    register_rule("counting", replace=True)(draw)
    shake = convert_ghost_batch_norm(ShakeShake("counting"), 2)
    y = shake(torch.ones(5, 1), torch.zeros(5, 1))
    assert sizes == [2, 2, 1]
    assert y.flatten().tolist() == [1, 1, 2, 2, 3]


def test_subclasses_are_left_as_they_are():
    class MyShake(ShakeShake):
        def forward(self, *branches):
            return branches[0]

    class MyNorm(torch.nn.BatchNorm2d):
        pass

    network = torch.nn.Sequential(MyNorm(4), MyShake("S-S-B"), torch.nn.BatchNorm2d(4))
    convert_ghost_batch_norm(network, 2)
    assert [type(m) for m in network] == [MyNorm, MyShake, GhostBatchNorm2d]
