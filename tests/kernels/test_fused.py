"""Fused kernels compute what their slow twins do, and step aside where they don't apply."""

import copy
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from shakeshake import create_model
from shakeshake.kernels import build, convs, fused

needs_kernels = pytest.mark.skipif(build.library() is None, reason=f"no kernels: {build.why()}")

BF16_ROUNDING = 2**-8  # relative, at worst
# Pixels that are not a multiple of the kernels' blocks, images larger than a block, one row.
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
    """Leaves of their own, in float64."""
    return [
        copy.deepcopy(t).double() if isinstance(t, nn.Module) else t.detach().double().requires_grad_() for t in things
    ]


def check(ours, slow, dtype, what, scale=None):
    """Equal up to rounding: of float32 sums, and in bf16 of each stored value."""
    scale = slow.abs().max() if scale is None else scale
    allowed = (1e-5 if dtype == torch.float32 else 1.01 * BF16_ROUNDING) * scale + 1e-6
    assert (ours.double() - slow).abs().max() <= allowed, what  # false for what is not a number


@needs_kernels
@pytest.mark.parametrize("mean", [0.0, 300.0])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bn_relu(dtype, shape, mean):
    x, bn = image(shape, dtype, 1, mean), norm(shape[1], 2)
    gradient = image(shape, dtype, 3).detach()
    slow_x, slow_bn = doubled(x, bn)
    y, slow = fused.bn_relu(x, bn), F.relu(slow_bn(slow_x))
    # Where the ReLU's input is within rounding of 0 the two may differ by a whole gradient: none comes in there.
    with torch.no_grad():
        gradient[(copy.deepcopy(slow_bn)(slow_x).abs() < 1e-3) & (gradient == gradient)] = 0
    y.backward(gradient)
    slow.backward(gradient.double())
    # 300 +- 1: float32 has 5 digits left of the variance, whatever one does with it
    check(y, slow.detach(), dtype, "value", slow.abs().max() * (30 if mean else 1))
    check(x.grad, slow_x.grad, dtype, "gradient", slow_x.grad.abs().max() * (30 if mean else 1))
    for name in ("weight", "bias"):
        check(getattr(bn, name).grad, getattr(slow_bn, name).grad, torch.float32, name, slow_x.numel() ** 0.5 * 10)
    check(bn.running_mean, slow_bn.running_mean, torch.float32, "running mean")
    check(bn.running_var, slow_bn.running_var, torch.float32, "running variance")
    assert bn.num_batches_tracked == 1


@needs_kernels
@pytest.mark.parametrize("ends", ["skip", "skip, ReLU", "ReLU", "as it is"])
@pytest.mark.parametrize("level", ["Image", "Batch"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bn_mix(dtype, shape, level, ends):
    skips, relu = "skip" in ends, "ReLU" in ends
    skip, x1, x2 = (image(shape, dtype, seed) for seed in (1, 2, 3))
    bns = norm(shape[1], 4), norm(shape[1], 5)
    gradient = image(shape, dtype, 6).detach()
    first = torch.rand((2, shape[0]) if level == "Image" else (2, 1), generator=torch.Generator().manual_seed(7))
    alpha, beta = torch.stack((first, 1 - first), dim=-1)
    slow_skip, slow1, slow2, one, two = doubled(skip, x1, x2, *bns)

    given = (alpha, beta) if level == "Image" else (alpha[0], beta[0])
    out = fused.bn_mix(skip if skips else None, (x1, x2), bns, *given, (None, None), relu=relu)
    out.backward(gradient)
    y1, y2 = one(slow1), two(slow2)
    a, b = (c.double()[:, :, None, None, None] for c in (alpha, beta))
    value = slow_skip * skips + a[:, 0] * y1 + a[:, 1] * y2
    back = slow_skip * skips + b[:, 0] * y1 + b[:, 1] * y2
    # What the ReLU lets through is told by what came out of it: within rounding of 0 either is right.
    back.backward(gradient.double() * (out > 0 if relu else 1.0))

    check(out, (F.relu(value) if relu else value).detach(), dtype, "value")
    for ours, slow in ((skip, slow_skip), (x1, slow1), (x2, slow2))[not skips :]:
        check(ours.grad, slow.grad, dtype, "gradient")
    for ours, slow in zip(bns, (one, two), strict=True):
        for name in ("weight", "bias"):
            check(getattr(ours, name).grad, getattr(slow, name).grad, torch.float32, name, skip.numel() ** 0.5)
        check(ours.running_mean, slow.running_mean, torch.float32, "running mean")
        check(ours.running_var, slow.running_var, torch.float32, "running variance")


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_relu_fork(dtype):
    x = image((3, 16, 5, 5), dtype, 1)
    (slow,) = doubled(x)
    gradients = [image(x.shape, dtype, seed).detach() for seed in (2, 3, 4)]
    skip, *active = fused.relu_fork(x, 2)
    assert torch.equal(skip, x)
    assert all(torch.equal(a, x.relu()) for a in active)
    torch.autograd.backward((skip, *active), gradients)
    torch.autograd.backward((slow, F.relu(slow), F.relu(slow)), [g.double() for g in gradients])
    check(x.grad, slow.grad, dtype, "gradient")
    own, one, two = (g.float() for g in gradients)
    assert torch.equal(x.grad, (own + (one + two) * (x > 0)).to(dtype)), "rounded otherwise than torch rounds"


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_share(dtype):
    x = image((3, 16, 5, 5), dtype, 1)
    gradients = [image(x.shape, dtype, seed).detach() for seed in (2, 3, 4)]
    users = fused.share(x, 3)
    assert all(torch.equal(user, x) for user in users)
    torch.autograd.backward(users, gradients)
    one, two, three = (g.float() for g in gradients)
    assert torch.equal(x.grad, (one + two + three).to(dtype)), "rounded otherwise than torch rounds"


@needs_kernels
def test_what_is_not_a_number_stays_seen():
    x = image((2, 16, 4, 4), torch.bfloat16, 1).detach()
    x[0, 3, 1, 1] = float("nan")
    assert fused.bn_relu(x, norm(16, 2)).isnan()[:, 3].all()


def network(switch, rule="S-S-I", name="shake_resnet8_2x16d", **more):
    torch.manual_seed(0)
    net = create_model(name, rule=rule, **more).to(memory_format=torch.channels_last)
    if switch:
        assert fused.use(net)
    return net.train()


def step(net, x):
    torch.manual_seed(1)
    out = net(x)
    out.square().mean().backward()
    return out


@needs_kernels
@pytest.mark.parametrize(
    "built",
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
        {"name": "resnet8"},
        {"name": "wrn10_2"},
    ],
    ids=str,
)
@pytest.mark.parametrize("convolutions", ["ours", "torch's"])
def test_a_network_trains_alike_either_way(built, convolutions, monkeypatch):
    if convolutions == "torch's":  # as on CPUs without AVX-512
        monkeypatch.setattr(convs, "there", lambda dtype: False)
    x = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(3)).contiguous(
        memory_format=torch.channels_last
    )
    plain, ours = network(False, **built), network(True, **built)
    called, kernel = [], fused.Kernel.__call__
    monkeypatch.setattr(fused.Kernel, "__call__", lambda self: called.append(self) or kernel(self))
    assert torch.allclose(step(plain, x), step(ours, x), atol=1e-5)
    for (name, p), q in zip(plain.named_parameters(), ours.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=0, atol=1e-3 * float(p.grad.abs().max())), name
    for (name, p), q in zip(plain.named_buffers(), ours.buffers(), strict=True):
        assert torch.allclose(p, q, rtol=1e-5, atol=1e-6), name
    assert bool(called) == (built.get("name") != "shake_resnet8_2x16d_c"), "C has no BN, so nothing to fuse"


@needs_kernels
def test_who_listens_hears_and_who_differs_is_served(monkeypatch):
    """Hooks, evaluation, frozen BN, other widths and dtypes take the plain way."""
    x = torch.randn(4, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    net, calls = network(True), []
    monkeypatch.setattr(fused, "bn_mix", lambda *a, real=fused.bn_mix, **k: calls.append(1) or real(*a, **k))
    step(net, x)
    assert len(calls) == 3  # one in each block

    heard = []
    hook = net.stages[0].blocks[0].shake.register_forward_hook(lambda module, given, out: heard.append(len(given)))
    step(net, x)
    assert (heard, len(calls)) == ([2], 5)
    hook.remove()
    net.stages[1].blocks[0].branches[1].bn1.eval()
    step(net, x)
    assert len(calls) == 7
    calls.clear()
    net.eval()(x)
    with torch.no_grad():
        net.train()(x)
    step(copy.deepcopy(net).double(), x.double())
    odd = create_model("shake_resnet8_2x8d").to(memory_format=torch.channels_last)
    assert fused.use(odd)
    step(odd, x)
    assert len(calls) == 1  # from 16 to 32 channels; the blocks with 8 take the plain way


@pytest.mark.parametrize("broken", [{"SHAKESHAKE_KERNELS": "0"}, {"PATH": ""}, {"XDG_CACHE_HOME": "/dev/null"}])
def test_without_kernels_training_goes_on(broken, tmp_path):
    """Switched off, no compiler, no cache: plain operations, and a reason for who asks."""
    code = """
import torch
from shakeshake import create_model
from shakeshake.kernels import build, convs, fused
net = create_model("shake_resnet8_2x16d")
assert not fused.use(net) and build.why()
net(torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)).sum().backward()
print(build.why())
"""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), **broken}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


@pytest.fixture
def small_library(monkeypatch, tmp_path):
    """What is compiled is one function, so that it takes no time."""
    if build.library() is None:
        pytest.skip(f"no kernels: {build.why()}")
    (tmp_path / "one.cpp").write_text('extern "C" int one() { return 1; }')
    monkeypatch.setattr(build, "SOURCES", (tmp_path / "one.cpp",))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "shakeshake" / "kernels"


@pytest.mark.parametrize("size", [0, 5000])
def test_a_library_that_was_kept_in_part_is_compiled_again(small_library, size):
    """Loaded, it would be an error at the first page that is missing: the end of every training on that machine."""
    assert build._library.__wrapped__().one() == 1
    (kept,) = small_library.iterdir()
    whole = kept.read_bytes()
    (small_library / "copy").write_bytes(whole[:size])
    os.replace(small_library / "copy", kept)
    assert build._library.__wrapped__().one() == 1
    assert [entry.read_bytes() for entry in small_library.iterdir()] == [whole]


def test_a_user_without_a_home(small_library, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where the system knows no such user
    assert "no home directory" in build._library.__wrapped__()
