"""Families of networks whose names differ in numbers only, such as ``shake_resnet{depth}_{branches}x{width}d``."""

from __future__ import annotations

import ast
import difflib
import functools
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
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
    """A family of networks. Declare it as an element of ``FAMILIES`` in the module that defines its class.

    Args:
        template: The name, with its numbers in braces. A family with ``{branches}`` takes a rule.
        network: Name of the class in the same module. It takes the numbers, ``num_classes``, ``in_channels``,
            ``image_size`` and, for a family with branches, ``rule``.
        summary: One line for `shakeshake models`.
        examples: Members that the paper or its literature uses.
        numbers: The valid values of each number of the name.
        paper_label: The paper's notation, with the same numbers in braces; by default the name.
        options: Arguments of the class that are fixed for this family.
        module: The module that declares the family; filled in when the declaration is read.
    """

    template: str
    network: str
    summary: str
    examples: tuple[str, ...]
    numbers: Mapping[str, IntRange]
    paper_label: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    module: str = ""

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


@functools.cache
def families() -> tuple[Family, ...]:
    """Return the families that the modules of this package declare, those with branches first.

    Importing such a module imports torch, which takes seconds, while recipes, shell completion and dry runs only check
    names. So this evaluates the declaration ``FAMILIES = (...)`` of each source file by itself. It may use Family,
    IntRange and literals.
    """
    assert __package__ is not None
    found: list[Family] = []
    for file in sorted(resources.files(__package__).iterdir(), key=lambda file: file.name):
        source = file.read_text(encoding="utf-8") if file.name.endswith(".py") else ""
        if "\nFAMILIES = " not in source:
            continue
        for statement in ast.parse(source).body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "FAMILIES":
                declared = eval(
                    compile(ast.Expression(statement.value), file.name, "eval"),
                    {"Family": Family, "IntRange": IntRange},
                )
                found += [replace(family, module=file.name.removesuffix(".py")) for family in declared]
    return tuple(sorted(found, key=lambda family: not family.branched))


def closest_names(name: str) -> list[str]:
    """Return one or two valid names that resemble ``name``."""
    numbers = [int(n[:9]) for n in re.findall(r"[0-9]+", name)]
    letters = re.sub(r"[0-9]+", "0", name.lower())

    def likeness(family: Family) -> float:
        return difflib.SequenceMatcher(None, letters, re.sub(r"{\w+}", "0", family.template)).ratio()

    for family in sorted(families(), key=likeness, reverse=True):
        if len(numbers) == len(family.fields):
            return family.closest(dict(zip(family.fields, numbers, strict=True)))
    examples = [example for family in families() for example in family.examples]
    return difflib.get_close_matches(name, examples, n=2, cutoff=0.3) or examples[1:3]
