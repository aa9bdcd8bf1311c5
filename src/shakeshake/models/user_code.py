"""The user's own networks and rules: register those named as FILE.py:NAME, and pass them on to other processes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..layers import rules
from ..utils.user_code import is_object_path, load_object, registered_name
from . import registry

UserCode = tuple[str, str, str]  # "model" or "rule", FILE.py:NAME, the name under which it is registered

_typed: dict[tuple[str, str], str] = {}  # (field, registered name) -> FILE.py:NAME


def register_user_code(field: str, text: str, name: str | None = None) -> str:
    """Execute a user's file, and register the network or rule that it defines.

    Args:
        field: ``"model"`` or ``"rule"``.
        text: ``PATH/FILE.py:NAME``, as the user typed it.
        name: The name to register it under; by default ``FILE.py:NAME``.

    Returns:
        The name under which it is registered.

    Raises:
        InputError: The file or the name does not exist, or is not a network or rule.
    """
    name = name or registered_name(text)
    if field == "model":
        registry.register_module(load_object(text), name)
    else:
        rules.register_rule(name, replace=True)(load_object(text))
    path, _, attribute = text.rpartition(":")
    _typed[field, name] = f"{Path(path).expanduser().resolve()}:{attribute}"
    return name


def name_of(field: str, value: Any) -> Any:
    """The name of a network or rule that is given by name, as FILE.py:NAME, or as a factory; other values unchanged.

    Args:
        field: ``"model"`` or ``"rule"``.
        value: What the user passed. A file is executed unless its object is registered already.
    """
    if field == "model" and callable(value):
        return registry.register_module(value)
    if isinstance(value, str) and is_object_path(value) and _registered(field, value) is None:
        return register_user_code(field, value)
    return value


def user_code(field: str, names: Iterable[Any]) -> list[UserCode]:
    """What another process needs to register these networks or rules; nothing for built-in ones.

    Args:
        field: ``"model"`` or ``"rule"``.
        names: Registered or built-in names.

    Raises:
        InputError: One is registered but cannot be found in a Python file.
    """
    found = []
    for name in names:
        definition = _registered(field, name) if isinstance(name, str) else None
        if definition is None or (field == "rule" and rules.is_builtin_rule(name)):
            continue
        text = _typed.get((field, name)) or _object_path(definition)
        if text is None:
            raise InputError(
                f"{field}: {name!r} is not defined at the top level of a Python file outside packages, and each run "
                "is a separate process; expected a built-in one or FILE.py:NAME"
            )
        found.append((field, text, name))
    return found


def _registered(field: str, name: str) -> Any:
    """The factory of a registered network or the function of a registered rule; None if the name is not registered."""
    if field == "rule":
        return rules._registered.get(name)
    entry = registry._registered.get(name)
    return None if entry is None else entry.factory


def _object_path(definition: Any) -> str | None:
    """FILE.py:NAME of a function or class; None if importing the file would not define it."""
    module = sys.modules.get(getattr(definition, "__module__", None) or "")
    file, name = getattr(module, "__file__", None), getattr(definition, "__qualname__", "")
    if module is None or file is None or "." in module.__name__ or getattr(module, name, None) is not definition:
        return None
    text = f"{Path(file).resolve()}:{name}"
    if not is_object_path(text):
        return None
    if module.__name__ == "__main__":
        load_object(text)  # as each run will: raises InputError where the script would start itself again
    return text
