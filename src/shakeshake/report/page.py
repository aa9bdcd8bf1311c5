"""Renders the page: what the runs show in words, a table, the charts, and every detail below them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from ..errors import InputError
from ..train.record import write_atomically
from .figures import SHADES, chart
from .read import RunRecord, read_runs


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """One self-contained HTML file from run directories, finished or not. Written whole or not at all.

    Raises InputError when no run has anything to show, or ``out`` cannot be written.
    """
    records, notes = read_runs([Path(run) for run in runs])
    page = render(records, notes)
    try:
        write_atomically(Path(out), page)
    except OSError as error:
        raise InputError(f"out: {out} cannot be written: {error.strerror}") from None
    return Path(out)


def render(runs: Sequence[RunRecord], notes: Sequence[str]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("shakeshake.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda v, digits=2: "–" if v is None else f"{v:.{digits}f}"
    charts = [
        (
            "Error",
            "Training dark, test light. Under shaking the training error is measured on shaken networks.",
            "error",
        ),
        ("Loss", "Mean cross-entropy, the same colours.", "loss"),
        ("Learning rate", "At the last step of each epoch.", "lr"),
    ]
    return environment.get_template("page.html").render(
        title=" and ".join(run.name for run in runs) if len(runs) <= 3 else f"{len(runs)} runs",
        summary=summary(runs),
        notes=notes,
        rows=[_row(run) for run in runs],
        charts=[(title, caption, chart(runs, metric)) for title, caption, metric in charts],
        runs=runs,
        shades=SHADES,
        # Inside a script element only "<" could end it; JSON writes it as an escape as well.
        as_json=lambda value: jinja2.utils.markupsafe.Markup(json.dumps(value).replace("<", "\\u003c")),
    )


def _row(run: RunRecord) -> dict[str, Any]:
    test, train = run.last("test_error"), run.last("train_error")
    return {
        "run": run,
        "test": test,
        "best": run.best,
        "train": train,
        "gap": None if test is None or train is None else test - train,
        "epochs": f"{len(run.rows)}" + ("" if run.result else f" of {run.recipe.get('epochs', '?')}"),
        "images": run.result.get("train_images", run.recipe.get("train_size") or "–"),
        "speed": run.last("images_per_second"),
        "minutes": run.seconds / 60,
    }


def summary(runs: Sequence[RunRecord]) -> str:
    """What the errors say, in a sentence or two, and what they do not."""
    tested = [(run, error) for run in runs if (error := run.last("test_error")) is not None]
    if not tested:
        return "No run has been tested yet."
    if len(tested) == 1:
        run, error = tested[0]
        return f"{run.name} has {error:.2f} % test error at epoch {run.column('test_error')[0][-1]}."
    (low, low_error), (second, second_error) = sorted(tested, key=lambda pair: pair[1])[:2]
    if low_error == second_error:
        text = f"{low.name} and {second.name} end with the same test error, {low_error:.2f} %."
    else:
        text = (
            f"{low.name} ends with the lowest test error, {low_error:.2f} %, "
            f"{second_error - low_error:.2f} points below {second.name}."
        )
    if any(not run.result for run, _ in tested):
        text += " Not every run is finished."
    seeds = {run.recipe.get("seed") for run, _ in tested}
    if len(seeds) == 1:
        text += " One seed each is no finding: the same recipe with another seed can differ by as much."
    return text
