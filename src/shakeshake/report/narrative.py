"""What the runs show, in sentences that say no more than that, and how numbers are written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from .analysis import plain
from .load_run import HOUSEKEEPING, RunRecord

ABSENT = "–"


def sentences(records: Sequence[RunRecord]) -> list[str]:
    """What the runs show, and no more than they show."""
    if len(records) == 1:
        return _one(records[0])
    known = [record for record in records if record.finished and record.last_error is not None]
    if len(known) < 2:
        return ["There are not yet two finished runs to compare; the figures show how far each has come."]
    apart = _differences(known)
    if len(known) == len(records) == 2 and apart == ["rule"]:
        return _two_rules(*sorted(known, key=lambda record: record.last_error or 0))
    by_error = sorted(known, key=lambda record: record.last_error or 0)
    low, high = by_error[0], by_error[-1]
    told = [
        f"All {len(known)} finished runs have the same test error in the last epoch, {percent(low.last_error)}."
        if low.last_error == high.last_error
        else f"Of {len(known)} finished runs, the test error of the last epoch is lowest for {low.short} with "
        f"{percent(low.last_error)} and highest for {high.short} with {percent(high.last_error)}."
    ]
    gaps = sorted((record for record in known if record.gap is not None), key=lambda record: record.gap or 0)
    if len(gaps) > 1:
        told.append(
            f"The gap between train and test error lies between {points(gaps[0].gap)} ({gaps[0].short}) and "
            f"{points(gaps[-1].gap)} ({gaps[-1].short})."
        )
    if len(known) < len(records):
        told.append("Unfinished runs are left out of this comparison.")
    if not all(record.recipe for record in known):
        return [*told, "Not every recipe could be read, so what sets the runs apart is not known."]
    if "seed" in apart and set(apart) <= {"rule", "seed"}:
        return [*told, _by_rule(known), "A difference counts only where it is large beside the spread between seeds."]
    if len(apart) == 1:
        told.append(f"The runs differ only in {apart[0]}.")
    elif apart:
        told.append(f"The runs differ in {_listed(apart)}, so no difference can be put down to one of these alone.")
    return [*told, "Each is one seed: differences of the size that other seeds would make are no finding."]


def _one(record: RunRecord) -> list[str]:
    if record.last_error is None:
        return ["This run has no test error yet."]
    when = "in its last epoch" if record.finished else f"so far, after {record.last_tested} epochs,"
    told = [f"{record.short} has a test error of {percent(record.last_error)} {when}{_size(record)}."]
    if record.balanced_error is not None:
        told.append(
            f"Every class counting the same, however few its images, it is {percent(record.balanced_error)} "
            "(the balanced error)."
        )
    if record.gap is not None:
        shaken = " and shaken" if cell(record.recipe.get("rule")).startswith("S-") else ""
        seen = "as they are," if record.recipe.get("mixup_alpha") else f"as it saw them, augmented{shaken},"
        told.append(
            f"On the images it was trained on, {seen} the error was {percent(record.train_error)}: "
            f"a gap of {points(record.gap)}."
        )
    return [*told, "This is one seed; another one would end a little higher or lower."]


def _two_rules(low: RunRecord, high: RunRecord) -> list[str]:
    """Two finished runs that differ in the rule alone; ``low`` has the lower test error."""
    a, b = cell(low.recipe.get("rule")), cell(high.recipe.get("rule"))
    difference = (high.last_error or 0) - (low.last_error or 0)
    opening = "The two runs differ only in the rule."
    if difference == 0:
        told = [f"{opening} Their test error in the last epoch is the same, {percent(low.last_error)}."]
    else:
        counted = ""
        if low.test_images:
            images = round(difference * low.test_images / 100)
            counted = f", {images:,} of {low.test_images:,} test images"
        told = [
            f"{opening} The test error of the last epoch was {points(difference)} lower with {a} than with {b} "
            f"({percent(low.last_error)} against {percent(high.last_error)}{counted})."
        ]
    if low.gap is not None and high.gap is not None:
        told.append(
            f"The gap between train and test error is {points(low.gap)} with {a} and {points(high.gap)} with {b}."
        )
    return [*told, "Each is one seed, and one seed is no finding: repeat both with other seeds."]


def _by_rule(records: Sequence[RunRecord]) -> str:
    """Mean and range over the seeds of each rule."""
    errors: dict[str, list[float]] = {}
    for record in records:
        errors.setdefault(cell(record.recipe.get("rule")), []).append(record.last_error or 0)
    means = [
        f"{rule} {percent(fmean(found))} on average over {len(found)} seeds ({min(found):.2f} to {max(found):.2f} %)"
        if len(found) > 1
        else f"{rule} {percent(found[0])} with one seed"
        for rule, found in errors.items()
    ]
    return f"The runs differ only in rule and seed: {'; '.join(means)}."


def _size(record: RunRecord) -> str:
    return f", over {record.test_images:,} test images" if record.test_images else ""


def _differences(records: Sequence[RunRecord]) -> list[str]:
    """The fields in which recipes differ, and the data, where a name stood for different images."""
    fields = dict.fromkeys(name for record in records for name in record.recipe if name not in HOUSEKEEPING)
    apart = [name for name in fields if len({text(record.recipe.get(name)) for record in records}) > 1]
    for name, meaning in (("data_fingerprint", "data"), ("precision", "precision")):
        values = {text(record.result[name]) for record in records if name in record.result}
        if len(values) > 1 and meaning not in apart:
            apart.append(meaning)
    return [plain(name) for name in apart]


def _listed(words: Sequence[str]) -> str:
    shown = [*words[:5], *(["more"] if len(words) > 5 else [])]
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " and " + shown[-1]


def percent(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.2f}\u00a0%"


def points(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.2f}\u00a0points".replace("-", "−")


def signed(value: float | None, digits: int = 2) -> str:
    return ABSENT if value is None else f"{value:+.{digits}f}".replace("-", "−")


def decimal(value: float | None, digits: int = 2) -> str:
    return ABSENT if value is None else f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ABSENT
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def cell(value: Any) -> str:
    return ABSENT if value is None else plain(text(value))


def text(value: Any) -> str:
    written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return written if len(written) <= 500 else written[:499] + "…"
