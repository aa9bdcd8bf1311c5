"""The paper's tables and figures, as it has them: rows, columns, recipes, published figures and their places.

Figures are test errors in % of X. Gastaldi, Shake-Shake regularization, arXiv 1705.07485; what could not be verified is
left out. Every recipe here is the paper's own; scales.py makes smaller ones of them.
"""

from __future__ import annotations

from collections.abc import Callable

from ..layers.rules import ShakeRule
from ..models.registry import model_info
from ..train.presets import (
    paper_architecture_c,
    paper_cifar10,
    paper_cifar100,
    paper_densenet,
    paper_resnext,
    paper_wrn,
)
from ..train.recipe import Recipe
from .spec import Cell, Experiment

NETWORK = "shake_resnet26_2x32d"
ALL_OF_CIFAR10 = "all of CIFAR-10, 1800 epochs, batch 128 on two GPUs"


def spelled(rule: str) -> str:
    """``Shake-Even-Image`` for S-E-I, with the range of alpha where it has one."""
    parsed = ShakeRule.parse(rule)
    if isinstance(parsed.backward, float):
        return f"strength {parsed.backward:g} ({rule})"
    alpha = "" if (parsed.low, parsed.high) == (0, 1) else f", alpha in [{parsed.low:g}, {parsed.high:g}]"
    level = "" if rule.startswith("E-E") else f"-{parsed.level}"
    return f"{parsed.forward}-{parsed.backward}{level}{alpha}"


def table1() -> Experiment:
    """CIFAR-10: what is shaken (forward, backward) and how finely (batch, image), at four widths."""
    widths = (32, 64, 96, 112)
    errors: dict[str, tuple[float | None, ...]] = {
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
    cells = [
        Cell(
            row=rule,
            column=f"26 2x{width}d",
            recipe=paper_cifar10().replace(model=f"shake_resnet26_2x{width}d", rule=rule),
            published=error,
            published_for=f"26 2x{width}d",
            place="Table 1" if width < 112 else "measured by the authors of AutoAugment",
        )
        for rule, row in errors.items()
        for width, error in zip(widths, row, strict=True)
        if error is not None
    ]
    return Experiment(
        name="table1",
        title="CIFAR-10: what is shaken, and how finely",
        place="Table 1",
        kind="table",
        published_setting=f"26 2xWd, {ALL_OF_CIFAR10}; last epoch, mean of 3 runs (2x96d: 5)",
        rows={rule: spelled(rule) for rule in errors},
        columns={f"26 2x{width}d": f"26 2x{width}d" for width in widths},
        cells=tuple(cells),
        against="E-E-B",
        seeds=3,
    )


def table2() -> Experiment:
    """CIFAR-100, 29 2x4x64d."""
    errors = {"E-E-B": 16.34, "S-E-I": 15.85, "S-S-I": None}
    return _one_network(
        "table2",
        "CIFAR-100",
        "Table 2",
        "29 2x4x64d, all of CIFAR-100, 1800 epochs, batch 32 on two GPUs; last epoch",
        lambda rule: paper_cifar100().replace(rule=rule),
        errors,
        "E-E-B",
    )


def table3() -> Experiment:
    """Shake-Shake beside the networks that the paper compares it with, each trained by its own paper's recipe."""
    rows = {
        "wrn28_10": ("WRN-28-10, 36.5M", paper_wrn, (None, None)),
        "resnext29_16x64d": ("ResNeXt-29 16x64d, 68.1M", paper_resnext, (3.58, None)),
        "densenet_bc190_40": ("DenseNet-BC L=190 k=40, 25.6M", paper_densenet, (3.46, None)),
        "shake_resnet26_2x96d": ("Shake-Shake 26 2x96d S-S-I, 26.2M", paper_cifar10, (2.86, None)),
        "shake_resnext29_2x4x64d": ("Shake-Shake 29 2x4x64d S-E-I, 34.4M", paper_cifar100, (None, 15.85)),
    }
    only = {"shake_resnet26_2x96d": "cifar10", "shake_resnext29_2x4x64d": "cifar100"}
    cells = [
        Cell(model, data, preset().replace(model=model, data=data), error, model_info(model).paper_label, "Table 3")
        for model, (_, preset, errors) in rows.items()
        for data, error in zip(("cifar10", "cifar100"), errors, strict=True)
        if only.get(model, data) == data
    ]
    return Experiment(
        name="table3",
        title="Shake-Shake and the networks that it was compared with",
        place="Table 3",
        kind="table",
        published_setting="all training images, each network by its own paper's recipe; parameters for CIFAR-10",
        rows={model: label for model, (label, *_) in rows.items()},
        columns={"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"},
        cells=tuple(cells),
        against=None,
        seeds=3,
    )


def strength() -> Experiment:
    """Update rules for beta: the further it lies from alpha, the stronger the regularization (Table 4, its figure).

    Beside the paper's rules, two values of the continuous strength that this package adds.
    """
    errors = {"S-K-I": 4.09, "S-E-I": 3.47, "S-S-I": 3.55} | {f"S-M{i}-I": None for i in range(1, 6)}
    errors |= {"S-0.25-I": None, "S-0.75-I": None}
    return _one_network(
        "strength",
        "Where beta lies relative to alpha",
        "Table 4 and its figure; errors of Table 1",
        f"26 2x32d, {ALL_OF_CIFAR10}",
        lambda rule: paper_cifar10().replace(model=NETWORK, rule=rule),
        errors,
        "S-K-I",
        kind="curves",
    )


def architectures() -> Experiment:
    """Architectures A (no skip), B (one convolution per branch), C (A without BN). Their errors are not verified."""
    rules = ("E-E-B", "S-E-I", "S-S-I")
    columns = {
        "A": ("A: no skip connections", lambda: paper_cifar10().replace(model=f"{NETWORK}_a")),
        "B": ("B: one convolution a branch", lambda: paper_cifar10().replace(model=f"{NETWORK}_b")),
        "C": ("C: A without BN, alpha in [0.4, 0.6]", paper_architecture_c),
    }

    def rule_of(row: str, column: str) -> str:
        return f"{row}[0.4,0.6]" if column == "C" and row.startswith("S") else row

    return Experiment(
        name="architectures",
        title="Without skip connections, without batch normalization",
        place="Table 5 and its figure",
        kind="curves",
        published_setting=f"26 2x32d and its variants (C: depth 14), {ALL_OF_CIFAR10}; errors not verified",
        rows={rule: spelled(rule) for rule in rules},
        columns={key: label for key, (label, _) in columns.items()},
        cells=tuple(
            Cell(row, key, preset().replace(rule=rule_of(row, key)), place="Table 5")
            for row in rules
            for key, (_, preset) in columns.items()
        ),
        against="E-E-B",
        seeds=3,
    )


def correlation() -> Experiment:
    """Correlation between the two branches of each block (section 3.1): lower with shaking than without."""
    return _trained_pair("correlation", "Correlation between the branches of each block", "section 3.1")


def layerwise() -> Experiment:
    """Correlation between layer i of one branch and layer j of the other: highest on the diagonal (section 3.1)."""
    return _trained_pair("layerwise", "Correlation between the layers of the two branches", "section 3.1")


def _trained_pair(name: str, title: str, place: str) -> Experiment:
    return _one_network(
        name,
        title,
        place,
        f"26 2x32d, {ALL_OF_CIFAR10}; 3 networks each",
        lambda rule: paper_cifar10().replace(model=NETWORK, rule=rule),
        {"E-E-B": 4.27, "S-S-I": 3.55},
        "E-E-B",
        kind=name,
    )


def _one_network(
    name: str,
    title: str,
    place: str,
    published_setting: str,
    recipe: Callable[[str], Recipe],
    errors: dict[str, float | None],
    against: str,
    kind: str = "table",
) -> Experiment:
    """A table with one column: rules under one recipe."""
    label = model_info(recipe(against).model).paper_label
    where = {"table2": "Table 2"}.get(name, "Table 1")
    return Experiment(
        name=name,
        title=title,
        place=place,
        kind=kind,  # type: ignore[arg-type]
        published_setting=published_setting,
        rows={rule: spelled(rule) for rule in errors},
        columns={label: label},
        cells=tuple(
            Cell(rule, label, recipe(rule), error, label, where if error is not None else "")
            for rule, error in errors.items()
        ),
        against=against,
        seeds=3,
    )


EXPERIMENTS: dict[str, Callable[[], Experiment]] = {
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "strength": strength,
    "architectures": architectures,
    "correlation": correlation,
    "layerwise": layerwise,
}
