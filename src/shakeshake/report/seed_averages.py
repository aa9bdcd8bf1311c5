"""Runs that differ in the seed alone, as one curve: the mean by epoch, and between which values the seeds lie."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .analysis import Pair, finite_mean, plain
from .load_run import COLUMNS, HOUSEKEEPING, RunRecord

SHOWN_ALONE = 8
"""Up to so many runs each has a curve of its own."""


def averaged(name: str, records: Sequence[RunRecord]) -> RunRecord:
    """One record of that name. A row holds an epoch's means, and with several runs ``<column>_range`` beside them.

    An epoch that not all runs have reached or tested is left out, so that no step in a curve comes from a run's end.
    """
    if len(records) == 1:
        return RunRecord(name, records[0].recipe, {}, records[0].result, records[0].rows, (), records[0].analysis)
    by_epoch: dict[int, list[dict[str, Any]]] = {}
    for record in records:
        for one in record.rows:
            by_epoch.setdefault(one["epoch"], []).append(one)
    rows = []
    for epoch, found in sorted(by_epoch.items()):
        if len(found) < len(records):
            continue
        row: dict[str, Any] = {"epoch": epoch}
        for column in COLUMNS:
            values = [one[column] for one in found]
            known = None not in values
            row[column] = finite_mean(values) if known else None
            row[f"{column}_range"] = (min(values), max(values)) if known else None
        rows.append(row)
    return RunRecord(name, rows=tuple(rows))


def grouped(records: Sequence[RunRecord]) -> list[tuple[str, list[RunRecord]]]:
    """Runs by everything but the seed, each group named by what sets it apart from the others."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        recipe = {name: value for name, value in record.recipe.items() if name not in (*HOUSEKEEPING, "seed")}
        groups.setdefault(json.dumps(recipe, sort_keys=True) if recipe else f"?{record.name}", []).append(record)
    firsts = [found[0] for found in groups.values()]
    fields = dict.fromkeys(
        name for record in firsts for name in ("rule", "model", "data", *record.recipe) if name in record.recipe
    )
    apart = [
        name
        for name in fields
        if name not in (*HOUSEKEEPING, "seed")
        and len({json.dumps(record.recipe.get(name), sort_keys=True) for record in firsts}) > 1
    ]
    named = []
    for record, found in zip(firsts, groups.values(), strict=True):
        parts = [_part(name, record.recipe[name]) for name in apart if name in record.recipe]
        named.append((", ".join(parts[:4]) or record.short, found))
    return named


def curves_of(records: Sequence[RunRecord]) -> list[RunRecord]:
    """What to draw: a few runs as they are, many as the means over their seeds."""
    if len(records) <= SHOWN_ALONE:
        return list(records)
    groups = grouped(records)
    names = [name for name, _ in groups]
    return [averaged(name if names.count(name) == 1 else f"{name}, {found[0].short}", found) for name, found in groups]


def block_means(records: Sequence[RunRecord], what: str) -> list[Pair]:
    """Means over runs of a correlation (``correlation``) or of the matrices (``layerwise``), block by block."""
    found: dict[tuple[str, tuple[int, int]], list[Pair]] = {}
    for record in records:
        for pair in getattr(record.analysis, what):
            found.setdefault((pair.block, pair.branches), []).append(pair)
    means = []
    for (block, branches), pairs in found.items():
        alike = [pair for pair in pairs if pair.layers == pairs[0].layers]
        matrix = tuple(
            tuple(finite_mean([pair.matrix[i][j] for pair in alike]) for j in range(len(pairs[0].layers)))
            for i in range(len(pairs[0].matrix))
        )
        value = finite_mean([pair.correlation for pair in pairs])
        means.append(Pair(block, branches, value, pairs[0].layers, matrix))
    return means


def _part(name: str, value: Any) -> str:
    text = plain(value if isinstance(value, str) else json.dumps(value))
    return text if name in ("rule", "model", "data") else f"{name} {text}"
