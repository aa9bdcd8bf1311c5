"""The run directory: its files, who may write to it, and how they are written so that none is ever half there."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import InputError, RunError
from ..utils.files import atomic_write, expand_user, last_number, new_numbered_dir
from .recipe import Recipe
from .schema import EpochMetrics, FitResult


def write_results(path: Path, values: dict[str, Any]) -> Path:
    """A JSON file where the user wants it. Raises InputError when it cannot be written."""
    check_target(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps(values, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise InputError(f"out: {path} cannot be written: {error.strerror or error}") from None
    return path


IMAGES_FILE = "images.npz"  # images that fit() was given
RESERVED = re.compile(
    r"(recipe|data|environment|config|result|settings)\.json|images\.npz|metrics\.jsonl|checkpoint.*\.pt|model\.safetensors"
)


def check_target(path: Path) -> None:
    """Raise InputError where a file would take the place of one that a run, a table or a model consists of."""
    marks = (("recipe.json",), ("settings.json", "cells"), ("config.json", "model.safetensors"))
    made = any(all((path.parent / name).exists() for name in names) for names in marks)
    if made and RESERVED.fullmatch(path.name):
        raise InputError(f"out: {path} is a file that {path.parent} itself consists of, expected another name")


class RunBusy(InputError):
    """Another process is training this run."""


class RunDirectory:
    """One run's files: recipe.json, data.json (of photos: which ones), images.npz (those that fit() was given),
    environment.json, metrics.jsonl, checkpoints, model, result.json."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: tuple[int, int] | None = None

    def check_new(self) -> None:
        """Raise InputError when there is something here already. Writes nothing."""
        if self.finished:
            raise InputError(f"out: {self.path} holds a finished run, expected a new folder")
        if (self.path / "recipe.json").exists():
            raise InputError(
                f"out: {self.path} holds another run; go on with it by `shakeshake resume {self.path}`, "
                "or name a new folder"
            )
        try:
            if self.path.exists() and any(not is_leftover(entry) for entry in self.path.iterdir()):
                raise InputError(f"out: {self.path} is not empty, expected a new folder")
        except OSError as error:
            raise InputError(f"out: {self.path} cannot be a run directory: {error.strerror}") from None

    def create(self, recipe: Recipe, images: bytes | memoryview | None = None) -> None:
        """Make the directory and write the images to keep, if any, and the recipe: with that it is a run.

        Raises InputError as check_new, and when it cannot be written.
        """
        self.check_new()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if images is not None:
                atomic_write(self.path / IMAGES_FILE, images)
                atomic_write(self.path / "data.json", json.dumps({"kept": IMAGES_FILE}) + "\n")
            atomic_write(self.path / "recipe.json", recipe.to_json())
        except OSError as error:
            raise InputError(f"out: {self.path} cannot be written: {error.strerror or error}") from None

    def matches(self, recipe: Recipe) -> bool:
        """Whether a run of this recipe lies here, finished or not."""
        return (self.path / "recipe.json").exists() and self.recipe() == recipe

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """A run that is there. Raises InputError when it is none."""
        if not path.is_dir():
            raise InputError(f"run: {path} is not a folder, expected one that `shakeshake train` wrote")
        if not (path / "recipe.json").is_file():
            raise InputError(f"run: {path} holds no recipe.json, expected a folder that `shakeshake train` wrote")
        return cls(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for one process. The system lets go of it when the process dies, however it does.

        Makes the folder where there is none: who holds it first is who may begin a run there.
        """
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            self._lock = _identity(self.path / ".lock")
        except Timeout:
            raise RunBusy(f"run: {self.path} is being trained by another process, expected one at rest") from None
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise InputError(f"out: {self.path} cannot be written: {reason}") from None
        try:
            for part in self.path.glob(".*.part"):  # what a killed process was writing
                with contextlib.suppress(OSError):
                    part.unlink()
            yield
        finally:
            self._lock = None
            lock.release()

    def check_lock(self) -> None:
        """Raise RunError if the path leads elsewhere since the run was locked: what is written there is another's."""
        if self._lock is not None and _identity(self.path / ".lock") != self._lock:
            raise RunError(
                f"{self.path} was moved or removed while the run was trained; what was saved went with it, go on there "
                "with: shakeshake resume"
            )

    def recipe(self) -> Recipe:
        return Recipe.from_dict(self.read_json("recipe.json"))

    @property
    def finished(self) -> bool:
        return (self.path / "result.json").exists()

    def read_json(self, name: str) -> dict[str, Any]:
        """Raises InputError for what cannot be read or is no object of JSON."""
        try:
            values = json.loads((self.path / name).read_text())
        except (ValueError, OSError, RecursionError) as error:
            raise InputError(f"run: {self.path / name} cannot be read: {error}") from None
        if not isinstance(values, dict):
            raise InputError(f"run: {self.path / name} holds a {type(values).__name__}, expected an object")
        return values

    def result(self) -> FitResult:
        """Read ``result.json``.

        Raises:
            InputError: The file cannot be read, or a field is missing or has the wrong type.
        """
        try:
            result = FitResult.from_dict(self.read_json("result.json"))
        except InputError as error:
            raise InputError(f"run: {self.path / 'result.json'} is damaged: {error}") from None
        return dataclasses.replace(result, path=self.path)

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        self.check_lock()
        atomic_write(self.path / name, json.dumps(values, indent=2, allow_nan=False) + "\n")

    def images_record(self) -> dict[str, Any] | None:
        """Which photos the run has, in which splits, or where its images are kept; None for a run on other data."""
        record = self.read_json("data.json") if (self.path / "data.json").exists() else None
        return {"kept": str(self.path / IMAGES_FILE)} if record is not None and "kept" in record else record

    def write_images_record(self, record: dict[str, Any] | None) -> None:
        """Once: what a run began with stays."""
        if record is not None and not (self.path / "data.json").exists():
            atomic_write(self.path / "data.json", json.dumps(record) + "\n")

    def metrics(self) -> list[EpochMetrics]:
        """The valid lines of ``metrics.jsonl``, by epoch. The last line of an epoch counts."""
        rows = {}
        with contextlib.suppress(FileNotFoundError):
            for line in (self.path / "metrics.jsonl").read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError, RecursionError):  # InputError is a ValueError
                    row = EpochMetrics.from_dict(json.loads(line))
                    rows[row.epoch] = row
        return [rows[epoch] for epoch in sorted(rows)]

    def missing_epochs(self, epochs: int) -> list[int]:
        """Those of the first ``epochs`` epochs that have no line in ``metrics.jsonl``."""
        return sorted(set(range(1, epochs + 1)) - {row.epoch for row in self.metrics()})

    def append_metrics(self, row: EpochMetrics) -> None:
        self.check_lock()
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row.to_dict(), allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def truncate_metrics(self, epochs: int) -> None:
        """Drop lines of epochs after ``epochs``: a resumed run writes them again."""
        kept = [row.to_dict() for row in self.metrics() if row.epoch <= epochs]
        if (self.path / "metrics.jsonl").exists():
            atomic_write(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept))


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file it is, whatever it is called; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_leftover(entry: Path) -> bool:
    """What a run that was killed before it had a recipe leaves behind."""
    return entry.name == ".lock" or entry.name.endswith(".part")


def new_run_path(recipe: Recipe) -> Path:
    """A new folder under runs/, made for who asks: data, rule (without branches to shake: the model), a number."""
    return new_numbered_dir(Path("runs"), _stem(recipe))


def last_run_path(recipe: Recipe) -> Path:
    """The folder that new_run_path() has made last."""
    return Path("runs") / f"{_stem(recipe)}-{last_number(Path('runs'), _stem(recipe))}"


def _stem(recipe: Recipe) -> str:
    data = expand_user(recipe.data)
    name = re.sub(r"[^\w.-]+", "_", data.resolve().name if data.is_dir() else data.stem)
    return f"{name}-{recipe.model if recipe.rule == 'none' else recipe.rule}"
