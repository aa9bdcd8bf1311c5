import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

import shakeshake as ss
from shakeshake.models.shakeify import ShakenHalves


class Block(nn.Module):
    """A residual block with the attribute names of public ResNeXt implementations."""

    def __init__(self, channels: int, groups: int, *, bias: bool = False, norm=nn.BatchNorm2d, dimensions: int = 2):
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d}[dimensions]
        self.conv1 = conv(channels, 16, 1, bias=bias)
        self.bn1 = nn.BatchNorm2d(16) if dimensions == 2 else nn.BatchNorm1d(16)
        self.conv2 = conv(16, 16, 3, padding=1, groups=groups, bias=bias)
        self.bn2 = nn.GroupNorm(4, 16)
        self.conv3 = conv(16, channels, 1, bias=bias)
        self.bn3 = norm(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        h = F.relu(self.bn1(self.conv1(x)))
        h = F.relu(self.bn2(self.conv2(h)))
        return self.relu(x + self.bn3(self.conv3(h)))


def trained(network: nn.Module, *shape: int) -> nn.Module:
    """Set weights, BN parameters and running statistics to values far from their initialisation."""
    torch.manual_seed(3)
    for p in network.parameters():
        nn.init.normal_(p, 0.2, 0.5)
    for _ in range(3):
        network.train()(torch.randn(*shape) + 0.3)
    return network


def sequential(channels: int) -> nn.Module:
    """The same block as nested nn.Sequentials with depthwise convolutions."""
    inner = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.SiLU())
    return nn.Sequential(nn.Conv2d(channels, 16, 1), inner, nn.Dropout(0.1), nn.Conv2d(16, channels, 1))


CASES = {
    "plain": (lambda: Block(8, 4), (6, 8, 5, 5)),
    "bias": (lambda: Block(8, 2, bias=True), (6, 8, 5, 5)),
    "1d": (lambda: Block(8, 4, dimensions=1, norm=nn.BatchNorm1d), (6, 8, 9)),
    "no norm behind": (lambda: Block(8, 4, bias=True, norm=lambda _: nn.Identity()), (6, 8, 5, 5)),
    "another norm behind": (lambda: Block(8, 4, norm=lambda c: nn.GroupNorm(2, c)), (6, 8, 5, 5)),
    "bn without weights": (lambda: Block(8, 4, norm=lambda c: nn.BatchNorm2d(c, affine=False)), (6, 8, 5, 5)),
    "bn that adds much": (lambda: Block(8, 4, norm=lambda c: nn.BatchNorm2d(c, eps=0.5)), (6, 8, 5, 5)),
    "sequential, depthwise": (lambda: sequential(8), (6, 8, 5, 5)),
    "ours": (lambda: ss.create_model("resnext11_4x8d"), (6, 3, 16, 16)),
}


@pytest.mark.parametrize("case", CASES)
def test_copy_computes_the_same_in_evaluation(case):
    build, shape = CASES[case]
    network = trained(build(), *shape)
    before = copy.deepcopy(network.state_dict())
    x = torch.randn(*shape)
    shaken = ss.shakeify(network, "S-S-I", example=x)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items()), "left as it was"
    assert network.training
    assert shaken.training
    y, expected = shaken.eval()(x), network.eval()(x)
    assert torch.allclose(y, expected, atol=1e-5 * float(expected.detach().abs().max())), (y - expected).abs().max()


@pytest.mark.parametrize("case", ["no norm behind", "another norm behind", "bn without weights"])
def test_copy_without_bn_has_the_same_gradients_under_even_even(case):
    build, shape = CASES[case]
    network = trained(build(), *shape)
    shaken = ss.shakeify(network, "E-E-B")
    x = torch.randn(*shape)
    y, expected = shaken(x), network(x)
    assert torch.allclose(y, expected, atol=1e-5)
    y.square().sum().backward()
    expected.square().sum().backward()
    assert torch.allclose(shaken.conv1.weight.grad, network.conv1.weight.grad, rtol=1e-4, atol=1e-4)


def test_copy_with_bn_starts_at_the_same_scale_under_even_even():
    """In training, each half has separate statistics, and the BN parameters are split to keep the scale."""
    torch.manual_seed(0)
    conv, bn, h = nn.Conv2d(16, 64, 1), nn.BatchNorm2d(64), torch.randn(64, 16, 5, 5)
    nn.init.uniform_(bn.weight, 0.5, 2.0)
    with torch.no_grad():
        for _ in range(50):
            expected = bn(conv(h)).std()
        got = ShakenHalves(conv, bn, "E-E-B")(h).std()
    assert float(got / expected) == pytest.approx(1, abs=0.05)


def test_each_branch_has_half_of_the_groups():
    """A branch alone equals the block with the other half of the groups removed."""
    network = trained(Block(8, 4, norm=lambda _: nn.Identity()), 6, 8, 5, 5).eval()
    halves = ss.shakeify(network).conv3.halves
    h = torch.randn(6, 16, 5, 5)
    first = h.clone()
    first[:, 8:] = 0
    assert torch.allclose(halves[0](h[:, :8]), 2 * network.conv3(first), atol=1e-5)


def test_copy_draws_at_every_pass_and_trains():
    torch.manual_seed(0)
    shaken = ss.shakeify(Block(8, 4), "S-S-I")
    x = torch.randn(16, 8, 5, 5)
    assert not torch.equal(shaken(x), shaken(x))
    assert str(shaken.conv3.shake.rule) == "S-S-I"
    assert isinstance(shaken.bn3, nn.Identity)
    assert len(ss.branch_correlation(shaken, [x])) == 1
    shaken.load_state_dict(ss.shakeify(Block(8, 4)).state_dict())  # the names do not depend on the weights


def test_resnext_becomes_the_papers_network():
    """29 4x..d with its groups halved is 29 2x2x..d: the same branches, the same number of parameters."""
    shaken = ss.shakeify(ss.create_model("resnext11_4x8d"))
    paper = ss.create_model("shake_resnext11_2x2x8d")
    count = [sum(p.numel() for p in network.parameters()) for network in (shaken, paper)]
    # The paper's branches have separate first BNs and convolutions; split in halves, they have the same values.
    assert count[0] == count[1]


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, lambda _: nn.Identity()])
def test_frozen_weights_stay_frozen(norm):
    network = Block(8, 4, norm=norm)
    network.conv3.weight.requires_grad_(False)
    assert not ss.shakeify(network).conv3.halves[1][0].weight.requires_grad


class Joined(Block):
    def __init__(self, between: nn.Module):
        super().__init__(8, 4)
        self.bn2 = between


class NormsLast(nn.Module):
    """All convolutions are registered in front of all normalisations."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(channels, width, 1), nn.Conv2d(width, width, 3, padding=1, groups=4)
        self.conv3 = nn.Conv2d(width, channels, 1)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(c) for c in (width, width, channels))

    def forward(self, x):
        return x + self.bn3(self.conv3(F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))))


def test_example_reveals_a_bn_registered_after_another_convolution():
    x = torch.randn(2, 16, 5, 5)
    with pytest.raises(ss.InputError, match="bn1, registered after conv3, does not read its output"):
        ss.shakeify(NormsLast(32, 16))  # whose sizes say so
    with pytest.raises(ss.InputError, match="bn1, registered after conv3, does not read its output"):
        ss.shakeify(NormsLast(16, 16), example=x)  # a new BN changes nothing that could be seen


def test_convertible_variants_are_converted():
    """In half precision, and in front of layers that no convolution follows."""
    x = torch.randn(4, 8, 5, 5, dtype=torch.bfloat16)
    ss.shakeify(trained(Block(8, 4), 6, 8, 5, 5).bfloat16(), example=x)
    head = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    found = ss.shakeify(nn.Sequential(Block(8, 4), *head), example=x.float())
    assert sum(isinstance(module, ShakenHalves) for module in found.modules()) == 1


class Misordered(Block):
    """Registers bn3 behind conv3 and uses it in front of conv1."""

    def forward(self, x):
        return x + self.conv3(F.relu(self.conv2(self.conv1(self.bn3(x)))))


class Unit(nn.Module):
    """A convolution, its norm and activation in a module of their own, as in timm and transformers."""

    def __init__(self, inputs: int, outputs: int, groups: int = 1, activation=nn.ReLU):
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups, bias=False)
        self.normalization = nn.BatchNorm2d(outputs)
        self.activation = activation()

    def forward(self, x):
        return self.activation(self.normalization(self.convolution(x)))


class UnitBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(Unit(8, 16), Unit(16, 16, 4), Unit(16, 8, activation=nn.Identity))

    def forward(self, x):
        return (x + self.layer(x)).relu()


def test_units_of_convolution_norm_and_activation_are_converted():
    network = trained(nn.Sequential(UnitBlock(), UnitBlock()), 6, 8, 5, 5)
    x = torch.randn(6, 8, 5, 5)
    shaken = ss.shakeify(network, "S-S-I", example=x)
    for block in shaken:
        assert isinstance(block.layer[2].convolution, ShakenHalves)
        assert isinstance(block.layer[2].normalization, nn.Identity), "each half has its own"
    assert torch.allclose(shaken.eval()(x), network.eval()(x), atol=1e-4)
    assert not torch.equal(shaken.train()(x), shaken(x))


class StdConv2d(nn.Conv2d):
    """Weight standardisation: the halves of the weight have another mean and deviation than the whole."""

    def forward(self, x):
        weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / self.weight.std((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


def hooked(block: nn.Module, layer: str) -> nn.Module:
    block.get_submodule(layer).register_forward_hook(lambda module, inputs, output: 2 * output)
    return block


def test_layers_that_compute_something_else_are_refused_by_name():
    block = Block(8, 4)
    block.conv3 = StdConv2d(16, 8, 1)
    with pytest.raises(ss.InputError, match=r"conv3 \(StdConv2d\) is a convolution with a forward of its own"):
        ss.shakeify(block)
    for layer in ("conv3", "bn3"):
        with pytest.raises(ss.InputError, match=f"{layer} has a hook"):
            ss.shakeify(hooked(Block(8, 4), layer))
        pruned = Block(8, 4)
        prune.random_unstructured(pruned.get_submodule(layer), "weight", 0.5)
        with pytest.raises(ss.InputError, match=f"weight of {layer} is computed"):
            ss.shakeify(pruned)
    ss.shakeify(hooked(Block(8, 4), "conv1"))  # which stays


def test_a_network_without_residual_blocks_is_described():
    with pytest.raises(ss.InputError, match="Linear has no grouped convolution, expected"):
        ss.shakeify(nn.Linear(2, 2))
    alone = nn.Sequential(nn.Conv2d(8, 8, 3, groups=4), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2))
    with pytest.raises(ss.InputError, match="Sequential has 2 grouped convolutions, such as 0, but no convolution"):
        ss.shakeify(alone)


def test_unsupported_networks_are_refused():
    with pytest.raises(ss.InputError, match=r"conv2 has 3 groups, expected an even number"):
        ss.shakeify(nn.Sequential(nn.ReLU(), Odd()))
    with pytest.raises(ss.InputError, match=r"bn2 \(Linear\) between conv2 and the next convolution"):
        ss.shakeify(Joined(nn.Linear(16, 16)))
    with pytest.raises(ss.InputError, match=r"bn2 \(GroupNorm\) between"):
        ss.shakeify(Joined(nn.GroupNorm(1, 16)))
    with pytest.raises(ss.InputError, match="bn3, registered after conv3, does not read"):
        ss.shakeify(trained(Misordered(8, 4), 6, 8, 5, 5), example=torch.randn(6, 8, 5, 5))
    weighted = Block(8, 4)
    nn.utils.parametrizations.weight_norm(weighted.conv3)
    with pytest.raises(ss.InputError, match="weight of conv3 is computed"):
        ss.shakeify(weighted)
    with pytest.raises(ss.InputError, match="rule"):
        ss.shakeify(Block(8, 4), "S-X-I")


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv2 = nn.Conv2d(9, 9, 3, groups=3)
        self.conv3 = nn.Conv2d(9, 9, 1)
