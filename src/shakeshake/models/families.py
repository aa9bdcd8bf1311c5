"""The package's networks by name: families whose names differ in numbers only. Imports no torch.

Recipes, dry runs and shell completion check names, which must not take the seconds that importing torch takes.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_NUMBER = 10_000


@dataclass(frozen=True)
class IntRange:
    """The valid values of a number in a name: ``first``, ``first + step``, ... up to MAX_NUMBER.

    The limit keeps a typing error from building a network that takes hours and all memory.

    Args:
        first: The smallest value.
        step: The distance between values.
        reason: Why other values are invalid, for the error message.
    """

    first: int
    step: int = 1
    reason: str = ""

    def validate(self, value: int) -> str | None:
        """Return None for a valid value, else a phrase that says what is valid."""
        if value > MAX_NUMBER:
            return f"at most {MAX_NUMBER}"
        if value >= self.first and (value - self.first) % self.step == 0:
            return None
        if self.step == 1:
            return f"{self.first} or more"
        some = ", ".join(str(self.first + i * self.step) for i in range(4))
        return f"one of {some}, ... ({self.reason or f'steps of {self.step}'})"

    def nearest(self, value: int) -> tuple[int, ...]:
        """Return the value itself if it is valid, else the valid values next to it."""
        value = min(value, MAX_NUMBER)
        if value <= self.first:
            return (self.first,)
        below = value - (value - self.first) % self.step
        return (below,) if below == value or below + self.step > MAX_NUMBER else (below, below + self.step)


@dataclass(frozen=True)
class Family:
    """A family of networks.

    Args:
        template: The name, with its numbers in braces. A family with ``{branches}`` takes a rule.
        builder: ``module:class`` in this package. The class takes the numbers, ``num_classes``, ``in_channels``,
            ``image_size`` and, for a family with branches, ``rule``.
        summary: One line for `shakeshake models`.
        examples: Members that the paper or its literature uses.
        numbers: The valid values of each number of the name.
        paper_label: The paper's notation, with the same numbers in braces; by default the name.
        options: Arguments of the class that are fixed for this family.
    """

    template: str
    builder: str
    summary: str
    examples: tuple[str, ...]
    numbers: Mapping[str, IntRange]
    paper_label: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the numbers, in the order of the template."""
        return tuple(re.findall(r"{(\w+)}", self.template))

    @property
    def branched(self) -> bool:
        """Whether the networks have parallel branches, to which a rule applies."""
        return "branches" in self.fields

    def parse(self, name: str) -> dict[str, int] | None:
        """Return the numbers of a name of this family, valid or not; None for any other name."""
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\d{1,9})", re.escape(self.template))
        match = re.fullmatch(pattern, name, re.ASCII)
        return {k: int(v) for k, v in match.groupdict().items()} if match else None

    def validate(self, numbers: Mapping[str, int]) -> str | None:
        """Return None for valid numbers, else a phrase that names the first invalid one."""
        for name in self.fields:
            expected = self.numbers[name].validate(numbers[name])
            if expected is not None:
                return f"{name} is {numbers[name]}, expected {expected}"
        return None

    def closest(self, numbers: Mapping[str, int]) -> list[str]:
        """Return the one or two valid names whose numbers are closest to these."""
        candidates = itertools.product(*(self.numbers[name].nearest(numbers[name]) for name in self.fields))
        asked = [numbers[name] for name in self.fields]
        ranked = sorted(candidates, key=lambda valid: sum(abs(v - n) for v, n in zip(valid, asked, strict=True)))
        return [self.template.format(**dict(zip(self.fields, valid, strict=True))) for valid in ranked[:2]]


FAMILIES = (
    Family(
        "shake_resnet{depth}_{branches}x{width}d",
        "shake_resnet:ShakeResNet",
        "pre-activation ResNet of the paper's CIFAR-10 experiments (Table 1)",
        examples=(
            "shake_resnet20_2x16d",
            "shake_resnet26_2x32d",
            "shake_resnet26_2x64d",
            "shake_resnet26_2x96d",
            "shake_resnet26_2x112d",
            "shake_resnet26_3x32d",
        ),
        numbers={
            "depth": IntRange(8, 6),
            "branches": IntRange(2),
            "width": IntRange(2, 2, "even: the skip joins two halves"),
        },
        paper_label="{depth} {branches}x{width}d",
    ),
    Family(
        "shake_resnet{depth}_{branches}x{width}d_a",
        "shake_resnet:ShakeResNet",
        "the paper's architecture A: the same without skip connections (Table 5)",
        examples=("shake_resnet26_2x32d_a",),
        numbers={"depth": IntRange(8, 6), "branches": IntRange(2), "width": IntRange(1)},
        paper_label="{depth} {branches}x{width}d, architecture A",
        options={"skip": False},
    ),
    Family(
        "shake_resnet{depth}_{branches}x{width}d_b",
        "shake_resnet:ShakeResNet",
        "the paper's architecture B: A with one convolution per branch and twice the blocks (Table 5)",
        examples=("shake_resnet26_2x32d_b",),
        numbers={"depth": IntRange(8, 6), "branches": IntRange(2), "width": IntRange(1)},
        paper_label="{depth} {branches}x{width}d, architecture B",
        options={"skip": False, "convs": 1},
    ),
    Family(
        "shake_resnet{depth}_{branches}x{width}d_c",
        "shake_resnet:ShakeResNet",
        "the paper's architecture C: A without batch normalisation (Table 5)",
        examples=("shake_resnet14_2x32d_c",),
        numbers={"depth": IntRange(8, 6), "branches": IntRange(2), "width": IntRange(1)},
        paper_label="{depth} {branches}x{width}d, architecture C",
        options={"skip": False, "bn": False},
    ),
    Family(
        "shake_resnext{depth}_{branches}x{cardinality}x{width}d",
        "shake_resnext:ShakeResNeXt",
        "ResNeXt of the paper's CIFAR-100 experiments (Table 2)",
        examples=("shake_resnext29_2x4x64d",),
        numbers={
            "depth": IntRange(11, 9),
            "branches": IntRange(2),
            "cardinality": IntRange(1),
            "width": IntRange(2),
        },
        paper_label="{depth} {branches}x{cardinality}x{width}d",
    ),
    Family(
        "cifar_resnet{depth}",
        "baselines:ResNet",
        "ResNet for CIFAR (He et al., 2016), without branches to shake",
        examples=("cifar_resnet20", "cifar_resnet56", "cifar_resnet110"),
        numbers={"depth": IntRange(8, 6)},
    ),
    Family(
        "wrn{depth}_{k}",
        "baselines:WideResNet",
        "Wide ResNet (Zagoruyko and Komodakis, 2016), without branches to shake",
        examples=("wrn16_8", "wrn28_10", "wrn40_4"),
        numbers={"depth": IntRange(10, 6), "k": IntRange(1)},
    ),
    Family(
        "resnext{depth}_{cardinality}x{width}d",
        "baselines:ResNeXt",
        "ResNeXt for CIFAR (Xie et al., 2017), without branches to shake",
        examples=("resnext29_8x64d", "resnext29_16x64d"),
        numbers={"depth": IntRange(11, 9), "cardinality": IntRange(1), "width": IntRange(1)},
    ),
    Family(
        "densenet_bc{depth}_{growth}",
        "baselines:DenseNetBC",
        "DenseNet-BC for CIFAR (Huang et al., 2017), without branches to shake",
        examples=("densenet_bc100_12", "densenet_bc250_24", "densenet_bc190_40"),
        numbers={"depth": IntRange(10, 6), "growth": IntRange(1)},
    ),
)


def closest_names(name: str) -> list[str]:
    """Return one or two valid names that resemble ``name``."""
    numbers = [int(n[:9]) for n in re.findall(r"[0-9]+", name)]
    letters = re.sub(r"[0-9]+", "0", name.lower())

    def likeness(family: Family) -> float:
        return difflib.SequenceMatcher(None, letters, re.sub(r"{\w+}", "0", family.template)).ratio()

    for family in sorted(FAMILIES, key=likeness, reverse=True):
        if len(numbers) == len(family.fields):
            return family.closest(dict(zip(family.fields, numbers, strict=True)))
    examples = [example for family in FAMILIES for example in family.examples]
    return difflib.get_close_matches(name, examples, n=2, cutoff=0.3) or examples[1:3]
