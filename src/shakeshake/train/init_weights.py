"""Trained weights that a run starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import InputError
from ..models.config import read_config
from ..models.model import CONFIG, WEIGHTS, check_finished
from ..models.origin import public_name
from ..models.weights import HEAD, load_for_finetuning, read_weights
from ..utils.console import escape
from .recipe import Recipe


@dataclass(frozen=True)
class InitWeights:
    """Weights that a run starts from.

    Attributes:
        tensors: Tensors by name.
        sha256: Checksum of the file.
        source: Name for messages.
        model: Name of the network.
        classes: Class names, if known.
    """

    tensors: dict[str, Tensor]
    sha256: str
    source: str
    model: str
    classes: tuple[str, ...] | None = None

    def load_into(self, network: nn.Module, classes: tuple[str, ...]) -> bool:
        """Load the weights into a network, which keeps its own last layer if its classes differ.

        The rows of the last layer follow the order of ``classes``. If the class names of the weights are unknown, only
        their number is compared.

        Returns:
            Whether the network kept its last layer.

        Raises:
            InputError: The weights belong to another network.
        """
        tensors, known = self.tensors, self.classes
        same = known is None or sorted(known) == sorted(classes)
        if known is not None and same and len(known) == len(tensors.get(HEAD[1], ())):
            rows = [known.index(name) for name in classes]
            tensors = {name: x[rows] if name in HEAD else x for name, x in tensors.items()}
        return load_for_finetuning(network, tensors, self.source, self.model, other_classes=not same)


def read_init(recipe: Recipe) -> InitWeights | None:
    """Read the weights that ``recipe.init`` names: a finished run, an exported folder or a safetensors file.

    Returns:
        The weights, or None if ``recipe.init`` is None.

    Raises:
        InputError: The weights do not exist, belong to another network, or do not match ``recipe.init_sha256``.
    """
    if recipe.init is None:
        return None
    path = Path(recipe.init)
    if path.is_dir():
        init = _read_folder(path, recipe.model)
    elif path.is_file():
        init = InitWeights(*read_weights(path), recipe.init, recipe.model)
    else:
        raise InputError(f"init: {escape(recipe.init)} does not exist, expected a finished run or a safetensors file")
    if recipe.init_sha256 not in (None, init.sha256):
        raise InputError(
            f"init: {escape(recipe.init)} has SHA-256 {init.sha256[:12]}..., expected {recipe.init_sha256[:12]}...; "
            "restore the weights that the run started from"
        )
    return init


def add_init_fields(user_overrides: dict[str, Any]) -> dict[str, Any]:
    """Add to the user's fields what ``init`` determines: the weights' checksum and, for a run, its network."""
    if user_overrides.get("init") is None:
        return user_overrides
    path, known = Path(user_overrides["init"]), {}
    if path.is_dir():
        check_finished(path)
        known = {"model": read_config(path / CONFIG)["model"]}
        path = path / WEIGHTS
    if path.is_file():
        known["init_sha256"] = read_weights(path)[1]
    return {**known, **user_overrides}


def pin_init(recipe: Recipe) -> tuple[Recipe, InitWeights | None]:
    """Read the initial weights and record their checksum in the recipe."""
    init = read_init(recipe)
    return (recipe if init is None else recipe.replace(init_sha256=init.sha256)), init


def _read_folder(folder: Path, model: str) -> InitWeights:
    check_finished(folder)
    config = read_config(folder / CONFIG)
    if config["model"] != public_name(model):
        raise InputError(
            f"init: {escape(folder)} is a {config['model']}, expected a {model}; "
            f"to start from it, train with --model {config['model']}"
        )
    if config.get("options"):
        raise InputError(f"init: {escape(folder)} has model options {config['options']}, which recipes do not support")
    tensors, digest = read_weights(folder / WEIGHTS)
    if digest != config.get("weights_sha256", digest):
        raise InputError(f"init: {escape(folder / WEIGHTS)} does not match the checksum in {CONFIG}")
    return InitWeights(tensors, digest, str(folder), model, tuple(config["classes"]))
