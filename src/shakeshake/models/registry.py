"""create_model and list_models: a network's name is its specification. Loads torch only to build a network."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from ..core.rules import ShakeRule


@dataclass(frozen=True)
class Family:
    """Networks whose names differ in numbers only.

    template: the name, such as ``shake_resnet{depth}_{branches}x{width}d``.
    described: one line for `shakeshake models`.
    examples: members that the paper or its literature names.
    depth: the valid depths, ``first`` and ``every`` so many.
    builder: ``module:class`` in this package; takes the numbers and create_model's options as keywords.
    """

    template: str
    described: str
    examples: tuple[str, ...]
    first_depth: int
    every: int
    builder: str

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(re.findall(r"{(\w+)}", self.template))

    @property
    def pattern(self) -> str:
        return re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\d+)", re.escape(self.template))

    def parse(self, name: str) -> dict[str, int] | None:
        match = re.fullmatch(self.pattern, name)
        return {k: int(v) for k, v in match.groupdict().items()} if match else None

    def wrong(self, numbers: dict[str, int]) -> str | None:
        """What keeps the numbers from naming a network, or None."""
        depth = numbers["depth"]
        if depth < self.first_depth or (depth - self.first_depth) % self.every:
            some = ", ".join(str(self.first_depth + i * self.every) for i in range(4))
            return f"depth is {depth}, expected one of {some}, ... (steps of {self.every})"
        for field, least in (("branches", 2), ("width", 2), ("cardinality", 1)):
            if numbers.get(field, least) < least:
                return f"{field} is {numbers[field]}, expected {least} or more"
        if "cardinality" not in numbers and numbers.get("width", 2) % 2:
            return f"width is {numbers['width']}, expected an even number (the skip joins two halves)"
        return None

    def closest(self, numbers: dict[str, int]) -> list[str]:
        """Valid names that differ least from the numbers."""
        n = max(0, (numbers["depth"] - self.first_depth) // self.every)
        below = self.first_depth + n * self.every
        depths = [below] if numbers["depth"] <= below else [below, below + self.every]
        fixed = dict(numbers)
        for field in ("branches", "width"):
            if field in fixed:
                fixed[field] = max(2, fixed[field])
        if "cardinality" in fixed:
            fixed["cardinality"] = max(1, fixed["cardinality"])
        elif "width" in fixed:
            fixed["width"] += fixed["width"] % 2
        return [self.template.format(**{**fixed, "depth": d}) for d in depths]


FAMILIES = (
    Family(
        "shake_resnet{depth}_{branches}x{width}d",
        "pre-activation ResNet of the paper's CIFAR-10 experiments (Table 1)",
        tuple(f"shake_resnet{x}d" for x in ("20_2x16", "26_2x32", "26_2x64", "26_2x96", "26_2x112", "26_3x32")),
        8,
        6,
        "shake_resnet:ShakeResNet",
    ),
    Family(
        "shake_resnext{depth}_{branches}x{cardinality}x{width}d",
        "ResNeXt of the paper's CIFAR-100 experiments (Table 2)",
        ("shake_resnext29_2x4x64d",),
        11,
        9,
        "shake_resnext:ShakeResNeXt",
    ),
)


def list_models(pattern: str = "*") -> list[str]:
    """Names of the networks that the paper and its literature use, filtered by a shell-style pattern.

    They are examples: every valid number in the place of theirs names a network, too.
    """
    return [name for family in FAMILIES for name in family.examples if fnmatch.fnmatchcase(name, pattern)]


def _suggestions(name: str) -> list[str]:
    numbers = [int(n) for n in re.findall(r"\d+", name)]
    letters = re.sub(r"\d+", "0", name.lower())
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
    rule: how the branches are shaken, see ShakeRule.
    in_channels: 1 or 3.
    image_size: side of the square input in pixels, 8 to 224; above 64 the stem strides (see ShakeResNet).
    options: what one family alone knows, such as ``skip_shift="mirrored"``.

    Raises InputError for a name that is none (with the closest valid ones) and for options out of range.
    """
    family, numbers = check_model(name)
    for option, value, low, high in (
        ("num_classes", num_classes, 2, 1_000_000),
        ("image_size", image_size, 8, 224),
    ):
        if not isinstance(value, int) or not low <= value <= high:
            raise InputError(f"{option}: got {value!r}, expected a whole number from {low} to {high}")
    if in_channels not in (1, 3):
        raise InputError(f"in_channels: got {in_channels!r}, expected 1 or 3")
    module, cls = family.builder.split(":")
    build: Callable[..., nn.Module] = getattr(importlib.import_module(f".{module}", __package__), cls)
    return build(
        **numbers, num_classes=num_classes, rule=rule, in_channels=in_channels, image_size=image_size, **options
    )


def count_parameters(name: str, **options: Any) -> int:
    """Number of parameters of the network that ``name`` specifies, without allocating it. Options: create_model's."""
    import torch

    with torch.device("meta"):
        return sum(p.numel() for p in create_model(name, **options).parameters())
