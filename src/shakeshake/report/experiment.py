"""What `shakeshake reproduce` wrote, read tolerantly: a broken cell is noted and left out, the rest kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .analysis import number, plain
from .load_run import RunRecord, json_object, read_run

MISTAKES = (KeyError, TypeError, ValueError, IndexError, AttributeError)


@dataclass(frozen=True)
class SeedRun:
    """A finished run of a cell. record: its directory, where that could be read."""

    seed: int
    last_error: float
    record: RunRecord | None = None


@dataclass(frozen=True)
class CellRecord:
    """One row in one column: ours beside the published figure. Errors in %, times in seconds."""

    row: str
    column: str
    published: float | None = None
    published_for: str = ""
    place: str = ""
    runs: tuple[SeedRun, ...] = ()
    failed: tuple[tuple[int, str], ...] = ()
    missing: tuple[int, ...] = ()
    mean: float | None = None
    std: float | None = None
    best_mean: float | None = None
    train_mean: float | None = None
    seconds_mean: float | None = None

    @property
    def records(self) -> list[RunRecord]:
        return [run.record for run in self.runs if run.record is not None]


@dataclass(frozen=True)
class DifferenceRecord:
    """Error of a row minus that of another, in points, with its interval."""

    row: str
    against: str
    column: str
    difference: float
    low: float
    high: float
    level: float
    n: tuple[int, int]
    covers: str

    @property
    def tells(self) -> bool:
        """Whether the interval leaves out 0, and holds the chance of seeds: two networks differ without any reason."""
        return min(self.n) > 1 and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class ExperimentRecord:
    """A table or figure as it stands, the paper's or without a place there somebody's own comparison.

    rows: key -> (label, rule or None); columns: key -> label.
    """

    name: str
    title: str
    place: str = ""
    kind: str = "table"
    scale: str = ""
    setting: str = ""
    published_setting: str = ""
    rows: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    folds: int = 0
    cells: tuple[CellRecord, ...] = ()
    differences: tuple[DifferenceRecord, ...] = ()
    reading: tuple[str, ...] = ()
    environment: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def records(self) -> list[RunRecord]:
        return [record for cell in self.cells for record in cell.records]

    def of_column(self, column: str) -> list[CellRecord]:
        """Its cells in the order of the rows."""
        found = {cell.row: cell for cell in self.cells if cell.column == column}
        return [found[row] for row in self.rows if row in found]


def looks_like_one(found: dict[str, Any]) -> bool:
    return "experiment" in found and "cells" in found


def read_experiment(path: Path, runs: dict[Path, RunRecord]) -> tuple[ExperimentRecord | None, list[str]]:
    """The experiment of one file, or None, and notes. ``runs``: those already read, so that none is read twice."""
    notes: list[str] = []
    found = json_object(path, notes)
    if not found:
        return None, [f"{plain(path.name)}: not shown, because {'; '.join(notes) or 'it is empty'}"]
    name = plain(found.get("experiment") or path.stem)
    if not looks_like_one(found):
        return None, [f"{plain(path.name)}: not shown, because it holds no results of `shakeshake reproduce`"]

    def texts(key: str) -> str:
        return plain(found[key]) if isinstance(found.get(key), str) else ""

    rows = {
        key: (label, rule if isinstance(rule, str) else None)
        for key, label, rule in _whole(
            found.get("rows"), lambda row: (str(row["key"]), plain(row["label"]), row.get("rule"))
        )
    }
    columns = dict(_whole(found.get("columns"), lambda column: (str(column["key"]), plain(column["label"]))))
    listed = _listed(found.get("cells"))
    cells = _whole(listed, lambda cell: _cell(cell, path.parent, runs, notes))
    if len(cells) < len(listed):
        notes.append(f"{len(listed) - len(cells)} of its {len(listed)} cells are broken and left out")
    # A row or column that is not declared, in a damaged file, is shown under its own key.
    rows |= {cell.row: (plain(cell.row), None) for cell in cells if cell.row not in rows}
    columns |= {cell.column: plain(cell.column) for cell in cells if cell.column not in columns}
    differences = _whole(found.get("differences"), _difference)
    if len(differences) < len(_listed(found.get("differences"))):
        notes.append("some of its differences are broken and left out")
    if not any(cell.runs for cell in cells):
        notes.append("has no finished run yet")
    record = ExperimentRecord(
        name=name,
        title=texts("title") or name,
        place=texts("place"),
        kind=texts("kind") or "table",
        scale=texts("scale"),
        setting=texts("setting"),
        published_setting=texts("published_setting"),
        rows=rows,
        columns=columns,
        seeds=tuple(_whole(found.get("seeds"), _integer)),
        folds=found["folds"] if isinstance(found.get("folds"), int) else 0,
        cells=tuple(cells),
        differences=tuple(difference for difference in differences if difference.row in rows),
        reading=tuple(map(plain, _listed(found.get("reading")))),
        environment=found["environment"] if isinstance(found.get("environment"), dict) else {},
    )
    return record, [f"{name}: {note}" for note in dict.fromkeys(notes)]


def experiment_files(folder: Path) -> list[Path]:
    """The result files in a folder of experiments; broken ones, where nothing else explains them, included."""
    files = []
    for path in sorted(folder.glob("*.json")):
        try:
            found = json.loads(path.read_text(encoding="utf-8", errors="replace"))
        except (OSError, ValueError, RecursionError):
            files.append(path)
        else:
            if isinstance(found, dict) and looks_like_one(found):
                files.append(path)
    return files


def _cell(found: dict[str, Any], folder: Path, runs: dict[Path, RunRecord], notes: list[str]) -> CellRecord:
    means = {key: number(found.get(key)) for key in ("mean", "std", "best_mean", "train_mean", "seconds_mean")}
    return CellRecord(
        row=str(found["row"]),
        column=str(found["column"]),
        published=number(found.get("published")),
        published_for=plain(found.get("published_for") or ""),
        place=plain(found.get("place") or ""),
        runs=tuple(_whole(found.get("runs"), lambda run: _run(run, folder, runs, notes))),
        failed=tuple(_whole(found.get("failed"), lambda one: (_integer(one["seed"]), plain(one["reason"])))),
        missing=tuple(_whole(found.get("missing"), _integer)),
        **means,
    )


def _run(found: dict[str, Any], folder: Path, runs: dict[Path, RunRecord], notes: list[str]) -> SeedRun:
    seed, error = _integer(found["seed"]), _finite(found["last_error"])
    place = folder / str(found.get("path", ""))
    if "\0" in str(place) or not place.resolve().is_relative_to(folder.resolve()) or place == folder:
        notes.append(f"the path of a run, {plain(found.get('path'))!r}, leads out of the folder")
        return SeedRun(seed, error)
    place = place.resolve()
    if place not in runs:
        runs[place] = read_run(place, plain(place.name))
    record = runs[place]
    if not record.readable:
        notes.append(f"{record.short} {'; '.join(record.notes)}: its curves and analyses are missing")
    return SeedRun(seed, error, record if record.readable else None)


def _difference(found: dict[str, Any]) -> DifferenceRecord:
    difference, low, high, level = (_finite(found[key]) for key in ("difference", "low", "high", "level"))
    if low > high:
        raise ValueError(found)
    row, against, column = (str(found[key]) for key in ("row", "against", "column"))
    one, other = (_integer(n) for n in found["n"])
    covers = plain(found.get("covers") or "")
    return DifferenceRecord(row, against, column, difference, low, high, level, (one, other), covers)


def _finite(value: Any) -> float:
    known = number(value)
    return _wrong(value) if known is None else known


def _integer(value: Any) -> int:
    return value if isinstance(value, int) and number(value) is not None else _wrong(value)


def _wrong(value: Any) -> Any:
    raise ValueError(value)


def _listed(values: Any) -> Sequence[Any]:
    return values if isinstance(values, list) else []


def _whole(values: Any, read: Callable[[Any], Any]) -> list[Any]:
    """What could be read of a list."""
    kept = []
    for value in _listed(values):
        try:
            kept.append(read(value))
        except MISTAKES:
            continue
    return kept
