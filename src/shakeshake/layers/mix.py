"""mix: a weighted sum of branches whose gradient has other weights."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError


def mix(branches: Sequence[Tensor], alpha: Tensor, beta: Tensor) -> Tensor:
    """Combine branches with separate forward and backward coefficients (paper, Figure 1).

        value      y = sum_b alpha_b * x_b
        gradient   dL/dx_b = beta_b * dL/dy

    Deterministic; the same in training and evaluation. The backward pass saves beta and no feature map. Supports double
    backward, ``torch.func.grad``, ``torch.vmap`` over a leading axis and ``torch.compile``.

    Args:
        branches: B floating-point tensors of one shape (N, ...) and one dtype. Shake-Shake has two or more, other
            regularizers one. Under autocast several dtypes are promoted, as in a sum.
        alpha: Forward coefficients, (N, B) for one row per image or (B,) for the whole batch. Rows should sum to 1 in
            Shake-Shake; this is not checked, as it would wait for the device.
        beta: Backward coefficients, of either shape. Neither alpha nor beta gets a gradient.

    Returns:
        A tensor of the branches' shape, dtype (coefficients are cast to it) and memory format.

    Raises:
        InputError: If shapes or dtypes do not match.
    """
    branches = tuple(branches)
    if not branches:
        raise InputError("branches: got none, expected one tensor or more")
    first = branches[0]
    if any(x.dtype != first.dtype for x in branches) and _autocast(first.device.type):
        common = functools.reduce(torch.promote_types, (x.dtype for x in branches))
        branches = tuple(x.to(common) for x in branches)
        first = branches[0]
    for index, x in enumerate(branches[1:], start=1):
        if x.shape != first.shape:
            raise InputError(
                f"branches: branch {index} has shape {tuple(x.shape)}, expected {tuple(first.shape)} as branch 0"
            )
        if x.dtype != first.dtype:
            raise InputError(f"branches: branch {index} has dtype {x.dtype}, expected {first.dtype} as branch 0")
    if not first.is_floating_point():
        raise InputError(f"branches: dtype is {first.dtype}, expected a floating one")
    for name, coefficients in (("alpha", alpha), ("beta", beta)):
        allowed = [(len(branches),), *([(first.shape[0], len(branches))] if first.dim() else [])]
        if not isinstance(coefficients, Tensor):
            raise InputError(f"{name}: got a {type(coefficients).__name__}, expected a tensor")
        if tuple(coefficients.shape) not in allowed:
            raise InputError(
                f"{name}: shape is {tuple(coefficients.shape)}, expected "
                + " or ".join(map(str, allowed))
                + " for these branches"
            )
    if beta is alpha:  # under Keep and Even-Even; torch.compile breaks the graph if one tensor is passed twice
        beta = alpha.view_as(alpha)
    return _Mix.apply(alpha, beta, *branches)


def _autocast(device: str) -> bool:
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _weight(coefficients: Tensor, branch: int, like: Tensor) -> Tensor:
    """Coefficient of one branch, in the feature map's dtype and shaped to broadcast over it."""
    column = coefficients[..., branch]
    if column.dim():  # (N,) -> (N, 1, 1, ...)
        column = column.reshape(column.shape + (1,) * (like.dim() - 1))
    return column.to(like.dtype)


class _Mix(torch.autograd.Function):
    """Weighted sum with a custom backward, which saves only beta."""

    generate_vmap_rule = True

    @staticmethod
    def forward(alpha: Tensor, beta: Tensor, *branches: Tensor) -> Tensor:
        y = branches[0] * _weight(alpha, 0, branches[0])
        for b, x in enumerate(branches[1:], start=1):
            y = torch.addcmul(y, x, _weight(alpha, b, x))
        return y

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, beta, *branches = inputs
        ctx.branches = len(branches)
        ctx.save_for_backward(beta)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (beta,) = ctx.saved_tensors
        return (None, None, *(gradient * _weight(beta, b, gradient) for b in range(ctx.branches)))
