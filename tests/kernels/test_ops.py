"""The fused operations compute what the separate operations compute in float64, up to rounding."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from shakeshake.kernels import build, ops

pytestmark = pytest.mark.skipif(build.load_library() is None, reason=f"no kernels: {build.unavailable_reason()}")

BF16_ROUNDING = 2**-8  # relative, at worst
# Numbers of pixels that are not a multiple of the kernels' blocks, images larger than a block, one pixel.
SHAPES = [(5, 16, 3, 5), (2, 48, 20, 13), (3, 32, 1, 1), (4, 128, 8, 8)]


def image(shape, dtype, seed, mean=0.0):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + mean
    return x.to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()


def norm(channels, seed):
    bn = nn.BatchNorm2d(channels, eps=1e-3, momentum=0.3)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for values in (bn.weight, bn.bias, bn.running_mean):
            values.copy_(torch.randn(channels, generator=generator))
    return bn


def doubled(*things):
    """Independent copies in float64."""
    return [
        copy.deepcopy(t).double() if isinstance(t, nn.Module) else t.detach().double().requires_grad_() for t in things
    ]


def check(ours, slow, dtype, what, scale=None):
    """Equal up to rounding: of float32 sums, and in bf16 of each stored value."""
    scale = slow.abs().max() if scale is None else scale
    allowed = (1e-5 if dtype == torch.float32 else 1.01 * BF16_ROUNDING) * scale + 1e-6
    assert (ours.double() - slow).abs().max() <= allowed, what  # false for NaN


@pytest.mark.parametrize("mean", [0.0, 300.0])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bn_relu_equals_bn_and_relu(dtype, shape, mean):
    x, bn = image(shape, dtype, 1, mean), norm(shape[1], 2)
    gradient = image(shape, dtype, 3).detach()
    slow_x, slow_bn = doubled(x, bn)
    y, slow = ops.bn_relu(x, bn), F.relu(slow_bn(slow_x))
    # Where the ReLU's input is within rounding of 0 the two gradients may differ entirely: set them to 0 there.
    with torch.no_grad():
        gradient[(copy.deepcopy(slow_bn)(slow_x).abs() < 1e-3) & (gradient == gradient)] = 0
    y.backward(gradient)
    slow.backward(gradient.double())
    # 300 +- 1: float32 leaves 5 digits of the variance
    check(y, slow.detach(), dtype, "value", slow.abs().max() * (30 if mean else 1))
    check(x.grad, slow_x.grad, dtype, "gradient", slow_x.grad.abs().max() * (30 if mean else 1))
    for name in ("weight", "bias"):
        check(getattr(bn, name).grad, getattr(slow_bn, name).grad, torch.float32, name, slow_x.numel() ** 0.5 * 10)
    check(bn.running_mean, slow_bn.running_mean, torch.float32, "running mean")
    check(bn.running_var, slow_bn.running_var, torch.float32, "running variance")
    assert bn.num_batches_tracked == 1


@pytest.mark.parametrize("ends", ["skip", "skip, ReLU", "ReLU", "neither"])
@pytest.mark.parametrize("level", ["Image", "Batch"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bn_mix_equals_bn_mix_and_sum(dtype, shape, level, ends):
    skips, relu = "skip" in ends, "ReLU" in ends
    skip, x1, x2 = (image(shape, dtype, seed) for seed in (1, 2, 3))
    bns = norm(shape[1], 4), norm(shape[1], 5)
    gradient = image(shape, dtype, 6).detach()
    first = torch.rand((2, shape[0]) if level == "Image" else (2, 1), generator=torch.Generator().manual_seed(7))
    alpha, beta = torch.stack((first, 1 - first), dim=-1)
    slow_skip, slow1, slow2, one, two = doubled(skip, x1, x2, *bns)

    given = (alpha, beta) if level == "Image" else (alpha[0], beta[0])
    out = ops.bn_mix(skip if skips else None, (x1, x2), bns, *given, (None, None), relu=relu)
    out.backward(gradient)
    y1, y2 = one(slow1), two(slow2)
    a, b = (c.double()[:, :, None, None, None] for c in (alpha, beta))
    value = slow_skip * skips + a[:, 0] * y1 + a[:, 1] * y2
    back = slow_skip * skips + b[:, 0] * y1 + b[:, 1] * y2
    # The kernel's own output defines the ReLU's mask: within rounding of 0 either mask is right.
    back.backward(gradient.double() * (out > 0 if relu else 1.0))

    check(out, (F.relu(value) if relu else value).detach(), dtype, "value")
    for ours, slow in ((skip, slow_skip), (x1, slow1), (x2, slow2))[not skips :]:
        check(ours.grad, slow.grad, dtype, "gradient")
    for ours, slow in zip(bns, (one, two), strict=True):
        for name in ("weight", "bias"):
            check(getattr(ours, name).grad, getattr(slow, name).grad, torch.float32, name, skip.numel() ** 0.5)
        check(ours.running_mean, slow.running_mean, torch.float32, "running mean")
        check(ours.running_var, slow.running_var, torch.float32, "running variance")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_relu_fan_out_adds_up_gradients_as_torch_rounds(dtype):
    x = image((3, 16, 5, 5), dtype, 1)
    (slow,) = doubled(x)
    gradients = [image(x.shape, dtype, seed).detach() for seed in (2, 3, 4)]
    skip, *active = ops.relu_fan_out(x, 2)
    assert torch.equal(skip, x)
    assert all(torch.equal(a, x.relu()) for a in active)
    torch.autograd.backward((skip, *active), gradients)
    torch.autograd.backward((slow, F.relu(slow), F.relu(slow)), [g.double() for g in gradients])
    check(x.grad, slow.grad, dtype, "gradient")
    own, one, two = (g.float() for g in gradients)
    assert torch.equal(x.grad, (own + (one + two) * (x > 0)).to(dtype)), "rounding differs from torch"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fan_out_adds_up_gradients_as_torch_rounds(dtype):
    x = image((3, 16, 5, 5), dtype, 1)
    gradients = [image(x.shape, dtype, seed).detach() for seed in (2, 3, 4)]
    outputs = ops.fan_out(x, 3)
    assert all(torch.equal(y, x) for y in outputs)
    torch.autograd.backward(outputs, gradients)
    one, two, three = (g.float() for g in gradients)
    assert torch.equal(x.grad, (one + two + three).to(dtype)), "rounding differs from torch"


def test_nan_is_propagated():
    x = image((2, 16, 4, 4), torch.bfloat16, 1).detach()
    x[0, 3, 1, 1] = float("nan")
    assert ops.bn_relu(x, norm(16, 2)).isnan()[:, 3].all()
