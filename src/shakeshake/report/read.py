"""Reads run directories for the report: whatever is there, with a note for whatever is missing or broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..train.record import RunDirectory

COLUMNS = ("lr", "train_loss", "train_error", "test_loss", "test_error")


@dataclass(frozen=True)
class RunRecord:
    """What a run directory tells. rows: those of metrics.jsonl; notes: what could not be read, in sentences."""

    name: str
    recipe: dict[str, Any]
    environment: dict[str, Any]
    rows: list[dict[str, Any]]
    result: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    def column(self, name: str) -> tuple[list[int], list[float]]:
        """(epochs, values) of one metric, where it was measured."""
        pairs = [(row["epoch"], row[name]) for row in self.rows if isinstance(row.get(name), int | float)]
        return [epoch for epoch, _ in pairs], [value for _, value in pairs]

    def last(self, name: str) -> float | None:
        values = self.column(name)[1]
        return values[-1] if values else None

    @property
    def best(self) -> tuple[float, int] | None:
        """The lowest test error and its epoch."""
        epochs, errors = self.column("test_error")
        return min(zip(errors, epochs, strict=True)) if errors else None

    @property
    def seconds(self) -> float:
        return sum(self.column("seconds")[1])


def read_runs(paths: Sequence[Path]) -> tuple[list[RunRecord], list[str]]:
    """The runs that have at least one epoch to show, and notes on the others.

    Raises InputError when there is none.
    """
    names = _short_names(paths)
    runs = [_read(path, name) for path, name in zip(paths, names, strict=True)]
    shown = [run for run in runs if run.rows]
    if not shown:
        raise InputError(f"runs: {', '.join(map(str, paths))}: no epoch to show, expected the folder of a run")
    return shown, [f"{run.name}: {note}" for run in runs for note in run.notes]


def _short_names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, or the whole path where two would be alike."""
    last = [Path(path).resolve().name for path in paths]
    return last if len(set(last)) == len(last) else [str(path) for path in paths]


def _read(path: Path, name: str) -> RunRecord:
    directory = RunDirectory(Path(path))
    notes: list[str] = []
    found: dict[str, dict[str, Any]] = {}
    for file in ("recipe.json", "environment.json", "result.json"):
        found[file] = {}
        if file == "result.json" and not directory.finished:
            notes.append("not finished, shown as far as it went")
            continue
        try:
            content = directory.read_json(file)
        except InputError as error:
            notes.append(str(error).removeprefix("run: "))
            continue
        if isinstance(content, dict):
            found[file] = content
        else:
            notes.append(f"{file} is not an object")
    try:
        rows = [row for row in directory.metrics() if isinstance(row, dict) and isinstance(row.get("epoch"), int)]
    except OSError as error:
        rows = []
        notes.append(f"metrics.jsonl cannot be read: {error.strerror}")
    if not rows:
        notes.append("no epoch is recorded in metrics.jsonl, left out")
    return RunRecord(name, found["recipe.json"], found["environment.json"], rows, found["result.json"], notes)
