"""3x3 convolutions fused with BN, ReLU, sums and bias, forward and backward, for CPUs with AVX-512.

A block's branches start with a ReLU of one input (``relu_conv_sums``) and continue with BN, ReLU and another
convolution (``bn_relu_conv_sums``). Neither the result of that ReLU nor that of BN and ReLU is ever stored: a
convolution computes them while it reads its input, in the forward pass and again for the gradient of its weights. The
sums that the next BN needs are collected while the output is written. A two-path skip is one more 3x3 convolution with
two taps.

Weights and their gradients are float32; feature maps are float32 or bfloat16, channels_last.
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

from .build import load_library
from .ops import Kernel, Sums, bn_backward, bn_relu, bn_statistics, call

# Constants of conv.h and winograd.h. Channels come in multiples of BLOCK for Winograd, otherwise of OUT_LANES; inputs
# may also have BLOCK channels.
BLOCK, OUT_LANES = 16, 32
TAPS, ALL_TAPS = 9, 2**9 - 1
TILE, POINTS = 4, 36  # outputs of a Winograd tile in each direction; points at which a tile is multiplied
NO_PROLOGUE, RELU, AFFINE_RELU = range(3)  # enum PrologueKind


@functools.cache
def is_supported(dtype: torch.dtype) -> bool:
    """Whether this machine has these convolutions and none that are faster: with AMX, oneDNN's are in bfloat16."""
    library = load_library()
    half = dtype == torch.bfloat16
    return (
        library is not None and bool(library.shake_conv_is_supported(ctypes.c_int(half))) and not (half and _has_amx())
    )


def _has_amx() -> bool:
    try:
        return " amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def can_relu_conv_sums(x: Tensor, convs: Sequence[nn.Conv2d], taps: Sequence[int]) -> bool:
    """Whether ``relu_conv_sums`` supports these convolutions of ``x``, with the taps of all of its weights."""
    first = convs[0]
    return (
        _supports(x, convs, ((1, 1), (2, 2)))
        and first.groups == 1
        and all(conv.stride == first.stride and conv.weight.shape == first.weight.shape for conv in convs)
        and _supports_channels(x, first, taps)
    )


def can_bn_relu_conv_sums(x: Tensor, conv: nn.Conv2d) -> bool:
    """Whether ``bn_relu_conv_sums`` supports this convolution of ``x``."""
    return _supports(x, (conv,), ((1, 1),)) and _supports_channels(x, conv, (ALL_TAPS,))


def _supports(x: Tensor, convs: Sequence[nn.Conv2d], strides: tuple[tuple[int, int], ...]) -> bool:
    return is_supported(x.dtype) and all(
        _supports_kernel(conv, strides)
        and conv.bias is None
        and conv.weight.dtype == torch.float32
        and conv.weight.is_contiguous(memory_format=torch.channels_last)
        for conv in convs
    )


def _supports_kernel(conv: nn.Conv2d, strides: tuple[tuple[int, int], ...]) -> bool:
    return (
        conv.kernel_size == (3, 3)
        and conv.stride in strides
        and conv.padding == (1, 1)
        and conv.padding_mode == "zeros"
        and conv.dilation == (1, 1)
    )


def _supports_channels(x: Tensor, conv: nn.Conv2d, taps: Sequence[int]) -> bool:
    into, out = conv.in_channels // conv.groups, conv.out_channels // conv.groups
    if x.shape[1] != conv.in_channels:
        return False
    if uses_winograd(x, conv.stride[0], taps):
        return into % BLOCK == 0 and out % BLOCK == 0
    return conv.groups == 1 and (into % OUT_LANES == 0 or into == BLOCK) and out % OUT_LANES == 0


def relu_conv_sums(
    x: Tensor, weights: Sequence[Tensor], taps: Sequence[int], stride: int, *, keep: bool
) -> tuple[Tensor | None, list[tuple[Tensor, Sums]]]:
    """conv(relu(x)) for each of several weights, with the sums that a following BN needs.

    Args:
        x: (N, in, H, W), channels_last.
        weights: Of one shape (out, in, 3, 3), channels_last.
        taps: For each weight its nonzero taps as bits, from 0 for the upper left one to 8 for the lower right one. The
            other taps get no gradient.
        stride: 1 or 2.
        keep: Whether to return ``x`` as well, for an identity skip.

    Returns:
        ``x`` or None, and a pair (output, sums) for each weight.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    kept, *ys, sums = _ReluConvSums.apply(x, list(taps), stride, keep, *weights)
    return kept, list(zip(ys, sums, strict=True))


def bn_relu_conv_sums(x: Tensor, sums: Sums | None, bn: nn.BatchNorm2d, conv: nn.Conv2d) -> tuple[Tensor, Sums]:
    """conv(relu(bn(x))) in training mode, running statistics included, and its sums. sums: those of ``x``, if known."""
    bn.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    x = x.contiguous(memory_format=torch.channels_last)
    return _BnReluConvSums.apply(x, sums, bn.weight, bn.bias, conv.weight, conv.groups, bn)


def bn_relu_conv(x: Tensor, sums: Sums | None, bn: nn.BatchNorm2d, conv: nn.Conv2d) -> tuple[Tensor, Sums | None]:
    """conv(relu(bn(x))) in training mode: by ``bn_relu_conv_sums`` if supported, else by PyTorch, without sums."""
    return bn_relu_conv_sums(x, sums, bn, conv) if can_bn_relu_conv_sums(x, conv) else (conv(bn_relu(x, bn)), None)


def can_conv_bias_act(x: Tensor, conv: nn.Conv2d, taps: int) -> bool:
    """Whether ``conv_bias_act`` supports this convolution of ``x``. Bias and weights may have the dtype of ``x``."""
    return (
        x.dtype in (torch.float32, torch.bfloat16)
        and is_supported(x.dtype)
        and _supports_kernel(conv, ((1, 1), (2, 2)))
        and conv.groups == 1
        and _supports_channels(x, conv, (taps,))
    )


def uses_winograd(x: Tensor, stride: int, taps: Sequence[int] = (ALL_TAPS,)) -> bool:
    """Whether a convolution of ``x`` and its gradients are computed by Winograd's algorithm (winograd.h).

    It needs a quarter of the multiplications, in float32, which has half of the throughput of bfloat16. It pays off if
    most tiles lie within the images and if there are enough tiles to read four times the weights for.
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


def nonzero_taps(weight: Tensor) -> int:
    """The taps of a weight (out, in, 3, 3) that are not all zero, as the bits that ``relu_conv_sums`` takes."""
    return sum(1 << tap for tap, used in enumerate(weight.detach().ne(0).flatten(2).any(0).any(0).tolist()) if used)


def pack_weights(weight: Tensor, dtype: torch.dtype, *, winograd: bool) -> Tensor:
    """Weights (out, in, 3, 3) in the order in which ``conv_bias_act`` reads them for feature maps of ``dtype``.

    winograd: ``uses_winograd`` of the feature maps.
    """
    weights = (weight.detach().float().contiguous(memory_format=torch.channels_last),)
    return _pack(weights, dtype, winograd=winograd, backward=False)


def conv_bias_act(
    x: Tensor,
    y: Tensor,
    weights: Tensor,
    bias: Tensor,
    stride: int,
    taps: int,
    *,
    winograd: bool,
    relu_first: bool,
    add: Tensor | None,
    relu: bool,
) -> Kernel:
    """A kernel that writes relu(conv(relu(x)) + bias + add) to ``y``, without gradients; ReLUs and sum are optional.

    Args:
        x: (N, in, H, W), channels_last.
        y: Of the shape ``output_shape`` returns, channels_last.
        weights: From ``pack_weights``.
        bias: (out,), float32.
        stride: 1 or 2.
        taps: From ``nonzero_taps``.
        winograd: ``uses_winograd`` of ``x``.
        relu_first: Whether to apply a ReLU to ``x``.
        add: None or a tensor like ``y``.
        relu: Whether to apply a ReLU to the result.
    """
    n, into, h, w = x.shape
    size, prologue = (n, h, w, into, len(bias), stride, int(winograd)), RELU if relu_first else NO_PROLOGUE
    return Kernel("conv_bias_act", x, x, *size, prologue, taps, weights, bias, add, int(relu), y)


def output_shape(x: Tensor, out: int, stride: int) -> tuple[int, int, int, int]:
    """(N, out, H, W) of a convolution of ``x``."""
    n, _, h, w = x.shape
    return n, out, -(-h // stride), -(-w // stride)


class _ConvSpec(NamedTuple):
    """A convolution: the taps of each output, the stride, and what is applied to the input while it is read."""

    taps: list[int]
    stride: int
    prologue: int
    statistics: Tensor | None = None  # of ``bn_statistics``, if the prologue is BN and ReLU
    groups: int = 1

    @property
    def scale_and_shift(self) -> tuple[Tensor | None, Tensor | None]:
        return (None, None) if self.statistics is None else (self.statistics[2], self.statistics[3])


class _ReluConvSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, taps: list[int], stride: int, keep: bool, *weights: Tensor
    ) -> tuple[Tensor | None, ...]:
        ctx.spec = _ConvSpec(taps, stride, RELU)
        *ys, sums = _convolve(x, weights, ctx.spec)
        ctx.save_for_backward(x, *weights)
        ctx.mark_non_differentiable(sums)
        return (x if keep else None), *ys, sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dskip: Tensor | None, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        taps, stride, *_ = ctx.spec
        dskip = None if dskip is None else dskip.contiguous(memory_format=torch.channels_last)
        dys = [g.contiguous(memory_format=torch.channels_last) for g in gradients[:-1]]
        winograd = uses_winograd(x, stride, taps)
        dx, packed = torch.empty_like(x), _pack(weights, x.dtype, winograd=winograd, backward=True)
        size = (*_nhwc(x), len(weights[0]), stride, int(winograd))
        call("conv_relu_backward", x, x, *size, len(weights), taps, packed, dys, dskip, dx)
        return dx, None, None, None, *_weight_gradients(x, dys, weights, ctx.spec)


class _BnReluConvSums(torch.autograd.Function):
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
        statistics = bn_statistics(x, bn, sums)
        y, sums_of_y = _convolve(x, (conv,), _ConvSpec([ALL_TAPS], 1, AFFINE_RELU, statistics, groups))
        ctx.save_for_backward(x, statistics, conv)
        ctx.groups = groups
        sums_of_y = sums_of_y[0]
        ctx.mark_non_differentiable(sums_of_y)
        return y, sums_of_y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, statistics, conv = ctx.saved_tensors
        mean, invstd, scale, shift = statistics
        dy = dy.contiguous(memory_format=torch.channels_last)
        g, sums = torch.empty_like(x), torch.empty(len(x), 2, x.shape[1])
        winograd = uses_winograd(x, 1)
        packed = _pack((conv,), x.dtype, winograd=winograd, backward=True, groups=ctx.groups)
        size = (*_nhwc(x), len(conv), int(winograd), ctx.groups)
        call("conv_bn_relu_backward", x, dy, *size, packed, x, scale, shift, mean, invstd, g, sums)
        spec = _ConvSpec([ALL_TAPS], 1, AFFINE_RELU, statistics, ctx.groups)
        (dconv,) = _weight_gradients(x, [dy], [conv], spec)
        dx, dweight, dbias = bn_backward(x, g, sums, scale, mean, invstd)
        return dx, None, dweight, dbias, dconv, None, None


def _nhwc(x: Tensor) -> tuple[int, int, int, int]:
    """(N, H, W, C)."""
    n, c, h, w = x.shape
    return n, h, w, c


def _convolve(x: Tensor, weights: Sequence[Tensor], spec: _ConvSpec) -> tuple[Tensor, ...]:
    """The convolutions of ``x`` and their sums, (outputs, N, 3, channels)."""
    taps, stride, prologue, _, groups = spec
    shape = output_shape(x, len(weights[0]), stride)
    ys = [torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last) for _ in weights]
    winograd = uses_winograd(x, stride, taps)
    sums = torch.empty(len(weights), len(x), 3, shape[1])
    packed = _pack(weights, x.dtype, winograd=winograd, backward=False, groups=groups)
    size, prologue_args = (*_nhwc(x), shape[1], stride, int(winograd), groups), (prologue, *spec.scale_and_shift)
    call("conv_sums", x, x, *size, *prologue_args, len(weights), taps, packed, ys, sums)
    return *ys, sums


def _weight_gradients(x: Tensor, dys: list[Tensor], weights: Sequence[Tensor], spec: _ConvSpec) -> list[Tensor]:
    """Gradients of the weights, zero for taps that a weight does not have."""
    taps, stride, prologue, _, groups = spec
    dweights = [
        torch.empty_like(weight) if mask == ALL_TAPS else torch.zeros_like(weight)
        for weight, mask in zip(weights, taps, strict=True)
    ]
    size = (*_nhwc(x), len(weights[0]), stride, int(uses_winograd(x, stride, taps)), groups)
    prologue_args = (prologue, *spec.scale_and_shift)
    call("conv_weight_grad", x, x, *size, *prologue_args, len(weights), taps, dys, dweights)
    return dweights


def _pack(weights: Sequence[Tensor], dtype: torch.dtype, *, winograd: bool, backward: bool, groups: int = 1) -> Tensor:
    """Weights in the order in which the kernels read them; for Winograd transformed to all points, in float32.

    Forward, the weights of several outputs follow one another; backward, their channels are concatenated, as the
    gradient of the input is summed over the outputs. The groups of one convolution, which needs Winograd, always follow
    one another.
    """
    if groups > 1:
        weights = weights[0].chunk(groups)
    out, into = weights[0].shape[:2]
    read, written = (out, into) if backward else (into, out)
    if winograd:
        blocks, places = read // BLOCK, POINTS
    else:
        blocks, places = -(-read * dtype.itemsize // 64), TAPS
    each = blocks * -(-written // OUT_LANES) * places * BLOCK * OUT_LANES
    words = torch.empty(len(weights) * each + BLOCK, dtype=torch.int32)
    words = words[-words.data_ptr() // 4 % BLOCK :]  # aligned to 64 bytes
    like = words.new_empty(0, dtype=dtype)
    for number, weight in enumerate(weights):
        summed = backward and groups == 1
        first, among = (number * blocks, len(weights) * blocks) if summed else (0, blocks)
        to = words if summed else words[number * each :]
        call("conv_pack_weights", like, weight, out, into, int(winograd), int(backward), first, among, to)
    return words
