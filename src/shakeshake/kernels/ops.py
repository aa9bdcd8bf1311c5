"""Batch normalisation fused with its neighbours in a block's training step, for CPUs.

As separate operations, normalising, ReLU, mixing and adding read and write every feature map about twice as often as
necessary. The docstring of each function states what it computes; tests/kernels compares it with exactly that. None of
them can be differentiated twice.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .build import load_library

# (N, 3, C): for each image and channel its first pixel, and the sum and sum of squares of the differences from it.
Sums = Tensor
LANES = 16  # channels come in multiples of the most lanes of cpu.cpp


def bn_relu(x: Tensor, bn: nn.BatchNorm2d, sums: Sums | None = None) -> Tensor:
    """relu(bn(x)) in training mode, running statistics included.

    Args:
        x: (N, C, H, W), channels_last.
        bn: With affine parameters and running statistics.
        sums: Those of ``x``, if known.
    """
    bn.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    return _BnRelu.apply(x.contiguous(memory_format=torch.channels_last), bn.weight, bn.bias, bn, sums)


def bn_mix(
    skip: Tensor | None,
    xs: Sequence[Tensor],
    bns: Sequence[nn.BatchNorm2d],
    alpha: Tensor,
    beta: Tensor,
    sums: Sequence[Sums | None],
    *,
    relu: bool = False,
) -> Tensor:
    """Compute skip + mix((bn1(x1), bn2(x2), ...), alpha, beta) in training mode, running statistics included.

    Args:
        skip: (N, C, H, W), channels_last, or None for no skip.
        xs: Inputs of the BNs, of the shape, dtype and memory format of ``skip``.
        bns: One per input.
        alpha: Forward coefficients, (N, B) or (B,).
        beta: Backward coefficients, (N, B) or (B,).
        sums: Those of each input, or None where unknown.
        relu: Whether to apply a ReLU to the result.
    """
    shape = len(xs[0]), len(xs)
    alpha, beta = (a.to(torch.float32).expand(shape).contiguous() for a in (alpha, beta))
    for bn in bns:
        bn.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    xs = [x.contiguous(memory_format=torch.channels_last) for x in xs]
    skip = None if skip is None else skip.contiguous(memory_format=torch.channels_last)
    return _BnMix.apply(skip, alpha, beta, bns, sums, relu, *xs, *(bn.weight for bn in bns), *(bn.bias for bn in bns))


def relu_fan_out(x: Tensor, branches: int) -> tuple[Tensor, ...]:
    """``x``, and relu(x) for each branch; one pass combines their gradients."""
    return _ReluFanOut.apply(x, branches)


def fan_out(x: Tensor, consumers: int) -> tuple[Tensor, ...]:
    """``x`` for each consumer, which must not change it in place; one pass adds up their gradients."""
    return _FanOut.apply(x, consumers)


class Kernel:
    """A kernel bound to its arguments, which can be called any number of times.

    Args:
        name: Name of the C function, without ``shake_``.
        like: Selects the variant: bfloat16 or float32.
        arguments: Tensors are kept alive and passed by address, None as a null pointer, int and float as C's int64 and
            float, lists of tensors or integers as arrays. The number of threads is added as the last argument.
    """

    __slots__ = ("arguments", "c_arguments", "function")

    def __init__(self, name: str, like: Tensor, *arguments: Any) -> None:
        converted = [
            v.data_ptr() if isinstance(v, Tensor) else _array(v) if isinstance(v, list) else v for v in arguments
        ]
        self.arguments = arguments
        self.function = _functions.get(name) or _function(name, arguments)
        self.c_arguments = (like.dtype == torch.bfloat16, *converted, torch.get_num_threads())

    def __call__(self) -> None:
        """Call the kernel."""
        self.function(*self.c_arguments)


def call(name: str, like: Tensor, *arguments: Any) -> None:
    """Call a kernel once."""
    Kernel(name, like, *arguments)()


_functions: dict[str, Any] = {}  # looking a function up in the library costs as much as calling it


def _function(name: str, arguments: tuple[Any, ...]) -> Any:
    """A function of the library, with its argument types declared."""
    library = load_library()
    assert library is not None
    c_types = {int: ctypes.c_int64, float: ctypes.c_float}
    function = _functions[name] = getattr(library, f"shake_{name}")
    function.argtypes = [ctypes.c_int, *(c_types.get(type(v), ctypes.c_void_p) for v in arguments), ctypes.c_int]
    function.restype = None
    return function


def _array(values: list[Any]) -> Any:
    if isinstance(values[0], Tensor):
        return (ctypes.c_void_p * len(values))(*(v.data_ptr() for v in values))
    return (ctypes.c_int64 * len(values))(*values)


def bn_statistics(x: Tensor, bn: nn.BatchNorm2d, sums: Sums | None = None) -> Tensor:
    """Batch statistics of ``x``; updates the running statistics of ``bn``.

    Args:
        x: (N, C, H, W), channels_last.
        bn: The batch normalisation that reads ``x``.
        sums: Those of ``x``, if known; ``x`` is then not read.

    Returns:
        (4, C): mean, 1 / standard deviation, and the scale and shift of the normalisation.
    """
    n, channels, height, width = x.shape
    statistics = torch.empty(4, channels)
    source = (
        ("bn_statistics", x, x, n * height * width)
        if sums is None
        else ("bn_statistics_from_sums", x, sums, n, height * width)
    )
    eps, momentum = float(bn.eps), float(bn.momentum or 0.0)
    call(*source, channels, bn.weight, bn.bias, eps, momentum, bn.running_mean, bn.running_var, *statistics)
    return statistics


def bn_backward(
    x: Tensor, g: Tensor, sums: Tensor, scale: Tensor, mean: Tensor, invstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of BN's input, weight and bias from that of its output.

    Args:
        x: BN's input, (N, C, H, W).
        g: The gradient of BN's output; overwritten.
        sums: (N, 2, C), each image's sums of g and of g * (x - mean) * invstd.
        scale: (C,), weight * invstd, from ``bn_statistics``.
        mean: (C,), of the batch.
        invstd: (C,), 1 / standard deviation of the batch.
    """
    n, channels, height, width = x.shape
    dweight, dbias = torch.empty(2, channels)
    call("bn_backward", x, x, g, n, height * width, channels, sums, scale, mean, invstd, g, dweight, dbias)
    return g, dweight, dbias


class _BnRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, bn: nn.BatchNorm2d, sums: Sums | None) -> Tensor:
        statistics = bn_statistics(x, bn, sums)
        y = torch.empty_like(x)
        call("bn_relu", x, x, x.numel() // x.shape[1], x.shape[1], statistics[2], statistics[3], y)
        ctx.save_for_backward(x, statistics)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, statistics = ctx.saved_tensors
        mean, invstd, scale, shift = statistics
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx, channels = torch.empty_like(x), x.shape[1]
        dweight, dbias = torch.empty(2, channels)
        call(
            *("bn_relu_backward", x, x, dy, x.numel() // channels, channels, scale, shift, mean, invstd),
            *(dx, dweight, dbias),
        )
        return dx, dweight, dbias, None, None


class _BnMix(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        skip: Tensor | None,
        alpha: Tensor,
        beta: Tensor,
        bns: Sequence[nn.BatchNorm2d],
        sums: Sequence[Sums | None],
        relu: bool,
        *tensors: Tensor,
    ) -> Tensor:
        xs = list(tensors[: len(bns)])
        # (4, branches, C)
        statistics = torch.stack([bn_statistics(*each) for each in zip(xs, bns, sums, strict=True)], dim=1)
        out = torch.empty_like(xs[0])
        images, channels, height, width = out.shape
        size = images, height * width, channels
        call("bn_mix", out, len(xs), xs, skip, *size, statistics[2], statistics[3], alpha, int(relu), out)
        ctx.save_for_backward(statistics, beta, out if relu else None, *xs)
        ctx.has_skip = skip is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        statistics, beta, out, *xs = ctx.saved_tensors
        mean, invstd, scale, _ = statistics
        dout = dout.contiguous(memory_format=torch.channels_last)
        masked = None if out is None else torch.empty_like(out)
        dxs = [torch.empty_like(x) for x in xs]
        images, channels, height, width = dout.shape
        dweight, dbias = torch.empty(2, len(xs), channels)
        call(
            *("bn_mix_backward", dout, len(xs), xs, dout, out, masked, images, height * width, channels),
            *(scale, mean, invstd, beta, dxs, dweight, dbias),
        )
        dskip = dout if masked is None else masked
        return (dskip if ctx.has_skip else None), None, None, None, None, None, *dxs, *dweight, *dbias


class _ReluFanOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, branches: int) -> tuple[Tensor, ...]:
        active = torch.relu(x)
        ctx.save_for_backward(active)
        return x, *(active.view_as(active) for _ in range(branches))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (active,) = ctx.saved_tensors
        dskip, *ds = (g.contiguous(memory_format=torch.channels_last) for g in gradients)
        dx = torch.empty_like(active)
        call("fan_out_backward", active, active, dskip, len(ds), ds, active.numel(), dx)
        return dx, None


class _FanOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, consumers: int) -> tuple[Tensor, ...]:
        return tuple(x.view_as(x) for _ in range(consumers))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ds = [g.contiguous(memory_format=torch.channels_last) for g in gradients]
        dx = torch.empty_like(ds[0])
        call("fan_out_backward", dx, None, None, len(ds), ds, dx.numel(), dx)
        return dx, None
