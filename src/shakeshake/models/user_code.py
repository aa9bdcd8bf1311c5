"""Register the user's own network or rule that the command line names as FILE.py:NAME."""

from __future__ import annotations

from ..layers.rules import register_rule
from ..utils.user_code import load_object, registered_name
from .registry import register_module


def register_user_code(field: str, text: str) -> str:
    """Execute a user's file, and register the network or rule that it defines.

    Args:
        field: ``"model"`` or ``"rule"``.
        text: ``PATH/FILE.py:NAME``, as the user typed it.

    Returns:
        The name under which it is registered: ``FILE.py:NAME``.

    Raises:
        InputError: The file or the name does not exist, or is not a network or rule.
    """
    name = registered_name(text)
    if field == "model":
        register_module(load_object(text), name)
    else:
        register_rule(name, replace=True)(load_object(text))
    return name
