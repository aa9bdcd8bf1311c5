"""Collect the results of an experiment from its run directories, and write them as JSON and CSV."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..train.recipe import Recipe
from ..train.run_directory import RunDirectory
from ..utils.environment import environment
from ..utils.files import atomic_write
from . import correlations
from .scales import SCALES
from .schema import (
    Correlation,
    Difference,
    PublishedErrors,
    Table,
    TableCell,
    TableColumn,
    TableDifference,
    TableFailure,
    TableRow,
    TableRun,
)
from .spec import Cell, Experiment, describe_recipe
from .statistics import difference, difference_over_folds, unpack

OF_EXPERIMENT = ("name", "title", "source", "kind", "published_setting", "folds", "paired", "divergence_is_a_result")
CELLS = "cells"  # the folder of the run directories


def collect(
    experiment: Experiment,
    folder: Path,
    seeds: int | None,
    scale: str,
    failed: Mapping[str, str] | None = None,
    fingerprints: Mapping[tuple[int, int], str] | None = None,
) -> Table:
    """Collect what is known of an experiment: cells with their runs, means, differences, and a sentence about each.

    Args:
        experiment: The experiment.
        folder: Its folder.
        seeds: Number of seeds per cell, or None for those that are declared.
        scale: Name of the scale, or of none for a comparison.
        failed: Name of a run directory -> why it failed, for the runs just made. For all others the files count.
        fingerprints: (seed, fold) -> fingerprint of the images that its runs must have been trained on.
    """
    expected = fingerprints or {}
    cells = tuple(_collect_cell(experiment, cell, folder, seeds, failed or {}, expected) for cell in experiment.cells)
    differences = tuple(_differences(experiment, cells, folder))
    meaningful = scale not in SCALES or SCALES[scale].meaningful
    rules = {(cell.row, cell.recipe.rule) for cell in experiment.cells}
    correlate = {"correlation": correlations.by_block, "layerwise": correlations.by_layer}.get(experiment.kind)
    published = experiment.published_correlations or {}
    return Table(
        **{name: getattr(experiment, name) for name in OF_EXPERIMENT},
        scale=scale,
        meaningful=meaningful,
        setting="; ".join(dict.fromkeys(cell.setting for cell in cells)),
        rows=tuple(
            TableRow(key, label, key if (key, key) in rules else None) for key, label in experiment.rows.items()
        ),
        columns=tuple(TableColumn(key, label) for key, label in experiment.columns.items()),
        seeds=tuple(sorted({seed for cell in experiment.cells for seed in experiment.seeds_of(cell, seeds)})),
        cells=cells,
        differences=differences,
        reading=tuple(describe_difference(experiment, one, meaningful) for one in differences),
        correlations=tuple(correlate(_analyses(experiment, cells, folder))) if correlate else (),
        published_correlations=tuple(Correlation(row, mean, block=block) for (row, block), mean in published.items()),
        environment=environment(),
        path=folder / f"{experiment.name}.json",
    )


def write(table: Table, folder: Path) -> Table:
    """Write NAME.json and NAME.csv into the folder.

    Raises:
        OSError: They cannot be written.
    """
    atomic_write(folder / f"{table.name}.json", table.to_json())
    atomic_write(folder / f"{table.name}.csv", to_csv(table))
    return replace(table, path=folder / f"{table.name}.json")


def to_csv(table: Table) -> str:
    """A CSV line for each correlation where the table has any, otherwise for each run, missing or failed ones too."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    if table.kind in ("correlation", "layerwise"):
        published = {(one.row, one.block): one.mean for one in table.published_correlations}
        out.writerow(("experiment", "scale", "row", "block", "layers", "correlation", "seeds", "over", "published"))
        ours = {(one.row, one.block): one for one in table.correlations if not one.layers}
        for row, block in sorted({**published, **ours}, key=lambda key: (key[0], correlations.numbers(key[1]))):
            one = ours.get((row, block))
            seeds = " ".join(f"{value:.4f}" for value in one.seeds) if one else None
            values = (one.mean, seeds, len(one.seeds)) if one else (None, None, None)
            out.writerow((table.name, table.scale, row, block, None, *values, published.get((row, block))))
        for one in table.correlations:
            if one.layers:
                out.writerow((table.name, table.scale, one.row, None, one.layers, one.mean, None, one.over, None))
        return text.getvalue()
    of_run = ("last_error", "best_error", "best_epoch", "train_error", "seconds", "precision", "device", "path")
    heads = ("experiment", "scale", "row", "column", "published", "published_for", "source", "seed", "fold")
    out.writerow((*heads, *of_run, "status"))
    for cell in table.cells:
        known = (table.name, table.scale, cell.row, cell.column, cell.published, cell.published_for, cell.source)
        for run in cell.runs:
            out.writerow((*known, run.seed, run.fold, *(getattr(run, name) for name in of_run), "done"))
        others = [(failure.seed, failure.reason) for failure in cell.failed]
        for number, status in others + [(number, "missing") for number in cell.missing]:
            out.writerow((*known, *divmod(number, table.folds or 1), *[None] * len(of_run), status))
    return text.getvalue()


def has_other_images(run: RunDirectory, fingerprint: str | None) -> bool:
    """Whether a finished run was trained on other images than those with the fingerprint."""
    return fingerprint is not None and run.finished and run.result().data_fingerprint != fingerprint


def wrong_images(cell: TableCell, folder: Path) -> dict[int, np.ndarray]:
    """For each seed that has been analysed, a bool array (images,) that is true where the prediction was wrong.

    With folds it holds the images fold after fold, for the seeds whose folds are all finished.
    """
    by_seed: dict[int, list[np.ndarray]] = {}
    for run in sorted(cell.runs, key=lambda run: (run.seed, run.fold)):
        found = _read_analysis(RunDirectory(folder / run.path))
        if found is not None:
            by_seed.setdefault(run.seed, []).append(unpack(found["wrong"], found["images"]))
    folds = cell.recipe["folds"] or 1
    return {seed: np.concatenate(parts) for seed, parts in by_seed.items() if len(parts) == folds}


def compare_rows(row: Mapping[int, np.ndarray], baseline: Mapping[int, np.ndarray], folds: int) -> TableDifference:
    """``difference``, or with folds ``difference_over_folds``."""
    return difference_over_folds(row, baseline, folds) if folds else difference(row, baseline)


def describe_difference(experiment: Experiment, found: TableDifference, meaningful: bool = True) -> str:
    """A difference and its interval in one sentence or two."""
    where = f" ({found.column})" if len(experiment.columns) > 1 else ""
    one: Difference = found
    over, of = found.covers, f"{found.n[0]} and {found.n[1]} runs"
    if experiment.paired and found.paired is not None:
        one = found.paired
        over = of = f"{found.paired.n} pairs of equal seeds"
    claim = f"a {one.verdict} error"
    if one.verdict == "can't tell":
        claim = f"no significant difference (of {(one.high - one.low) / 2:.2f} points or more would be, with {of})"
    if experiment.paired and found.paired is None:
        return (
            f"{found.row} against {found.baseline}{where}: {one.difference:+.2f} points, no interval: fewer than two "
            "pairs of equal seeds." + ("" if meaningful else " Not meaningful.")
        )
    needed = f" About {one.seeds_needed} seeds of each would show a difference of one point."
    return (
        f"{found.row} against {found.baseline}{where}: {one.difference:+.2f} points, {one.level:.0%} interval "
        f"{one.low:+.2f} to {one.high:+.2f} over {over}: {claim}."
        + (" Not meaningful." if not meaningful else needed if (one.seeds_needed or 0) > min(found.n) else "")
    )


def _collect_run(run: RunDirectory, recipe: Recipe, seed: int, fold: int, fingerprint: str | None) -> TableRun:
    """A finished run. Raises InputError where its files are damaged, or its images are others."""
    if has_other_images(run, fingerprint):
        raise InputError(
            f"was trained on other images: {recipe.data} has changed since the comparison began; use a new --out"
        )
    result, analysis = run.result(), _read_analysis(run)
    return TableRun(
        seed=seed,
        fold=fold,
        path=f"{CELLS}/{run.path.name}",
        last_error=result.last_error,
        balanced_error=result.last_balanced_error,
        best_error=result.best_error,
        best_epoch=result.best_epoch,
        # Of the last epoch, as training measured it; with mixup that is of mixtures, so take the plain images.
        train_error=(analysis or {}).get("train_error") if recipe.mixup_alpha else result.last_train_error,
        seconds=result.seconds,
        precision=result.precision,
        device=run.read_json("environment.json").get("device"),
    )


def _read_analysis(run: RunDirectory) -> dict[str, Any] | None:
    """A run's analysis.json, or None if it is missing. Raises InputError if it is damaged."""
    if not (run.path / "analysis.json").exists():
        return None
    found = run.read_json("analysis.json")
    try:
        unpack(found["wrong"], found["images"])
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"run: {run.path / 'analysis.json'} is damaged or not ours ({error!r}); remove it and start again"
        ) from None
    return found


def _collect_cell(
    experiment: Experiment,
    cell: Cell,
    folder: Path,
    seeds: int | None,
    failed: Mapping[str, str],
    fingerprints: Mapping[tuple[int, int], str],
) -> TableCell:
    runs, failures, missing = [], [], []
    for seed, fold in experiment.runs_of(cell, seeds):
        number = seed * (experiment.folds or 1) + fold
        name = cell.run_name(seed, fold)
        run = RunDirectory(folder / CELLS / name)
        if run.finished:
            try:
                runs.append(_collect_run(run, cell.recipe, seed, fold, fingerprints.get((seed, fold))))
            except InputError as error:  # damaged, or of other images: the others still count
                failures.append(TableFailure(number, str(error)))
        elif name in failed:
            failures.append(TableFailure(number, failed[name]))
        else:
            missing.append(number)

    def mean(field: str) -> float | None:
        values = [getattr(run, field) for run in runs]
        return statistics.fmean(values) if values and None not in values else None

    errors = [run.last_error for run in runs]
    return TableCell(
        **{field.name: getattr(cell, field.name) for field in fields(PublishedErrors)},
        name=cell.folder_name,
        setting=describe_recipe(cell.recipe),
        recipe=cell.recipe.to_dict(),
        runs=tuple(runs),
        failed=tuple(failures),
        missing=tuple(missing),
        n=len(runs),
        mean=mean("last_error"),
        std=statistics.stdev(errors) if len(errors) > 1 else None,
        balanced_mean=mean("balanced_error"),
        best_mean=mean("best_error"),
        train_mean=mean("train_error"),
        seconds_mean=mean("seconds"),
    )


def _analyses(experiment: Experiment, cells: Sequence[TableCell], folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Row -> analysis.json of each of its runs that has one."""
    runs = [(cell.row, _read_analysis(RunDirectory(folder / run.path))) for cell in cells for run in cell.runs]
    return {row: [found for key, found in runs if key == row and found is not None] for row in experiment.rows}


def _differences(experiment: Experiment, cells: Sequence[TableCell], folder: Path) -> Iterator[TableDifference]:
    """Every row against its baselines, column by column, where both have been analysed."""
    wrong = {(cell.row, cell.column): wrong_images(cell, folder) for cell in cells}
    for (row, column), runs in wrong.items():
        for baseline in (experiment.baseline, experiment.other_baselines.get(row)):
            others = wrong.get((baseline or "", column))
            if baseline not in (None, row) and others and runs:
                found = compare_rows(runs, others, experiment.folds)
                yield replace(found, row=row, baseline=baseline or "", column=column)
