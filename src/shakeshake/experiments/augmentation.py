"""When does shaking help? Small data sets with and without input augmentation, and what else one could do.

The plan of the study, written before its runs, is docs/dev/augmentation-study.md. Every cell has its own name, so
tables that share cells in one folder train them once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..models.registry import create_model, register_model
from ..train.recipe import Recipe
from .spec import Cell, Experiment

if TYPE_CHECKING:
    from torch import nn

NETWORK = "14_2x16d"
DROPOUT_NETWORK = f"shake_resnet{NETWORK}-dropout"
PRIMARY_SEEDS = range(2, 10)  # seeds 0 and 1 were used by the pilot runs that led to the study
DIGITS_SEEDS = range(20, 40)  # seeds 0 to 14 likewise
UPDATE_RULES = ("S-M1-I", "S-M2-I", "S-M3-I", "S-M4-I", "S-M5-I")
LABELS = {"E-E-B": "without shaking", "S-E-I": "Shake-Even", "S-S-I": "Shake-Shake"}
# The paper's augmentation of CIFAR.
AUGMENTED = {"flip": True, "crop_padding": 4}
# What somebody might do instead of shaking: suffix of the cells -> label, changes to the recipe.
ALTERNATIVES: dict[str, tuple[str, dict[str, Any]]] = {
    "wd5e-4": ("weight decay 5e-4", {"weight_decay": 5e-4}),
    "wd1e-3": ("weight decay 1e-3", {"weight_decay": 1e-3}),
    "ls0.1": ("label smoothing 0.1", {"label_smoothing": 0.1}),
    "mixup1": ("mixup 1.0", {"mixup_alpha": 1.0}),
    "cutout16": ("Cutout 16", {"cutout_size": 16}),
    "aug": ("flips and crops", AUGMENTED),
    "dropout": ("dropout 0.5 before the last layer", {"model": DROPOUT_NETWORK}),
    "stochastic-depth": ("stochastic depth", {"rule": "stochastic-depth"}),
    "shakedrop": ("ShakeDrop", {"rule": "shakedrop"}),
    "drop-branch": ("one branch dropped", {"rule": "drop-branch"}),
}
BESIDE_SHAKING = ("wd5e-4", "mixup1", "cutout16", "aug")  # alternatives that are combined with S-S-I


@register_model(DROPOUT_NETWORK)
def dropout_network(num_classes: int, in_channels: int = 3, rule: str = "E-E-B") -> nn.Module:
    """The network of the study with dropout of 0.5 before the linear layer."""
    from torch import nn

    network: Any = create_model(f"shake_resnet{NETWORK}", num_classes=num_classes, in_channels=in_channels, rule=rule)
    network.fc = nn.Sequential(nn.Dropout(0.5), network.fc)
    return network


def _cifar10(images: int, rule: str, *, epochs: int = 100, suffix: str = "", **changes: Any) -> tuple[str, Recipe]:
    """Name and recipe of a cell on a stratified subset of CIFAR-10."""
    recipe = Recipe(
        data="cifar10",
        model=f"shake_resnet{NETWORK}",
        rule=rule,
        train_size=images,
        epochs=epochs,
        batch_size=64,
        ghost_batch_size=64,
        lr=0.1,
        weight_decay=1e-4,
        flip=False,
        crop_padding=0,
        eval_every=max(1, epochs // 10),
        checkpoint_interval_s=60.0,
    ).replace(**changes)
    return f"cifar10-{images}-{NETWORK}{suffix and '-' + suffix}-{rule}", recipe


def _digits(rule: str) -> tuple[str, Recipe]:
    _, recipe = _cifar10(200, rule, epochs=150)
    return f"digits-200-{NETWORK}-{rule}", recipe.replace(data="digits", batch_size=32, ghost_batch_size=32, lr=0.05)


def _cell(row: str, column: str, named: tuple[str, Recipe], seeds: int | range | None = None) -> Cell:
    name, recipe = named
    return Cell(row, column, recipe, name=name, seeds=seeds)


def _study(name: str, title: str, rows: dict[str, str], columns: dict[str, str], cells: list[Cell]) -> Experiment:
    return Experiment(
        name=name,
        title=title,
        kind="curves",
        rows=rows,
        columns=columns,
        cells=tuple(cells),
        baseline="E-E-B",
        seeds=4,
        paired=True,
        fixed_size=True,
        analyses="gap",
    )


def augmentation() -> Experiment:
    """Does shaking help where the input is not augmented? Subsets of CIFAR-10, digits; with flips and crops too."""
    columns = {"1000": "1,000 images", "digits": "200 digits", "500": "500 images", "2000": "2,000 images"}
    columns |= {"5000": "5,000 images", "1000-aug": "1,000 images, flips and crops"}
    cells = []
    for rule in ("E-E-B", "S-S-I"):
        cells += [
            _cell(rule, "1000", _cifar10(1000, rule), PRIMARY_SEEDS),
            _cell(rule, "digits", _digits(rule), DIGITS_SEEDS),
            _cell(rule, "500", _cifar10(500, rule), 8),
            _cell(rule, "2000", _cifar10(2000, rule), 8),
            _cell(rule, "5000", _cifar10(5000, rule), 8),
            _cell(rule, "1000-aug", _cifar10(1000, rule, suffix="aug", **AUGMENTED)),
        ]
    rows = {rule: LABELS[rule] for rule in ("E-E-B", "S-S-I")}
    return _study("augmentation", "Shaking with and without input augmentation", rows, columns, cells)


def alternatives() -> Experiment:
    """What somebody might do instead of shaking, or besides it: 1,000 images, the same budget and seeds."""
    rows = {"E-E-B": LABELS["E-E-B"], "S-E-I": LABELS["S-E-I"], "S-S-I": LABELS["S-S-I"]}
    cells = [_cell(rule, "1000", _cifar10(1000, rule), 10 if rule != "S-E-I" else None) for rule in rows]
    for suffix, (label, changes) in ALTERNATIVES.items():
        rows[suffix] = label
        named = _cifar10(1000, suffix) if "rule" in changes else _cifar10(1000, "E-E-B", suffix=suffix, **changes)
        cells.append(_cell(suffix, "1000", named))
    for suffix in BESIDE_SHAKING:
        label, changes = ALTERNATIVES[suffix]
        rows[f"{suffix}-S-S-I"] = f"Shake-Shake, {label}"
        cells.append(_cell(f"{suffix}-S-S-I", "1000", _cifar10(1000, "S-S-I", suffix=suffix, **changes)))
    study = _study("alternatives", "Instead of shaking, and besides it", rows, {"1000": "1,000 images"}, cells)
    return replace(study, other_baselines={f"{suffix}-S-S-I": suffix for suffix in BESIDE_SHAKING})


def rules_without_augmentation() -> Experiment:
    """The nine rules of Table 1 and M1 to M5 without augmentation: does the paper's order appear on 1,000 images?"""
    from .paper import RULES, rule_label

    rows = {rule: rule_label(rule) for rule in (*RULES, *UPDATE_RULES)}
    cells = [_cell(rule, "1000", _cifar10(1000, rule)) for rule in rows]
    return _study("rules_without_augmentation", "All rules, no augmentation", rows, {"1000": "1,000 images"}, cells)


def length() -> Experiment:
    """How long does a shaken network have to train? 1,000 images, no augmentation, 25 to 400 epochs."""
    epochs = {25: 2, 50: 2, 100: 4, 200: 2, 400: 2}
    cells = [
        _cell(rule, str(n), _cifar10(1000, rule, epochs=n, suffix="" if n == 100 else f"epochs{n}"), seeds)
        for rule in LABELS
        for n, seeds in epochs.items()
    ]
    columns = {str(n): f"{n} epochs" for n in epochs}
    return _study("length", "Length of training", dict(LABELS), columns, cells)
