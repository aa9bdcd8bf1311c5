"""Collect the results of an experiment from its run directories, and write them as JSON and CSV."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import replace
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
from .schema import Correlation, Table, TableCell, TableColumn, TableDifference, TableFailure, TableRow, TableRun
from .spec import Cell, Experiment, describe_recipe
from .statistics import difference, difference_over_folds, unpack

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
    cells = [
        _collect_cell(experiment, cell, folder, seeds, failed or {}, fingerprints or {}) for cell in experiment.cells
    ]
    wrong = {(cell.row, cell.column): wrong_images(cell, folder) for cell in cells}
    differences = tuple(_differences(experiment, wrong))
    meaningful = scale not in SCALES or SCALES[scale].meaningful
    analyses = {
        row: [a for cell in cells if cell.row == row for a in _analyses(cell, folder)] for row in experiment.rows
    }
    correlate = {"correlation": correlations.by_block, "layerwise": correlations.by_layer}.get(experiment.kind)
    published = experiment.published_correlations or {}
    return Table(
        name=experiment.name,
        title=experiment.title,
        source=experiment.source,
        kind=experiment.kind,
        scale=scale,
        meaningful=meaningful,
        setting="; ".join(dict.fromkeys(cell.setting for cell in cells)),
        published_setting=experiment.published_setting,
        rows=tuple(TableRow(key, label, _rule(experiment, key)) for key, label in experiment.rows.items()),
        columns=tuple(TableColumn(key, label) for key, label in experiment.columns.items()),
        seeds=tuple(sorted({seed for cell in experiment.cells for seed in experiment.seeds_of(cell, seeds)})),
        folds=experiment.folds,
        cells=tuple(cells),
        differences=differences,
        reading=tuple(describe_difference(experiment, one, meaningful) for one in differences),
        correlations=tuple(correlate(analyses)) if correlate else (),
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
    """A CSV line for each run, and one for each that is missing or failed."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
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
    words = {"lower": "a lower error", "higher": "a higher error"}
    paired = found.paired if experiment.paired else None
    if paired is not None:
        one, of = paired, f"{paired.n} pairs of equal seeds"
    else:
        one, of = found, f"{found.n[0]} and {found.n[1]} runs"  # type: ignore[assignment]
    half = (one.high - one.low) / 2
    claim = words.get(one.verdict, f"no significant difference (of {half:.2f} points or more would be, with {of})")
    over = of if paired is not None else found.covers
    sentence = (
        f"{found.row} against {found.baseline}{where}: {one.difference:+.2f} points, {one.level:.0%} interval "
        f"{one.low:+.2f} to {one.high:+.2f} over {over}: {claim}."
    )
    if not meaningful:
        return f"{sentence} Not meaningful."
    if (one.seeds_needed or 0) > min(found.n):
        sentence += f" About {one.seeds_needed} seeds of each would show a difference of one point."
    return sentence


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
        row=cell.row,
        column=cell.column,
        published=cell.published,
        published_for=cell.published_for or None,
        published_best=cell.published_best,
        published_train=cell.published_train,
        published_runs=cell.published_runs,
        approximate=cell.approximate,
        source=cell.source,
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


def _analyses(cell: TableCell, folder: Path) -> list[dict[str, Any]]:
    found = (_read_analysis(RunDirectory(folder / run.path)) for run in cell.runs)
    return [analysis for analysis in found if analysis is not None]


def _differences(
    experiment: Experiment, wrong: Mapping[tuple[str, str], Mapping[int, np.ndarray]]
) -> Iterator[TableDifference]:
    """Every row against the baseline, column by column, where both have been analysed."""
    for (row, column), runs in wrong.items():
        baseline = wrong.get((experiment.baseline or "", column))
        if row != experiment.baseline and baseline and runs:
            found = compare_rows(runs, baseline, experiment.folds)
            yield replace(found, row=row, baseline=experiment.baseline or "", column=column)


def _rule(experiment: Experiment, row: str) -> str | None:
    """The rule of a row that is a rule, for drawing where beta lies."""
    rules = {cell.recipe.rule for cell in experiment.cells if cell.row == row}
    return row if row in rules else None
