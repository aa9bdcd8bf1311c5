"""Optional dependencies: import them, or say which `pip install` line provides them."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from types import ModuleType

from ..errors import InputError

# Top-level module of each optional dependency -> the extra that installs it (pyproject.toml has the versions).
EXTRAS = {
    "PIL": "train",
    "pooch": "train",
    "rich": "train",
    "sklearn": "train",
    "jinja2": "report",
    "markupsafe": "report",
    "scipy": "report",
    "tensorboard": "tensorboard",
    "datasets": "datasets",
    "huggingface_hub": "hub",
    "kornia": "augment",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "timm": "timm",
    "transformers": "hf",
    "ray": "ray",
}


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: The module's full name, such as ``"PIL.Image"``.
        extra: The extra of this package that installs it, such as ``"train"``.

    Returns:
        The imported module.

    Raises:
        InputError: If the dependency is not installed; the message has the `pip install` line.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        name = module.split(".")[0]
        if (error.name or "").split(".")[0] != name:
            raise
        raise InputError(_message(name, extra)) from None


@contextlib.contextmanager
def naming_extras() -> Iterator[None]:
    """Raise InputError with the `pip install` line where an import of an optional dependency fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (message := missing_extra(error)) is None:
            raise
        raise InputError(message) from None


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """The `pip install` line for an import that failed; None if the module belongs to no extra."""
    name = (error.name or "").split(".")[0]
    return _message(name, EXTRAS[name]) if name in EXTRAS else None


def _message(name: str, extra: str) -> str:
    return f"{name} is not installed; install it with: pip install 'shakeshake[{extra}]'"
