"""The fused convolutions equal plain ones in float64 up to rounding, for any number of threads."""

import copy
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from shakeshake.kernels import build, convs, ops


def skip_reason(dtype):
    """Why this machine cannot run the convolutions in ``dtype``; empty if it can."""
    library = build.load_library()
    if library is None:
        return f"no kernels: {build.unavailable_reason()}"
    return (
        ""
        if library.shake_conv_is_supported(int(dtype == torch.bfloat16))
        else f"no fused convolutions in {dtype}: this CPU has no AVX-512"
    )


DTYPES = [
    pytest.param(dtype, marks=pytest.mark.skipif(bool(skip_reason(dtype)), reason=skip_reason(dtype) or "supported"))
    for dtype in (torch.float32, torch.bfloat16)
]


@pytest.fixture(autouse=True)
def without_amx(monkeypatch):
    """With AMX, oneDNN's convolutions replace these in bfloat16; test them there, too."""
    monkeypatch.setattr(convs, "_has_amx", lambda: False)
    convs.is_supported.cache_clear()
    yield
    convs.is_supported.cache_clear()


# in, out, stride, height, width: half a block of channels, several blocks, rows that are not a multiple of what is
# computed at once, odd sizes with a stride, sizes of one; then for Winograd: images that are split, images that are
# computed together, and tiles that cross the edge.
HEADS = [
    (16, 32, 1, 5, 5),
    (32, 64, 2, 8, 8),
    (64, 32, 1, 5, 17),
    (32, 32, 2, 7, 5),
    (128, 96, 1, 2, 2),
    (32, 32, 2, 1, 1),
    (16, 32, 1, 24, 24),
    (32, 64, 1, 23, 22),
    (96, 160, 1, 15, 16),
]
NARROW = [(48, 16, 1, 16, 16), (16, 48, 1, 16, 16)]  # Winograd only
TWO_PATHS = 1 << 4 | 1 << 8  # taps of a skip of two paths
TAILS = [
    (32, 32, 5, 5),
    (64, 96, 2, 16),
    (128, 32, 1, 1),
    (32, 64, 23, 22),
    (96, 160, 15, 16),
    (48, 16, 16, 16),
    (16, 48, 16, 16),
    (64, 96, 15, 16, 2),  # groups
    (192, 64, 15, 16, 4),
    (128, 192, 14, 14, 4),
]


def image(shape, dtype, seed):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()


def conv(into, out, stride, seed, groups=1):
    made = nn.Conv2d(into, out, 3, stride, 1, groups=groups, bias=False).to(memory_format=torch.channels_last)
    with torch.no_grad():
        made.weight.copy_(torch.randn(made.weight.shape, generator=torch.Generator().manual_seed(seed)))
    return made


def slow_conv(made, x, taps=(convs.ALL_TAPS,)):
    """In float64, with weights rounded to the dtype of ``x`` unless Winograd is used."""
    dtype = torch.float32 if convs.uses_winograd(x, made.stride[0], taps) else x.dtype
    slow = copy.deepcopy(made).double()
    slow.weight.data = made.weight.detach().to(dtype).double()
    return slow


def check(ours, slow, dtype, what):
    """Equal up to rounding: in float32, or in bf16 of inputs and stored values."""
    allowed = (1e-5 if dtype == torch.float32 else 2**-7) * slow.abs().max() + 1e-6
    assert (ours.double() - slow).abs().max() <= allowed, what  # false for NaN


def check_sums(sums, y):
    """A BN computes the same statistics from the sums as from the feature map."""
    ours, theirs = (nn.BatchNorm2d(y.shape[1], momentum=0.3) for _ in range(2))
    for a, b in zip(ops.bn_statistics(y, ours, sums), ops.bn_statistics(y, theirs), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-5)
    assert torch.allclose(ours.running_mean, theirs.running_mean, rtol=1e-5, atol=1e-6)
    assert torch.allclose(ours.running_var, theirs.running_var, rtol=1e-5, atol=1e-6)


def head(x, *made, keep=True):
    return convs.relu_conv_sums(x, [m.weight for m in made], [convs.ALL_TAPS] * len(made), made[0].stride[0], keep=keep)


@pytest.mark.parametrize(
    ("shape", "last"), [*product(HEADS, (TWO_PATHS, convs.ALL_TAPS)), *product(NARROW, (convs.ALL_TAPS,))]
)
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_conv_sums_equals_relu_and_convolution(dtype, shape, keep, last):
    into, out, stride, height, width = shape
    x, made = image((5, into, height, width), dtype, 1), [conv(into, out, stride, seed) for seed in (2, 3, 4)]
    taps = [convs.ALL_TAPS, convs.ALL_TAPS, last]
    there = torch.tensor([[mask >> tap & 1 for tap in range(9)] for mask in taps]).view(3, 1, 1, 3, 3)
    with torch.no_grad():
        for each, tap in zip(made, there, strict=True):
            each.weight.mul_(tap)
    assert convs.can_relu_conv_sums(x, made, taps)
    slow_x = x.detach().double().requires_grad_()
    twins = [slow_conv(each, x, taps) for each in made]

    skip, ys = convs.relu_conv_sums(x, [each.weight for each in made], taps, stride, keep=keep)
    slow = [twin(F.relu(slow_x)) for twin in twins]
    gradients = [image(y.shape, dtype, 5 + k).detach() for k, y in enumerate((x, *(y for y, _ in ys)))]
    start = 0 if keep else 1
    torch.autograd.backward([skip, *(y for y, _ in ys)][start:], gradients[start:])
    torch.autograd.backward([slow_x * 1, *slow][start:], [g.double() for g in gradients[start:]])

    assert torch.equal(skip, x) if keep else skip is None
    for (y, sums), twin in zip(ys, slow, strict=True):
        check(y, twin.detach(), dtype, "value")
        check_sums(sums, y.detach())
    check(x.grad, slow_x.grad, dtype, "gradient")
    for each, twin, tap in zip(made, twins, there, strict=True):
        check(each.weight.grad, twin.weight.grad * tap, torch.float32, "gradient of the weights")


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("shape", TAILS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_bn_relu_conv_sums_equals_bn_relu_and_convolution(dtype, shape, known):
    into, out, height, width, *groups = shape
    x, made = image((5, into, height, width), dtype, 1), conv(into, out, 1, 2, *groups)
    bn = nn.BatchNorm2d(into, momentum=0.3)
    with torch.no_grad():
        for k, values in enumerate((bn.weight, bn.bias)):
            values.copy_(torch.randn(into, generator=torch.Generator().manual_seed(3 + k)))
    assert convs.can_bn_relu_conv_sums(x, made)
    slow_x, slow_bn, twin = x.detach().double().requires_grad_(), copy.deepcopy(bn).double(), slow_conv(made, x)
    around = x.detach().float() - x.detach()[:, :, :1, :1].float()
    sums = torch.stack((x.detach()[:, :, 0, 0].float(), around.sum((2, 3)), around.square().sum((2, 3))), dim=1)

    y, sums_of_y = convs.bn_relu_conv_sums(x, sums if known else None, bn, made)
    slow = twin(F.relu(slow_bn(slow_x)))
    gradient = image(y.shape, dtype, 5).detach()
    y.backward(gradient)
    slow.backward(gradient.double())

    check(y, slow.detach(), dtype, "value")
    check_sums(sums_of_y, y.detach())
    check(x.grad, slow_x.grad, dtype, "gradient")
    check(made.weight.grad, twin.weight.grad, dtype, "gradient of the weights")
    for name in ("weight", "bias"):
        check(getattr(bn, name).grad, getattr(slow_bn, name).grad, dtype, name)
    check(bn.running_mean, slow_bn.running_mean, torch.float32, "running mean")
    check(bn.running_var, slow_bn.running_var, torch.float32, "running variance")
    assert bn.num_batches_tracked == 1


@pytest.mark.parametrize(
    ("shape", "mask", "images"),
    [*product(HEADS, (convs.ALL_TAPS, 1 << 4), (1, 5)), *product(NARROW, (convs.ALL_TAPS,), (5,))],
)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_conv_bias_act_equals_convolution_bias_sum_and_relu(dtype, shape, mask, images, threads, request):
    """With one image and several threads, each thread computes some of the rows."""
    before = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(before))
    torch.set_num_threads(threads)
    into, out, stride, height, width = shape
    x, made, bias = (
        image((images, into, height, width), dtype, 1).detach(),
        conv(into, out, stride, 2),
        torch.randn(out),
    )
    assert convs.can_conv_bias_act(x, made, mask)
    with torch.no_grad():
        made.weight.mul_(torch.tensor([mask >> tap & 1 for tap in range(9)]).view(3, 3))
    assert convs.nonzero_taps(made.weight) == mask
    twin = slow_conv(made, x, (mask,))(x.double()) + bias.double()[:, None, None]
    rectified = slow_conv(made, x, (mask,))(x.double().relu()) + bias.double()[:, None, None]
    add = image(twin.shape, dtype, 3).detach()
    winograd = convs.uses_winograd(x, stride, (mask,))
    weights = convs.pack_weights(made.weight, dtype, winograd=winograd)
    for first, added, relu, slow in (
        (False, None, False, twin),
        (True, None, True, rectified.relu()),
        (False, add, True, (twin + add.double()).relu()),
    ):
        y = torch.full_like(twin, torch.nan, dtype=dtype, memory_format=torch.channels_last)
        options = {"winograd": winograd, "relu_first": first, "add": added, "relu": relu}
        convs.conv_bias_act(x, y, weights, bias, stride, mask, **options)()
        check(y, slow.detach(), dtype, (first, relu))


def test_shapes_cover_winograd_and_direct_convolution():
    """Otherwise the tests above would cover only one of the two."""
    for dtype in (torch.float32, torch.bfloat16):
        for shapes in ([(shape[0], *shape[3:]) for shape in HEADS if shape[2] == 1], [(t[0], *t[2:4]) for t in TAILS]):
            assert {convs.uses_winograd(image((5, *shape), dtype, 1), 1) for shape in shapes} == {False, True}


@pytest.mark.parametrize(("channels", "side"), [(32, 5), (64, 12)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_do_not_depend_on_the_number_of_threads(dtype, channels, side):
    """A run resumed with another number of threads computes the same bits."""

    def gradients(threads):
        torch.set_num_threads(threads)
        x, made = (
            image((20, channels, side, side), dtype, 1),
            [conv(channels, channels, 1, 2, groups) for groups in (1, 1, 1, 2 if side == 12 else 1)],
        )
        _, ys = head(x, *made[:2])
        outs = [
            convs.bn_relu_conv_sums(*known, nn.BatchNorm2d(channels), last)
            for known, last in zip(ys, made[2:], strict=True)
        ]
        sum(y.float().square().sum() for y, _ in outs).backward()
        return [x.grad, *(each.weight.grad for each in made), *(sums for _, sums in outs)]

    before = torch.get_num_threads()
    try:
        one, three = gradients(1), gradients(3)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_spreads_to_the_outputs_that_read_it(dtype):
    """Also a NaN with its sign bit set, as x86 produces: no ReLU turns it into zero."""
    for into in (16, 32):
        x = image((2, into, 6, 6), dtype, 1).detach()
        bits = x.view(torch.int32 if dtype == torch.float32 else torch.int16)
        bits[0, 3, 2, 2] = -(2**22) if dtype == torch.float32 else -(2**6)
        assert x.isnan().sum() == 1
        _, [(y, _)] = head(x.requires_grad_(), conv(into, 32, 1, 2))
        assert y[0, :, 1:4, 1:4].isnan().all()
        assert y.isnan().sum() == 9 * 32
    y, _ = convs.bn_relu_conv_sums(x.detach().requires_grad_(), None, nn.BatchNorm2d(32), conv(32, 32, 1, 2))
    assert y.isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_spreads_to_the_winograd_tiles_that_read_it(dtype):
    x = image((2, 32, 24, 24), dtype, 1).detach()
    x[0, 3, 9, 9] = torch.nan
    _, [(y, _)] = head(x.requires_grad_(), conv(32, 32, 1, 2))
    assert y[0, :, 8:11, 8:11].isnan().all()
    y[0, :, 8:12, 8:12] = 0
    assert not y.isnan().any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_unsupported_convolutions_are_recognised(dtype):
    x = image((2, 32, 4, 4), dtype, 1)
    assert convs.can_bn_relu_conv_sums(x, conv(32, 32, 1, 2))
    others = [
        conv(32, 32, 2, 2),
        conv(64, 32, 1, 2),  # other channels than the input's
        conv(32, 48, 1, 2),
        nn.Conv2d(32, 32, 3, 1, 1, bias=True).to(memory_format=torch.channels_last),
        conv(32, 32, 1, 2, groups=2),  # groups need Winograd
        conv(32, 64, 1, 2, groups=2),
        nn.Conv2d(32, 32, 1, bias=False).to(memory_format=torch.channels_last),
        nn.Conv2d(32, 32, 3, 1, 2, dilation=2, bias=False).to(memory_format=torch.channels_last),
        nn.Conv2d(32, 32, 3, 1, 1, bias=False, padding_mode="circular").to(memory_format=torch.channels_last),
        nn.Conv2d(32, 32, 3, 1, 1, bias=False),  # weights in another memory format
        conv(32, 32, 1, 2).to(torch.bfloat16),
    ]
    assert not any(convs.can_bn_relu_conv_sums(x, other) for other in others)
    large = image((8, 32, 16, 16), dtype, 1)
    assert convs.can_bn_relu_conv_sums(large, conv(32, 64, 1, 2, groups=2))
    assert not convs.can_bn_relu_conv_sums(large, conv(32, 32, 1, 2, groups=4))
    assert not convs.can_relu_conv_sums(large, [conv(32, 32, 1, 2, groups=2)], [convs.ALL_TAPS])
    assert not convs.can_conv_bias_act(large, conv(32, 32, 1, 2, groups=2), convs.ALL_TAPS)
    x48 = image((2, 48, 4, 4), dtype, 1)
    assert not convs.can_bn_relu_conv_sums(x48, conv(48, 32, 1, 2))
    taps = [convs.ALL_TAPS]
    assert convs.can_relu_conv_sums(x, [conv(32, 32, 1, 2), conv(32, 32, 1, 3)], taps * 2)
    assert not convs.can_relu_conv_sums(x, [conv(32, 32, 1, 2), conv(32, 32, 2, 2)], taps * 2)
    assert not convs.can_relu_conv_sums(x, [conv(32, 32, 1, 2), conv(32, 64, 1, 2)], taps * 2)
    assert not convs.can_relu_conv_sums(x48, [conv(48, 32, 1, 2)], taps)
    assert not convs.can_relu_conv_sums(x, [conv(64, 32, 1, 2)], taps)
    assert convs.can_conv_bias_act(x, conv(32, 32, 1, 2), convs.ALL_TAPS)
    assert not convs.can_conv_bias_act(x, conv(64, 32, 1, 2), convs.ALL_TAPS)
