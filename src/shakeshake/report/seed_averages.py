"""Curves by epoch, and runs that differ only in the seed as one curve of means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import fsum
from statistics import fmean, stdev
from typing import Any, NamedTuple

from .runs import HOUSEKEEPING, RunRecord
from .svg import clean

COLUMNS = ("lr", "train_loss", "train_error", "test_loss", "test_error")
MAX_SINGLE_CURVES = 8
"""More runs than these are averaged over seeds."""


@dataclass(frozen=True)
class Curve:
    """A line of each chart by epoch.

    Attributes:
        columns: column -> a value or None for each epoch.
        bands: column -> mean minus and plus one standard deviation over the seeds, empty for a single run.
        runs: how many runs the line is the mean of.
    """

    name: str
    epochs: tuple[int, ...] = ()
    columns: dict[str, tuple[float | None, ...]] = field(default_factory=dict)
    bands: dict[str, tuple[tuple[float, float] | None, ...]] = field(default_factory=dict)
    runs: int = 1

    def series(self, column: str) -> list[tuple[int, float]]:
        """(epoch, value) where the value is known."""
        values = self.columns.get(column, ())
        return [(e, v) for e, v in zip(self.epochs, values, strict=True) if v is not None]


class PairMean(NamedTuple):
    """Mean correlation of two branches of a block, or of their layers."""

    block: str
    branches: tuple[int, int]
    layers: tuple[str, ...]
    matrix: tuple[tuple[float | None, ...], ...]


def average(name: str, runs: Sequence[RunRecord]) -> Curve:
    """The mean of some runs by epoch.

    Epochs that a run has not reached, and values that one lacks, are left out: a run that ends makes no step.
    """
    by_epoch = [{one.epoch: one for one in run.epochs} for run in runs]
    epochs = tuple(sorted(set(by_epoch[0]).intersection(*by_epoch[1:]))) if by_epoch else ()
    columns: dict[str, tuple[float | None, ...]] = {}
    bands: dict[str, tuple[tuple[float, float] | None, ...]] = {}
    for column in COLUMNS:
        values = [[getattr(of[epoch], column) for of in by_epoch] for epoch in epochs]
        columns[column] = tuple(None if None in found else mean(found) for found in values)
        if len(runs) > 1:
            bands[column] = tuple(None if None in found else _band(found) for found in values)
    return Curve(name, epochs, columns, bands, len(runs))


def curves_of(runs: Sequence[RunRecord]) -> list[Curve]:
    """A curve for each of a few runs; of many, one for each group that differs only in the seed."""
    if len(runs) <= MAX_SINGLE_CURVES:
        return [average(run.short, [run]) for run in runs]
    groups = group_by_seed(runs)
    names = [name for name, _ in groups]
    return [average(name if names.count(name) == 1 else f"{name}, {of[0].short}", of) for name, of in groups]


def group_by_seed(runs: Sequence[RunRecord]) -> list[tuple[str, list[RunRecord]]]:
    """Runs that differ only in the seed, each group named after what sets it apart from the others."""
    ignored = (*HOUSEKEEPING, "seed")
    groups: dict[str, list[RunRecord]] = {}
    for run in runs:
        recipe = {name: value for name, value in run.recipe.items() if name not in ignored}
        groups.setdefault(json.dumps(recipe, sort_keys=True) if recipe else f"?{run.name}", []).append(run)
    firsts = [found[0] for found in groups.values()]
    fields = dict.fromkeys(("rule", "model", "data"))
    fields |= dict.fromkeys(name for run in firsts for name in run.recipe)
    differing = [
        name
        for name in fields
        if name not in ignored and len({json.dumps(run.recipe.get(name), sort_keys=True) for run in firsts}) > 1
    ]
    named = []
    for run, found in zip(firsts, groups.values(), strict=True):
        parts = [_describe(name, run.recipe[name]) for name in differing if name in run.recipe]
        named.append((", ".join(parts[:4]) or run.short, found))
    return named


def layer_means(runs: Sequence[RunRecord]) -> list[PairMean]:
    """Correlations between layers, averaged over runs."""
    found: dict[tuple[str, tuple[int, int]], list[PairMean]] = {}
    for run in runs:
        for block in run.analysis.layerwise or ():
            for pair in block.pairs:
                one = PairMean(block.block, pair.branches, block.layers, pair.matrix)
                found.setdefault((one.block, one.branches), []).append(one)
    means = []
    for pairs in found.values():
        first = pairs[0]
        alike = [pair.matrix for pair in pairs if pair.layers == first.layers]
        size = range(len(first.layers))
        matrix = tuple(tuple(mean([of[i][j] for of in alike]) for j in size) for i in size)
        means.append(first._replace(matrix=matrix))
    return means


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are known, or None."""
    known = [value for value in values if value is not None]
    return fsum(known) / len(known) if known else None


def _band(values: Sequence[float]) -> tuple[float, float]:
    middle, deviation = fmean(values), stdev(values)
    return max(0.0, middle - deviation), middle + deviation


def _describe(name: str, value: Any) -> str:
    text = clean(value if isinstance(value, str) else json.dumps(value))
    return text if name in ("rule", "model", "data") else f"{name} {text}"
