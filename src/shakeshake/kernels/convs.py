"""3x3 convolutions of a Shake-Shake block with what stands around them, forward and backward: a CPU with AVX-512.

A block's branches begin with a ReLU of one input (``head``) and go on with BN, ReLU and another convolution (``tail``).
Neither the result of that ReLU nor that of BN and ReLU is ever stored: a convolution computes them when it reads its
input, in the forward pass and again for the gradient of its weights. What the following BN needs to know of a
convolution's output is summed up while it is written. A two-path skip is one more kernel, with two taps, at the head.

Weights and their gradients are float32, feature maps float32 or bfloat16, channels_last.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .build import library
from .fused import Kernel, Sums, bn_relu, call, finish, normalisation

BLOCK, WIDE = (
    16,
    32,
)  # of conv.h: channels come in multiples of the one for tiles, else of the other; inputs may have 16
TAPS, ALL_TAPS = 9, 2**9 - 1
TILE, POINTS = 4, 36  # of winograd.h: outputs in each direction, and what they are multiplied at
NOTHING, RELU, AFFINE_RELU = range(3)  # what stands in front of a convolution, as conv.cpp numbers it


@functools.cache
def there(dtype: torch.dtype) -> bool:
    """Whether this machine has these convolutions, and no better ones: with AMX, oneDNN's in bfloat16 are."""
    kernels = library()
    half = dtype == torch.bfloat16
    return kernels is not None and bool(kernels.shake_conv_there(ctypes.c_int(half))) and not (half and _amx())


def _amx() -> bool:
    try:
        return " amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def fit_head(x: Tensor, convs: Sequence[nn.Conv2d], taps: Sequence[int]) -> bool:
    """Whether head() can compute these, with all of their taps, and whatever else ``taps`` stands for."""
    first = convs[0]
    return (
        _fit(x, convs, ((1, 1), (2, 2)))
        and first.groups == 1
        and all(conv.stride == first.stride and conv.weight.shape == first.weight.shape for conv in convs)
        and _fit_channels(x, first, taps)
    )


def fit_tail(x: Tensor, conv: nn.Conv2d) -> bool:
    """Whether tail() can compute this one."""
    return _fit(x, (conv,), ((1, 1),)) and _fit_channels(x, conv, (ALL_TAPS,))


def _fit(x: Tensor, convs: Sequence[nn.Conv2d], strides: tuple[tuple[int, int], ...]) -> bool:
    return there(x.dtype) and all(
        _fit_kernel(conv, strides)
        and conv.bias is None
        and conv.weight.dtype == torch.float32
        and conv.weight.is_contiguous(memory_format=torch.channels_last)
        for conv in convs
    )


def _fit_kernel(conv: nn.Conv2d, strides: tuple[tuple[int, int], ...]) -> bool:
    return conv.kernel_size == (3, 3) and conv.stride in strides and conv.padding == (1, 1) and conv.dilation == (1, 1)


def _fit_channels(x: Tensor, conv: nn.Conv2d, taps: Sequence[int]) -> bool:
    into, out = conv.in_channels // conv.groups, conv.out_channels // conv.groups
    if x.shape[1] != conv.in_channels:
        return False
    if tiled(x, conv.stride[0], taps):
        return into % BLOCK == 0 and out % BLOCK == 0
    return conv.groups == 1 and (into % WIDE == 0 or into == BLOCK) and out % WIDE == 0


def head(
    x: Tensor, weights: Sequence[Tensor], taps: Sequence[int], stride: int, *, keep: bool
) -> tuple[Tensor | None, list[tuple[Tensor, Sums]]]:
    """x itself, if it is to be kept for an identity skip, and conv(relu(x)) for every weight, with its sums.

    weights: of one shape (out, in, 3, 3), channels_last. taps: for each, which of its taps are not zero, as bits, from
    0 for the one up left to 8 for the one down right. The others get no gradient.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    kept, *ys, sums = _Head.apply(x, list(taps), stride, keep, *weights)
    return kept, list(zip(ys, sums, strict=True))


def tail(x: Tensor, sums: Sums | None, bn: nn.BatchNorm2d, conv: nn.Conv2d) -> tuple[Tensor, Sums]:
    """conv(relu(bn(x))) in training mode, running statistics included, and its sums. sums: those of ``x``, if known."""
    bn.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    x = x.contiguous(memory_format=torch.channels_last)
    return _Tail.apply(x, sums, bn.weight, bn.bias, conv.weight, conv.groups, bn)


def bn_relu_conv(x: Tensor, sums: Sums | None, bn: nn.BatchNorm2d, conv: nn.Conv2d) -> tuple[Tensor, Sums | None]:
    """conv(relu(bn(x))) in training mode: tail() where it can compute it, else torch's convolution, without sums."""
    return tail(x, sums, bn, conv) if fit_tail(x, conv) else (conv(bn_relu(x, bn)), None)


def fit_inference(x: Tensor, conv: nn.Conv2d, taps: int) -> bool:
    """Whether biased() can compute this one, whose taps are those. Its bias and weights may be of the type of ``x``."""
    return (
        x.dtype in (torch.float32, torch.bfloat16)
        and there(x.dtype)
        and _fit_kernel(conv, ((1, 1), (2, 2)))
        and conv.groups == 1
        and _fit_channels(x, conv, (taps,))
    )


def tiled(x: Tensor, stride: int, taps: Sequence[int] = (ALL_TAPS,)) -> bool:
    """Whether a convolution of ``x``, and its gradients, are computed tile by tile, by winograd.h.

    That takes a quarter of the multiplications, in float32, which are half as many at a time as in bf16. It pays if
    tiles lie within the images for the most part, and if there are enough of them to read four times the weights for.
    """
    n, _, h, w = x.shape
    half = x.dtype == torch.bfloat16
    tiles = n * -(-h // TILE) * -(-w // TILE)
    return (
        stride == 1
        and all(mask == ALL_TAPS for mask in taps)
        and tiles >= (64 if half else 16)
        and n * h * w >= (0.7 if half else 0.4) * tiles * TILE**2
    )


def taps_of(weight: Tensor) -> int:
    """Which of the taps of a weight (out, in, 3, 3) are not zero, as head() takes them."""
    return sum(1 << tap for tap, there in enumerate(weight.detach().ne(0).flatten(2).any(0).any(0).tolist()) if there)


def arranged(weight: Tensor, dtype: torch.dtype, *, tiles: bool) -> Tensor:
    """Weights (out, in, 3, 3) in the order in which biased() reads them for feature maps of ``dtype``.

    tiles: what tiled() says of the feature maps.
    """
    weights = (weight.detach().float().contiguous(memory_format=torch.channels_last),)
    return _arranged(weights, dtype, tiles=tiles, back=False)


def biased(
    x: Tensor,
    y: Tensor,
    weights: Tensor,
    bias: Tensor,
    stride: int,
    taps: int,
    *,
    tiles: bool,
    relu_first: bool,
    add: Tensor | None,
    relu: bool,
) -> Kernel:
    """What writes relu(conv(relu(x)) + bias + add), each of the three that is asked for, to ``y``; without gradients.

    x, y, add: channels_last, ``y`` of the shape that output_shape() says. weights: from arranged(). bias: (out,),
    float32. taps: from taps_of(). tiles: what tiled() says of ``x``.
    """
    n, into, h, w = x.shape
    size, before = (n, h, w, into, len(bias), stride, int(tiles)), RELU if relu_first else NOTHING
    return Kernel("conv_biased", x, x, *size, before, taps, weights, bias, add, int(relu), y)


def output_shape(x: Tensor, out: int, stride: int) -> tuple[int, int, int, int]:
    """(N, out, H, W) of a convolution of ``x``."""
    n, _, h, w = x.shape
    return n, out, -(-h // stride), -(-w // stride)


class _How(NamedTuple):
    """taps: of each output. front: what stands in front, with what normalisation() found where that is BN and ReLU."""

    taps: list[int]
    stride: int
    front: int
    found: Tensor | None = None
    groups: int = 1

    @property
    def scale_and_shift(self) -> tuple[Tensor | None, Tensor | None]:
        return (None, None) if self.found is None else (self.found[2], self.found[3])


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, taps: list[int], stride: int, keep: bool, *weights: Tensor
    ) -> tuple[Tensor | None, ...]:
        ctx.how = _How(taps, stride, RELU)
        *ys, sums = _convolve(x, weights, ctx.how)
        ctx.save_for_backward(x, *weights)
        ctx.mark_non_differentiable(sums)
        return (x if keep else None), *ys, sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dskip: Tensor | None, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        taps, stride, *_ = ctx.how
        dskip = None if dskip is None else dskip.contiguous(memory_format=torch.channels_last)
        dys = [g.contiguous(memory_format=torch.channels_last) for g in gradients[:-1]]
        tiles = tiled(x, stride, taps)
        dx, read = torch.empty_like(x), _arranged(weights, x.dtype, tiles=tiles, back=True)
        size = (*_shape(x), len(weights[0]), stride, int(tiles))
        call("conv_forked", x, x, *size, len(weights), taps, read, dys, dskip, dx)
        return dx, None, None, None, *_weights_gradient(x, dys, weights, ctx.how)


class _Tail(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        sums: Sums | None,
        weight: Tensor,
        bias: Tensor,
        conv: Tensor,
        groups: int,
        bn: nn.BatchNorm2d,
    ) -> tuple[Tensor, Tensor]:
        found = normalisation(x, bn, sums)
        y, sums_of_y = _convolve(x, (conv,), _How([ALL_TAPS], 1, AFFINE_RELU, found, groups))
        ctx.save_for_backward(x, found, conv)
        ctx.groups = groups
        sums_of_y = sums_of_y[0]
        ctx.mark_non_differentiable(sums_of_y)
        return y, sums_of_y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, found, conv = ctx.saved_tensors
        mean, invstd, scale, shift = found
        dy = dy.contiguous(memory_format=torch.channels_last)
        g, sums = torch.empty_like(x), torch.empty(len(x), 2, x.shape[1])
        tiles = tiled(x, 1)
        read = _arranged((conv,), x.dtype, tiles=tiles, back=True, groups=ctx.groups)
        size = (*_shape(x), len(conv), int(tiles), ctx.groups)
        call("conv_masked", x, dy, *size, read, x, scale, shift, mean, invstd, g, sums)
        how = _How([ALL_TAPS], 1, AFFINE_RELU, found, ctx.groups)
        (dconv,) = _weights_gradient(x, [dy], [conv], how)
        dx, dweight, dbias = finish(x, g, sums, scale, mean, invstd)
        return dx, None, dweight, dbias, dconv, None, None


def _shape(x: Tensor) -> tuple[int, int, int, int]:
    """Images, height, width, channels."""
    n, c, h, w = x.shape
    return n, h, w, c


def _convolve(x: Tensor, weights: Sequence[Tensor], how: _How) -> tuple[Tensor, ...]:
    """The convolutions of an input, and (outputs, N, 3, channels) sums of them."""
    taps, stride, front, _, groups = how
    shape = output_shape(x, len(weights[0]), stride)
    ys = [torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last) for _ in weights]
    tiles = tiled(x, stride, taps)
    sums = torch.empty(len(weights), len(x), 3, shape[1])
    read = _arranged(weights, x.dtype, tiles=tiles, back=False, groups=groups)
    size, before = (*_shape(x), shape[1], stride, int(tiles), groups), (front, *how.scale_and_shift)
    call("conv_summed", x, x, *size, *before, len(weights), taps, read, ys, sums)
    return *ys, sums


def _weights_gradient(x: Tensor, dys: list[Tensor], weights: Sequence[Tensor], how: _How) -> list[Tensor]:
    """Gradients of the taps that there are, and zero for the others."""
    taps, stride, front, _, groups = how
    dweights = [
        torch.empty_like(weight) if mask == ALL_TAPS else torch.zeros_like(weight)
        for weight, mask in zip(weights, taps, strict=True)
    ]
    size = (*_shape(x), len(weights[0]), stride, int(tiled(x, stride, taps)), groups)
    before = (front, *how.scale_and_shift)
    call("conv_weights", x, x, *size, *before, len(weights), taps, dys, dweights)
    return dweights


def _arranged(weights: Sequence[Tensor], dtype: torch.dtype, *, tiles: bool, back: bool, groups: int = 1) -> Tensor:
    """Weights in the order in which they are read, for tiles at all points in float32.

    Forward the outputs of several stand one after the other; back, the inputs of several are added up. Those of the
    groups of one, which is by tiles, stand one after the other either way.
    """
    if groups > 1:
        weights = weights[0].chunk(groups)
    out, into = weights[0].shape[:2]
    read, written = (out, into) if back else (into, out)
    if tiles:
        blocks, places = read // BLOCK, POINTS
    else:
        blocks, places = -(-read * dtype.itemsize // 64), TAPS
    each = blocks * -(-written // WIDE) * places * BLOCK * WIDE
    words = torch.empty(len(weights) * each + BLOCK, dtype=torch.int32)
    words = words[-words.data_ptr() // 4 % BLOCK :]  # aligned to 64 bytes
    like = words.new_empty(0, dtype=dtype)
    for number, weight in enumerate(weights):
        added_up = back and groups == 1
        first, among = (number * blocks, len(weights) * blocks) if added_up else (0, blocks)
        to = words if added_up else words[number * each :]
        call("conv_arrange", like, weight, out, into, int(tiles), int(back), first, among, to)
    return words
