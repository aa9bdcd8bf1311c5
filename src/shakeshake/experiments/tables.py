"""What an experiment found so far: read from its run directories, compared, written as JSON and CSV, printed."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..train.recipe import Recipe
from ..train.run_directory import RunDirectory
from ..utils.environment import environment
from ..utils.files import atomic_write
from . import correlations
from .spec import Cell, Experiment, in_words
from .statistics import Difference, difference, difference_over_folds, unpack

CELLS = "cells"  # the folder of the run directories


def collect(
    experiment: Experiment,
    folder: Path,
    seeds: int,
    scale: str,
    failed: Mapping[str, str] | None = None,
    images: Mapping[tuple[int, int], str] | None = None,
) -> dict[str, Any]:
    """Everything known of an experiment: cells with their runs, means, differences, and a plain reading.

    failed: folder of a cell -> why it failed, of the run just made. The newest state of ``folder`` counts for the rest.
    images: as Plan has them; a run that was trained on others has failed.
    """
    wanted = experiment.runs(seeds)
    cells = [_cell(cell, folder, wanted, failed or {}, images or {}) for cell in experiment.cells]
    by_place = {(cell["row"], cell["column"]): cell for cell in cells}
    analyses = {place: _analyses(cell, folder) for place, cell in by_place.items()}
    compared = list(_differences(experiment, {place: wrong_images(cell, folder) for place, cell in by_place.items()}))
    of_rows = {row: [a for (r, _), found in analyses.items() if r == row for a in found] for row in experiment.rows}
    correlated = {"correlation": correlations.by_block, "layerwise": correlations.by_layer}.get(experiment.kind)
    return {
        "format": 1,
        "experiment": experiment.name,
        "title": experiment.title,
        "place": experiment.place,
        "kind": experiment.kind,
        "scale": scale,
        "setting": "; ".join(dict.fromkeys(in_words(cell.recipe) for cell in experiment.cells)),
        "published_setting": experiment.published_setting,
        "unit": "test error, %",
        "rows": [
            {"key": key, "label": label, "rule": _rule(experiment, key)} for key, label in experiment.rows.items()
        ],
        "columns": [{"key": key, "label": label} for key, label in experiment.columns.items()],
        "seeds": list(range(seeds)),
        "folds": experiment.folds,
        "cells": cells,
        "differences": [
            {"row": row, "against": experiment.against, "column": column, **asdict(found), "verdict": found.verdict}
            for row, column, found in compared
        ],
        "reading": [_sentence(experiment, row, column, found) for row, column, found in compared],
        "correlations": correlated(of_rows) if correlated else [],
        "environment": environment(),
    }


def write(results: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """NAME.json and NAME.csv in the folder; returns their paths. Raises OSError when they cannot be written."""
    name = results["experiment"]
    atomic_write(folder / f"{name}.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    atomic_write(folder / f"{name}.csv", as_csv(results))
    return folder / f"{name}.json", folder / f"{name}.csv"


def as_csv(results: dict[str, Any]) -> str:
    """A line for each run, and one for each that is missing or failed."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    of_cell = ("row", "column", "published", "published_for", "place")
    which = ("seed", "fold")
    of_run = ("last_error", "best_error", "best_epoch", "train_error", "seconds", "precision", "device", "path")
    out.writerow(("experiment", "scale", *of_cell, *which, *of_run, "status"))
    for cell in results["cells"]:
        known = [results["experiment"], results["scale"], *(cell[name] for name in of_cell)]
        for run in cell["runs"]:
            out.writerow((*known, *(run[name] for name in (*which, *of_run)), "done"))
        others = [(failure["seed"], failure["reason"]) for failure in cell["failed"]]
        for number, status in others + [(number, "missing") for number in cell["missing"]]:
            out.writerow((*known, *divmod(number, results["folds"] or 1), *[None] * len(of_run), status))
    return text.getvalue()


def as_lines(results: dict[str, Any]) -> Iterator[str]:
    """The table for a terminal: published beside ours, last epoch first, best beside it; then what differs."""
    yield f"{results['title']} ({results['place']}), scale {results['scale']}"
    yield f"ours       {results['setting']}"
    yield f"published  {results['published_setting']}"
    labels = {row["key"]: row["label"] for row in results["rows"]}
    for column in results["columns"]:
        cells = [cell for cell in results["cells"] if cell["column"] == column["key"]]
        width = max(len(labels[cell["row"]]) for cell in cells)
        yield ""
        yield f"{column['label']:<{width}}  published      ours, last epoch   n     best    train   minutes"
        for cell in cells:
            published = "–" if cell["published"] is None else f"{cell['published']:.2f}"
            std = "" if cell["std"] is None else f" ± {cell['std']:.2f}"
            ours = "–" if cell["mean"] is None else f"{cell['mean']:.2f}{std}"
            rest = [
                "–" if cell[key] is None else f"{cell[key] / by:.{digits}f}"
                for key, by, digits in (("best_mean", 1, 2), ("train_mean", 1, 2), ("seconds_mean", 60, 1))
            ]
            n = f"{cell['n']}/{len(results['seeds'])}" if cell["missing"] or cell["failed"] else str(cell["n"])
            best, train, minutes = rest
            label = labels[cell["row"]]
            elsewhere = cell["published"] is not None and cell["place"] != results["place"]
            by = f"  (published: {cell['place']})" if elsewhere else ""
            yield f"{label:<{width}}  {published:>9}  {ours:>19}  {n:>3}  {best:>7}  {train:>7}  {minutes:>8}{by}"
    yield from correlations.as_lines(results)
    if results["reading"]:
        yield ""
        yield from results["reading"]
        if any(run["precision"] != "fp32" for cell in results["cells"] for run in cell["runs"]):
            yield "(Differences are of the networks evaluated in fp32, the table's errors are the runs' own.)"
    for cell in results["cells"]:
        for failure in cell["failed"]:
            yield f"failed: {cell['row']} ({cell['column']}), seed {failure['seed']}: {failure['reason']}"


def on_other_images(run: RunDirectory, expected: str | None) -> bool:
    """Whether a finished run was trained on other images than those of a fingerprint."""
    return expected is not None and run.finished and run.result()["data_fingerprint"] != expected


def _run(run: RunDirectory, recipe: Recipe, seed: int, fold: int, images: str | None) -> dict[str, Any]:
    """A finished run in a table. Raises InputError for one whose files are damaged, or of other images."""
    if on_other_images(run, images):
        raise InputError(
            f"was trained on other images: {recipe.data} has changed since the comparison began; name a new --out"
        )
    result, analysis = run.result(), _analysis(run)
    return {
        "seed": seed,
        "fold": fold,
        "path": f"{CELLS}/{run.path.name}",
        "last_error": result["last_error"],
        "balanced_error": result.get("last_balanced_error"),  # no run had it at first
        "best_error": result["best_error"],
        "best_epoch": result["best_epoch"],
        # As seen in the last epoch; where mixup makes that one of mixtures, of the images as they are.
        "train_error": (analysis or {}).get("train_error") if recipe.mixup_alpha else result["last_train_error"],
        "seconds": result["seconds"],
        "precision": result["precision"],
        "device": run.read_json("environment.json").get("device"),
    }


def _analysis(run: RunDirectory) -> dict[str, Any] | None:
    """What a run's analysis.json holds, None where there is none. Raises InputError for a damaged one."""
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


def _cell(
    cell: Cell,
    folder: Path,
    wanted: Sequence[tuple[int, int]],
    failed: Mapping[str, str],
    images: Mapping[tuple[int, int], str],
) -> dict[str, Any]:
    runs, failures, missing = [], [], []
    for number, (seed, fold) in enumerate(wanted):  # the number is the seed where there are no folds
        name = cell.folder(seed, fold)
        run = RunDirectory(folder / CELLS / name)
        if run.finished:
            try:
                runs.append(_run(run, cell.recipe, seed, fold, images.get((seed, fold))))
            except InputError as error:  # damaged, or of other images: the others count all the same
                failures.append({"seed": number, "reason": str(error)})
        elif name in failed:
            failures.append({"seed": number, "reason": failed[name]})
        else:
            missing.append(number)

    def mean(key: str) -> float | None:
        values = [run[key] for run in runs]
        return statistics.fmean(values) if values and None not in values else None

    errors = [run["last_error"] for run in runs]
    return {
        "row": cell.row,
        "column": cell.column,
        "published": cell.published,
        "published_for": cell.published_for or None,
        "place": cell.place,
        "name": cell.name,
        "setting": in_words(cell.recipe),
        "recipe": cell.recipe.to_dict(),
        "runs": runs,
        "failed": failures,
        "missing": missing,
        "n": len(runs),
        "mean": mean("last_error"),
        "std": statistics.stdev(errors) if len(errors) > 1 else None,
        "balanced_mean": mean("balanced_error"),
        "best_mean": mean("best_error"),
        "train_mean": mean("train_error"),
        "seconds_mean": mean("seconds"),
    }


def _analyses(cell: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    found = (_analysis(RunDirectory(folder / run["path"])) for run in cell["runs"])
    return [analysis for analysis in found if analysis is not None]


def wrong_images(cell: dict[str, Any], folder: Path) -> list[np.ndarray]:
    """For each seed that has been analysed one bool array, true where an image was predicted wrongly.

    With folds it runs over all of them, and a seed counts when all of its folds are there.
    """
    by_seed: dict[int, list[np.ndarray]] = {}
    for run in sorted(cell["runs"], key=lambda run: (run["seed"], run["fold"])):
        found = _analysis(RunDirectory(folder / run["path"]))
        if found is not None:
            by_seed.setdefault(run["seed"], []).append(unpack(found["wrong"], found["images"]))
    folds = cell["recipe"]["folds"] or 1
    return [np.concatenate(parts) for parts in by_seed.values() if len(parts) == folds]


def _differences(
    experiment: Experiment, wrong: dict[tuple[str, str], list[np.ndarray]]
) -> Iterator[tuple[str, str, Difference]]:
    """Every row against the one that the experiment names, column by column, where both have been analysed."""
    for row, column in wrong:
        against = wrong.get((experiment.against or "", column))
        if row != experiment.against and against and wrong[row, column]:
            yield row, column, compared(wrong[row, column], against, experiment.folds)


def compared(row: Sequence[np.ndarray], against: Sequence[np.ndarray], folds: int) -> Difference:
    return difference_over_folds(row, against, folds) if folds else difference(row, against)


def _sentence(experiment: Experiment, row: str, column: str, found: Difference) -> str:
    where = f" ({column})" if len(experiment.columns) > 1 else ""
    what = {
        "can't tell": f"no difference that {found.n[0]} and {found.n[1]} runs can show",
        "lower": "a lower error",
        "higher": "a higher error",
    }[found.verdict]
    return (
        f"{row} against {experiment.against}{where}: {found.difference:+.2f} points, {found.level:.0%} interval "
        f"{found.low:+.2f} to {found.high:+.2f} over {found.covers}: {what}."
    )


def _rule(experiment: Experiment, row: str) -> str | None:
    """The rule of a row that is a rule, for drawing where beta lies."""
    rules = {cell.recipe.rule for cell in experiment.cells if cell.row == row}
    return row if row in rules else None
