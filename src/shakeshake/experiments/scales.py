"""Sizes of an experiment: the paper's own, one that two cores finish in hours, and a check in a minute."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InputError
from ..models.registry import model_info
from ..train.recipe import Recipe
from .paper import EXPERIMENTS
from .spec import Cell, Experiment


@dataclass(frozen=True)
class Scale:
    """A size of all experiments.

    Attributes:
        shrink: Makes a recipe of the paper smaller; returns None where this scale leaves it out.
        seeds: Seeds of each cell, or None for those of the experiment.
        meaningful: Whether the errors at this scale mean anything.
    """

    name: str
    description: str
    shrink: Callable[[Recipe], Recipe | None]
    seeds: int | None = None
    meaningful: bool = True


# Networks in place of the paper's at the scales small and smoke: the same blocks, branches and stages, with less depth
# and width.
NETWORKS = {
    "shake_resnet26_2x32d": ("shake_resnet14_2x16d", "shake_resnet8_2x4d"),
    "shake_resnet26_2x96d": ("shake_resnet14_2x16d", "shake_resnet8_2x4d"),
    "shake_resnet26_2x32d_a": ("shake_resnet14_2x16d_a", "shake_resnet8_2x4d_a"),
    "shake_resnet26_2x32d_b": ("shake_resnet14_2x16d_b", "shake_resnet8_2x4d_b"),
    "shake_resnet14_2x32d_c": ("shake_resnet14_2x16d_c", "shake_resnet8_2x4d_c"),
    "shake_resnext29_2x4x64d": ("shake_resnext11_2x4x8d", "shake_resnext11_2x2x8d"),
    "wrn28_10": ("wrn16_1", "wrn10_1"),
    "resnext29_16x64d": ("resnext11_4x8d", "resnext11_2x8d"),
    "densenet_bc190_40": ("densenet_bc40_12", "densenet_bc10_4"),
}
SMALLEST = "shake_resnet8_2x4d"
SMOKE: dict[str, Any] = {"data": "digits", "train_size": 100, "epochs": 1, "batch_size": 50, "ghost_batch_size": 50}
SMOKE |= {"precision": "auto", "lr": 0.01, "warmup_epochs": 0.0, "eval_every": 1}


def small(recipe: Recipe) -> Recipe | None:
    """2,000 stratified images and 100 epochs (CIFAR-100: 2,500 and 60), smaller NETWORKS, fast precision.

    A shorter schedule of Shake-Shake is shortened in proportion: 300 of 1800 epochs become 17 (CIFAR-100: 10).

    The paper's CIFAR-10 recipe gets half the batch and half the learning rate: its author's one-device variant.
    """
    if recipe.model not in NETWORKS:
        return None
    epochs = 60 if recipe.data == "cifar100" else 100
    if model_info(recipe.model).branched:
        epochs = round(epochs * recipe.epochs / 1800)
    if model_info(recipe.model).branched and recipe.batch_size == 128:
        recipe = recipe.replace(batch_size=64, lr=recipe.lr / 2, first_epoch_lr=recipe.first_epoch_lr / 2)
    return recipe.replace(
        model=NETWORKS[recipe.model][0],
        train_size=2500 if recipe.data == "cifar100" else 2000,
        epochs=epochs,
        precision="auto",
        eval_every=10,
        checkpoint_interval_s=120.0,
    )


def smoke(recipe: Recipe) -> Recipe | None:
    """A check that everything runs: 100 bundled digits, one epoch, the smallest NETWORKS. The errors mean nothing."""
    if recipe.model not in NETWORKS or (recipe.data == "cifar100" and not model_info(recipe.model).branched):
        return None
    changes = {"flip": False, "crop_padding": 1, "first_epoch_lr": 0.01 if recipe.first_epoch_lr else 0.0}
    return recipe.replace(model=NETWORKS[recipe.model][1], **SMOKE, **changes)


SCALES = {
    scale.name: scale
    for scale in (
        Scale("smoke", "a minute: 100 bundled digits, one epoch; the errors mean nothing", smoke, 1, False),
        Scale("small", "hours on two cores: 2,000 images, 14 2x16d, 100 epochs", small, 2),
        Scale("paper", "the paper's size: all images, 1800 epochs; days on a large GPU", lambda recipe: recipe),
    )
}


def get_experiment(name: str, scale: str = "small") -> Experiment:
    """Look up an experiment and make it the size of a scale.

    Raises:
        InputError: The name or the scale is unknown.
    """
    for what, value, known in (("table", name, list(EXPERIMENTS)), ("scale", scale, list(SCALES))):
        if value not in known:
            close = difflib.get_close_matches(str(value), known, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise InputError(f"{what}: {value!r} is not known{hint}, expected one of {', '.join(known)}")
    published, size = EXPERIMENTS[name](), SCALES[scale]
    if published.fixed_size:
        return published if size.meaningful else _fixed_smoke(published)
    cells: list[Cell] = []
    columns = {}
    for cell in published.cells:
        recipe = size.shrink(cell.recipe)
        if recipe is None or recipe in (kept.recipe for kept in cells):  # no network for it here, or the same one
            continue
        column, label = cell.column, published.columns[cell.column]
        if column == model_info(cell.recipe.model).paper_label:  # columns named by a network: by the smaller one
            column = label = model_info(recipe.model).paper_label
        columns[column] = label
        cells.append(replace(cell, recipe=recipe, column=column))
    rows = {cell.row for cell in cells}
    return replace(
        published,
        cells=tuple(cells),
        rows={row: label for row, label in published.rows.items() if row in rows},
        columns=columns,
        seeds=size.seeds or published.seeds,
    )


def _fixed_smoke(experiment: Experiment) -> Experiment:
    """One seed of every cell, with the smallest network on digits; its augmentation and regularization stay."""
    cells = []
    for cell in experiment.cells:
        changes = {"cutout_size": min(cell.recipe.cutout_size, 4), "crop_padding": min(cell.recipe.crop_padding, 1)}
        recipe = cell.recipe.replace(model=SMALLEST, **SMOKE, **changes)
        cells.append(replace(cell, recipe=recipe, name=f"smoke-{cell.folder_name}", seeds=None))
    return replace(experiment, cells=tuple(cells), seeds=1)
