"""Batch normalisation with its neighbours in one pass over memory: the training step of a Shake-Shake block on a CPU.

As separate operations, normalising, ReLU, mixing and adding read and write every feature map about twice as often as
they have to. What each function computes is written out in its docstring; tests/kernels compares it with exactly that.
None of them can be differentiated twice.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .build import library

Sums = Tensor  # (N, 3, C): of each image and channel the first pixel, sum and sum of squares around it
LANES = 16  # of cpu.cpp, at most: channels come in multiples of it


def use(network: nn.Module, wanted: bool = True) -> bool:
    """Let the blocks of a network that can train by these kernels do so, or not. Returns whether they do."""
    blocks = [module for module in network.modules() if hasattr(module, "fused")]
    there = wanted and bool(blocks) and library() is not None
    for block in blocks:
        block.fused = there  # type: ignore[assignment]
    return there


def applies(x: Tensor, block: nn.Module) -> bool:
    """Whether a block with input ``x`` runs fused: training on a CPU, shapes as expected, nobody listening inside."""
    return (
        bool(block.fused)
        and block.training
        and not torch.compiler.is_compiling()
        and type(x) is Tensor
        and x.device.type == "cpu"
        and x.dtype == (torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32)
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.is_contiguous(memory_format=torch.channels_last)
        and len(x) > 1
        and x.shape[1] % LANES == 0
        and torch.is_grad_enabled()
        and not torch.jit.is_tracing()
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._len_torch_dispatch_stack()
        and all(_usual(module) for module in block.modules() if module is not block)
    )


def _usual(module: nn.Module) -> bool:
    """No hooks, and a batch normalisation that does what it does by default."""
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:
        return False
    return not isinstance(module, nn.BatchNorm2d) or (
        module.training
        and module.affine
        and module.track_running_stats
        and module.momentum is not None
        and module.weight.dtype == torch.float32
        and module.num_features % LANES == 0
    )


def bn_relu(x: Tensor, bn: nn.BatchNorm2d, sums: Sums | None = None) -> Tensor:
    """relu(bn(x)) in training mode, running statistics included.

    x: (N, C, H, W), channels_last. sums: of it, where known.
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
    """skip + mix((bn1(x1), bn2(x2), ...), alpha, beta) in training mode, running statistics included; or its ReLU.

    skip, which may be none, and xs: (N, C, H, W), channels_last, of one dtype. alpha, beta: (N, B) or (B,). sums: of
    ``xs``, where known.
    """
    shape = len(xs[0]), len(xs)
    alpha, beta = (a.to(torch.float32).expand(shape).contiguous() for a in (alpha, beta))
    for bn in bns:
        bn.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    xs = [x.contiguous(memory_format=torch.channels_last) for x in xs]
    skip = None if skip is None else skip.contiguous(memory_format=torch.channels_last)
    return _BnMix.apply(skip, alpha, beta, bns, sums, relu, *xs, *(bn.weight for bn in bns), *(bn.bias for bn in bns))


def relu_fork(x: Tensor, branches: int) -> tuple[Tensor, ...]:
    """x, and relu(x) for each branch, whose gradients come back in one pass."""
    return _Fork.apply(x, branches)


def share(x: Tensor, users: int) -> tuple[Tensor, ...]:
    """x for each user, whose gradients come back in one pass. They must not change it."""
    return _Share.apply(x, users)


class Kernel:
    """A kernel with its arguments, to be called as often as wanted, in the type of ``like``.

    Tensors, which are kept, go by their address, None as none, floats and integers as C's, lists of tensors or integers
    as arrays. The last argument is the number of threads.
    """

    __slots__ = ("arguments", "function", "given")

    def __init__(self, name: str, like: Tensor, *arguments: Any) -> None:
        given = [v.data_ptr() if isinstance(v, Tensor) else _array(v) if isinstance(v, list) else v for v in arguments]
        self.arguments = arguments
        self.function = _functions.get(name) or _function(name, arguments)
        self.given = (like.dtype == torch.bfloat16, *given, torch.get_num_threads())

    def __call__(self) -> None:
        self.function(*self.given)


def call(name: str, like: Tensor, *arguments: Any) -> None:
    """Call a kernel once."""
    Kernel(name, like, *arguments)()


_functions: dict[str, Any] = {}  # those called before: finding one anew costs as much as calling it


def _function(name: str, arguments: tuple[Any, ...]) -> Any:
    """A kernel, with the types of its arguments."""
    kernels = library()
    assert kernels is not None
    kinds = {int: ctypes.c_int64, float: ctypes.c_float}
    found = _functions[name] = getattr(kernels, f"shake_{name}")
    found.argtypes = [ctypes.c_int, *(kinds.get(type(v), ctypes.c_void_p) for v in arguments), ctypes.c_int]
    found.restype = None
    return found


def _array(values: list[Any]) -> Any:
    if isinstance(values[0], Tensor):
        return (ctypes.c_void_p * len(values))(*(v.data_ptr() for v in values))
    return (ctypes.c_int64 * len(values))(*values)


def normalisation(x: Tensor, bn: nn.BatchNorm2d, sums: Sums | None = None) -> Tensor:
    """(4, C): mean, 1 / standard deviation, and the scale and shift that normalise. Updates the running ones.

    sums: what is known of ``x``, so that it need not be read.
    """
    n, channels, height, width = x.shape
    found = torch.empty(4, channels)
    known = ("stats", x, x, n * height * width) if sums is None else ("stats_of_images", x, sums, n, height * width)
    eps, momentum = float(bn.eps), float(bn.momentum or 0.0)
    call(*known, channels, bn.weight, bn.bias, eps, momentum, bn.running_mean, bn.running_var, *found)
    return found


def finish(
    x: Tensor, g: Tensor, sums: Tensor, scale: Tensor, mean: Tensor, invstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of BN's input, weight and bias from that of its output, ``g``, which is used up.

    sums: (N, 2, C), each image's sums of g and of g * (x - mean) * invstd.
    """
    n, channels, height, width = x.shape
    dweight, dbias = torch.empty(2, channels)
    call("affine_backward", x, x, g, n, height * width, channels, sums, scale, mean, invstd, g, dweight, dbias)
    return g, dweight, dbias


class _BnRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, bn: nn.BatchNorm2d, sums: Sums | None) -> Tensor:
        found = normalisation(x, bn, sums)
        y = torch.empty_like(x)
        call("affine_relu", x, x, x.numel() // x.shape[1], x.shape[1], found[2], found[3], y)
        ctx.save_for_backward(x, found)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, found = ctx.saved_tensors
        mean, invstd, scale, shift = found
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx, channels = torch.empty_like(x), x.shape[1]
        dweight, dbias = torch.empty(2, channels)
        call(
            *("affine_relu_backward", x, x, dy, x.numel() // channels, channels, scale, shift, mean, invstd),
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
        # (4, branches, C): each of the four rows for every branch
        found = torch.stack([normalisation(*each) for each in zip(xs, bns, sums, strict=True)], dim=1)
        out = torch.empty_like(xs[0])
        images, channels, height, width = out.shape
        size = images, height * width, channels
        call("mix", out, len(xs), xs, skip, *size, found[2], found[3], alpha, int(relu), out)
        ctx.save_for_backward(found, beta, out if relu else None, *xs)
        ctx.skips = skip is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        found, beta, out, *xs = ctx.saved_tensors
        mean, invstd, scale, _ = found
        dout = dout.contiguous(memory_format=torch.channels_last)
        masked = None if out is None else torch.empty_like(out)
        dxs = [torch.empty_like(x) for x in xs]
        images, channels, height, width = dout.shape
        dweight, dbias = torch.empty(2, len(xs), channels)
        call(
            *("mix_backward", dout, len(xs), xs, dout, out, masked, images, height * width, channels),
            *(scale, mean, invstd, beta, dxs, dweight, dbias),
        )
        dskip = dout if masked is None else masked
        return (dskip if ctx.skips else None), None, None, None, None, None, *dxs, *dweight, *dbias


class _Fork(torch.autograd.Function):
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
        call("fork_backward", active, active, dskip, len(ds), ds, active.numel(), dx)
        return dx, None


class _Share(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, users: int) -> tuple[Tensor, ...]:
        return tuple(x.view_as(x) for _ in range(users))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ds = [g.contiguous(memory_format=torch.channels_last) for g in gradients]
        dx = torch.empty_like(ds[0])
        call("fork_backward", dx, None, None, len(ds), ds, dx.numel(), dx)
        return dx, None
