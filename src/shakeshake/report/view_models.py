"""What the page's templates are given: runs and experiments as cells, legends, charts and tables of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..models.registry import branch_count
from . import curves, html_charts
from .analysis import Looked, Mistake, Strength
from .beta_regions import drawable
from .experiment import CellRecord, ExperimentRecord
from .load_run import RunRecord
from .narrative import ABSENT, cell, duration, percent, points, text
from .seed_averages import averaged, block_means
from .theme import DASHES, PALETTE, dash

SERIES_POINTS = 6_000
IMAGES_BYTES = 1_000_000
"""Images in a page, over all its runs; what they would show of further runs is told without them, or left out."""


def curve_figure(records: Sequence[RunRecord], key: str, *, whole: bool = True) -> dict[str, Any] | None:
    """Error, loss and learning rate of some curves, with what the script says of them. whole: not the error alone."""
    if not any(record.rows for record in records):
        return None
    stride = math.ceil(sum(len(record.rows) for record in records) / SERIES_POINTS)
    return {
        "key": key,
        "wide": curves.curves(records, legend=False),
        "narrow": curves.curves(records, size=curves.NARROW, legend=False),
        "losses": curves.losses(records) if whole else "",
        "rates": curves.learning_rates(records) if whole else "",
        "legend": [
            {"i": i, "hue": i % len(PALETTE), "name": record.short, "dash": " ".join(f"{part:g}" for part in dash(i))}
            for i, record in enumerate(records)
        ],
        "bands": any("test_error_range" in row for record in records for row in record.rows[:1]),
        "dashed": len(records) > 1 and len(DASHES) > 1,
        "series": [_series(record, stride) for record in records],
    }


def run(record: RunRecord) -> dict[str, Any]:
    """A run as the cells of its row and the tables of its details."""
    best = record.best
    calibration = record.analysis.calibration
    of = "" if record.finished else f"epoch {record.last_tested or 0}"
    cells = [
        ("model", cell(record.recipe.get("model"))),
        ("rule", cell(record.recipe.get("rule"))),
        ("data", cell(record.recipe.get("data"))),
        ("training images", f"{record.train_images:,}" if record.train_images else ABSENT),
        ("epochs", f"{record.epochs:,}" if record.epochs else ABSENT),
        ("test error", percent(record.last_error)),
        ("balanced", percent(record.balanced_error)),
        ("best", percent(best[0] if best else None)),
        ("train error", percent(record.train_error)),
        ("gap, points", points(record.gap).removesuffix("\u00a0points")),
        ("ECE, points", f"{100 * calibration.ece:.1f}" if calibration else ABSENT),
        ("images/s", f"{record.images_per_second:,.0f}" if record.images_per_second else ABSENT),
        ("time", duration(record.seconds)),
    ]
    under = {
        "test error": of,
        "balanced": "mean over classes" if record.balanced_error is not None else "",
        "best": f"epoch {best[1]}" if best else "",
    }
    tables = [("Recipe", record.recipe), ("Result", record.result), ("Environment", record.environment)]
    return {
        "name": record.name,
        "short": record.short,
        "rule": cell(record.recipe.get("rule")),
        "error": percent(record.last_error),
        "cells": [(label, value, under.get(label, "")) for label, value in cells],
        "tables": [(label, [(key, text(value)) for key, value in table.items()]) for label, table in tables if table],
        "findings": findings(record),
    }


def without_empty_columns(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """ECE is a column only where some run was analysed, the balanced error where some test images are uneven."""
    for i in reversed(range(len(runs[0]["cells"]) if runs else 0)):
        rare = runs[0]["cells"][i][0] in ("ECE, points", "balanced")
        if rare and all(one["cells"][i][1] == ABSENT for one in runs):
            for one in runs:
                del one["cells"][i]
    return runs


def findings(record: RunRecord) -> dict[str, Any]:
    """What the analysis of one run gives: each part, or None."""
    analysis = record.analysis
    gap = ""
    if analysis.gap is not None and analysis.train_error is not None:
        images = f"{analysis.train_images:,} training images" if analysis.train_images else "training images"
        gap = (
            f"On its {images} as they are, not augmented and not shaken, the trained network has an error of "
            f"{percent(analysis.train_error)}: the gap to the test error is {points(analysis.gap)}, both in fp32."
        )
    return {
        "gap": gap,
        "split": analysis.split,
        "images": f"{analysis.images:,}" if analysis.images else "",
        "reliability": html_charts.reliability(analysis.calibration),
        "confusion": html_charts.confusion(analysis),
        "mistakes": [_mistake(mistake) for mistake in analysis.mistakes],
        "confusions": [
            {
                "truth": one.truth,
                "predicted": one.predicted,
                "count": f"{one.count:,}",
                "images": [_mistake(image) for image in one.images],
            }
            for one in analysis.confusions
        ],
        "gradcam": [_looked(one) for one in analysis.gradcam if one.png and one.heat],
        "layers": html_charts.layer_maps(analysis.layerwise),
        "any": bool(
            analysis.calibration
            or analysis.gradcam
            or analysis.confusion
            or analysis.mistakes
            or analysis.layerwise
            or gap
        ),
    }


def squares(records: Sequence[RunRecord], rules: Sequence[str] = ()) -> list[dict[str, Any]]:
    """A drawing for each rule that shakes two branches of a network here, with a measurement where one was analysed."""
    found: dict[str, Strength | None] = dict.fromkeys(rules)
    for record in records:
        rule, measured = record.recipe.get("rule"), record.analysis.strength
        if branch_count(str(record.recipe.get("model", ""))) != 2:
            continue
        if drawable(rule):
            found.setdefault(str(rule), None)
        if measured is not None and measured.rule in found and found[measured.rule] is None:
            found[measured.rule] = measured
    return [html_charts.square(rule, measured) for rule, measured in list(found.items())[:16]]


def experiment(record: ExperimentRecord, number: int) -> dict[str, Any]:
    """A table of the paper with ours beside it, and its figures."""
    several = len(record.columns) > 1
    columns, drawn = [], []
    for i, (column, label) in enumerate(record.columns.items()):
        cells = record.of_column(column)
        if not cells:
            continue
        published_for = list(dict.fromkeys(cell.published_for for cell in cells if cell.published_for))
        columns.append(
            {
                "label": label,
                "published_for": ", ".join(published_for),
                "rows": [_row(record, cell) for cell in cells],
            }
        )
        lines = [averaged(cell.row, found) for cell in cells if (found := cell.records)]
        if figure := curve_figure(lines, f"e{number}c{i}", whole=False):
            drawn.append({**figure, "label": label if several else ""})
    groups = groups_of_rows(record)
    rules = rules_of(record)
    return {
        "id": f"experiment{number}",
        "record": record,
        "scale": record.scale,
        "state": state(record),
        "columns": columns,
        "forest": html_charts.forest(record),
        "curves": drawn,
        "squares": squares(record.records, rules) if rules else [],
        "correlation": html_charts.correlations(groups),
        "layers": [
            {"name": name, "n": len(found), "maps": maps}
            for name, found in groups
            if (maps := html_charts.layer_maps(block_means(found, "layerwise")))
        ],
    }


def state(record: ExperimentRecord) -> str:
    """How much of it is there."""
    done = sum(len(cell.runs) for cell in record.cells)
    failed = sum(len(cell.failed) for cell in record.cells)
    missing = sum(len(cell.missing) for cell in record.cells)
    told = f"{done} of {done + failed + missing} runs are finished"
    rest = [f"{missing} {'is' if missing == 1 else 'are'} missing"] if missing else []
    rest += [f"{failed} failed"] if failed else []
    return f"{told}{', ' if rest else ''}{' and '.join(rest)}."


def groups_of_rows(record: ExperimentRecord) -> list[tuple[str, list[RunRecord]]]:
    """The runs of each row; where there are several columns, of each row in each."""
    several = len(record.columns) > 1
    groups = []
    for column, label in record.columns.items():
        for found in record.of_column(column):
            if found.records:
                groups.append((f"{found.row}, {label.split(':')[0]}" if several else found.row, found.records))
    return groups


def rules_of(record: ExperimentRecord) -> list[str]:
    """The rules among its rows."""
    return list(dict.fromkeys(rule for _, rule in record.rows.values() if rule is not None and drawable(rule)))


def _row(record: ExperimentRecord, found: CellRecord) -> dict[str, Any]:
    label, _ = record.rows[found.row]
    one = "run" if record.folds else "seed"
    marks = [("missing", f"{one} {number} is missing") for number in found.missing]
    marks += [("failed", f"{one} {number} failed: {reason}") for number, reason in found.failed]
    wanted = len(found.runs) + len(found.missing) + len(found.failed)
    errors = [f"{one.last_error:.2f}" for one in found.runs]
    return {
        "label": label,
        "key": found.row if found.row != label else "",
        "published": ABSENT if found.published is None else f"{found.published:.2f}",
        "place": found.place,
        "mean": ABSENT if found.mean is None else f"{found.mean:.2f}",
        "std": "" if found.std is None else f"± {found.std:.2f}",
        "seeds": ", ".join(errors) if 1 < len(errors) <= 5 else "",
        "n": f"{len(found.runs)}" + (f" of {wanted}" if marks else ""),
        "best": ABSENT if found.best_mean is None else f"{found.best_mean:.2f}",
        "train": ABSENT if found.train_mean is None else f"{found.train_mean:.2f}",
        "time": duration(found.seconds_mean),
        "marks": marks,
    }


def _looked(found: Looked) -> dict[str, Any]:
    return {
        "png": found.png,
        "heat": found.heat,
        "truth": found.truth,
        "predicted": found.predicted,
        "sure": percent(100 * found.probability),
        "right": found.truth == found.predicted,
        "index": found.index,
    }


def _mistake(found: Mistake) -> dict[str, Any]:
    share = found.truth_probability
    return {
        "png": found.png,
        "truth": found.truth,
        "predicted": found.predicted,
        "sure": percent(100 * found.probability),
        "index": found.index,
        "tip": f"test image {found.index}\npredicted {found.predicted}\t{percent(100 * found.probability)}"
        + ("" if share is None else f"\nis {found.truth}\t{percent(100 * share)}"),
    }


def _series(record: RunRecord, stride: int) -> dict[str, Any]:
    """What the page says on hover, rounded to what it prints."""
    rows = [row for i, row in enumerate(record.rows) if i % stride == 0 or i == len(record.rows) - 1]
    digits = {"test_error": 2, "train_error": 2, "test_loss": 4, "train_loss": 4, "lr": 6}
    values = {
        name: [None if row[name] is None else round(row[name], places) for row in rows]
        for name, places in digits.items()
    }
    return {"name": record.short, "epoch": [row["epoch"] for row in rows], **values}


def spare_images(runs: list[dict[str, Any]]) -> None:
    """Take the images that would make the page heavy: the mistakes' are the last to go."""
    left = IMAGES_BYTES
    for kind in ("mistakes", "gradcam", "confusions"):
        for one in runs:
            found = one["findings"][kind]
            pictures = [image for item in found for image in item.get("images", [item])]
            size = sum(len(picture[key]) for picture in pictures for key in ("png", "heat") if key in picture)
            if size <= left:
                left -= size
            elif kind == "mistakes":
                for picture in pictures:
                    picture["png"] = ""
            else:
                one["findings"][kind] = []
