"""create_model and list_models: a network's name is its specification. Loads torch only to build a network."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import inspect
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from ..layers.rules import ShakeRule


LARGEST = 10_000  # number in a name


@dataclass(frozen=True)
class Values:
    """The valid values of a number in a name: ``first``, ``first + every``, ..., and why not others, if it helps.

    No more than LARGEST: a slip of the finger would make a network that takes hours to be made, and all memory.
    """

    first: int
    every: int = 1
    why: str = ""

    def wrong(self, value: int) -> str | None:
        """What was expected instead of the value, or None."""
        if value > LARGEST:
            return f"at most {LARGEST}"
        if value >= self.first and (value - self.first) % self.every == 0:
            return None
        if self.every == 1:
            return f"{self.first} or more"
        some = ", ".join(str(self.first + i * self.every) for i in range(4))
        return f"one of {some}, ... ({self.why or f'steps of {self.every}'})"

    def around(self, value: int) -> tuple[int, ...]:
        """The value itself if it is valid, else the valid ones next to it."""
        value = min(value, LARGEST)
        if value <= self.first:
            return (self.first,)
        below = value - (value - self.first) % self.every
        return (below,) if below == value or below + self.every > LARGEST else (below, below + self.every)


@dataclass(frozen=True)
class Family:
    """Networks whose names differ in numbers only.

    template: the name, such as ``shake_resnet{depth}_{branches}x{width}d``.
    described: one line for `shakeshake models`.
    examples: members that the paper or its literature names.
    values: for each number of the name, what it may be.
    builder: ``module:class`` in this package; takes the numbers and create_model's options as keywords.
    options: what makes it a variant of the class that it is built from.
    """

    template: str
    described: str
    examples: tuple[str, ...]
    values: Mapping[str, Values]
    builder: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(re.findall(r"{(\w+)}", self.template))

    @property
    def branched(self) -> bool:
        """Whether the networks have branches to shake; where there are none, a rule has no meaning."""
        return "branches" in self.fields

    @property
    def pattern(self) -> str:
        return re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\d{1,9})", re.escape(self.template))

    def parse(self, name: str) -> dict[str, int] | None:
        match = re.fullmatch(self.pattern, name, re.ASCII)
        return {k: int(v) for k, v in match.groupdict().items()} if match else None

    def wrong(self, numbers: dict[str, int]) -> str | None:
        """What keeps the numbers from naming a network, or None."""
        for name in self.fields:
            expected = self.values[name].wrong(numbers[name])
            if expected is not None:
                return f"{name} is {numbers[name]}, expected {expected}"
        return None

    def closest(self, numbers: dict[str, int]) -> list[str]:
        """The one or two valid names that differ least from the numbers."""
        around = itertools.product(*(self.values[name].around(numbers[name]) for name in self.fields))
        asked = [numbers[name] for name in self.fields]
        ranked = sorted(around, key=lambda valid: sum(abs(v - n) for v, n in zip(valid, asked, strict=True)))
        return [self.template.format(**dict(zip(self.fields, valid, strict=True))) for valid in ranked[:2]]


_SHAKE = {"depth": Values(8, 6), "branches": Values(2), "width": Values(2, 2, "even: the skip joins two halves")}
_WITHOUT_SKIP = {**_SHAKE, "width": Values(1)}

FAMILIES = (
    Family(
        "shake_resnet{depth}_{branches}x{width}d",
        "pre-activation ResNet of the paper's CIFAR-10 experiments (Table 1)",
        tuple(f"shake_resnet{x}d" for x in ("20_2x16", "26_2x32", "26_2x64", "26_2x96", "26_2x112", "26_3x32")),
        _SHAKE,
        "shake_resnet:ShakeResNet",
    ),
    Family(
        "shake_resnet{depth}_{branches}x{width}d_a",
        "the paper's architecture A: the same without skip connections (Table 5)",
        ("shake_resnet26_2x32d_a",),
        _WITHOUT_SKIP,
        "shake_resnet:ShakeResNet",
        {"skip": False},
    ),
    Family(
        "shake_resnet{depth}_{branches}x{width}d_b",
        "the paper's architecture B: A with one convolution per branch and twice the blocks (Table 5)",
        ("shake_resnet26_2x32d_b",),
        _WITHOUT_SKIP,
        "shake_resnet:ShakeResNet",
        {"skip": False, "convs": 1},
    ),
    Family(
        "shake_resnet{depth}_{branches}x{width}d_c",
        "the paper's architecture C: A without batch normalisation (Table 5)",
        ("shake_resnet14_2x32d_c",),
        _WITHOUT_SKIP,
        "shake_resnet:ShakeResNet",
        {"skip": False, "bn": False},
    ),
    Family(
        "shake_resnext{depth}_{branches}x{cardinality}x{width}d",
        "ResNeXt of the paper's CIFAR-100 experiments (Table 2)",
        ("shake_resnext29_2x4x64d",),
        {"depth": Values(11, 9), "branches": Values(2), "cardinality": Values(1), "width": Values(2)},
        "shake_resnext:ShakeResNeXt",
    ),
    Family(
        "resnet{depth}",
        "ResNet for CIFAR (He et al., 2016), without branches to shake",
        ("resnet20", "resnet56", "resnet110"),
        {"depth": Values(8, 6)},
        "baselines:ResNet",
    ),
    Family(
        "wrn{depth}_{k}",
        "Wide ResNet (Zagoruyko and Komodakis, 2016), without branches to shake",
        ("wrn16_8", "wrn28_10", "wrn40_4"),
        {"depth": Values(10, 6), "k": Values(1)},
        "baselines:WideResNet",
    ),
    Family(
        "resnext{depth}_{cardinality}x{width}d",
        "ResNeXt for CIFAR (Xie et al., 2017), without branches to shake",
        ("resnext29_8x64d", "resnext29_16x64d"),
        {"depth": Values(11, 9), "cardinality": Values(1), "width": Values(1)},
        "baselines:ResNeXt",
    ),
    Family(
        "densenet_bc{depth}_{growth}",
        "DenseNet-BC for CIFAR (Huang et al., 2017), without branches to shake",
        ("densenet_bc100_12", "densenet_bc250_24", "densenet_bc190_40"),
        {"depth": Values(10, 6), "growth": Values(1)},
        "baselines:DenseNetBC",
    ),
)


def list_models(pattern: str = "*") -> list[str]:
    """Names of the networks that the paper and its literature use, filtered by a shell-style pattern.

    They are examples: every valid number in the place of theirs names a network, too.
    """
    return [name for family in FAMILIES for name in family.examples if fnmatch.fnmatchcase(name, pattern)]


def _suggestions(name: str) -> list[str]:
    numbers = [int(n[:9]) for n in re.findall(r"[0-9]+", name)]
    letters = re.sub(r"[0-9]+", "0", name.lower())
    ranked = sorted(
        FAMILIES,
        key=lambda f: difflib.SequenceMatcher(None, letters, re.sub(r"{\w+}", "0", f.template)).ratio(),
        reverse=True,
    )
    for family in ranked:
        if len(numbers) == len(family.fields):
            return family.closest(dict(zip(family.fields, numbers, strict=True)))
    return difflib.get_close_matches(name, list_models(), n=2, cutoff=0.3) or list_models()[1:3]


def check_model(name: str) -> tuple[Family, dict[str, int]]:
    """The family and numbers that a name stands for.

    Raises InputError with the closest valid names. Does not load torch.
    """
    reason = "is not the name of a network"
    for family in FAMILIES:
        numbers = family.parse(name) if isinstance(name, str) else None
        if numbers is None:
            continue
        wrong = family.wrong(numbers)
        if wrong is None:
            return family, numbers
        reason = f"does not exist: {wrong}"
    closest = " or ".join(_suggestions(str(name)))
    raise InputError(f"model: {name!r} {reason}; the closest valid names are {closest}")


def create_model(
    name: str,
    *,
    num_classes: int = 10,
    rule: str | ShakeRule = "S-S-I",
    in_channels: int = 3,
    image_size: int = 32,
    **options: Any,
) -> nn.Module:
    """Build the network that ``name`` specifies, freshly initialised.

    num_classes: outputs of the last layer, two or more.
    rule: how the branches are shaken, see ShakeRule. Of no effect on networks without branches; a Recipe and the
        configuration of a trained network say ``"none"`` there, which is accepted for those alone.
    in_channels: 1 or 3.
    image_size: side of the square input in pixels, 8 to 224; above 64 the stem strides (see ShakeResNet).
    options: what one family alone knows, such as ``skip_shift="mirrored"`` (see its class).

    Raises InputError for a name that is none (with the closest valid ones) and for options out of range.
    """
    family, numbers = check_model(name)
    for option, value, low, high in (
        ("num_classes", num_classes, 2, 1_000_000),
        ("image_size", image_size, 8, 224),
    ):
        if not isinstance(value, int) or not low <= value <= high:
            raise InputError(f"{option}: got {value!r}, expected a whole number from {low} to {high}")
    if isinstance(in_channels, float) or in_channels not in (1, 3):
        raise InputError(f"in_channels: got {in_channels!r}, expected 1 or 3")
    module, cls = family.builder.split(":")
    build: Callable[..., nn.Module] = getattr(importlib.import_module(f".{module}", __package__), cls)
    given = {**numbers, **family.options, "num_classes": num_classes, "in_channels": in_channels}
    given |= {"image_size": image_size, **({"rule": rule} if family.branched else {})}
    free = [option for option in inspect.signature(build).parameters if option not in {*given, "rule"}]
    for option in options:
        if option not in free:
            expected = f"expected one of {', '.join(free)}" if free else "which has none of its own"
            raise InputError(f"{option}: no option of {name}, {expected}")
    return build(**given, **options)


def count_parameters(name: str, **options: Any) -> int:
    """Number of parameters of the network that ``name`` specifies, without allocating it. Options: create_model's."""
    import torch

    with torch.device("meta"):
        return sum(p.numel() for p in create_model(name, **options).parameters())
