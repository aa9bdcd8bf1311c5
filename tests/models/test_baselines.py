"""Baselines against slow functional reimplementations and against formulas of their parameter counts."""

import pytest
import torch
import torch.nn.functional as F

from shakeshake import create_model
from shakeshake.models.registry import count_parameters


class Plain:
    """Networks in evaluation mode on the tensors of a state dict: convolutions, BN by its formula, nothing shared."""

    def __init__(self, state):
        self.p = state

    def conv(self, x, name, stride=1, groups=1):
        weight = self.p[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)

    def bn(self, x, name):
        mean, var, weight, bias = (
            self.p[f"{name}.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias

    def head(self, x):
        return F.linear(x.mean((2, 3)), self.p["fc.weight"], self.p["fc.bias"])

    def resnet(self, x, n):
        x = F.relu(self.bn(self.conv(x, "stem.conv"), "stem.bn"))
        for s in range(3):
            for k in range(n):
                at, stride = f"stages.{s}.blocks.{k}.branch", 2 if s and not k else 1
                y = F.relu(self.bn(self.conv(x, f"{at}.conv1", stride), f"{at}.bn1"))
                y = self.bn(self.conv(y, f"{at}.conv2"), f"{at}.bn2")
                if stride == 2:  # option A: the identity, zeros for the channels that it has not
                    x = torch.cat((x[:, :, ::2, ::2], torch.zeros_like(x[:, :, ::2, ::2])), 1)
                x = F.relu(x + y)
        return self.head(x)

    def resnext(self, x, n, cardinality):
        x = F.relu(self.bn(self.conv(x, "stem.conv"), "stem.bn"))
        for s in range(3):
            for k in range(n):
                at, stride = f"stages.{s}.blocks.{k}", 2 if s and not k else 1
                y = F.relu(self.bn(self.conv(x, f"{at}.branch.conv1"), f"{at}.branch.bn1"))
                y = F.relu(self.bn(self.conv(y, f"{at}.branch.conv2", stride, cardinality), f"{at}.branch.bn2"))
                y = self.bn(self.conv(y, f"{at}.branch.conv3"), f"{at}.branch.bn3")
                x = F.relu(y + (x if k else self.bn(self.conv(x, f"{at}.skip.conv", stride), f"{at}.skip.bn")))
        return self.head(x)

    def wrn(self, x, n):
        x = self.conv(x, "stem.conv")  # neither BN nor ReLU
        for s in range(3):
            for k in range(n):
                at, stride = f"stages.{s}.blocks.{k}", 2 if s and not k else 1
                active = F.relu(self.bn(x, f"{at}.bn1"))
                y = self.conv(F.relu(self.bn(self.conv(active, f"{at}.conv1", stride), f"{at}.bn2")), f"{at}.conv2")
                x = y + (x if k else self.conv(active, f"{at}.skip", stride))
        return self.head(F.relu(self.bn(x, "last_bn")))

    def densenet(self, x, n):
        x = self.conv(x, "stem.conv")
        for s in range(3):
            at = f"stages.{s}.blocks"
            if s:
                x = self.conv(F.relu(self.bn(x, f"{at}.0.bn")), f"{at}.0.conv")
                x = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
            for k in range(1 if s else 0, n + (1 if s else 0)):
                y = self.conv(F.relu(self.bn(x, f"{at}.{k}.bn1")), f"{at}.{k}.conv1")
                x = torch.cat((x, self.conv(F.relu(self.bn(y, f"{at}.{k}.bn2")), f"{at}.{k}.conv2")), 1)
        return self.head(F.relu(self.bn(x, "last_bn")))


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("cifar_resnet14", lambda p, x: p.resnet(x, 2)),
        ("resnext20_4x8d", lambda p, x: p.resnext(x, 2, 4)),
        ("wrn16_2", lambda p, x: p.wrn(x, 2)),
        ("densenet_bc16_6", lambda p, x: p.densenet(x, 2)),
    ],
)
def test_matches_a_functional_reimplementation(name, plain):
    torch.manual_seed(0)
    model = create_model(name, image_size=16, num_classes=7).double().eval()
    state = model.state_dict()
    with torch.no_grad():  # statistics and affine parameters that are not their neutral values
        for value in state.values():
            if value.is_floating_point() and value.dim() == 1:
                value.add_(torch.rand_like(value))
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(model(x), plain(Plain(state), x), rtol=1e-10, atol=1e-10)


def resnet(depth):
    n, total, width = (depth - 2) // 6, 27 * 16 + 32, 16
    for out in (16, 32, 64):
        total += 9 * width * out + 2 * out + (2 * n - 1) * (9 * out * out + 2 * out)
        width = out
    return total + 64 * 10 + 10


def wrn(depth, k):
    n, total, width = (depth - 4) // 6, 27 * 16, 16
    for out in (16 * k, 32 * k, 64 * k):
        total += 9 * width * out + 9 * out * out + 2 * width + 2 * out + (width * out if width != out else 0)
        total += (n - 1) * (18 * out * out + 4 * out)
        width = out
    return total + 2 * width + 10 * width + 10


def resnext(depth, cardinality, base):
    n, total, width = (depth - 2) // 9, 27 * 64 + 128, 64
    for planes in (64, 128, 256):
        inner, out = cardinality * (planes * base // 64), 4 * planes
        middle = 9 * inner * inner // cardinality + 4 * inner + inner * out + 2 * out
        total += n * middle + (width + (n - 1) * out) * inner + width * out + 2 * out
        width = out
    return total + 10 * width + 10


def densenet_bc(depth, growth):
    n, c = (depth - 4) // 6, 2 * growth
    total = 27 * c
    for last in (False, False, True):
        for _ in range(n):
            total += 2 * c + 4 * growth * c + 8 * growth + 36 * growth * growth
            c += growth
        if not last:
            total += 2 * c + c * (c // 2)
            c //= 2
    return total + 2 * c + 10 * c + 10


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        *((f"cifar_resnet{d}", resnet(d)) for d in (8, 20, 32, 1202)),
        *((f"wrn{d}_{k}", wrn(d, k)) for d, k in ((10, 1), (16, 8), (28, 10), (40, 4))),
        *(
            (f"resnext{d}_{c}x{w}d", resnext(d, c, w))
            for d, c, w in ((11, 1, 1), (29, 8, 64), (29, 16, 64), (38, 3, 24))
        ),
        *((f"densenet_bc{d}_{g}", densenet_bc(d, g)) for d, g in ((10, 1), (100, 12), (190, 40), (16, 7))),
    ],
)
def test_parameter_count_matches_the_formula(name, parameters):
    assert count_parameters(name) == parameters
