"""The paper's networks against slow functional reimplementations: value, gradients, running statistics."""

import math
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from shakeshake import create_model
from shakeshake.layers.rules import ShakeRule


class Plain:
    """A network written out from the paper and the author's release, on the tensors of a state dict.

    Independent of the package: convolutions and batch normalisation by their formulas, the pixel shift by indices, the
    coefficients given from outside, and the gradient of the mix by the trick of two sums.
    """

    def __init__(self, state, coefficients, training):
        self.p, self.coefficients, self.training = state, iter(coefficients), training
        self.running = {}

    def conv(self, x, name, stride=1, padding=0, groups=1):
        return F.conv2d(x, self.p[f"{name}.weight"], stride=stride, padding=padding, groups=groups)

    def bn(self, x, name):
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
            for key, value in (("mean", mean), ("var", x.var((0, 2, 3), unbiased=True))):
                self.running[f"{name}.running_{key}"] = 0.9 * self.p[f"{name}.running_{key}"] + 0.1 * value.detach()
        else:
            mean, var = self.p[f"{name}.running_mean"], self.p[f"{name}.running_var"]
        x = (x - mean[:, None, None]) / torch.sqrt(var[:, None, None] + 1e-5)
        return x * self.p[f"{name}.weight"][:, None, None] + self.p[f"{name}.bias"][:, None, None]

    def mix(self, branches):
        if not self.training:
            return sum(branches) / len(branches)
        alpha, beta = (c.expand(len(branches[0]), -1)[:, :, None, None, None] for c in next(self.coefficients))
        forward = sum(alpha[:, b] * x for b, x in enumerate(branches))
        backward = sum(beta[:, b] * x for b, x in enumerate(branches))
        return backward + (forward - backward).detach()

    def shake_resnet(self, x, depth, branches, shift):
        x = self.bn(self.conv(x, "stem.conv", padding=1), "stem.bn")  # no ReLU after the stem
        for s in range(3):
            for k in range((depth - 2) // 6):
                stride, at = (2 if s > 0 and k == 0 else 1), f"stages.{s}.blocks.{k}"
                outputs = []
                for b in range(branches):
                    y = self.conv(F.relu(x), f"{at}.branches.{b}.conv1", stride, 1)
                    y = F.relu(self.bn(y, f"{at}.branches.{b}.bn1"))
                    y = self.conv(y, f"{at}.branches.{b}.conv2", 1, 1)
                    outputs.append(self.bn(y, f"{at}.branches.{b}.bn2"))
                skip = x
                if f"{at}.skip.conv1.weight" in self.p:
                    r = F.relu(x)
                    shifted = torch.zeros_like(r)
                    if shift == "reference":
                        shifted[:, :, 1:, 1:] = r[:, :, :-1, :-1]
                    else:
                        shifted[:, :, :-1, :-1] = r[:, :, 1:, 1:]
                    pair = (
                        (r[:, :, ::stride, ::stride], f"{at}.skip.conv1"),
                        (
                            shifted[:, :, ::stride, ::stride],
                            f"{at}.skip.conv2",
                        ),
                    )
                    skip = self.bn(torch.cat([self.conv(z, name) for z, name in pair], 1), f"{at}.skip.bn")
                x = skip + self.mix(outputs)
        return self.head(F.relu(x))  # no BN after the last block

    def architecture(self, x, letter, blocks, branches):
        """The paper's A, B and C: blocks without skip; B's branches end after one convolution; C knows no BN."""
        bn = (lambda x, name: x) if letter == "c" else self.bn
        x = bn(self.conv(x, "stem.conv", padding=1), "stem.bn")
        for s in range(3):
            for k in range(blocks):
                outputs = []
                for b in range(branches):
                    name = f"stages.{s}.blocks.{k}.branches.{b}"
                    y = self.conv(F.relu(x), f"{name}.conv1", 2 if s > 0 and k == 0 else 1, 1)
                    y = bn(y, f"{name}.bn1")
                    if letter != "b":
                        y = bn(self.conv(F.relu(y), f"{name}.conv2", 1, 1), f"{name}.bn2")
                    outputs.append(y)
                x = self.mix(outputs)
        return self.head(F.relu(x))

    def shake_resnext(self, x, depth, branches, cardinality):
        x = F.relu(self.bn(self.conv(x, "stem.conv", padding=1), "stem.bn"))
        for s in range(3):
            for k in range((depth - 2) // 9):
                stride, at = (2 if s > 0 and k == 0 else 1), f"stages.{s}.blocks.{k}"
                outputs = []
                for b in range(branches):
                    name = f"{at}.branches.{b}"
                    y = F.relu(self.bn(self.conv(x, f"{name}.conv1"), f"{name}.bn1"))
                    y = F.relu(self.bn(self.conv(y, f"{name}.conv2", stride, 1, cardinality), f"{name}.bn2"))
                    outputs.append(self.bn(self.conv(y, f"{name}.conv3"), f"{name}.bn3"))
                skip = x if k else self.bn(self.conv(x, f"{at}.skip.conv", stride), f"{at}.skip.bn")
                x = F.relu(skip + self.mix(outputs))
        return self.head(x)

    def head(self, x):
        return F.linear(x.mean((2, 3)), self.p["fc.weight"], self.p["fc.bias"])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("shake_resnet26_2x32d", {}),
        ("shake_resnet8_2x16d", {}),  # as wide as its stem: the first skip is an identity, and shows the missing ReLU
        ("shake_resnet14_3x8d", {"skip_shift": "mirrored"}),
        ("shake_resnext11_2x2x8d", {"num_classes": 7}),
        ("shake_resnet14_3x7d_a", {}),
        ("shake_resnet14_2x8d_b", {"rule": "S-E-B"}),
        ("shake_resnet14_2x8d_c", {"rule": "S-E-I[0.4,0.6]"}),
    ],
)
def test_matches_a_functional_reimplementation(name, options, training, monkeypatch):
    torch.manual_seed(0)
    model = create_model(name, image_size=16, **options).double().train(training)
    with torch.no_grad():  # statistics and affine parameters that are not their neutral values
        for key, value in model.state_dict().items():
            if "bn" in key and value.is_floating_point():
                value.add_(torch.rand_like(value))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    drawn, draw = [], ShakeRule.draw

    def record(*args, **more):
        drawn.append(tuple(c.double() for c in draw(*args, **more)))
        return drawn[-1]

    monkeypatch.setattr(ShakeRule, "draw", record)
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    ours = model(x)
    leaves = {k: v.requires_grad_(k in dict(model.named_parameters())) for k, v in before.items()}
    plain = Plain(leaves, drawn, training)
    depth, branches, *rest = map(int, "".join(c if c.isdigit() else " " for c in name).split())
    if "resnext" in name:
        theirs = plain.shake_resnext(x, depth, branches, rest[0])
    elif name[-1] in "abc":
        theirs = plain.architecture(x, name[-1], (depth - 2) // (3 if name[-1] == "b" else 6), branches)
    else:
        theirs = plain.shake_resnet(x, depth, branches, options.get("skip_shift", "reference"))
    assert len(drawn) == (sum(len(s.blocks) for s in model.stages) if training else 0), "a draw for each block"
    assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9)

    weights = torch.randn_like(ours)
    parameters = dict(model.named_parameters())
    g_ours = torch.autograd.grad((ours * weights).sum(), list(parameters.values()))
    g_theirs = torch.autograd.grad((theirs * weights).sum(), [leaves[k] for k in parameters])
    for key, a, b in zip(parameters, g_ours, g_theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-9), key
    for key, value in plain.running.items():
        assert torch.allclose(model.state_dict()[key], value, atol=1e-9), key


def test_initialisation_follows_the_authors_release():
    """Convolutions N(0, sqrt(2 / (k k out))), fan-out not divided by groups; BN 1 and 0; the linear bias 0."""
    torch.manual_seed(0)
    for name in ("shake_resnet26_2x32d", "shake_resnext11_2x4x64d"):
        for key, module in create_model(name).named_modules():
            if isinstance(module, torch.nn.Conv2d):
                assert module.bias is None, key
                expected = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
                n = module.weight.numel()
                assert float(module.weight.detach().std()) == pytest.approx(expected, rel=5 / math.sqrt(2 * n)), key
                assert abs(float(module.weight.detach().mean())) < 5 * expected / math.sqrt(n), key
            elif isinstance(module, torch.nn.BatchNorm2d):
                assert (module.eps, module.momentum) == (1e-5, 0.1), key
                assert (module.weight == 1).all(), key
                assert (module.bias == 0).all(), key
            elif isinstance(module, torch.nn.Linear):
                assert (module.bias == 0).all()
                bound = 1 / math.sqrt(module.in_features)
                assert float(module.weight.detach().abs().max()) <= bound
                assert float(module.weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_mirrored_skip_shifts_left_and_up():
    torch.manual_seed(0)
    model = create_model("shake_resnet8_2x8d", image_size=8).eval()
    twin = create_model("shake_resnet8_2x8d", image_size=8, skip_shift="mirrored").eval()
    twin.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 8, 8)
    assert not torch.allclose(model(x), twin(x))


NARROW = """
import copy, torch
from shakeshake.models.layers import TwoPathSkip

torch.manual_seed(0)
torch.set_num_threads(1)
for channels in (2, 4, 8, 12):
    exact = TwoPathSkip(channels, 2 * channels, 2).double()
    ours = copy.deepcopy(exact).float().to(memory_format=torch.channels_last)
    x = torch.randn(20, channels, 8, 8)
    for _ in range(20):  # what is written past its memory is found when memory is freed
        for network, image in ((exact, x.double()), (ours, x.contiguous(memory_format=torch.channels_last))):
            network.zero_grad()
            network(image).pow(3).sum().backward()
    for conv in ("conv1", "conv2"):
        wanted, got = (getattr(network, conv).weight.grad.double() for network in (exact, ours))
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
"""


def test_narrow_skips_train_without_avx512():
    """oneDNN's strided 1x1 convolutions would give wrong weight gradients and corrupt memory."""
    told = subprocess.run(
        [sys.executable, "-c", NARROW],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
