"""Converted networks compute what the plain ones compute, and unknown blocks stay plain."""

import copy

import pytest
import torch
from torch import nn

from shakeshake import ShakeShake, create_model, kernels
from shakeshake.kernels import build, convs, ops
from shakeshake.models.baselines import ResidualBlock
from shakeshake.models.shake_resnet import Branch, ShakeBlock

needs_kernels = pytest.mark.skipif(build.load_library() is None, reason=f"no kernels: {build.unavailable_reason()}")


def network(convert, rule="S-S-I", name="shake_resnet8_2x16d", **options):
    torch.manual_seed(0)
    net = create_model(name, rule=rule, **options).to(memory_format=torch.channels_last).train()
    return kernels.convert(net) if convert else net


def images(n=4):
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(3)).contiguous(
        memory_format=torch.channels_last
    )


def step(net, x):
    torch.manual_seed(1)
    out = net(x)
    out.square().mean().backward()
    return out


@pytest.fixture
def mixes(monkeypatch):
    """Grows by one entry for every block that runs fused."""
    calls = []
    monkeypatch.setattr(ops, "bn_mix", lambda *a, real=ops.bn_mix, **k: calls.append(1) or real(*a, **k))
    return calls


@needs_kernels
@pytest.mark.parametrize(
    "options",
    [
        {"rule": "S-S-I"},
        {"rule": "E-S-B"},
        {"rule": "S-M3-I", "name": "shake_resnet8_2x32d", "skip_shift": "mirrored"},
        {"rule": "S-E-B", "name": "shake_resnet8_3x16d"},
        {"name": "shake_resnet8_2x16d_a"},
        {"name": "shake_resnet8_2x16d_b"},
        {"name": "shake_resnet8_2x16d_c"},
        {"name": "shake_resnet8_2x16d", "activation": "post"},
        {"name": "shake_resnext11_2x4x16d"},
        {"name": "resnext11_2x32d"},
        {"name": "cifar_resnet8"},
        {"name": "wrn10_2"},
    ],
    ids=str,
)
@pytest.mark.parametrize("convolutions", ["kernels", "torch"])
def test_converted_network_trains_like_the_original(options, convolutions, monkeypatch):
    if convolutions == "torch":  # as on CPUs without AVX-512
        monkeypatch.setattr(convs, "is_supported", lambda dtype: False)
    x = images(6)
    plain, ours = network(False, **options), network(True, **options)
    called, kernel = [], ops.Kernel.__call__
    monkeypatch.setattr(ops.Kernel, "__call__", lambda self: called.append(self) or kernel(self))
    assert torch.allclose(step(plain, x), step(ours, x), atol=1e-5)
    for (name, p), q in zip(plain.named_parameters(), ours.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=0, atol=1e-3 * float(p.grad.abs().max())), name
    for (name, p), q in zip(plain.named_buffers(), ours.buffers(), strict=True):
        assert torch.allclose(p, q, rtol=1e-5, atol=1e-6), name
    assert bool(called) == (options.get("name") != "shake_resnet8_2x16d_c"), "architecture C has no BN to fuse"


@needs_kernels
@pytest.mark.parametrize("name", ["shake_resnet8_2x16d", "shake_resnext11_2x4x16d", "cifar_resnet8", "wrn10_2"])
def test_conversion_keeps_names_and_parameters_and_can_be_undone(name):
    net = create_model(name)
    types = {n: type(m) for n, m in net.named_modules()}
    state, parameters = net.state_dict(), dict(net.named_parameters())
    assert kernels.convert(net) is net
    assert kernels.is_converted(net)
    assert {n: type(m) for n, m in net.named_modules()} != types
    assert list(net.state_dict()) == list(state)
    assert all(p is parameters[n] for n, p in net.named_parameters())
    copied = copy.deepcopy(net)
    kernels.convert(net)
    for converted in (net, copied):
        assert kernels.revert(converted) is converted
        assert {n: type(m) for n, m in converted.named_modules()} == types
    assert all(p is parameters[n] for n, p in net.named_parameters())


@needs_kernels
def test_a_block_alone_is_returned_fused():
    block = create_model("shake_resnet8_2x16d").stages[0].blocks[0]
    fused = kernels.convert(block)
    assert fused is not block
    assert isinstance(fused, ShakeBlock)
    assert type(kernels.revert(fused)) is ShakeBlock


@needs_kernels
def test_a_block_used_twice_stays_one_block():
    block = create_model("shake_resnet8_2x16d").stages[1].blocks[0]
    net = kernels.convert(nn.ModuleDict({"a": block, "b": nn.Sequential(block, block)}))
    assert net["a"] is net["b"][0] is net["b"][1] is not block


@needs_kernels
def test_plain_operations_run_with_hooks_frozen_bn_in_evaluation_and_in_other_dtypes(mixes):
    x, net = images(), network(True)
    step(net, x)
    assert len(mixes) == 3  # one in each block

    heard = []
    hook = net.stages[0].blocks[0].shake.register_forward_hook(lambda module, args, out: heard.append(len(args)))
    step(net, x)
    assert (heard, len(mixes)) == ([2], 5)
    hook.remove()
    net.stages[1].blocks[0].branches[1].bn1.eval()
    step(net, x)
    assert len(mixes) == 7
    mixes.clear()
    net.eval()(x)
    with torch.no_grad():
        net.train()(x)
    step(copy.deepcopy(net).double(), x.double())
    narrow = kernels.convert(create_model("shake_resnet8_2x8d").to(memory_format=torch.channels_last))
    step(narrow, x)
    assert len(mixes) == 1  # from 16 to 32 channels; blocks of 8 channels run the plain operations


class HalvedShake(ShakeShake):
    """A user's layer that computes something other than ShakeShake."""

    def forward(self, *branches):
        return super().forward(*branches) / 2


class ScaledBlock(ShakeBlock):
    """A user's block that computes something other than ShakeBlock."""

    def forward(self, x):
        return 2 * super().forward(x)


def subclassed_shake(block):
    block.shake = HalvedShake(block.shake.rule)


def overridden_shake(block):
    block.shake.forward = lambda *branches: branches[0]


def subclassed_block(block):
    block.__class__ = ScaledBlock


def overridden_block(block):
    block.forward = lambda x: 2 * type(block).forward(block, x)


def hooked_block(block):
    block.register_forward_hook(lambda module, args, out: 2 * out)


def hooked_convolution(block):
    block.branches[0].conv1.register_forward_pre_hook(lambda module, args: (2 * args[0],))


def other_normalisation(block):
    block.branches[0].bn1 = nn.GroupNorm(4, block.branches[0].bn1.num_features)


def other_padding(block):
    block.branches[0].conv1.padding_mode = "circular"
    block.branches[0].conv1._reversed_padding_repeated_twice = [1, 1, 1, 1]


CHANGES = [
    subclassed_shake,
    overridden_shake,
    subclassed_block,
    overridden_block,
    hooked_block,
    hooked_convolution,
    other_normalisation,
    other_padding,
]


@pytest.mark.parametrize(
    ("change", "when"),
    [
        *((change, "before") for change in CHANGES),
        *((change, "after") for change in CHANGES if change not in (subclassed_block, overridden_block)),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_blocks_changed_by_the_user_are_not_converted(change, when):
    """Whether it was changed before or after the conversion."""
    plain, ours = network(False), network(when == "after")
    for net in (plain, ours):
        change(net.stages[0].blocks[0])
        change(net.stages[1].blocks[0])
    if when == "before":
        ours = kernels.convert(ours)
        if change is not other_padding:
            assert type(ours.stages[1].blocks[0]) is type(plain.stages[1].blocks[0])
        if build.load_library() is not None:
            assert type(ours.stages[2].blocks[0]) is not type(plain.stages[2].blocks[0])
    x = images()
    assert torch.allclose(step(plain, x), step(ours, x), atol=1e-5)
    for (name, p), q in zip(plain.named_parameters(), ours.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None:
            assert torch.allclose(p.grad, q.grad, rtol=0, atol=1e-3 * float(p.grad.abs().max())), name


def test_residual_blocks_whose_input_may_be_negative_stay_plain():
    net = nn.Sequential(ResidualBlock(Branch(16, 16, 1), None))
    assert not kernels.is_converted(kernels.convert(net))
    if build.load_library() is not None:
        assert kernels.is_converted(kernels.convert(create_model("cifar_resnet8")))


def test_networks_without_known_blocks_are_unchanged():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    before = list(net.modules())
    assert kernels.convert(net) is net
    assert list(net.modules()) == before
    assert not kernels.is_converted(net)
