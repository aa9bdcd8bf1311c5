"""The paper's tables and figures: rows, columns, recipes and published errors.

Errors are test errors in % from X. Gastaldi, Shake-Shake regularization, arXiv 1705.07485, last epoch; the errors of
the best epoch are those of the ICLR workshop version. Figures that could not be verified are left out. The recipes are
the paper's; scales.py makes smaller ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..layers.rules import ShakeRule
from ..models.registry import model_info
from ..train.presets import (
    paper_architecture_c,
    paper_cifar10,
    paper_cifar10_300,
    paper_cifar100,
    paper_cifar100_300,
    paper_densenet,
    paper_resnext,
    paper_wrn,
)
from ..train.recipe import Recipe
from .augmentation import alternatives, augmentation, length, rules_without_augmentation
from .spec import Cell, Experiment

NETWORK = "shake_resnet26_2x32d"
CIFAR10_SETTING = "all of CIFAR-10, 1800 epochs, batch 128 on two GPUs"
WIDTHS = (32, 64, 96, 112)

# Table 1, in the paper's order: errors of 26 2xWd at the widths above.
TABLE1: dict[str, tuple[float | None, ...]] = {
    "E-E-B": (4.27, 3.76, 3.58, None),
    "E-S-B": (4.44, None, None, None),
    "S-K-B": (4.11, None, None, None),
    "S-E-B": (3.47, 3.30, None, None),
    "S-S-B": (3.67, 3.07, None, None),
    "E-S-I": (4.11, None, None, None),
    "S-K-I": (4.09, None, None, None),
    "S-E-I": (3.47, 3.20, None, None),
    "S-S-I": (3.55, 2.98, 2.86, 2.82),
}
RULES = tuple(TABLE1)  # the paper's order of rules
# ICLR workshop version, best epoch.
WORKSHOP: dict[str, tuple[float | None, ...]] = {
    "E-E-B": (4.13, 3.64, 3.44, None),
    "S-E-I": (3.35, 3.11, None, None),
    "S-S-I": (3.48, 2.86, 2.72, None),
}
# Figure 3: correlation between the branches of blocks 1 to 12 of 26 2x32d, mean of 3 networks.
FIGURE3 = {
    "E-E-B": (0.20, 0.48, 0.46, 0.74, 0.56, 0.45, 0.50, 0.53, 0.58, 0.40, 0.51, 0.92),
    "S-S-I": (0.33, 0.24, 0.23, 0.21, 0.33, 0.16, 0.14, 0.18, 0.24, 0.21, 0.21, 0.29),
}
# Figure 5: (training error, test error) of the rule at epoch 1800, read off the curves.
FIGURE5: dict[str, tuple[float, float | None]] = {
    "S-M1-I": (38.0, 25.5),
    "S-M2-I": (0.0, 4.0),
    "S-M3-I": (0.0, 4.0),
    "S-M4-I": (15.0, 9.0),
    "S-M5-I": (49.0, None),
}
RANGES = ((0.45, 0.55), (0.4, 0.6), (0.3, 0.7), (0.2, 0.8), (0.1, 0.9))  # of alpha, architecture C


def rule_label(rule: str) -> str:
    """``Shake-Even-Image`` for S-E-I, with the range of alpha where it has one."""
    return ShakeRule.parse(rule).label


def table1() -> Experiment:
    """CIFAR-10: what is shaken (forward, backward) and at which level (batch, image), at four widths."""
    cells = [_table1_cell(rule, width) for rule in RULES for width in WIDTHS]
    return Experiment(
        name="table1",
        title="CIFAR-10: what is shaken, and at which level",
        source="Table 1",
        kind="table",
        published_setting=f"26 2xWd, {CIFAR10_SETTING}; last epoch, mean of 3 runs (2x96d: 5)",
        rows={rule: rule_label(rule) for rule in RULES},
        columns={f"26 2x{width}d": f"26 2x{width}d" for width in WIDTHS},
        cells=tuple(cell for cell in cells if cell.published is not None),
        baseline="E-E-B",
    )


def _table1_cell(rule: str, width: int = 32) -> Cell:
    """A cell of 26 2xWd on CIFAR-10 under a rule, with what Table 1 and the workshop version have of it."""
    recipe, at = paper_cifar10().replace(model=f"shake_resnet26_2x{width}d", rule=rule), WIDTHS.index(width)
    error = TABLE1[rule][at] if rule in TABLE1 else None
    if error is None:
        return Cell(rule, f"26 2x{width}d", recipe, published_for=f"26 2x{width}d")
    source = "Table 1" if width < 112 else "measured by the authors of AutoAugment"
    cell = _cell(rule, f"26 2x{width}d", recipe, error, source, {32: 3, 64: 3, 96: 5}.get(width))
    return replace(cell, published_best=WORKSHOP[rule][at] if rule in WORKSHOP else None)


def _cell(row: str, column: str, recipe: Recipe, error: float, source: str, runs: int | None = None) -> Cell:
    """A cell whose test error was published for the network of the recipe."""
    label = model_info(recipe.model).paper_label
    return Cell(row, column, recipe, published=error, published_for=label, source=source, published_runs=runs)


def table2() -> Experiment:
    """CIFAR-100 with 29 2x4x64d."""
    rows = {"E-E-B": (16.34, 2), "S-E-I": (15.85, 3), "S-S-I": (15.97, 1)}
    label = model_info(paper_cifar100().model).paper_label
    return Experiment(
        name="table2",
        title="CIFAR-100",
        source="Table 2",
        kind="table",
        published_setting=f"{label}, all of CIFAR-100, 1800 epochs, batch 32 on two GPUs; last epoch, mean of 2 "
        "(Even-Even), 3 (Shake-Even) and 1 (Shake-Shake) runs",
        rows={rule: rule_label(rule) for rule in rows},
        columns={label: label},
        cells=tuple(
            _cell(rule, label, paper_cifar100().replace(rule=rule), error, "Table 2", runs)
            for rule, (error, runs) in rows.items()
        ),
        baseline="E-E-B",
    )


def table3() -> Experiment:
    """Shake-Shake and the networks that the paper compares it with, each trained with its authors' recipe."""
    rows = {
        "wrn28_10": ("WRN-28-10, 36.5M", paper_wrn, (3.8, 18.3)),
        "resnext29_16x64d": ("ResNeXt-29 16x64d, 68.1M", paper_resnext, (3.58, 17.31)),
        "densenet_bc190_40": ("DenseNet-BC L=190 k=40, 25.6M", paper_densenet, (3.46, 17.18)),
        "shake_resnet26_2x96d": ("Shake-Shake 26 2x96d S-S-I, 26.2M", paper_cifar10, (2.86, None)),
        "shake_resnext29_2x4x64d": ("Shake-Shake 29 2x4x64d S-E-I, 34.4M", paper_cifar100, (None, 15.85)),
    }
    cells = [
        _cell(model, data, preset().replace(model=model, data=data), error, "Table 3")
        for model, (_, preset, errors) in rows.items()
        for data, error in zip(("cifar10", "cifar100"), errors, strict=True)
        if error is not None
    ]
    return Experiment(
        name="table3",
        title="Shake-Shake and the networks that it was compared with",
        source="Table 3",
        kind="table",
        published_setting="all training images, each network with its authors' recipe; parameters for CIFAR-10",
        rows={model: label for model, (label, *_) in rows.items()},
        columns={"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"},
        cells=tuple(cells),
    )


def epochs300() -> Experiment:
    """The largest networks after 300 instead of 1800 epochs (ShakeDrop, Table B1)."""
    columns = {
        "26 2x96d": (paper_cifar10_300().replace(model="shake_resnet26_2x96d"), "S-S-I", (4.02, 3.36)),
        "29 2x4x64d": (paper_cifar100_300(), "S-E-I", (16.95, 16.46)),
    }
    source = "ShakeDrop, Table B1"
    cells = []
    for column, (recipe, shaken, errors) in columns.items():
        for row, rule, error in zip(("E-E-B", "shaken"), ("E-E-B", shaken), errors, strict=True):
            cell = _cell(row, column, recipe.replace(rule=rule), error, source)
            cells.append(replace(cell, name=f"{recipe.data}-{recipe.model}-epochs300-{rule}"))
    return Experiment(
        name="epochs300",
        title="300 epochs instead of 1800",
        source=source,
        kind="table",
        published_setting="26.2M network on CIFAR-10, 34.4M network on CIFAR-100, all training images, 300 epochs; "
        "last epoch (1800 epochs: 3.58 and 2.86, 16.34 and 15.85)",
        rows={"E-E-B": rule_label("E-E-B"), "shaken": "Shake-Shake (29 2x4x64d: S-E-I)"},
        columns={column: column for column in columns},
        cells=tuple(cells),
        baseline="E-E-B",
    )


def strength() -> Experiment:
    """Update rules for beta: the further it lies from alpha, the stronger the regularization (Table 4, Figure 5).

    Beside the paper's rules it has two values of the continuous strength that this package adds.
    """
    cells = [_table1_cell(rule) for rule in ("S-K-I", "S-E-I", "S-S-I")]
    for rule, (train, test) in FIGURE5.items():
        cell = replace(_table1_cell(rule), published=test, published_train=train, approximate=True, source="Figure 5")
        cells.append(cell)
    cells += [_table1_cell(rule) for rule in ("S-0.25-I", "S-0.75-I")]
    return Experiment(
        name="strength",
        title="Where beta lies relative to alpha",
        source="Table 4, Figure 5",
        kind="curves",
        published_setting=f"26 2x32d, {CIFAR10_SETTING}; M1 to M5 read off the curves of Figure 5",
        rows={cell.row: rule_label(cell.row) for cell in cells},
        columns={"26 2x32d": "26 2x32d"},
        cells=tuple(cells),
        baseline="S-K-I",
    )


def architectures() -> Experiment:
    """Architectures A (no skip), B (one convolution per branch) and C (A without BN). Their errors are not verified."""
    rules = ("E-E-B", "S-E-I", "S-S-I")
    columns = {
        "A": ("A: no skip connections", lambda: paper_cifar10().replace(model=f"{NETWORK}_a")),
        "B": ("B: one convolution per branch", lambda: paper_cifar10().replace(model=f"{NETWORK}_b")),
        "C": ("C: A without BN, alpha in [0.4, 0.6]", paper_architecture_c),
    }

    def rule_of(row: str, column: str) -> str:
        return f"{row}[0.4,0.6]" if column == "C" and row.startswith("S") else row

    return Experiment(
        name="architectures",
        title="Without skip connections, without batch normalization",
        source="Table 5",
        kind="curves",
        published_setting=f"26 2x32d and its variants (C: depth 14), {CIFAR10_SETTING}; errors not verified",
        rows={rule: rule_label(rule) for rule in rules},
        columns={key: label for key, (label, _) in columns.items()},
        cells=tuple(
            Cell(row, key, preset().replace(rule=rule_of(row, key)), source="Table 5")
            for row in rules
            for key, (_, preset) in columns.items()
        ),
        baseline="E-E-B",
    )


def divergence() -> Experiment:
    """Architecture C with ever wider ranges of alpha: wide ones tend to diverge. The paper uses [0.4, 0.6]."""
    ranges = {f"S-E-I[{low},{high}]": f"alpha in [{low}, {high}]" for low, high in RANGES}
    rows = {"E-E-B": "alpha = 0.5", **ranges, "S-E-I": "alpha in [0, 1]"}
    return Experiment(
        name="divergence",
        title="Without batch normalization: how wide a range of alpha converges",
        source="Table 5",
        kind="curves",
        published_setting="14 2x32d without skip connections and batch norm; wider ranges than [0.4, 0.6] tend to "
        "diverge, errors not verified",
        rows=rows,
        columns={"C": "architecture C, Shake-Even"},
        cells=tuple(Cell(rule, "C", paper_architecture_c().replace(rule=rule), source="Table 5") for rule in rows),
        baseline="E-E-B",
        divergence_is_a_result=True,
    )


def correlation() -> Experiment:
    """Correlation between the two branches of each block (Figure 3): lower with shaking than without."""
    blocks = [f"stages.{stage}.blocks.{block}" for stage in range(3) for block in range(4)]
    published = {
        (row, block): value for row, values in FIGURE3.items() for block, value in zip(blocks, values, strict=True)
    }
    return replace(
        _trained_pair("correlation", "Correlation between the branches of each block", "Figure 3"),
        published_correlations=published,
    )


def layerwise() -> Experiment:
    """Correlation between layer i of one branch and layer j of the other: highest on the diagonal (Figure 4)."""
    return _trained_pair("layerwise", "Correlation between the layers of the two branches", "Figure 4")


def _trained_pair(name: str, title: str, source: str) -> Experiment:
    rules = ("E-E-B", "S-S-I")
    return Experiment(
        name=name,
        title=title,
        source=source,
        kind=name,  # type: ignore[arg-type]
        published_setting=f"26 2x32d, {CIFAR10_SETTING}; 3 networks each",
        rows={rule: rule_label(rule) for rule in rules},
        columns={"26 2x32d": "26 2x32d"},
        cells=tuple(_table1_cell(rule) for rule in rules),
        baseline="E-E-B",
    )


EXPERIMENTS: dict[str, Callable[[], Experiment]] = {
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "epochs300": epochs300,
    "strength": strength,
    "architectures": architectures,
    "divergence": divergence,
    "correlation": correlation,
    "layerwise": layerwise,
    # Not in the paper: the study of docs/dev/augmentation-study.md.
    "augmentation": augmentation,
    "alternatives": alternatives,
    "rules_without_augmentation": rules_without_augmentation,
    "length": length,
}
