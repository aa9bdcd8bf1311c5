"""What is in a run directory, read tolerantly: whatever is missing or broken becomes a note, never an exception."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from .analysis import Analysis, number, plain
from .analysis import parse as parse_analysis

COLUMNS = ("lr", "train_loss", "train_error", "test_loss", "test_error", "seconds", "images_per_second")
HOUSEKEEPING = ("data_dir", "checkpoint_interval_s")
"""Fields of a recipe that do not change what is trained."""


@dataclass(frozen=True)
class RunRecord:
    """One run as far as it could be read. ``rows`` are ordered by epoch; what is unknown in them is None."""

    name: str
    recipe: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    rows: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    analysis: Analysis = field(default_factory=Analysis)

    @property
    def short(self) -> str:
        """The name at a length that fits into a sentence."""
        return self.name if len(self.name) <= 40 else f"{self.name[:24]}…{self.name[-15:]}"

    @property
    def readable(self) -> bool:
        return bool(self.recipe or self.result or self.rows)

    @property
    def finished(self) -> bool:
        return bool(self.result)

    @property
    def epochs(self) -> int | None:
        """Epochs trained so far."""
        return self.rows[-1]["epoch"] if self.rows else _count(self.result.get("epochs"))

    def series(self, column: str) -> tuple[list[int], list[float]]:
        """Epochs and values of a column, where it has one."""
        known = [(row["epoch"], row[column]) for row in self.rows if row[column] is not None]
        return [epoch for epoch, _ in known], [value for _, value in known]

    @property
    def last_error(self) -> float | None:
        """Test error of the last epoch (while a run is unfinished: of the last one tested), in %."""
        value = number(self.result.get("last_error"))
        return value if value is not None else self._last_tested("test_error")

    @property
    def balanced_error(self) -> float | None:
        """Mean over the classes of each one's test error, in %, where that is another figure than the error."""
        value = number(self.result.get("last_balanced_error"))
        uneven = value is not None and self.last_error is not None and abs(value - self.last_error) >= 0.005
        return value if uneven else None

    @property
    def last_tested(self) -> int | None:
        """The epoch that last_error is of."""
        tested = self.series("test_error")[0]
        return tested[-1] if tested else self.epochs

    @property
    def train_error(self) -> float | None:
        """Train error of that same epoch, in %; the analysis's, if any, where mixup makes that one of mixtures."""
        if number(self.recipe.get("mixup_alpha")):
            return self.analysis.train_error
        value = number(self.result.get("last_train_error"))
        return value if value is not None else self._last_tested("train_error")

    @property
    def gap(self) -> float | None:
        """Points by which the test error exceeds the train error."""
        if self.last_error is None or self.train_error is None:
            return None
        return self.last_error - self.train_error

    @property
    def best(self) -> tuple[float, int] | None:
        """Lowest test error and its epoch."""
        value, epoch = number(self.result.get("best_error")), _count(self.result.get("best_epoch"))
        if value is not None and epoch is not None:
            return value, epoch
        epochs, errors = self.series("test_error")
        return min(zip(errors, epochs, strict=True), default=None)

    @property
    def seconds(self) -> float | None:
        total = number(self.result.get("seconds"))
        return total if total is not None else sum(self.series("seconds")[1]) or None

    @property
    def images_per_second(self) -> float | None:
        """The median epoch: the first one warms up, and a busy machine slows some."""
        speeds = self.series("images_per_second")[1]
        return median(speeds) if speeds else None

    @property
    def train_images(self) -> int | None:
        return _count(self.result.get("train_images")) or _count(self.recipe.get("train_size"))

    @property
    def test_images(self) -> int | None:
        return _count(self.result.get("test_images"))

    def _last_tested(self, column: str) -> float | None:
        return next((row[column] for row in reversed(self.rows) if row["test_error"] is not None), None)


def _value(column: str, value: Any) -> float | None:
    known = number(value)
    highest = 100 if column.endswith("_error") else math.inf
    return known if known is not None and 0 <= known <= highest else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and number(value) is not None and value > 0 else None


def read_run(path: Path, name: str | None = None) -> RunRecord:
    """One run directory. A directory with nothing to read gives a record that is not ``readable``, with its notes."""
    name = name or plain(path.name) or "run"
    if not path.is_dir():
        return RunRecord(name, notes=("there is no such folder",))
    notes: list[str] = []
    recipe = json_object(path / "recipe.json", notes)
    result = json_object(path / "result.json", notes, optional=True)
    rows = _rows(path / "metrics.jsonl", notes)
    if not (recipe or result or rows):
        return RunRecord(name, notes=("not shown, because " + "; ".join(notes),))
    environment = json_object(path / "environment.json", notes)
    analysed = parse_analysis(json_object(path / "analysis.json", notes, optional=True), notes)
    record = RunRecord(name, recipe, environment, result, rows, tuple(notes), analysed)
    if not record.finished:
        planned = _count(recipe.get("epochs"))
        done = f"{record.epochs or 0} of {planned} epochs" if planned else f"{record.epochs or 0} epochs"
        record = replace(record, notes=(*notes, f"is not finished, this is how it stands after {done}"))
    return record


def run_names(places: Sequence[Path]) -> list[str]:
    """The folder's name, with as much of its path as it takes to tell the runs apart."""
    for length in range(1, 5):
        names = [plain("/".join(place.resolve().parts[-length:])) or "run" for place in places]
        if len(set(names)) == len(names):
            return names
    seen: Counter[str] = Counter()
    for i, name in enumerate(names):
        seen[name] += 1
        names[i] = f"{name} ({seen[name]})"
    return names


def json_object(path: Path, notes: list[str], *, optional: bool = False) -> dict[str, Any]:
    """The object in a file, or {} and a note of what is wrong with it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        if not optional:
            notes.append(f"{path.name} is missing")
        return {}
    except OSError as error:
        notes.append(f"{path.name} cannot be read ({error.strerror})")
        return {}
    except (ValueError, RecursionError):
        notes.append(f"{path.name} is not valid JSON")
        return {}
    if not isinstance(value, dict):
        notes.append(f"{path.name} holds no JSON object")
        return {}
    return value


def _rows(path: Path, notes: list[str]) -> tuple[dict[str, Any], ...]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        notes.append(f"{path.name} is missing")
        return ()
    except OSError as error:
        notes.append(f"{path.name} cannot be read ({error.strerror})")
        return ()
    rows: dict[int, dict[str, Any]] = {}
    broken: list[int] = []
    odd: dict[str, None] = {}
    for i, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
            if i == len(lines):  # a kill cut it off
                continue
        epoch = _count(values.get("epoch")) if isinstance(values, dict) else None
        if epoch is None:
            broken.append(i)
        else:  # an epoch that was trained again after a crash counts as it was the last time
            row = {name: _value(name, values.get(name)) for name in COLUMNS}
            odd |= dict.fromkeys(name for name in COLUMNS if row[name] is None and values.get(name) is not None)
            rows[epoch] = {"epoch": epoch, **row}
    if broken:
        which = ", ".join(map(str, broken[:5])) + (", …" if len(broken) > 5 else "")
        notes.append(f"{path.name} is broken in line {which}")
    if odd:
        notes.append(f"{path.name} has values of {', '.join(odd)} that cannot be, they are left out")
    if not rows:
        notes.append(f"{path.name} holds no whole epoch")
    return tuple(rows[epoch] for epoch in sorted(rows))
