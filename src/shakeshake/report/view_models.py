"""What the page's templates show of runs and tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..analysis.schema import Analysis, Calibration, Example, Strength
from ..experiments.schema import TableCell
from ..layers.rules import ShakeRule
from ..models.registry import branch_count
from . import charts, curves, theme
from .beta_regions import is_drawable
from .format import ABSENT, count, decimal, duration, percent, points, value, value_or_absent
from .load import TableRecord
from .runs import RunRecord
from .seed_averages import Curve, average, layer_means
from .svg import Chart, clean, tip

SERIES_POINTS = 6_000
"""Points of all curves that the page can show on hover."""
IMAGE_BYTES = 1_000_000
"""Images in a page, over all runs; beyond it predictions are listed without their images, or left out."""
MATRIX_CLASSES, LISTED_CONFUSIONS = 20, 12
SQUARES = 16


def error_figure(lines: Sequence[Curve], key: str, *, with_loss: bool = True) -> dict[str, Any] | None:
    """Charts by epoch, their legend, and the values that the page's script shows on hover."""
    total = sum(len(line.epochs) for line in lines)
    if not total:
        return None
    return {
        "key": key,
        "wide": curves.errors(lines),
        "narrow": curves.errors(lines, curves.NARROW),
        "losses": curves.linear(lines, curves.LOSSES, "loss") if with_loss else None,
        "rates": curves.linear(lines, ("lr",), "learning rate") if with_loss else None,
        "legend": [
            (line.name, [(tone, curves.swatch(i, tone)) for tone in theme.TONES]) for i, line in enumerate(lines)
        ],
        "averaged": any(line.bands for line in lines),
        "series": [_series(line, math.ceil(total / SERIES_POINTS)) for line in lines],
    }


def run(record: RunRecord) -> dict[str, Any]:
    """A run as a row of the table of runs, and its details."""
    best, calibration = record.best, record.analysis.calibration
    columns = [
        ("model", value_or_absent(record.recipe.get("model")), ""),
        ("rule", value_or_absent(record.recipe.get("rule")), ""),
        ("data", value_or_absent(record.recipe.get("data")), ""),
        ("training images", count(record.train_images), ""),
        ("epochs", count(record.last_epoch), ""),
        ("test error", percent(record.last_error), "" if record.finished else f"epoch {record.last_tested or 0}"),
        ("balanced error", percent(record.balanced_error), ""),
        ("lowest error", percent(best[0] if best else None), f"epoch {best[1]}" if best else ""),
        ("train error", percent(record.train_error), ""),
        ("gap, points", decimal(record.gap), ""),
        ("ECE, points", decimal(100 * calibration.ece, 1) if calibration else ABSENT, ""),
        ("images/s", count(record.images_per_second), ""),
        ("time", duration(record.seconds), ""),
    ]
    tables = [("Recipe", record.recipe), ("Result", record.fields), ("Environment", record.environment)]
    return {
        "name": record.name,
        "rule": value_or_absent(record.recipe.get("rule")),
        "error": percent(record.last_error),
        "columns": columns,
        "tables": [(label, [(key, value(v)) for key, v in table.items()]) for label, table in tables if table],
        "findings": findings(record),
    }


def drop_empty_columns(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out the ECE and the balanced error where no run has them."""
    for name in ("ECE, points", "balanced error"):
        if all(shown == ABSENT for one in runs for label, shown, _ in one["columns"] if label == name):
            for one in runs:
                one["columns"] = [column for column in one["columns"] if column[0] != name]
    return runs


def findings(record: RunRecord) -> dict[str, Any]:
    """The analysis of one run, part by part; parts that are missing are empty."""
    analysis, gap = record.analysis, ""
    if analysis.gap is not None and analysis.train_error is not None:
        images = f"{analysis.train_images:,} training images" if analysis.train_images else "training images"
        gap = (
            f"On its {images}, without augmentation and shaking, the trained network has an error of "
            f"{percent(analysis.train_error)}. The test error is {points(analysis.gap)} higher."
        )
    examples = [_example(one, analysis.classes) for one in analysis.gradcam.images] if analysis.gradcam else []
    parts: dict[str, Any] = {
        "gap": gap,
        "reliability": _reliability(analysis.calibration) if analysis.calibration else None,
        "confusion": _confusion_matrix(analysis) if analysis.confusion else None,
        "mistakes": [_example(one, analysis.classes) for one in analysis.mistakes or ()],
        "confusions": [
            {
                "truth": analysis.classes[one.truth],
                "predicted": analysis.classes[one.predicted],
                "count": f"{one.count:,}",
                "images": [_example(image, analysis.classes) for image in one.images],
            }
            for one in analysis.confusions or ()
        ],
        "gradcam": [one for one in examples if one["png"] and one["heat"]],
        "layers": charts.layer_maps(layer_means([record])),
    }
    return {**parts, "any": any(parts.values()), "split": analysis.split, "images": count(analysis.images)}


def beta_squares(runs: Sequence[RunRecord], rules: Sequence[str] = ()) -> list[Chart]:
    """A chart for each rule that shakes two branches, with measured counts if a run was analysed."""
    found: dict[str, Strength | None] = dict.fromkeys(rules)
    for record in runs:
        rule, measured = str(record.recipe.get("rule")), record.analysis.strength
        if branch_count(str(record.recipe.get("model", ""))) != 2 or not is_drawable(rule):
            continue
        same = (
            measured is not None
            and is_drawable(measured.rule)
            and ShakeRule.parse(measured.rule) == ShakeRule.parse(str(rule))
        )
        if found.get(str(rule)) is None:
            found[str(rule)] = measured if same else None
    return [charts.beta_square(rule, measured) for rule, measured in list(found.items())[:SQUARES]]


def table(record: TableRecord, number: int) -> dict[str, Any]:
    """A table of results and its charts."""
    columns, figures = [], []
    for i, (column, label) in enumerate(record.columns.items()):
        cells = list(record.table.column_cells(column))
        published_for = dict.fromkeys(cell.published_for for cell in cells if cell.published_for)
        rows = [_row(record, cell) for cell in cells]
        columns.append({"label": label, "published_for": ", ".join(published_for), "rows": rows})
        lines = [average(cell.row, runs) for cell in cells if (runs := record.runs_of(cell))]
        if figure := error_figure(lines, f"t{number}c{i}", with_loss=False):
            figures.append({**figure, "label": label if len(record.columns) > 1 else ""})
    groups = list(record.groups())
    rules = table_rules(record)
    layers = record.table.kind in ("correlation", "layerwise")
    return {
        "id": f"table{number}",
        "table": record.table,
        "state": _state(record),
        "columns": columns,
        "differences": wide_and_narrow(charts.differences, record),
        "covers": list(dict.fromkeys(one.covers for one in record.table.judged_differences if one.covers)),
        "levels": " and ".join(dict.fromkeys(f"{100 * one.level:g} %" for one in record.table.judged_differences)),
        "curves": figures,
        "squares": beta_squares(record.all_runs, rules) if rules else [],
        "correlation": wide_and_narrow(charts.correlations, groups),
        "layers": [
            (name, len(runs), maps)
            for name, runs in groups
            if layers and (maps := charts.layer_maps(layer_means(runs)))
        ],
        "correlation_first": layers,
    }


def table_rules(record: TableRecord) -> list[str]:
    """The rules among the rows of a table."""
    return list(dict.fromkeys(row.rule for row in record.table.rows if row.rule is not None and is_drawable(row.rule)))


def limit_images(runs: list[dict[str, Any]]) -> None:
    """Remove the images that would make the page heavy, those of mistakes last."""
    left = IMAGE_BYTES
    for kind in ("mistakes", "gradcam", "confusions"):
        for one in runs:
            listed = one["findings"][kind]
            images = [image for item in listed for image in item.get("images", [item])]
            size = sum(len(image["png"]) + len(image["heat"]) for image in images)
            if size <= left:
                left -= size
            elif kind == "mistakes":
                for image in images:
                    image["png"] = ""
            else:
                one["findings"][kind] = []


def wide_and_narrow(draw: Any, of: Any) -> tuple[Chart, Chart] | None:
    """A chart for computers and for phones."""
    wide = draw(of)
    return None if wide is None else (wide, draw(of, charts.NARROW))


def _state(record: TableRecord) -> str:
    """How many runs are finished."""
    cells = record.table.cells
    done = sum(len(cell.runs) for cell in cells)
    failed = sum(len(cell.failed) for cell in cells)
    missing = sum(len(cell.missing) for cell in cells)
    rest = [f"{missing} {'is' if missing == 1 else 'are'} missing"] if missing else []
    rest += [f"{failed} failed"] if failed else []
    return f"{done} of {done + failed + missing} runs are finished{', ' if rest else ''}{' and '.join(rest)}."


def _row(record: TableRecord, cell: TableCell) -> dict[str, Any]:
    label, unit = record.rows[cell.row], "run" if record.table.folds else "seed"
    marks = [("missing", f"{unit} {number} is missing") for number in cell.missing]
    for failure in cell.failed:
        verb = "diverged" if failure.diverged else "failed"
        marks.append(("failed", f"{unit} {failure.seed} {verb}: {failure.reason}"))
    wanted = len(cell.runs) + len(cell.missing) + len(cell.failed)
    errors = [f"{one.last_error:.2f}" for one in cell.runs]
    return {
        "label": label,
        "key": cell.row if cell.row != label else "",
        "published": f"~{cell.published:g}" if cell.approximate and cell.published else decimal(cell.published),
        "source": _published_notes(cell),
        "mean": decimal(cell.mean),
        "std": "" if cell.std is None else f"± {cell.std:.2f}",
        "seeds": ", ".join(errors) if 1 < len(errors) <= 5 else "",
        "runs": f"{len(cell.runs)}" + (f" of {wanted}" if marks else ""),
        "best": decimal(cell.best_mean),
        "train": decimal(cell.train_mean),
        "time": duration(cell.seconds_mean),
        "marks": marks,
    }


def _published_notes(cell: TableCell) -> str:
    """Source of the published error, the number of runs, and the other published errors."""
    notes = [cell.source if cell.published is not None or cell.published_train is not None else ""]
    notes.append(f"{cell.published_runs} run{'s' * (cell.published_runs > 1)}" if cell.published_runs else "")
    notes.append("" if cell.published_train is None else f"training error ~{cell.published_train:g}")
    notes.append("" if cell.published_best is None else f"best epoch {cell.published_best:.2f}, ICLR workshop version")
    return "; ".join(filter(None, notes))


def _reliability(found: Calibration) -> dict[str, Any]:
    calibrated = found.temperature is not None and found.ece_calibrated is not None
    return {
        "chart": charts.reliability(found),
        "ece": decimal(100 * found.ece, 1),
        "confidence": percent(100 * found.mean_confidence),
        "accuracy": percent(100 * found.accuracy),
        "temperature": decimal(found.temperature) if calibrated else "",
        "ece_calibrated": decimal(100 * (found.ece_calibrated or 0), 1),
    }


def _confusion_matrix(analysis: Analysis) -> dict[str, Any]:
    """The matrix, if it is not too large, and the most frequent confusions."""
    matrix, classes = analysis.confusion or (), analysis.classes
    sums = [sum(row) for row in matrix]
    pairs = [(n, i, j) for i, row in enumerate(matrix) for j, n in enumerate(row) if i != j and n]
    pairs.sort(key=lambda pair: (-pair[0], pair[1:]))
    small = len(classes) <= MATRIX_CLASSES
    listed = [
        {"truth": classes[i], "predicted": classes[j], "count": n, "share": percent(100 * n / sums[i])}
        for n, i, j in pairs[: 3 if small else LISTED_CONFUSIONS]
    ]
    rows = []
    for i, row in enumerate(matrix if small else ()):
        cells = []
        for j, n in enumerate(row):
            part = n / sums[i] if sums[i] else 0.0
            counted = f"{n:,} of {sums[i]:,} ({percent(100 * part)})"
            shown = tip(f"is {classes[i]}", (f"predicted {classes[j]}", counted))
            cells.append({"count": n, "share": round(100 * math.sqrt(part)), "right": i == j, "tip": shown})
        rows.append((classes[i], cells))
    return {"rows": rows, "classes": classes, "listed": listed}


def _example(one: Example, classes: Sequence[str]) -> dict[str, Any]:
    truth, predicted, sure = classes[one.truth], classes[one.predicted], percent(100 * one.probability)
    rows = [(f"predicted {predicted}", sure)]
    if one.truth_probability is not None:
        rows.append((f"is {truth}", percent(100 * one.truth_probability)))
    return {
        "png": one.png or "",
        "heat": one.heat or "",
        "truth": truth,
        "predicted": predicted,
        "right": one.truth == one.predicted,
        "probability": sure,
        "index": one.index,
        "tip": tip(f"test image {one.index}", *rows),
    }


def _series(line: Curve, stride: int) -> dict[str, Any]:
    """The values of a curve for the page's script, rounded to what it shows."""
    kept = sorted({*range(0, len(line.epochs), stride), len(line.epochs) - 1}) if line.epochs else []
    digits = {"test_error": 2, "train_error": 2, "test_loss": 4, "train_loss": 4, "lr": 6}
    rounded = {
        name: [None if (v := line.columns[name][i]) is None else round(v, places) for i in kept]
        for name, places in digits.items()
    }
    return {"name": clean(line.name), "epoch": [line.epochs[i] for i in kept], **rounded}
