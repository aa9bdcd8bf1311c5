"""Trained weights that have a name: where they are, and the SHA-256 that they have to have."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import InputError
from ..utils.console import escape
from ..utils.download import SourceError, fetch, shown
from .weights import read_weights, start_from


@dataclass(frozen=True)
class Pretrained:
    """Weights of one network. place: an https address, or the name of a file in ``models/`` of this package.

    sha256: of the safetensors file; float16 halves it. trained: on what, with which error. options: what the network
    has to be built with beside its name.
    """

    place: str
    sha256: str
    trained: str
    options: dict[str, Any] = field(default_factory=dict)


# (network, name) -> weights. None are published yet.
PRETRAINED: dict[tuple[str, str], Pretrained] = {}


def find_pretrained(model: str, name: str) -> Pretrained:
    """The entry. Raises InputError that lists what exists."""
    if (model, name) in PRETRAINED:
        return PRETRAINED[model, name]
    there = ", ".join(f"{name!r} for {model}" for model, name in PRETRAINED) or "none yet"
    raise InputError(f"pretrained: there are no weights {name!r} for {model}, expected some that exist: {there}")


def pretrained_weights(model: str, name: str) -> tuple[dict[str, Tensor], Pretrained]:
    """The tensors, floats as float32; fetched once into the user's cache where they are not part of the package.

    Raises InputError when they do not exist, cannot be had, or are not the file that they should be.
    """
    entry = find_pretrained(model, name)
    if "://" not in entry.place:
        with resources.as_file(resources.files(__package__) / entry.place) as path:
            tensors, digest = read_weights(path)
    else:
        path = _cached(entry)
        tensors, digest = read_weights(path)
    if digest != entry.sha256:
        raise InputError(
            f"pretrained: {escape(path)} is not the file that was published (its SHA-256 is {digest[:12]}..., "
            f"expected {entry.sha256[:12]}...), remove it and try again"
        )
    return tensors, entry


def load_pretrained(network: nn.Module, model: str, name: str) -> nn.Module:
    """Put the weights into a network just made, with its own new head where the classes differ in number."""
    tensors, entry = pretrained_weights(model, name)
    for option, value in entry.options.items():
        if getattr(network, option, None) != value:
            raise InputError(f"pretrained: {name!r} was trained with {option}={value!r}, expected it given")
    start_from(network, tensors, f"{name!r}", model)
    return network


def _cached(entry: Pretrained) -> Path:
    """The file in the cache, downloaded whole if it is not there."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shakeshake" / "weights"
    path = folder / f"{entry.sha256}.safetensors"
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as part, shown(None) as show:
            whole = Path(part) / "part"
            fetch(entry.place, whole, lambda here, total: show("weights", here, total))
            read_weights(whole)
            os.replace(whole, path)
    except SourceError as error:
        raise InputError(f"pretrained: {entry.place} cannot be had: {escape(error)}") from None
    except OSError as error:
        raise InputError(f"pretrained: {escape(folder)} cannot be written: {error.strerror or error}") from None
    return path
