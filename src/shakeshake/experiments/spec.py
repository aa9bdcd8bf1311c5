"""What an experiment is: rows and columns of cells, each a recipe, with the figure that was published for it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError
from ..layers.rules import NO_RULE
from ..models.registry import model_info
from ..train.recipe import Recipe

Kind = Literal["table", "curves", "correlation", "layerwise"]


@dataclass(frozen=True)
class Cell:
    """One recipe in a table, to be trained with several seeds.

    published: the paper's test error in %, mean over its runs, or None where it gives none that could be verified.
    published_for: the network which that figure belongs to; place: where it stands.
    """

    row: str
    column: str
    recipe: Recipe
    published: float | None = None
    published_for: str = ""
    place: str = ""

    @property
    def name(self) -> str:
        """The folder's name. Equal cells of two tables have one name, and are trained once."""
        shaken = "" if self.recipe.rule == NO_RULE else f"-{self.recipe.rule}"
        data = Path(self.recipe.data).resolve().stem  # of a path its last part, of a name the name
        return re.sub(r"[^\w.-]+", "_", f"{data}-{self.recipe.model}{shaken}").strip("_")

    def folder(self, seed: int, fold: int = 0) -> str:
        return f"{self.name}-seed{seed}" + (f"-fold{fold}" if self.recipe.folds else "")


@dataclass(frozen=True)
class Experiment:
    """A table or figure of the paper.

    place: where the paper has it. kind: what is drawn from it. against: the row which the others are compared with.
    rows, columns: keys, in the paper's order, and what is printed for them. A cell may be missing where the paper has
    none. seeds: runs of each cell, by default; as many as the paper made of most. folds: parts that each seed is tested
    on in turn, 0 where the test images are what is tested on.
    """

    name: str
    title: str
    place: str
    kind: Kind
    published_setting: str
    rows: dict[str, str]
    columns: dict[str, str]
    cells: tuple[Cell, ...]
    against: str | None
    seeds: int
    folds: int = 0

    def runs(self, seeds: int) -> list[tuple[int, int]]:
        """(seed, fold) of each run of a cell."""
        return [(seed, fold) for seed in range(seeds) for fold in range(self.folds or 1)]

    def changed(self, **overrides: Any) -> Experiment:
        """The experiment with some fields of every recipe changed. Raises InputError when cells then coincide."""
        if "seed" in overrides:
            raise InputError("seed: a table has several, expected --seeds with their number")
        cells = tuple(replace(cell, recipe=cell.recipe.replace(**overrides)) for cell in self.cells)
        seen: dict[Recipe, Cell] = {}
        for cell in cells:
            if (twin := seen.get(cell.recipe)) is not None:
                field = next(name for name in ("rule", "model", "data") if name in overrides)
                raise InputError(
                    f"{field}: with {overrides[field]!r} for all, {twin.row} ({twin.column}) and {cell.row} "
                    f"({cell.column}) of {self.name} would be the same; expected fields in which they do not differ"
                )
            seen[cell.recipe] = cell
        return replace(self, cells=cells)

    def only(self, rows: list[str]) -> Experiment:
        """The experiment with some of its rows. Raises InputError for a row that it does not have."""
        for row in rows:
            if row not in self.rows:
                raise InputError(f"rows: {self.name} has no {row!r}, expected some of {', '.join(self.rows)}")
        return replace(
            self,
            rows={key: label for key, label in self.rows.items() if key in rows},
            cells=tuple(cell for cell in self.cells if cell.row in rows),
            against=self.against if self.against in rows else None,
        )


def in_words(recipe: Recipe) -> str:
    """The network and its training as one phrase, without rule and seed."""
    images = f"{recipe.train_size:,} stratified training images" if recipe.train_size else "all training images"
    changes = [f"crops of {recipe.crop_padding}"] if recipe.crop_padding else []
    changes = ["flips", *changes] if recipe.flip else changes
    changes += [f"Cutout of {recipe.cutout_size}"] if recipe.cutout_size else []
    changes += [f"mixup {recipe.mixup_alpha:g}"] if recipe.mixup_alpha else []
    changes += [f"RandAugment {recipe.randaugment}"] if recipe.randaugment else []
    listed = ", ".join(changes[:-1]) + " and " * (len(changes) > 1) + "".join(changes[-1:])
    balance = {"sample": ", classes sampled evenly", "weight": ", classes weighted evenly"}.get(recipe.balance, "")
    tested = f", tested on each of {recipe.folds} stratified folds of the training images" if recipe.folds else ""
    epochs = f"{recipe.epochs} epoch{'s' * (recipe.epochs > 1)}"
    rate = f"{recipe.first_epoch_lr:g}, then {recipe.lr:g}" if recipe.first_epoch_lr else f"{recipe.lr:g}"
    return (
        f"{model_info(recipe.model).paper_label}, {images} of {recipe.data}, {epochs}, batch {recipe.batch_size}, "
        f"learning rate {rate}, weight decay {recipe.weight_decay:g}, {listed or 'no augmentation'}{balance}{tested}"
    )
