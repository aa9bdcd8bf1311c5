"""Load an object from a user's Python file, as the command line's ``FILE.py:NAME`` asks for."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import InputError
from .console import escape

_SUFFIX = ".py"
_importing: list[Path] = []  # files that are being executed, outermost first


def is_object_path(text: str) -> bool:
    """Whether a command-line value has the form ``FILE.py:NAME``."""
    path, colon, name = text.rpartition(":")
    return bool(colon) and path.endswith(_SUFFIX) and name.isidentifier()


def registered_name(text: str) -> str:
    """Name under which the object is registered and recorded: ``net.py:tiny`` for ``/home/me/net.py:tiny``.

    Only the base name of the file is kept, so that a run's files do not disclose paths.
    """
    path, _, name = text.rpartition(":")
    return f"{Path(path).name}:{name}"


def load_object(text: str) -> Any:
    """Import a Python file and return one of its module-level objects.

    This executes the file. Call it only with what the user typed, never with a value from a run directory or from any
    other file. The file is imported once per process, under a private module name. During the import its folder
    comes last on ``sys.path``, so it can import modules that are next to it.

    Args:
        text: ``PATH/FILE.py:NAME``; ``~`` is expanded.

    Returns:
        The object that the file defines under ``NAME``.

    Raises:
        InputError: If the text has another form, or if the file or the name does not exist. Exceptions of the file's
            code are not caught, so their traceback shows the line.
    """
    if not is_object_path(text):
        raise InputError(f"user code: got {text!r}, expected FILE.py:NAME, such as net.py:tiny")
    file, _, name = text.rpartition(":")
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise InputError(f"user code: {escape(file)} does not exist, expected a Python file")
    module = _import_file(path)
    if not hasattr(module, name):
        defined = [
            key
            for key, value in vars(module).items()
            if not key.startswith("_") and getattr(value, "__module__", None) == module.__name__
        ]
        raise InputError(
            f"user code: {escape(file)} does not define {name}, expected one of {', '.join(defined) or 'its names'}"
        )
    return getattr(module, name)


def file_being_imported() -> str | None:
    """Name of the user's file whose top-level code is running now, if there is one."""
    return escape(_importing[-1].name) if _importing else None


def _import_file(path: Path) -> ModuleType:
    # The hash keeps files of one name in several folders apart.
    name = f"_shakeshake_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look the module up there
    folder = str(path.parent)
    sys.path.append(folder)
    _importing.append(path)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        _importing.pop()
        sys.path.remove(folder)
    return module
