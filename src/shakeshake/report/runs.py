"""A run directory as a report shows it: everything that can be read, and sentences about the rest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from ..analysis import schema as analysis_schema
from ..analysis.schema import Analysis
from ..errors import InputError
from ..train.schema import EpochMetrics, FitResult
from .svg import clean

HOUSEKEEPING = ("data_dir", "checkpoint_interval_s")
"""Recipe fields that do not change what is trained."""
MAX_PROBLEMS = 5


@dataclass(frozen=True)
class RunRecord:
    """A run as far as it could be read.

    Attributes:
        name: the folder's name, with as much of its path as sets it apart from the others.
        recipe, environment, fields: the objects of recipe.json, environment.json and result.json.
        result: result.json; None if the run is not finished or the file is damaged.
        epochs: the lines of metrics.jsonl in order.
        problems: sentences about what could not be read.
    """

    name: str
    recipe: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    result: FitResult | None = None
    epochs: tuple[EpochMetrics, ...] = ()
    problems: tuple[str, ...] = ()
    analysis: Analysis = field(default_factory=Analysis)

    @property
    def short(self) -> str:
        """The name at a length that fits into a sentence."""
        return self.name if len(self.name) <= 40 else f"{self.name[:24]}…{self.name[-15:]}"

    @property
    def readable(self) -> bool:
        """Whether any of the run's files could be read."""
        return bool(self.recipe or self.fields or self.epochs)

    @property
    def finished(self) -> bool:
        """Whether the run has a result."""
        return bool(self.fields)

    @property
    def rule(self) -> str:
        """The shake rule as text."""
        return str(self.recipe.get("rule", ""))

    @property
    def last_epoch(self) -> int | None:
        """Number of epochs trained so far."""
        return self.epochs[-1].epoch if self.epochs else self.result.epochs if self.result else None

    @property
    def last_error(self) -> float | None:
        """Test error of the last epoch in %; of the last one tested while the run is unfinished."""
        tested = self._last_tested
        return self.result.last_error if self.result else tested.test_error if tested else None

    @property
    def last_tested(self) -> int | None:
        """The epoch of ``last_error``."""
        return self._last_tested.epoch if self._last_tested else self.last_epoch

    @property
    def balanced_error(self) -> float | None:
        """Mean of the test errors of the classes in %; None where it equals the error."""
        value = self.result.last_balanced_error if self.result else None
        return value if value is not None and abs(value - (self.last_error or 0.0)) >= 0.005 else None

    @property
    def train_error(self) -> float | None:
        """Training error of the last epoch in %; with mixup that of the analysis, since mixtures have no error."""
        if self.recipe.get("mixup_alpha"):
            return self.analysis.train_error
        tested = self._last_tested
        return self.result.last_train_error if self.result else tested.train_error if tested else None

    @property
    def gap(self) -> float | None:
        """Test error minus training error, in percentage points."""
        error, train_error = self.last_error, self.train_error
        return None if error is None or train_error is None else error - train_error

    @property
    def best(self) -> tuple[float, int] | None:
        """The lowest test error and its epoch."""
        if self.result:
            return self.result.best_error, self.result.best_epoch
        return min(((one.test_error, one.epoch) for one in self.epochs if one.test_error is not None), default=None)

    @property
    def seconds(self) -> float | None:
        """Seconds of training, so far if the run is not finished."""
        return self.result.seconds if self.result else sum(one.seconds for one in self.epochs) or None

    @property
    def images_per_second(self) -> float | None:
        """The median over epochs: the first one is slower, and others may share the machine."""
        speeds = [one.images_per_second for one in self.epochs]
        return median(speeds) if speeds else None

    @property
    def train_images(self) -> int | None:
        """Number of training images, if known."""
        size = self.recipe.get("train_size")
        return self.result.train_images if self.result else size if isinstance(size, int) else None

    @property
    def _last_tested(self) -> EpochMetrics | None:
        return next((one for one in reversed(self.epochs) if one.test_error is not None), None)


def read_run(path: Path, name: str | None = None) -> RunRecord:
    """Read a run directory; one without anything readable gives a record that is not ``readable``."""
    name = name or clean(path.name) or "run"
    if not path.is_dir():
        return RunRecord(name, problems=("there is no such folder",))
    problems: list[str] = []
    recipe = read_object(path / "recipe.json", problems)
    fields = read_object(path / "result.json", problems, optional=True)
    epochs = _read_metrics(path / "metrics.jsonl", problems)
    if not (recipe or fields or epochs):
        return RunRecord(name, problems=("not shown, because " + "; ".join(problems),))
    environment = read_object(path / "environment.json", problems)
    result = _read_result(fields, problems)
    values = read_object(path / analysis_schema.FILE, problems, optional=True)
    analysis = read_fields(Analysis.from_dict, values, analysis_schema.FILE, problems)
    problems += analysis.notes
    record = RunRecord(name, recipe, environment, fields, result, epochs, tuple(problems), analysis)
    if record.finished:
        return record
    planned = f" of {recipe['epochs']}" if isinstance(recipe.get("epochs"), int) else ""
    unfinished = f"is not finished: this is the state after {record.last_epoch or 0}{planned} epochs"
    return RunRecord(name, recipe, environment, fields, result, epochs, (*problems, unfinished), analysis)


def run_names(paths: Sequence[Path]) -> list[str]:
    """The folder's name for each run, with as much of its path as sets the runs apart."""
    for length in range(1, 5):
        names = [clean("/".join(path.resolve().parts[-length:])) or "run" for path in paths]
        if len(set(names)) == len(names):
            return names
    seen: Counter[str] = Counter()
    for i, name in enumerate(names):
        seen[name] += 1
        names[i] = f"{name} ({seen[name]})"
    return names


def read_object(path: Path, problems: list[str], *, optional: bool = False) -> dict[str, Any]:
    """The JSON object in a file, or {} and a sentence about the problem."""
    try:
        value = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        if not optional:
            problems.append(f"{path.name} is missing")
        return {}
    except OSError as error:
        problems.append(f"{path.name} cannot be read ({error.strerror})")
        return {}
    except (ValueError, RecursionError):
        problems.append(f"{path.name} is not valid JSON")
        return {}
    if not isinstance(value, dict):
        problems.append(f"{path.name} holds no JSON object")
        return {}
    return value


def read_fields(read: Callable[..., Any], values: Mapping[str, Any], file: str, problems: list[str]) -> Any:
    """Read a JSON object with a schema; broken parts are left out, with a sentence about each of the first few."""
    broken: list[str] = []
    found = read(values, problems=broken)
    problems += [f"{file} has a broken part that is left out: {problem}" for problem in broken[:MAX_PROBLEMS]]
    if len(broken) > MAX_PROBLEMS:
        problems.append(f"{file} has {len(broken) - MAX_PROBLEMS} more broken parts")
    return found


def _read_result(values: dict[str, Any], problems: list[str]) -> FitResult | None:
    try:
        return FitResult.from_dict(values) if values else None
    except InputError as error:
        problems.append(f"result.json is damaged and left out: {error}")
        return None


def _read_metrics(path: Path, problems: list[str]) -> tuple[EpochMetrics, ...]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        problems.append(f"{path.name} is missing")
        return ()
    except OSError as error:
        problems.append(f"{path.name} cannot be read ({error.strerror})")
        return ()
    epochs: dict[int, EpochMetrics] = {}
    broken: list[int] = []
    for i, text in enumerate(lines, 1):
        try:
            epoch = EpochMetrics.from_dict(json.loads(text))
        except (InputError, ValueError, RecursionError):
            if i < len(lines) or text.endswith("}"):  # otherwise the run was killed while it wrote the last line
                broken.append(i)
            continue
        epochs[epoch.epoch] = epoch  # an epoch that was trained again after a crash counts as in the last attempt
    if broken:
        which = ", ".join(map(str, broken[:MAX_PROBLEMS])) + (", …" if len(broken) > MAX_PROBLEMS else "")
        problems.append(f"{path.name} is broken in line {which}")
    if not epochs:
        problems.append(f"{path.name} holds no complete epoch")
    return tuple(epochs[epoch] for epoch in sorted(epochs))
