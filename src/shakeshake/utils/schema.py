"""Base class of the dataclasses that describe JSON files: conversion both ways, with checked types."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from ..errors import InputError

LARGEST = 1e15
"""Larger numbers are refused: no file of this package has one, and a chart could not show it."""


@dataclasses.dataclass(frozen=True)
class Range:
    """A check for ``Annotated[float, Range(0, 1)]``. A value beyond an end by rounding alone is moved to it."""

    low: float = -LARGEST
    high: float = LARGEST

    def __call__(self, value: Any) -> Any:
        """Return the value, or raise ValueError with what was expected."""
        if not self.low - 1e-6 <= value <= self.high + 1e-6:
            raise ValueError(f"a number from {self.low:g} to {self.high:g}")
        return min(max(value, self.low), self.high) if isinstance(value, float) else value


Fraction = Annotated[float, Range(0, 1)]
Percent = Annotated[float, Range(0, 100)]
Count = Annotated[int, Range(0)]


class JsonSchema:
    """A dataclass that is written to and read from a JSON object.

    The key of a field is its name, or ``metadata={"key": ...}``; a field with ``metadata={"json": False}`` is not
    part of the file. Unknown keys are ignored and missing keys take the default, so that files of other versions load.
    Fields may be int, float, str, bool, Any, Literal, another JsonSchema, and lists, tuples, dicts or unions of these.
    Each extra of an ``Annotated`` field is called with the value, returns it, and raises ``ValueError(expected)``.

    keep_whole: Leave out a whole field where one of its entries is broken, instead of the entry.
    """

    keep_whole: ClassVar[bool] = False

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        return {key: _plain(getattr(self, field.name)) for field, key in _json_fields(type(self))}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, name: str = "", problems: list[str] | None = None) -> Self:
        """Build the dataclass from a JSON object.

        Args:
            values: The JSON object.
            name: What error messages call the object, for example the file's name.
            problems: Where given, broken entries of lists and broken fields that have a default are left out, and a
                sentence about each is appended here. Without it they raise.

        Raises:
            InputError: A required field is missing or has another type. The message names the field.
        """
        return _read_object(cls, values, name, problems)


def _json_fields(cls: Any) -> tuple[tuple[dataclasses.Field[Any], str], ...]:
    fields = dataclasses.fields(cls)
    return tuple((f, f.metadata.get("key", f.name)) for f in fields if f.metadata.get("json", True))


def _plain(value: Any) -> Any:
    if isinstance(value, JsonSchema):
        return value.to_dict()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _read_object(cls: type[Any], values: Any, name: str, problems: list[str] | None) -> Any:
    if not isinstance(values, Mapping):
        raise _wrong(name, values, "an object")
    read, kinds = {}, _kinds(cls)  # type: ignore[arg-type]
    for field, key in _json_fields(cls):
        where = f"{name}.{key}" if name else key
        required = field.default is field.default_factory is dataclasses.MISSING
        if key not in values:
            if required:
                raise InputError(f"{where}: is missing, expected {_words(kinds[field.name])}")
            continue
        try:
            read[field.name] = _read(kinds[field.name], values[key], where, None if cls.keep_whole else problems)
        except InputError as error:
            if required or problems is None:
                raise
            problems.append(str(error))
    return cls(**read)


@functools.cache
def _kinds(cls: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _read(kind: Any, value: Any, where: str, problems: list[str] | None) -> Any:
    """The value as ``kind``; raises InputError where it is something else."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        value = _read(arguments[0], value, where, problems)
        try:
            return functools.reduce(lambda checked, check: check(checked), kind.__metadata__, value)
        except ValueError as error:
            raise _wrong(where, value, str(error)) from None
    if origin in (typing.Union, types.UnionType):
        if value is None and types.NoneType in arguments:
            return None
        (other,) = (argument for argument in arguments if argument is not types.NoneType)
        return _read(other, value, where, problems)
    if origin is typing.Literal:
        if value in arguments:
            return value
    elif origin in (list, tuple):
        if isinstance(value, list | tuple):
            return _read_list(kind, list(value), where, problems)
    elif origin is dict:
        if isinstance(value, Mapping):
            return {str(k): _read(arguments[1], item, f"{where}.{k}", problems) for k, item in value.items()}
    elif kind is dict:
        if isinstance(value, Mapping):
            return dict(value)
    elif issubclass(kind, JsonSchema):
        return _read_object(kind, value, where, problems)
    elif kind is float:
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST:  # nan is not
            return float(value)
    elif kind is int:
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST:
            return value
    elif isinstance(value, kind):
        return value
    raise _wrong(where, value, _words(kind))


def _read_list(kind: Any, values: list[Any], where: str, problems: list[str] | None) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and arguments[-1] is not Ellipsis:  # of a fixed length
        if len(values) != len(arguments):
            raise _wrong(where, values, _words(kind))
        return tuple(_read(kind, values[i], f"{where}[{i}]", problems) for i, kind in enumerate(arguments))
    read = []
    for i, value in enumerate(values):
        try:
            read.append(_read(arguments[0], value, f"{where}[{i}]", problems))
        except InputError as error:
            if problems is None:
                raise
            problems.append(str(error))
    return origin(read)


def _words(kind: Any) -> str:
    names = {int: "an integer", float: "a finite number", str: "a text", bool: "true or false", dict: "an object"}
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _words(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if argument is types.NoneType else _words(argument) for argument in arguments)
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)}"
    return "a list" if origin in (list, tuple) else names.get(origin or kind, "an object")


def _wrong(where: str, value: Any, expected: str) -> InputError:
    shown = repr(value)
    return InputError(f"{where}: got {shown if len(shown) <= 60 else shown[:57] + '...'}, expected {expected}")
