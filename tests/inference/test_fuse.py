"""Fused networks compute the same as the originals in evaluation mode, for every model family."""

import copy

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.flop_counter import FlopCounterMode

import shakeshake as ss
from shakeshake import kernels
from shakeshake.errors import InputError
from shakeshake.inference.fuse import is_fully_fusable
from shakeshake.inference.fused_stages import FusedBlock
from shakeshake.models.families import FAMILIES
from shakeshake.models.layers import ConvNet
from shakeshake.models.shake_resnet import ShakeBlock
from shakeshake.train.ghost_batch_norm import convert_ghost_batch_norm

NETWORKS = [
    ("shake_resnet14_2x4d", {}),
    ("shake_resnet14_2x32d", {}),  # wide enough for convolutions of our own
    ("shake_resnet8_3x4d", {"skip_shift": "mirrored"}),
    ("shake_resnet8_2x4d", {"activation": "post"}),
    ("shake_resnet8_2x4d_a", {}),
    ("shake_resnet8_3x4d_b", {}),
    ("shake_resnet8_2x4d_c", {}),
    ("shake_resnext20_3x2x8d", {}),
    ("cifar_resnet14", {}),
    ("wrn16_1", {}),
    ("resnext11_2x8d", {}),
    ("densenet_bc16_4", {}),
]


def trained(name: str, **options) -> nn.Module:
    """A network whose BN layers differ from the identity."""
    torch.manual_seed(0)
    model = ss.create_model(name, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return model


@pytest.mark.parametrize(("name", "options"), NETWORKS, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("side", [32, 19])  # an odd side shows which pixels a strided skip picks
def test_fused_network_matches_the_original(name, options, side):
    model = trained(name, **options)
    before = copy.deepcopy(model.state_dict())
    fused = ss.fuse(model)
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        expected = model.eval()(images)
    given = images.clone()
    for recorded in (True, False):  # operations one after the other, and as one primitive of oneDNN
        with torch.set_grad_enabled(recorded):
            got = fused(images)
        assert torch.allclose(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert torch.equal(images, given)
    assert not fused.training
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()), "the model is unchanged"


@pytest.mark.parametrize("name", ["shake_resnet8_2x4d", "shake_resnet8_2x32d"])
def test_packed_weights_follow_changes_of_weights_shape_and_dtype(name):
    """After the first call: other shapes, changed weights, a copy, another dtype, gradients and export."""
    model = trained(name).eval()
    fused = ss.fuse(model)
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(fused(images[:1]), model(images[:1]), atol=1e-5)
        assert torch.allclose(fused(images), model(images), atol=1e-5)
        for parameter in fused.parameters():
            parameter.mul_(0.5)
        changed = fused(images)
        copied = copy.deepcopy(fused)
        assert torch.equal(copied(images), changed)
        half = copied.to(torch.bfloat16)(images.to(torch.bfloat16))
        assert half.dtype == torch.bfloat16
        assert (half - changed).norm() < 0.05 * changed.norm()
    with torch.no_grad():
        slow = fused.requires_grad_(True)
        with torch.enable_grad():
            assert torch.allclose(changed, slow(images), atol=1e-5)
        graph = torch.export.export(fused, (images,)).module()
    assert torch.allclose(changed, graph(images), atol=1e-5)


@pytest.mark.parametrize("name", ["shake_resnet8_2x4d", "shake_resnet8_2x32d"])
@pytest.mark.parametrize("images", [1, 64])
def test_packed_weights_keep_the_storage_of_the_originals_alive(name, images):
    """``weight.data = ...`` keeps the version counter, so only the address identifies the new tensor."""
    fused, x = ss.fuse(trained(name).eval()), torch.randn(images, 3, 32, 32)
    weight = next(fused.stages.parameters())
    with torch.no_grad():
        fused(x)
        before = StorageWeakRef(weight.untyped_storage())
        weight.data = weight.data * 0.5
        assert not before.expired()
        again = ss.fuse(trained(name).eval())
        again.load_state_dict(fused.state_dict())
        assert torch.allclose(fused(x), again(x), atol=1e-5)


@torch.no_grad()
def test_transforms_and_flop_counters_see_plain_operations():
    """Kernels called by address would return garbage or crash under vmap, functionalize and tracing."""
    fused, (x, other) = ss.fuse(trained("shake_resnet8_2x16d").eval()), torch.randn(2, 8, 3, 32, 32)
    expected = fused(x)
    assert torch.allclose(torch.vmap(fused)(x[:, None])[:, 0], expected, atol=1e-5)
    assert torch.allclose(torch.func.functionalize(fused)(x), expected, atol=1e-5)
    assert torch.allclose(make_fx(fused)(x)(other), fused(other), atol=1e-5)
    with FlopCounterMode(display=False) as counted:
        fused(x)
    assert counted.get_total_flops() > 1e8


def test_every_model_family_is_tested():
    assert {family.template for family in FAMILIES} == {
        next(f.template for f in FAMILIES if f.parse(name)) for name, _ in NETWORKS
    }


def test_branches_become_one_chain_of_convolutions():
    fused = ss.fuse(ss.create_model("shake_resnet26_2x32d"))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    # Stem, two a block for 12 blocks, one for the skip of each stage.
    assert sum(isinstance(module, nn.Conv2d) for module in fused.modules()) == 1 + 2 * 12 + 3


class TwiceBlock(ShakeBlock):
    """A user's block that computes something other than its base class."""

    def forward(self, x):
        return 2 * super().forward(x)


class HalvedShake(ss.ShakeShake):
    """A user's layer that computes something other than ShakeShake."""

    def forward(self, *branches):
        return super().forward(*branches) / 2


class PlainBlock(nn.Module):
    """A user's own block."""

    def __init__(self, channels):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)

    def forward(self, x):
        return x + self.bn(self.conv(x)).relu()


class TapNet(ConvNet):
    """A user's network with a different forward through the stages."""

    def forward(self, x):
        x = self.stem(x)
        pooled = [x := stage(x) for stage in self.stages][-1].mean((2, 3))
        return self.fc(pooled)


def unknown_block(network):
    blocks = network.stages[0].blocks
    blocks.append(PlainBlock(4))


def subclassed_block(network):
    network.stages[1].blocks[0].__class__ = TwiceBlock


def subclassed_shake(network):
    shake = network.stages[1].blocks[0].shake
    network.stages[1].blocks[0].shake = HalvedShake(shake.rule)


def overridden_forward(network):
    block = network.stages[1].blocks[1]
    block.forward = lambda x: 3 * x


def hook_in_a_block(network):
    network.stages[0].blocks[0].branches[1].conv2.register_forward_hook(lambda module, args, y: 2 * y)


def hook_on_a_stage(network):
    network.stages[2].register_forward_hook(lambda module, args, y: 2 * y)


def other_padding(network):
    conv = network.stages[0].blocks[0].branches[0].conv1
    conv.padding_mode, conv._reversed_padding_repeated_twice = "circular", [1, 1, 1, 1]


def statistics_of_the_batch(network):
    network.stages[0].blocks[0].branches[0].bn1 = nn.BatchNorm2d(4, track_running_stats=False)


def other_skip(network):
    network.stages[0].blocks[0].skip = nn.Conv2d(16, 4, 1)


def own_forward(network):
    network.__class__ = TapNet


CHANGES = [
    unknown_block,
    subclassed_block,
    subclassed_shake,
    overridden_forward,
    hook_in_a_block,
    hook_on_a_stage,
    other_padding,
    statistics_of_the_batch,
    other_skip,
    own_forward,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_blocks_changed_by_the_user_are_not_fused(change):
    model = trained("shake_resnet14_2x4d")
    change(model)
    model.train()
    fused, x = ss.fuse(model), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected, got = model.eval()(x), fused(x)
    assert torch.allclose(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert any(isinstance(module, FusedBlock) for module in fused.modules()), "the other blocks are fused"
    assert not any(module.training for module in fused.modules())


class UserNet(nn.Module):
    """A user's network around a block of this package."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.block = trained("shake_resnet8_2x4d").stages[1].blocks[0]
        self.same = [self.block]
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.same[0](self.stem(x)).mean((2, 3)))


def test_networks_of_users_are_copied_and_known_blocks_in_them_fused():
    model, x = UserNet().train(), torch.randn(2, 3, 16, 16)
    fused = ss.fuse(model)
    assert isinstance(fused.block, FusedBlock)
    assert model.training
    with torch.no_grad():
        assert torch.allclose(fused(x), model.eval()(x), atol=1e-5)
    linear = nn.Linear(2, 2)
    assert torch.equal(ss.fuse(linear).weight, linear.weight)
    assert ss.fuse(linear) is not linear
    with pytest.raises(InputError, match="model: got str, expected a network"):
        ss.fuse("runs/x")


@pytest.mark.parametrize("before", [ss.fuse, ss.shakeify, kernels.convert], ids=lambda f: f.__name__)
def test_networks_that_were_changed_before_are_fused_as_far_as_possible(before):
    model = before(trained("resnext11_4x8d")).eval()
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = model(x)
        assert torch.allclose(ss.fuse(model)(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_a_network_used_twice_stays_one_network():
    model = trained("shake_resnet8_2x4d")
    whole = nn.ModuleDict({"a": model, "b": nn.Sequential(model)})
    fused = ss.fuse(whole)
    assert fused["a"] is fused["b"][0]
    assert any(isinstance(module, FusedBlock) for module in fused.modules())


def test_a_network_is_fully_fusable_if_all_blocks_are_known():
    assert is_fully_fusable(ss.create_model("shake_resnet8_2x4d"))
    assert is_fully_fusable(kernels.convert(ss.create_model("wrn10_2")))
    assert is_fully_fusable(convert_ghost_batch_norm(ss.create_model("shake_resnet8_2x4d"), 8))
    assert not is_fully_fusable(nn.Linear(2, 2))
    for change in CHANGES:
        model = ss.create_model("shake_resnet14_2x4d")
        change(model)
        assert not is_fully_fusable(model), change
