"""A field of a recipe: its help text, its valid values, and their check. Does not import torch."""

from __future__ import annotations

import dataclasses
import os
import sys
from dataclasses import field
from typing import Any, Literal

from ..errors import InputError
from ..layers.rules import ShakeRule

FieldGroup = Literal["data", "network", "optimisation", "augmentation", "run"]
FINITE = sys.float_info.max


def option(
    default: Any,
    help: str,
    *,
    group: FieldGroup,
    choices: tuple[str, ...] | None = None,
    metavar: str | None = None,
    low: float | None = None,
    high: float | None = None,
    below: float | None = None,
    above: float | None = None,
) -> Any:
    """A field with its help text and its valid values: ``low <= value <= high``, ``above < value < below``."""
    limits = {"low": low, "high": high, "below": below, "above": above}
    return field(
        default=default, metadata={"help": help, "group": group, "choices": choices, "metavar": metavar, **limits}
    )


def plain(value: Any) -> Any:
    """Convert paths, rules, devices and NumPy scalars to str, int, float or bool."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, ShakeRule):
        return str(value)
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()
    if "torch" in sys.modules and isinstance(value, sys.modules["torch"].device):
        return str(value)
    return value


_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "true or false"),
    "int": ((int,), "an integer"),
    "float": ((int, float), "a number"),
    "str": ((str,), "a string"),
}


def check_type(spec: dataclasses.Field, value: Any) -> None:
    """Raise InputError unless a value has the type of a field, or is one of its choices."""
    kind, _, optional = str(spec.type).partition(" | ")
    if optional and value is None:
        return
    choices = spec.metadata["choices"]
    if choices:
        if value not in choices:
            raise InputError(f"{spec.name}: got {value!r}, expected {', '.join(choices[:-1])} or {choices[-1]}")
        return
    types, words = _TYPES[kind]
    if not isinstance(value, types) or (isinstance(value, bool) and kind != "bool"):
        raise InputError(f"{spec.name}: got {value!r}, expected {words}{' or none' if optional else ''}")


def check_limits(spec: dataclasses.Field, value: Any) -> None:
    """Raise InputError unless a number is within the limits of a field."""
    low, high, above, below = (spec.metadata[key] for key in ("low", "high", "above", "below"))
    if value is None or (low, high, above, below) == (None,) * 4:
        return
    if not (
        (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
        and (below is None or value < below)
    ):
        raise InputError(f"{spec.name}: got {value}, expected {_limits(spec)}")


def _limits(spec: dataclasses.Field) -> str:
    low, high, above, below = (spec.metadata[key] for key in ("low", "high", "above", "below"))
    start = f"greater than {above}" if above is not None else f"at least {low}"
    if high == FINITE:
        return f"a finite number, {start}"
    end = f"at most {high}" if high is not None else f"less than {below}" if below is not None else ""
    return f"{start} and {end}" if end else start
