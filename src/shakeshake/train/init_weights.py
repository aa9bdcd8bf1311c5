"""Trained weights that a run starts from: a run or a file becomes tensors with a checksum."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import InputError
from ..models.config import read_config
from ..models.model import CONFIG, WEIGHTS, check_finished
from ..models.weights import HEAD, load_for_finetuning, read_weights
from ..utils.console import escape
from .recipe import Recipe


@dataclass(frozen=True)
class Initial:
    """Weights to start from. source: what a message calls them. classes: names of those they tell apart, if known."""

    tensors: dict[str, Tensor]
    sha256: str
    source: str
    model: str
    classes: tuple[str, ...] | None = None

    def put_into(self, network: nn.Module, classes: tuple[str, ...]) -> bool:
        """Replace the network's weights; where the classes are others, the last layer stays as it is, new.

        The same names in another order have the rows of the last layer in that order. Where names are not known, as
        many classes count as the same ones. Returns whether the last layer is new. Raises InputError for weights of
        another network.
        """
        tensors, known = self.tensors, self.classes
        same = known is None or sorted(known) == sorted(classes)
        if known is not None and same and len(known) == len(tensors.get(HEAD[1], ())):
            rows = [known.index(name) for name in classes]
            tensors = {name: x[rows] if name in HEAD else x for name, x in tensors.items()}
        return load_for_finetuning(network, tensors, self.source, self.model, other_classes=not same)


def read_initial(recipe: Recipe) -> Initial | None:
    """Read the weights that ``recipe.init`` names: a finished run, an exported folder or a safetensors file.

    Returns:
        The weights, or None if ``recipe.init`` is None.

    Raises:
        InputError: If there are no such weights, if they belong to another network, or if their SHA-256 is not
            ``recipe.init_sha256``. A run without a checkpoint restarts from exactly the same weights or not at all.
    """
    if recipe.init is None:
        return None
    path = Path(recipe.init)
    if path.is_dir():
        initial = _of_folder(path, recipe.model)
    elif path.is_file():
        initial = Initial(*read_weights(path), recipe.init, recipe.model)
    else:
        raise InputError(f"init: {escape(recipe.init)} does not exist, expected a finished run or a safetensors file")
    if recipe.init_sha256 not in (None, initial.sha256):
        raise InputError(
            f"init: {escape(recipe.init)} has other weights than those that the run began with (SHA-256 "
            f"{initial.sha256[:12]}..., expected {recipe.init_sha256[:12]}...)"
        )
    return initial


def started_from(user_overrides: dict[str, Any]) -> dict[str, Any]:
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


def pin_init(recipe: Recipe) -> tuple[Recipe, Initial | None]:
    """The recipe with the checksum of the weights that it starts from, and these."""
    initial = read_initial(recipe)
    return (recipe if initial is None else recipe.replace(init_sha256=initial.sha256)), initial


def _of_folder(folder: Path, model: str) -> Initial:
    check_finished(folder)
    config = read_config(folder / CONFIG)
    if config["model"] != model:
        raise InputError(
            f"init: {escape(folder)} is a {config['model']}, expected a {model}; "
            f"to start from it, train with --model {config['model']}"
        )
    if config.get("options"):
        raise InputError(f"init: {escape(folder)} was built with {config['options']}, which a recipe does not know")
    tensors, digest = read_weights(folder / WEIGHTS)
    if digest != config.get("weights_sha256", digest):
        raise InputError(f"init: {escape(folder / WEIGHTS)} is not the file that {CONFIG} describes")
    return Initial(tensors, digest, str(folder), model, tuple(config["classes"]))
