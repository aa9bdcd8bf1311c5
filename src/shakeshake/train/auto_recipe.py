"""The recipe that a command means: a preset's, or for somebody's own images and a budget the defaults that fit them."""

from __future__ import annotations

from typing import Any

from ..data.image_folder.summary import in_brief
from ..data.registry import BUILTIN
from ..errors import InputError
from .auto_config import Facts, choose, seconds_of
from .distributed import ALONE, Group
from .init_weights import started_from
from .open_run import load_images
from .presets import preset
from .recipe import Recipe

OWN_BUDGET = "10m"  # for own images, where none was typed
OPEN = ("epochs", "eval_every")  # fields that a budget may decide beside a preset that was named


def planned(
    data: str, typed: dict[str, Any], *, name: str | None = None, budget: str | None = None, group: Group = ALONE
) -> tuple[Recipe, list[str]]:
    """The recipe for ``data``, and in lines for a terminal what was found in a folder of photos and what was picked.

    There are no lines where a preset said it all.

    typed: fields that were given as options; they are kept, and so is the network of a run in ``init``. name: of a
    preset, if one was named. budget: the time that a run may take, such as 10m, if one was given. A few steps are
    measured where a budget is to be kept, which seeds torch's global generators. Raises InputError for a mistake in any
    of them and for data that cannot be read.
    """
    typed = started_from(typed)
    own = data not in BUILTIN
    if budget is None and (name is not None or not own):
        return preset(name or "quick", data).replace(**typed), []
    seconds = seconds_of(budget or (OWN_BUDGET if group.size == 1 else "none"))
    kept = dict(typed)
    if name is not None:
        chosen = preset(name, data).to_dict()
        kept = {field: value for field, value in chosen.items() if field not in ("data", *OPEN)} | typed
    _check_open(budget, kept, group)
    images = load_images(Recipe(data=data).replace(**kept))
    facts = Facts.of(images)

    def speed(recipe: Recipe) -> Any:
        from .measure_speed import measure

        return measure(recipe, facts.classes, facts.channels, facts.side)

    recipe, choice = choose(data, facts, kept, seconds, speed)
    about = f"picked for {facts.images:,} images in {facts.classes} classes, {facts.side} x {facts.side} pixels"
    picked = [f"{about} (type an option to have it otherwise):", *choice.lines()] if choice.reasons else []
    return recipe, [*(in_brief(images.record["found"]) if images.record is not None else []), *picked]


def _check_open(budget: str | None, kept: dict[str, Any], group: Group) -> None:
    """A budget that nothing is left to be fitted to is a misunderstanding, better told than passed over."""
    if budget is None or seconds_of(budget) is None:
        return
    if "model" in kept and "epochs" in kept:
        raise InputError(
            f"budget: {budget} leaves nothing to pick beside --model and --epochs, expected one of the two"
        )
    if group.size > 1:
        raise InputError(
            f"budget: {budget} with {group.size} processes, expected one; name --model and --epochs instead"
        )
