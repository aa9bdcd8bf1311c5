"""The recipe of a command: a preset, or suggestions for the user's data and time budget."""

from __future__ import annotations

from typing import Any

from ..data.registry import BUILTIN
from ..errors import InputError
from .auto_config import DatasetStats, seconds_of, suggest_recipe
from .distributed import SINGLE_PROCESS, DistContext
from .init_weights import started_from
from .open_run import load_recipe_data
from .presets import preset
from .recipe import Recipe

OWN_BUDGET = "10m"  # for the user's data
OPEN = ("epochs", "eval_every")  # fields that a budget may change in a preset


def planned(
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
    user_overrides = started_from(user_overrides)
    own = data not in BUILTIN
    if budget is None and (name is not None or not own):
        return preset(name or "quick", data).replace(**user_overrides), []
    seconds = seconds_of(budget or (OWN_BUDGET if dist.size == 1 else "none"))
    kept = dict(user_overrides)
    if name is not None:
        chosen = preset(name, data).to_dict()
        kept = {field: value for field, value in chosen.items() if field not in ("data", *OPEN)} | user_overrides
    _check_open(budget, kept, dist)
    images = load_recipe_data(Recipe(data=data).replace(**kept))
    stats = DatasetStats.of(images)

    def speed(recipe: Recipe) -> Any:
        from .measure_speed import measure

        return measure(recipe, stats.classes, stats.channels, stats.side)

    recipe, suggestions = suggest_recipe(data, stats, kept, seconds, speed)
    about = f"chosen for {stats.images:,} images in {stats.classes} classes, {stats.side} x {stats.side} pixels"
    picked = [f"{about} (override with these options):", *suggestions.lines()] if suggestions.reasons else []
    return recipe, picked


def _check_open(budget: str | None, kept: dict[str, Any], dist: DistContext) -> None:
    """Raise InputError if a budget would have no effect."""
    if budget is None or seconds_of(budget) is None:
        return
    if "model" in kept and "epochs" in kept:
        raise InputError(f"budget: {budget} has no effect together with --model and --epochs; omit one of the three")
    if dist.size > 1:
        raise InputError(
            f"budget: {budget} with {dist.size} processes, expected one; name --model and --epochs instead"
        )
