"""The fused network computes what the network computes in evaluation, for every kind of network there is."""

import copy

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.flop_counter import FlopCounterMode

import shakeshake as ss
from shakeshake.errors import InputError
from shakeshake.models.families import families

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
    """A network whose BN layers are far from the identity."""
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
def test_fused_is_equal(name, options, side):
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
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()), "the model is as it was"


@pytest.mark.parametrize("name", ["shake_resnet8_2x4d", "shake_resnet8_2x32d"])
def test_a_packed_weight_is_not_a_stale_one(name):
    """Inputs of another shape, weights that change, another precision, a copy, a graph: after the first call, too."""
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
def test_no_other_weight_comes_to_lie_where_a_packed_one_lay(name, images):
    """After ``weight.data = ...``, which leaves the version as it was: only the address tells that it is another."""
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
def test_where_operations_are_transformed_or_counted_there_are_operations():
    """A kernel that is called by address would give numbers that are none, or end the process."""
    fused, (x, other) = ss.fuse(trained("shake_resnet8_2x16d").eval()), torch.randn(2, 8, 3, 32, 32)
    expected = fused(x)
    assert torch.allclose(torch.vmap(fused)(x[:, None])[:, 0], expected, atol=1e-5)
    assert torch.allclose(torch.func.functionalize(fused)(x), expected, atol=1e-5)
    assert torch.allclose(make_fx(fused)(x)(other), fused(other), atol=1e-5)
    with FlopCounterMode(display=False) as counted:
        fused(x)
    assert counted.get_total_flops() > 1e8


def test_every_family_is_here():
    assert {family.template for family in families()} == {
        next(f.template for f in families() if f.parse(name)) for name, _ in NETWORKS
    }


def test_branches_become_one_chain_of_convolutions():
    fused = ss.fuse(ss.create_model("shake_resnet26_2x32d"))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    # Stem, two a block for 12 blocks, one for the skip of each stage.
    assert sum(isinstance(module, nn.Conv2d) for module in fused.modules()) == 1 + 2 * 12 + 3


def test_other_networks_are_a_mistake():
    with pytest.raises(InputError, match="model: Linear cannot be fused"):
        ss.fuse(nn.Linear(2, 2))
    with pytest.raises(InputError, match="model: it was fused or shakeified before"):
        ss.fuse(ss.fuse(ss.create_model("shake_resnet8_2x4d")))
    with pytest.raises(InputError, match="model: it was fused or shakeified before"):
        ss.fuse(ss.shakeify(ss.create_model("resnext11_4x8d")))
