"""shakeify: split grouped convolutions of an existing network into two branches that are shaken."""

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
from ..utils.modules import is_unmodified, logits_of

_SPLITTABLE = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_PLAIN_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


class NoBranchesError(InputError):
    """The network has no grouped convolution that shakeify can split."""


def shakeify(model: nn.Module, rule: str | ShakeRule = "S-S-I", *, example: Tensor | None = None) -> nn.Module:
    """Return a copy of a network in which every grouped convolution is split into two shaken branches.

    A ResNeXt block computes ``x + BN(W h)``, where ``h`` comes from a grouped convolution. One half of the groups never
    sees the other half, so with ``W h = W1 h1 + W2 h2`` the block has two branches:

        x + shake(BN1(W1 h1), BN2(W2 h2))        in evaluation (BN1(W1 h1) + BN2(W2 h2)) / 2

    The mean in place of the sum is compensated by a factor of 2 in the weights of BN1 and BN2 (of W1 and W2 if no batch
    normalisation follows). So the copy computes what the model computes, up to rounding, trained or not: always in
    evaluation, and without that BN also in training under E-E. In training BN1 and BN2 use the statistics of their own
    half, as the paper's branches do; a BN after the mix would collect statistics of shaken sums, which differ from
    those in evaluation. The learnt BN statistics are divided as if the halves were independent and identically
    distributed.

    For a grouped convolution, the next convolution is searched in the same module in registration order, where an
    nn.Sequential and a module of one convolution with its normalisation and activation count as their parts. Only
    normalisation and modules without parameters may be between, and the BN registered next is taken to follow.
    Depthwise convolutions count. Names, hooks and the block's forward() stay.

    Create the optimizer after the conversion: the copy has new parameters.

    Args:
        model: The network, or one block. It is not changed.
        rule: The rule, see ShakeRule.
        example: An input of the network. The copy is compared with the model on it in evaluation mode, and each BN is
            checked to read the output of the convolution before it, which an untrained network would not show. The
            model returns a tensor, or an object with ``.logits``.

    Returns:
        The converted copy.

    Raises:
        NoBranchesError: If there is no such convolution.
        InputError: If the number of groups is odd, a module between could mix the halves, a layer to be replaced has
            hooks, a forward of its own or a computed weight (pruning, weight normalisation), a BN has another size than
            its convolution, or the two networks differ on the example.
    """
    rule = ShakeRule.parse(rule)
    found = list(_pairs(model))
    if not found:
        raise _nothing_found(model)
    for name, conv, following in found:
        _check_replaceable(name, conv)
        if following is not None and _splittable(following[1]):
            _check_replaceable(*following)
            if following[1].num_features != conv.out_channels:
                raise _out_of_order(following[0], name)
    shaken = copy.deepcopy(model)
    split: dict[str, str] = {}  # convolution -> the BN after it
    for name, conv, following in found:
        if following is not None and _splittable(following[1]):
            split[name] = following[0]
            _replace(shaken, name, ShakenHalves(conv, following[1], rule))
            _replace(shaken, following[0], nn.Identity())
        else:
            _replace(shaken, name, ShakenHalves(conv, None, rule))
    if example is not None:
        _compare(model, shaken, split, example)
    return shaken


class ShakenHalves(nn.Module):
    """The convolution after a grouped one, with its BN if there is one, as two branches that Shake-Shake combines.

    Input (N, C, ...), of which each half reads C/2 channels. In evaluation the mean of the halves equals
    ``norm(conv(x))``.

    Args:
        conv: The convolution.
        norm: Its batch normalisation, or None.
        rule: The rule, see ShakeRule.
    """

    def __init__(self, conv: _ConvNd, norm: nn.Module | None, rule: str | ShakeRule) -> None:
        super().__init__()
        self.halves = nn.ModuleList(_half(conv, norm, which) for which in range(2))
        self.shake = ShakeShake(rule)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, ...) to what the convolution returns."""
        return self.shake(*(half(part) for half, part in zip(self.halves, x.tensor_split(2, dim=1), strict=True)))


@torch.no_grad()
def _half(conv: _ConvNd, norm: nn.Module | None, which: int) -> nn.Sequential:
    """Return one branch: the convolution with half of its inputs, and the factor of 2 in its last module."""
    half = copy.deepcopy(conv)
    half.in_channels = conv.in_channels // 2
    weight = conv.weight.tensor_split(2, dim=1)[which]
    if norm is None:
        half.weight = nn.Parameter(2 * weight, conv.weight.requires_grad)  # the mean of equal biases is the bias
        return nn.Sequential(half)
    half.weight = nn.Parameter(weight.clone(), conv.weight.requires_grad)
    if half.bias is not None:
        half.bias.mul_(0.5)
    bn = copy.deepcopy(norm)
    assert isinstance(bn, _BatchNorm)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    # Each of two i.i.d. summands has half the mean and half the variance of the sum.
    before = (bn.running_var + bn.eps).sqrt()
    bn.running_mean.mul_(0.5)
    bn.running_var.mul_(0.5)
    bn.weight.mul_(2 * (bn.running_var + bn.eps).sqrt() / before)
    return nn.Sequential(half, bn)


def _pairs(model: nn.Module) -> Iterator[tuple[str, _ConvNd, tuple[str, nn.Module] | None]]:
    """Yield name and module of the convolution after each grouped one, and of the module after that, if any."""
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        parts = list(_flat_children(module, prefix))
        for at, (name, part) in enumerate(parts):
            if not isinstance(part, _ConvNd) or part.groups == 1 or id(part) in seen:
                continue
            seen.add(id(part))
            offset = _next_conv(name, part, parts[at + 1 :])
            if offset is not None:
                (reader, conv), *following = parts[at + 1 + offset : at + 3 + offset]
                assert isinstance(conv, _ConvNd)
                yield reader, conv, following[0] if following else None


def _next_conv(name: str, grouped: _ConvNd, after: list[tuple[str, nn.Module]]) -> int | None:
    """Return the index in ``after`` of the convolution that reads the grouped one; None if the block ends first."""
    obstacle: InputError | None = None  # raised only if a convolution follows
    for index, (other, part) in enumerate(after):
        if isinstance(part, _ConvNd):
            if part.groups != 1 or part.in_channels != grouped.out_channels or isinstance(part, _ConvTransposeNd):
                return None
            if obstacle is not None:
                raise obstacle
            if grouped.groups % 2:
                raise InputError(f"model: {name} has {grouped.groups} groups, expected an even number")
            return index
        difference = isinstance(part, _NormBase) or (isinstance(part, nn.GroupNorm) and part.num_groups % 2 == 0)
        if not difference and any(True for _ in part.parameters()):
            obstacle = obstacle or InputError(
                f"model: {other} ({type(part).__name__}) between {name} and the next convolution may mix the halves, "
                "expected only normalisation by channel and modules without parameters"
            )
    return None


def _nothing_found(model: nn.Module) -> NoBranchesError:
    grouped = [name for name, part in model.named_modules() if isinstance(part, _ConvNd) and part.groups > 1]
    if not grouped:
        return NoBranchesError(
            f"model: {type(model).__name__} has no grouped convolution, expected residual blocks like those of ResNeXt"
        )
    return NoBranchesError(
        f"model: {type(model).__name__} has {len(grouped)} grouped convolutions, such as {grouped[0]}, but no "
        "convolution in the same block reads one, expected residual blocks like those of ResNeXt"
    )


def _flat_children(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the children of a module in registration order, those of an nn.Sequential or a unit one by one."""
    for name, child in module.named_children():
        full = f"{prefix}.{name}" if prefix else name
        if isinstance(child, nn.Sequential) or _is_unit(child):
            yield from _flat_children(child, full)
        else:
            yield full, child


def _is_unit(module: nn.Module) -> bool:
    """Whether a module consists of one convolution, one normalisation, and modules without parameters."""
    parts = list(module.children())
    others = [part for part in parts if not isinstance(part, (_ConvNd, *_NORMS))]
    return (
        [sum(isinstance(part, kind) for part in parts) for kind in (_ConvNd, _NORMS)] == [1, 1]
        and not any(True for _ in module.parameters(recurse=False))
        and not any(True for part in others for _ in part.parameters())
    )


def _splittable(norm: nn.Module) -> bool:
    """Whether a module computes plain BN with running statistics and weights, which can be divided."""
    return _is_plain_bn(norm) and norm.affine is True and norm.running_var is not None


def _is_plain_bn(norm: nn.Module) -> bool:
    """Whether a module is one of torch's BNs, or timm's BN with an activation that does nothing."""
    without_activation = type(norm).__name__ == "BatchNormAct2d" and all(
        type(part) is nn.Identity for part in norm.children()
    )
    return type(norm) in _SPLITTABLE or without_activation


def _check_replaceable(name: str, module: nn.Module) -> None:
    """Raise InputError unless a convolution or BN computes what its class in torch.nn does from its own parameters."""
    kind: Any = type(module)
    if isinstance(module, _ConvNd) and not any(
        kind.forward is plain.forward and kind._conv_forward is plain._conv_forward for plain in _PLAIN_CONVS
    ):
        raise InputError(
            f"model: {name} ({kind.__name__}) is a convolution with a forward of its own, expected one of torch.nn"
        )
    for computed in ("weight", "bias"):  # pruning, weight normalisation and parametrizations
        if computed not in module._parameters:
            raise InputError(
                f"model: the {computed} of {name} is computed, expected a parameter; remove the pruning, weight "
                "normalisation or parametrization first"
            )
    if not is_unmodified(module):
        raise InputError(f"model: {name} has a hook or a forward of the instance, expected none; remove it first")


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)


@torch.no_grad()
def _compare(model: nn.Module, shaken: nn.Module, split: dict[str, str], example: Tensor) -> None:
    outputs: dict[str, Tensor] = {}

    def remember(conv: str) -> Callable[..., None]:
        return lambda _, __, output: outputs.update({conv: output})

    def check(conv: str, norm: str) -> Callable[..., None]:
        def before(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs[0] is not outputs.get(conv):
                raise _out_of_order(norm, conv)

        return before

    handles = [model.get_submodule(conv).register_forward_hook(remember(conv)) for conv in split]
    handles += [model.get_submodule(norm).register_forward_pre_hook(check(conv, norm)) for conv, norm in split.items()]
    try:
        with eval_mode(model, shaken):
            expected = logits_of(model(example))
            try:
                got = logits_of(shaken(example))
            except (AttributeError, TypeError, ValueError, RuntimeError) as error:
                raise InputError(f"model: the converted network fails on the example: {error}") from None
    finally:
        for handle in handles:
            handle.remove()
    difference, size = float((got - expected).abs().max()), float(expected.abs().max())
    if not difference <= max(1e-3, 8 * torch.finfo(expected.dtype).eps) * size:
        raise InputError(
            f"model: on the example the converted network differs by {difference:.3g} (of at most {size:.3g}), "
            "expected the same output; its modules are not registered in the order of their use"
        )


def _out_of_order(norm: str, conv: str) -> InputError:
    return InputError(
        f"model: {norm}, registered after {conv}, does not read its output, expected modules to be "
        "registered in the order of their use"
    )
