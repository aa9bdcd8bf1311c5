"""The demo: a small network on 200 bundled digits, with and without shaking, over several pairs of seeds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .errors import InputError
from .experiments.augmentation import augmentation
from .experiments.format import PRECISION_NOTE, mean_and_std, number
from .experiments.plan import Plan
from .experiments.run import require_extras, run_plan
from .experiments.schema import Table
from .report.page import write_report
from .utils.extras import require
from .utils.files import free_numbered_path

COLUMN = "digits"  # of the study, which the demo repeats with fewer seeds
TOO_SHORT = 2.0  # training error in % above which a shaken network has not been trained to its end


def run_demo(
    out: Path | None = None,
    *,
    seeds: int = 5,
    epochs: int | None = None,
    log: Callable[[str], None] = print,
) -> Table:
    """Train the pairs, write the report, and print what came out with its interval.

    Args:
        out: Output directory, a new one; by default runs/demo-N.
        seeds: Number of pairs. The networks of a pair share the training images, the initial weights and the order.
        epochs: Epochs of each run, if not the study's.
        log: Prints a line.

    Raises:
        InputError: The output directory exists, or an argument is out of range.
    """
    out = out or free_numbered_path(Path("runs"), "demo")
    if out.exists():
        raise InputError(f"out: {out} exists, expected a new directory")
    require_extras()
    require("sklearn", "train")
    study = augmentation()
    experiment = replace(
        study,
        name="demo",
        title="200 digits, no augmentation",
        columns={COLUMN: study.columns[COLUMN]},
        cells=tuple(cell for cell in study.cells if cell.column == COLUMN),
    )
    if epochs is not None:
        experiment = experiment.replace_fields(epochs=epochs)
    recipe = experiment.cells[0].recipe
    log(
        f"{recipe.model} on {recipe.train_size} bundled digits of 8 x 8 pixels, {recipe.epochs} epochs, without data "
        f"augmentation:\n{seeds} pairs of networks, one of each pair without shaking and one with Shake-Shake"
    )
    table = run_plan(Plan(experiment, out, "small", seeds=seeds, analyses=experiment.analyses), log=_progress(log))
    page = write_report([out], out / "report.html")
    for line in _summary(table):
        log(line)
    log(f"report {page}")
    return table


def _progress(log: Callable[[str], None]) -> Callable[[str], None]:
    """Progress lines only where there is no terminal with a progress bar."""
    return (lambda _: None) if sys.stderr.isatty() else log


def _summary(table: Table) -> list[str]:
    width = max(map(len, table.labels.values()))
    lines = ["", f"{'':<{width}}  {'test error, %':>15}  {'training error, %':>18}"]
    for cell in table.cells:
        lines.append(f"{table.labels[cell.row]:<{width}}  {mean_and_std(cell):>15}  {number(cell.train_mean):>18}")
    found = next((one.paired for one in table.differences if one.paired is not None), None)
    if found is None:
        return [*lines, "", "Two seeds or more give an interval: --seeds 5"]
    lower, zero = found.difference < 0, found.low <= 0 <= found.high
    lines += [
        "",
        f"Shaking {'lowers' if lower else 'raises'} the test error by {abs(found.difference):.2f} points "
        f"({found.level:.0%} interval {found.low:+.2f} to {found.high:+.2f}, {found.n} pairs of seeds).",
        "The interval includes 0: with so few pairs this can be chance."
        if zero
        else "The interval excludes 0. This is a tiny data set; docs/results.md has larger ones and more seeds.",
    ]
    if any(run.precision != "fp32" for cell in table.cells for run in cell.runs):
        lines.append(PRECISION_NOTE)
    worst = max((cell.train_mean or 0.0 for cell in table.cells), default=0.0)
    if worst > TOO_SHORT:
        lines.append(f"A training error of {worst:.1f} % is left: this training was too short for shaking to help.")
    return lines
