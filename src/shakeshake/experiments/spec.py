"""Declare an experiment: a table of cells, each a recipe that is trained with several seeds.

An experiment is data. A table with other columns than networks gives each cell a name, its folder::

    Experiment(
        name="augmentation",
        title="Shaking and data augmentation",
        kind="table",
        rows={"E-E-B": "Even-Even", "S-S-I": "Shake-Shake-Image"},
        columns={"none": "no augmentation", "crops": "flips and crops"},
        cells=tuple(
            Cell(rule, column, recipe.replace(rule=rule, **changes), name=f"augmentation-{column}-{rule}", seeds=seeds)
            for column, changes, seeds in (("none", {"flip": False, "crop_padding": 0}, range(2, 10)), ("crops", {}, 4))
            for rule in ("E-E-B", "S-S-I")
        ),
        baseline="E-E-B",
        paired=True,
        fixed_size=True,
    )

Every row is compared with the baseline row of the same column. Register the function that returns it in
``paper.EXPERIMENTS`` and ``shakeshake reproduce augmentation`` plans, trains, collects and reports it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError
from ..layers.rules import NO_RULE
from ..models.registry import model_info
from ..train.recipe import Recipe
from .schema import PublishedErrors

Kind = Literal["table", "curves", "correlation", "layerwise"]
MACHINE_FIELDS = ("data_dir", "device")  # recipe fields that may differ between the runs of one table


@dataclass(frozen=True)
class Cell(PublishedErrors):
    """One recipe in a table, trained with several seeds.

    Attributes:
        recipe: The recipe; its ``seed`` and ``fold`` are set for each run.
        name: Folder of the runs, without the seed. By default data, model and rule; cells that differ in other fields
            need a name. Equal cells of several tables have one name and are trained once.
        seeds: Number of seeds (0, 1, ...) or the seeds themselves, where they are not those of the experiment.
    """

    recipe: Recipe
    name: str | None = None
    seeds: int | range | None = None

    def __post_init__(self) -> None:
        if self.name is not None and not re.fullmatch(r"[\w.-]+", self.name):
            raise InputError(f"name: got {self.name!r}, expected letters, digits, '.', '_' and '-'")

    @property
    def folder_name(self) -> str:
        """Name of the run directories, without seed and fold."""
        if self.name is not None:
            return self.name
        rule = f"-{self.recipe.rule}" if self.recipe.rule != NO_RULE else ""
        return re.sub(r"[^\w.-]+", "_", f"{Path(self.recipe.data).resolve().stem}-{self.recipe.model}{rule}").strip("_")

    def run_name(self, seed: int, fold: int = 0) -> str:
        """Name of one run directory."""
        return f"{self.folder_name}-seed{seed}" + (f"-fold{fold}" if self.recipe.folds else "")


@dataclass(frozen=True)
class Experiment:
    """A table or figure of the paper, or a table of one's own.

    Attributes:
        name: Key for the command line, and name of the result files.
        kind: Which chart is drawn from it.
        source: Table or figure of the paper, or empty. published_setting: Network and training behind its errors.
        rows, columns: Keys, in their order, and labels.
        cells: Any of the combinations.
        baseline: Row that the others are compared with, in each column.
        other_baselines: Row -> another row that it is compared with as well.
        seeds: Seeds of each cell that does not set them.
        folds: Folds that each seed is tested on in turn; 0 where it is tested on the test images.
        paired: Whether the sentences judge by the differences within pairs of equal seeds.
        fixed_size: Whether the scales small and paper leave the recipes and seeds unchanged.
        analyses: Analyses of each run, separated by commas, or None for all.
        divergence_is_a_result: Whether runs whose loss became infinite or NaN count as results, not as failures.
        published_correlations: (row, block) -> correlation between the branches of that block.
    """

    name: str
    title: str
    kind: Kind
    rows: dict[str, str]
    columns: dict[str, str]
    cells: tuple[Cell, ...]
    baseline: str | None = None
    other_baselines: dict[str, str] = field(default_factory=dict)
    seeds: int = 3
    folds: int = 0
    source: str = ""
    published_setting: str = ""
    paired: bool = False
    fixed_size: bool = False
    analyses: str | None = None
    divergence_is_a_result: bool = False
    published_correlations: dict[tuple[str, str], float] | None = None

    def __post_init__(self) -> None:
        named: dict[str, Cell] = {}
        for cell in self.cells:
            other = named.setdefault(cell.folder_name, cell)
            if other.recipe != cell.recipe:
                raise InputError(
                    f"cells: {_place(other)} and {_place(cell)} of {self.name} have different recipes and the same "
                    f"folder {cell.folder_name}; give them a name: Cell(..., name=...)"
                )

    def seeds_of(self, cell: Cell, seeds: int | None = None) -> range:
        """The seeds of a cell. seeds: how many, where the caller wants another number than declared."""
        declared = self.seeds if cell.seeds is None else cell.seeds
        declared = declared if isinstance(declared, range) else range(declared)
        return declared if seeds is None else range(declared.start, declared.start + seeds)

    def runs_of(self, cell: Cell, seeds: int | None = None) -> list[tuple[int, int]]:
        """(seed, fold) of each run of a cell."""
        return [(seed, fold) for seed in self.seeds_of(cell, seeds) for fold in range(self.folds or 1)]

    def runs(self, seeds: int | None = None) -> list[tuple[Cell, int, int]]:
        """(cell, seed, fold) of each run, one run of every cell after the other, so that a table fills evenly."""
        by_cell = ([(cell, *run) for run in self.runs_of(cell, seeds)] for cell in self.cells)
        return [run for runs in itertools.zip_longest(*by_cell) for run in runs if run is not None]

    def replace_fields(self, **overrides: Any) -> Experiment:
        """The experiment with some fields of every recipe replaced.

        Raises:
            InputError: A field is invalid, or cells coincide with these values.
        """
        if "seed" in overrides:
            raise InputError("seed: a table has several; use --seeds N for their number")
        cells = tuple(replace(cell, recipe=cell.recipe.replace(**overrides)) for cell in self.cells)
        seen: dict[Recipe, tuple[Cell, Cell]] = {}
        for old, new in zip(self.cells, cells, strict=True):
            before, twin = seen.setdefault(new.recipe, (old, new))
            if before.recipe != old.recipe:
                field = next(name for name in overrides if getattr(before.recipe, name) != getattr(old.recipe, name))
                raise InputError(
                    f"{field}: with {overrides[field]!r} for all, {_place(twin)} and {_place(new)} of {self.name} "
                    "would be the same; expected fields in which they do not differ"
                )
        return replace(self, cells=cells)

    def select_rows(self, rows: Sequence[str]) -> Experiment:
        """The experiment with some of its rows only.

        Raises:
            InputError: It has no such row.
        """
        for row in rows:
            if row not in self.rows:
                raise InputError(f"rows: {self.name} has no {row!r}, expected some of {', '.join(self.rows)}")
        labels = {key: label for key, label in self.rows.items() if key in rows}
        cells = tuple(cell for cell in self.cells if cell.row in rows)
        return replace(self, rows=labels, cells=cells, baseline=self.baseline if self.baseline in rows else None)


def _place(cell: Cell) -> str:
    return f"{cell.row} ({cell.column})"


def describe_recipe(recipe: Recipe) -> str:
    """The network and its training as one phrase, without rule and seed."""
    augmentation = [
        "flips" if recipe.flip else "",
        f"crops of {recipe.crop_padding}" if recipe.crop_padding else "",
        f"Cutout of {recipe.cutout_size}" if recipe.cutout_size else "",
        f"mixup {recipe.mixup_alpha:g}" if recipe.mixup_alpha else "",
        f"RandAugment {recipe.randaugment}" if recipe.randaugment else "",
    ]
    images = f"{recipe.train_size:,} stratified" if recipe.train_size else "all"
    rate = f"{recipe.first_epoch_lr:g}, then {recipe.lr:g}" if recipe.first_epoch_lr else f"{recipe.lr:g}"
    parts = [
        model_info(recipe.model).paper_label,
        f"{images} training images of {recipe.data}",
        f"{recipe.epochs} epoch{'s' * (recipe.epochs > 1)}",
        f"batch {recipe.batch_size}",
        f"learning rate {rate}",
        f"weight decay {recipe.weight_decay:g}",
        ", ".join(filter(None, augmentation)) or "no augmentation",
        f"label smoothing {recipe.label_smoothing:g}" if recipe.label_smoothing else "",
        {"sample": "class-balanced sampling", "weight": "class-balanced loss"}.get(recipe.balance, ""),
        f"{recipe.folds}-fold cross-validation on the training images" if recipe.folds else "",
    ]
    return ", ".join(filter(None, parts))
