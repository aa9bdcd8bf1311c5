"""The recipe of a command: a preset, or suggestions for the user's data and time budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..data.image_folder.summary import log_summary
from ..data.registry import BUILTIN
from ..errors import InputError
from ..utils.extras import require
from .auto_config import DatasetStats, parse_duration, suggest_recipe
from .distributed import SINGLE_PROCESS, DistContext
from .init_weights import add_init_fields
from .open_run import load_recipe_data
from .pin_origin import add_origin_fields, is_pretrained
from .presets import preset
from .recipe import Recipe

DEFAULT_BUDGET = "10m"  # for the user's data
SMALLER_SIZES = (48, 32)  # to which photos are shrunk where the budget is short
BUDGET_FIELDS = ("epochs", "eval_every")  # fields of a preset that a budget changes


def recipe_for(
    data: str,
    user_overrides: dict[str, Any],
    *,
    name: str | None = None,
    budget: str | None = None,
    dist: DistContext = SINGLE_PROCESS,
) -> tuple[Recipe, list[str]]:
    """Choose the recipe of ``shakeshake train``.

    Args:
        data: Training data, as in ``Recipe.data``.
        user_overrides: Recipe fields that the user set. They take precedence, as does the network of a run in ``init``.
        name: Preset to start from.
        budget: Time limit of the run, such as ``10m``, or ``none``. A few training steps are timed to meet it, which
            seeds torch's global generators.
        dist: The processes of the run.

    Returns:
        The recipe, and lines that explain the chosen fields (empty if a preset decided everything).

    Raises:
        InputError: An argument is invalid or the data cannot be read.
    """
    user_overrides = add_origin_fields(data, add_init_fields(user_overrides))
    if user_overrides.get("randaugment"):
        require("kornia", "augment")  # before minutes of measuring
    is_builtin = data in BUILTIN
    if budget is None and (name is not None or is_builtin):
        return preset(name or "quick", data).replace(**user_overrides), []
    seconds = parse_duration(budget or (DEFAULT_BUDGET if dist.size == 1 else "none"))
    fixed = dict(user_overrides)
    if name is not None:
        chosen = preset(name, data).to_dict()
        fixed = {k: v for k, v in chosen.items() if k not in ("data", *BUDGET_FIELDS)} | user_overrides
    _check_budget(budget, fixed, dist)
    images = load_recipe_data(Recipe(data=data).replace(**fixed))
    if images.record is not None and dist.is_main:
        log_summary(images.record["found"])
    stats = replace(DatasetStats.of(images), pretrained=is_pretrained(Recipe(data=data).replace(**fixed)))

    def speed(recipe: Recipe) -> Any:
        from .measure_speed import measure

        return measure(recipe, stats.num_classes, stats.channels, recipe.image_size or stats.image_size)

    can_shrink = images.record is not None and fixed.get("image_size") is None
    recipe, suggestions = suggest_recipe(data, stats, fixed, seconds, speed, SMALLER_SIZES if can_shrink else ())
    if not suggestions.reasons:
        return recipe, []
    size = f"{stats.image_size} x {stats.image_size} pixels"
    about = f"chosen for {stats.train_images:,} images in {stats.num_classes} classes, {size}"
    return recipe, [f"{about} (override with these options):", *suggestions.lines()]


def _check_budget(budget: str | None, fixed: dict[str, Any], dist: DistContext) -> None:
    """Raise InputError if a budget would have no effect."""
    if budget is None or parse_duration(budget) is None:
        return
    if "model" in fixed and "epochs" in fixed:
        raise InputError(f"budget: {budget} has no effect together with --model and --epochs; omit one of the three")
    if dist.size > 1:
        raise InputError(f"budget: {budget} with {dist.size} processes, expected one; set --model and --epochs instead")
