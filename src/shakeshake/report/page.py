"""The report: one self-contained HTML page from run directories, and what it says about them in words."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from statistics import fmean
from typing import Any

import jinja2
from markupsafe import Markup, escape

from ..errors import InputError
from ..train.record import write_atomically
from . import figures
from .read import HOUSEKEEPING, RunRecord, plain, read_runs

ABSENT = "–"


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Write one HTML page that shows the runs side by side; the same runs give the same bytes.

    What is missing or broken in a run is told on the page. Raises InputError when no run is readable or the page
    cannot be written.
    """
    records, notes = read_runs(runs)
    page = render(records, notes).encode("utf-8", "replace")  # JSON may hold halves of characters, UTF-8 may not
    try:
        write_atomically(out, page)
    except OSError as error:
        raise InputError(f"out: {out} cannot be written: {error.strerror or error}") from None
    return out


def render(records: Sequence[RunRecord], notes: Sequence[str] = ()) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters |= {"hash": _hash, "whole": _whole}
    template = environment.from_string(resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    drawn = any(record.rows for record in records)
    return template.render(
        title=_title(records),
        sentences=sentences(records),
        notes=notes,
        runs=[_shown(record) for record in records],
        drawn=drawn,
        light=figures.variables(dark=False),
        dark=figures.variables(dark=True),
        hues=len(figures.PALETTE),
        wide=figures.curves(records, legend=False) if drawn else "",
        narrow=figures.curves(records, size=figures.NARROW, legend=False) if drawn else "",
        losses=figures.losses(records) if drawn else "",
        rates=figures.learning_rates(records) if drawn else "",
        series=[_series(record) for record in records],
    )


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
    if record.gap is not None:
        told.append(
            f"On the images it was trained on the error is {percent(record.train_error)}: "
            f"a gap of {points(record.gap)}."
        )
    return [*told, "This is one seed; another one would end a little higher or lower."]


def _two_rules(low: RunRecord, high: RunRecord) -> list[str]:
    """Two finished runs that differ in the rule alone; ``low`` has the lower test error."""
    a, b = _cell(low.recipe.get("rule")), _cell(high.recipe.get("rule"))
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
        errors.setdefault(_cell(record.recipe.get("rule")), []).append(record.last_error or 0)
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
    apart = [name for name in fields if len({_text(record.recipe.get(name)) for record in records}) > 1]
    for name, meaning in (("data_fingerprint", "data"), ("precision", "precision")):
        values = {_text(record.result[name]) for record in records if name in record.result}
        if len(values) > 1 and meaning not in apart:
            apart.append(meaning)
    return [plain(name) for name in apart]


def _listed(words: Sequence[str]) -> str:
    shown = [*words[:5], *(["more"] if len(words) > 5 else [])]
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " and " + shown[-1]


def _title(records: Sequence[RunRecord]) -> str:
    names = [record.short for record in records]
    return " and ".join(names) if len(names) <= 2 else f"{len(names)} runs side by side"


def _shown(record: RunRecord) -> dict[str, Any]:
    """A run as the cells of its row and the tables of its details."""
    best = record.best
    of = "" if record.finished else f"epoch {record.last_tested or 0}"
    cells = [
        ("model", _cell(record.recipe.get("model"))),
        ("rule", _cell(record.recipe.get("rule"))),
        ("data", _cell(record.recipe.get("data"))),
        ("training images", f"{record.train_images:,}" if record.train_images else ABSENT),
        ("epochs", f"{record.epochs:,}" if record.epochs else ABSENT),
        ("test error", percent(record.last_error)),
        ("best", percent(best[0] if best else None)),
        ("train error", percent(record.train_error)),
        ("gap, points", points(record.gap).removesuffix("\u00a0points")),
        ("images/s", f"{record.images_per_second:,.0f}" if record.images_per_second else ABSENT),
        ("time", duration(record.seconds)),
    ]
    under = {"test error": of, "best": f"epoch {best[1]}" if best else ""}
    tables = [("Recipe", record.recipe), ("Result", record.result), ("Environment", record.environment)]
    return {
        "name": record.name,
        "short": record.short,
        "cells": [(label, value, under.get(label, "")) for label, value in cells],
        "tables": [(label, [(key, _text(value)) for key, value in table.items()]) for label, table in tables if table],
    }


def _series(record: RunRecord) -> dict[str, Any]:
    """What the page says on hover, rounded to what it prints."""
    digits = {"test_error": 2, "train_error": 2, "test_loss": 4, "train_loss": 4, "lr": 6}
    values = {
        name: [None if row[name] is None else round(row[name], places) for row in record.rows]
        for name, places in digits.items()
    }
    return {"name": record.short, "epoch": [row["epoch"] for row in record.rows], **values}


def percent(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.2f}\u00a0%"


def points(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.2f}\u00a0points".replace("-", "−")


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ABSENT
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _cell(value: Any) -> str:
    return ABSENT if value is None else plain(_text(value))


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 500 else text[:499] + "…"


def _whole(text: str) -> Markup:
    """Keep the rules in a sentence, such as S-S-I, from being broken at their hyphens."""
    return Markup(re.sub(r"\b\w+-[\w.]+-[BI]\b", r'<span class="whole">\g<0></span>', str(escape(text))))


def _hash(script: str) -> str:
    """For the page's content security policy: no other script runs, whatever a file name holds."""
    return "sha256-" + base64.b64encode(hashlib.sha256(str(script).encode()).digest()).decode()
