"""shakeify(): other people's residual blocks, their grouped convolution split into two halves that are shaken."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..errors import InputError
from ..layers.rules import ShakeRule
from ..layers.shake_shake import ShakeShake
from ..utils.modes import eval_mode

_SPLITTABLE = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def shakeify(model: nn.Module, rule: str | ShakeRule = "S-S-I", *, example: Tensor | None = None) -> nn.Module:
    """A copy of a network (or of one block) in which every grouped convolution has become two shaken branches.

    A block of ResNeXt computes ``x + BN(W h)``, where ``h`` comes from a grouped convolution. Half of the groups never
    see the other half, so with ``W h = W1 h1 + W2 h2`` the block has two branches, and two it keeps:

        x + shake(BN1(W1 h1), BN2(W2 h2))        in evaluation (BN1(W1 h1) + BN2(W2 h2)) / 2

    The mean in place of the sum costs a factor of 2, which goes into the weights of BN1 and BN2 (of W1 and W2 where no
    batch normalisation follows). So the copy computes what the model computes, trained or not, up to rounding: in
    evaluation always; without that BN also in training under E-E. In training BN1 and BN2 take the statistics of their
    own half, as the paper's branches do: a BN behind the mix would collect statistics of shaken sums, which are not
    those of evaluation. What the BN has learnt is shared out as if the halves were independent and alike.

    A grouped convolution is found with the convolution behind it in one module (or its nn.Sequential), in the order of
    registration, with only normalisation and modules without parameters between; the BN registered next is taken to be
    next. Depthwise convolutions count. Everything else stays: names, hooks, the block's own forward().

    rule: see ShakeRule.
    example: an input of the network; the copy is compared with the model on it, in evaluation, and whether each BN
        reads what the convolution in front of it gives, which a network that is not trained yet does not show.

    Convert before the optimizer is made: the parameters are new ones. The model is left as it is. Raises InputError
    for a model without such convolutions, an odd number of groups, modules between that could join the halves, a BN of
    another size than the convolution that it is registered behind, and an example on which the two differ.
    """
    rule = ShakeRule.parse(rule)
    shaken = copy.deepcopy(model)
    found = list(_pairs(shaken))
    if not found:
        raise InputError(
            f"model: {type(model).__name__} has no grouped convolution with a convolution behind it in one block, "
            "expected residual blocks as ResNeXt has them"
        )
    split: dict[str, str] = {}  # convolution -> the BN behind it
    for name, conv, following in found:
        if following is not None and _splittable(following[1]):
            split[name] = following[0]
            if following[1].num_features != conv.out_channels:
                raise _out_of_order(following[0], name)
            _replace(shaken, name, ShakenHalves(conv, following[1], rule))
            _replace(shaken, following[0], nn.Identity())
        else:
            _replace(shaken, name, ShakenHalves(conv, None, rule))
    if example is not None:
        _compare(model, shaken, split, example)
    return shaken


class ShakenHalves(nn.Module):
    """The convolution behind a grouped one, and its BN if it has one, as two branches that Shake-Shake mixes.

    x: (N, C, ...). Each half reads C/2 channels; in evaluation their mean is what ``norm(conv(x))`` is in evaluation.
    """

    def __init__(self, conv: _ConvNd, norm: nn.Module | None, rule: str | ShakeRule) -> None:
        super().__init__()
        self.halves = nn.ModuleList(_half(conv, norm, which) for which in range(2))
        self.shake = ShakeShake(rule)

    def forward(self, x: Tensor) -> Tensor:
        return self.shake(*(half(part) for half, part in zip(self.halves, x.tensor_split(2, dim=1), strict=True)))


@torch.no_grad()
def _half(conv: _ConvNd, norm: nn.Module | None, which: int) -> nn.Sequential:
    """One branch. Its convolution has half of the inputs; what makes up for the mean is in the last of its modules."""
    half = copy.deepcopy(conv)
    half.in_channels = conv.in_channels // 2
    weight = conv.weight.tensor_split(2, dim=1)[which]
    if norm is None:
        half.weight = nn.Parameter(2 * weight, conv.weight.requires_grad)  # the bias is in both, and so in their mean
        return nn.Sequential(half)
    half.weight = nn.Parameter(weight.clone(), conv.weight.requires_grad)
    if half.bias is not None:
        half.bias.mul_(0.5)
    bn = copy.deepcopy(norm)
    assert isinstance(bn, _BatchNorm)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    # Of a sum of two that are independent and alike, each has half of the mean and half of the variance.
    before = (bn.running_var + bn.eps).sqrt()
    bn.running_mean.mul_(0.5)
    bn.running_var.mul_(0.5)
    bn.weight.mul_(2 * (bn.running_var + bn.eps).sqrt() / before)
    return nn.Sequential(half, bn)


def _pairs(model: nn.Module) -> Iterator[tuple[str, _ConvNd, tuple[str, nn.Module] | None]]:
    """Of each grouped convolution: name and module of the convolution behind it, and what is behind that, if any."""
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        parts = list(_parts(module, prefix))
        for at, (name, part) in enumerate(parts):
            if not isinstance(part, _ConvNd) or part.groups == 1 or id(part) in seen:
                continue
            seen.add(id(part))
            behind = _behind(name, part, parts[at + 1 :])
            if behind is not None:
                (reader, conv), *following = parts[at + 1 + behind : at + 3 + behind]
                assert isinstance(conv, _ConvNd)
                yield reader, conv, following[0] if following else None


def _behind(name: str, grouped: _ConvNd, after: list[tuple[str, nn.Module]]) -> int | None:
    """Where in ``after`` the convolution is that reads the grouped one; None where the block ends before."""
    joining: InputError | None = None  # of no account if no convolution follows
    for index, (other, part) in enumerate(after):
        if isinstance(part, _ConvNd):
            if part.groups != 1 or part.in_channels != grouped.out_channels or isinstance(part, _ConvTransposeNd):
                return None
            if joining is not None:
                raise joining
            if grouped.groups % 2:
                raise InputError(f"model: {name} has {grouped.groups} groups, expected an even number, to be halved")
            if "weight" not in part._parameters:
                raise InputError(f"model: the weight of {other} is computed, expected a parameter; remove that first")
            return index
        apart = isinstance(part, _NormBase) or (isinstance(part, nn.GroupNorm) and part.num_groups % 2 == 0)
        if not apart and any(True for _ in part.parameters()):
            joining = joining or InputError(
                f"model: {other} ({type(part).__name__}) between {name} and the next convolution may join the halves, "
                "expected nothing but normalisation by channel and modules without parameters"
            )
    return None


def _parts(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """The modules that a module holds, in the order of registration, those in an nn.Sequential one by one."""
    for name, child in module.named_children():
        full = f"{prefix}.{name}" if prefix else name
        if isinstance(child, nn.Sequential):
            yield from _parts(child, full)
        else:
            yield full, child


def _splittable(norm: nn.Module) -> bool:
    """A plain BN with running statistics and weights: what it learnt can be shared out."""
    return type(norm) in _SPLITTABLE and norm.affine is True and norm.running_var is not None


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)


@torch.no_grad()
def _compare(model: nn.Module, shaken: nn.Module, split: dict[str, str], example: Tensor) -> None:
    given: dict[str, Tensor] = {}

    def remember(conv: str) -> Callable[..., None]:
        return lambda _, __, output: given.update({conv: output})

    def check(conv: str, norm: str) -> Callable[..., None]:
        def before(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs[0] is not given.get(conv):
                raise _out_of_order(norm, conv)

        return before

    handles = [model.get_submodule(conv).register_forward_hook(remember(conv)) for conv in split]
    handles += [model.get_submodule(norm).register_forward_pre_hook(check(conv, norm)) for conv, norm in split.items()]
    try:
        with eval_mode(model, shaken):
            expected, got = model(example), shaken(example)
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(expected, Tensor):
        raise InputError(f"example: on it the model returns a {type(expected).__name__}, expected a tensor")
    apart, size = float((got - expected).abs().max()), float(expected.abs().max())
    if not apart <= max(1e-3, 8 * torch.finfo(expected.dtype).eps) * size:
        raise InputError(
            f"model: on the example the shaken network is {apart:.3g} off (of at most {size:.3g}), expected the same; "
            "its modules are not registered in the order they are used"
        )


def _out_of_order(norm: str, conv: str) -> InputError:
    return InputError(
        f"model: {norm}, registered behind {conv}, does not read what that gives, expected modules in the order in "
        "which they are used"
    )
