"""What a recipe's network of transformers or timm determines: its origin, the size of the images and the rule."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from ..data.dataset import MAX_SIZE, ImageData
from ..errors import InputError
from ..layers.rules import NO_RULE
from ..models.config import read_config
from ..models.model import CONFIG
from ..models.origin import Origin, library_of
from ..utils.files import expand_user
from .recipe import Recipe

logger = logging.getLogger(__name__)


def pin_origin(recipe: Recipe) -> tuple[Recipe, Origin | None]:
    """Read the configuration of the recipe's network and complete the recipe with it.

    Images of a folder get the size that the network expects. A network without grouped convolutions has no rule.

    Returns:
        The recipe, and the origin; None for other networks.

    Raises:
        InputError: The network is unknown, or cannot be shaken.
    """
    if not library_of(recipe.model):
        return recipe, None
    origin = origin_of(recipe)
    return recipe.replace(rule=_rule(recipe, origin), image_size=_image_size(recipe, origin)), origin


def origin_of(recipe: Recipe) -> Origin | None:
    """The origin of the recipe's network, or of the run that it starts from; None for other networks."""
    if not library_of(recipe.model):
        return None
    from ..models.external import find_origin

    config = Path(recipe.init) / CONFIG if recipe.init is not None else None
    if config is not None and config.is_file() and (recorded := read_config(config).get("origin")):
        return Origin.from_dict(recorded)
    return dataclasses.replace(find_origin(recipe.model), pretrained=recipe.pretrained)


def add_origin_fields(data: str, user_overrides: dict[str, Any]) -> dict[str, Any]:
    """Add to the user's fields the image size that their network of transformers or timm expects."""
    if not library_of(user_overrides.get("model")):
        return user_overrides
    recipe = Recipe(data=data).replace(**user_overrides)
    return {**user_overrides, "image_size": _image_size(recipe, origin_of(recipe))}


def is_pretrained(recipe: Recipe) -> bool:
    """Whether the recipe starts from weights of transformers or timm."""
    return bool(library_of(recipe.model)) and recipe.pretrained


def with_statistics(data: ImageData, origin: Origin | None) -> ImageData:
    """Normalise the images as the network's weights expect it."""
    found = None if origin is None else origin.statistics(data.channels)
    return data if found is None else dataclasses.replace(data, mean=found[0], std=found[1])


def _image_size(recipe: Recipe, origin: Origin | None) -> int | None:
    if origin is None or recipe.image_size is not None or not expand_user(recipe.data).is_dir():
        return recipe.image_size
    return min(origin.image_size, MAX_SIZE)


def _rule(recipe: Recipe, origin: Origin | None) -> str:
    from ..models.external import has_branches, is_even

    if recipe.rule == NO_RULE:
        return NO_RULE
    try:
        if has_branches(recipe.model, origin):
            return recipe.rule
    except InputError as error:
        if not is_even(recipe.rule):
            raise InputError(f"{error}; the rule E-E-B trains the network unchanged") from None
        return recipe.rule
    if not is_even(recipe.rule):
        logger.warning("%s has no grouped convolutions, so the rule %s has no effect", recipe.model, recipe.rule)
    return NO_RULE
