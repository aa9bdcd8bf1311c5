"""The run directory: its files and its lock."""

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
from ..models.origin import Origin, public_name
from ..utils.files import atomic_write, expand_user, last_number, new_numbered_dir
from .recipe import Recipe
from .schema import EpochMetrics, FitResult


def write_results(path: Path, values: dict[str, Any]) -> Path:
    """Write a JSON file to a path that the user chose.

    Raises:
        InputError: The file cannot be written, or would replace a file of a run, a table or a model.
    """
    check_target(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps(values, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise InputError(f"out: {path} cannot be written: {error.strerror or error}") from None
    return path


IMAGES_FILE = "images.npz"  # images passed to fit()
ORIGIN_FILE = "origin.json"
RESERVED = re.compile(
    r"(recipe|origin|data|environment|config|result|settings)\.json|images\.npz|metrics\.jsonl|checkpoint.*\.pt|model\.safetensors"
)


def check_target(path: Path) -> None:
    """Raise InputError if a file at this path would replace one of a run, a table or a model."""
    marks = (("recipe.json",), ("settings.json", "cells"), ("config.json", "model.safetensors"))
    is_ours = any(all((path.parent / name).exists() for name in names) for names in marks)
    if is_ours and RESERVED.fullmatch(path.name):
        raise InputError(f"out: {path} would replace a file of {path.parent}, expected another name")


class RunBusy(InputError):
    """Another process is training this run."""


class RunDirectory:
    """The files of a run.

    ``recipe.json``, ``origin.json`` (the configuration of a network of transformers or timm), ``data.json`` (the image
    files of a folder, by split), ``images.npz`` (images passed to ``fit``),
    ``environment.json``, ``metrics.jsonl``, checkpoints, ``config.json``, ``model.safetensors`` and ``result.json``,
    which marks the run as finished. A crash never leaves a file half-written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: tuple[int, int] | None = None

    def check_new(self) -> None:
        """Raise InputError unless the folder is missing or empty. Writes nothing."""
        if self.finished:
            raise InputError(f"out: {self.path} holds a finished run, expected a new folder")
        if (self.path / "recipe.json").exists():
            raise InputError(
                f"out: {self.path} holds another run; resume it with: shakeshake resume {self.path}, "
                "or choose a new folder"
            )
        try:
            if self.path.exists() and any(not is_leftover(entry) for entry in self.path.iterdir()):
                raise InputError(f"out: {self.path} is not empty, expected a new folder")
        except OSError as error:
            raise InputError(f"out: {self.path} cannot be a run directory: {error.strerror}") from None

    def create(self, recipe: Recipe, images: bytes | memoryview | None = None, origin: Origin | None = None) -> None:
        """Create the directory with the recipe and, if any, the images (the content of an .npz file) and the origin.

        Raises:
            InputError: The folder is not empty or cannot be written.
        """
        self.check_new()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if images is not None:
                atomic_write(self.path / IMAGES_FILE, images)
                atomic_write(self.path / "data.json", json.dumps({"kept": IMAGES_FILE}) + "\n")
            if origin is not None:
                self.write_json(ORIGIN_FILE, origin.to_dict())
            atomic_write(self.path / "recipe.json", recipe.to_json())
        except OSError as error:
            raise InputError(f"out: {self.path} cannot be written: {error.strerror or error}") from None

    def matches(self, recipe: Recipe) -> bool:
        """Return whether the folder has a run of this recipe, finished or not."""
        return (self.path / "recipe.json").exists() and self.recipe() == recipe

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Open an existing run.

        Raises:
            InputError: The folder is not a run.
        """
        if not path.is_dir():
            raise InputError(f"run: {path} is not a folder, expected one that `shakeshake train` wrote")
        if not (path / "recipe.json").is_file():
            raise InputError(f"run: {path} holds no recipe.json, expected a folder that `shakeshake train` wrote")
        return cls(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run for this process, and create its folder if needed.

        The system releases the lock when the process dies.

        Raises:
            RunBusy: Another process has the lock.
            InputError: The folder cannot be written.
        """
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            self._lock = _identity(self.path / ".lock")
        except Timeout:
            raise RunBusy(f"run: {self.path} is being trained by another process; wait for it or stop it") from None
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise InputError(f"out: {self.path} cannot be written: {reason}") from None
        try:
            for part in self.path.glob(".*.part"):  # left by a killed process
                with contextlib.suppress(OSError):
                    part.unlink()
            yield
        finally:
            self._lock = None
            lock.release()

    def check_lock(self) -> None:
        """Raise RunError if the folder was moved or replaced since it was locked."""
        if self._lock is not None and _identity(self.path / ".lock") != self._lock:
            raise RunError(
                f"{self.path} was moved or removed during training; "
                "if it was moved, continue with: shakeshake resume NEW_PATH"
            )

    def recipe(self) -> Recipe:
        """Read ``recipe.json``."""
        return Recipe.from_dict(self.read_json("recipe.json"))

    @property
    def finished(self) -> bool:
        """Whether the run has a result."""
        return (self.path / "result.json").exists()

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON object.

        Raises:
            InputError: The file cannot be read or has no JSON object.
        """
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
        """Write a JSON object."""
        self.check_lock()
        atomic_write(self.path / name, json.dumps(values, indent=2, allow_nan=False) + "\n")

    def origin(self) -> Origin | None:
        """Read the origin of a network of transformers or timm, or None for other networks.

        Raises:
            InputError: The file cannot be read or is damaged.
        """
        if not (self.path / ORIGIN_FILE).exists():
            return None
        try:
            return Origin.from_dict(self.read_json(ORIGIN_FILE))
        except ValueError as error:
            raise InputError(f"run: {self.path / ORIGIN_FILE} is damaged: {error}") from None

    def images_record(self) -> dict[str, Any] | None:
        """Return the record of the run's image folder or of its ``images.npz``, or None for other data."""
        record = self.read_json("data.json") if (self.path / "data.json").exists() else None
        return {"kept": str(self.path / IMAGES_FILE)} if record is not None and "kept" in record else record

    def write_images_record(self, record: dict[str, Any] | None) -> None:
        """Write ``data.json`` unless it exists."""
        if record is not None and not (self.path / "data.json").exists():
            atomic_write(self.path / "data.json", json.dumps(record) + "\n")

    def metrics(self) -> list[EpochMetrics]:
        """Read the valid lines of ``metrics.jsonl``, sorted by epoch; the last line of an epoch counts."""
        rows = {}
        with contextlib.suppress(FileNotFoundError):
            for line in (self.path / "metrics.jsonl").read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError, RecursionError):  # InputError is a ValueError
                    row = EpochMetrics.from_dict(json.loads(line))
                    rows[row.epoch] = row
        return [rows[epoch] for epoch in sorted(rows)]

    def missing_epochs(self, epochs: int) -> list[int]:
        """Return those of the first ``epochs`` epochs that have no metrics."""
        return sorted(set(range(1, epochs + 1)) - {row.epoch for row in self.metrics()})

    def append_metrics(self, row: EpochMetrics) -> None:
        """Append the metrics of an epoch and wait until they are on disk."""
        self.check_lock()
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row.to_dict(), allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def truncate_metrics(self, epochs: int) -> None:
        """Drop the metrics of later epochs; a resumed run writes them again."""
        kept = [row.to_dict() for row in self.metrics() if row.epoch <= epochs]
        if (self.path / "metrics.jsonl").exists():
            atomic_write(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept))


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file, or None if it does not exist."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_leftover(entry: Path) -> bool:
    """Return whether a run that was killed before it had a recipe may have left this file."""
    return entry.name == ".lock" or entry.name.endswith(".part")


def new_run_path(recipe: Recipe) -> Path:
    """Create ``runs/DATA-RULE-NUMBER``; a network without branches is named in place of the rule."""
    return new_numbered_dir(Path("runs"), _stem(recipe))


def last_run_path(recipe: Recipe) -> Path:
    """Return the last folder that ``new_run_path`` created."""
    return Path("runs") / f"{_stem(recipe)}-{last_number(Path('runs'), _stem(recipe))}"


def _stem(recipe: Recipe) -> str:
    data = expand_user(recipe.data)
    name = re.sub(r"[^\w.-]+", "_", data.resolve().name if data.is_dir() else data.stem)
    network = re.sub(r"[^\w.-]+", "_", public_name(recipe.model))
    return f"{name}-{network if recipe.rule == 'none' else recipe.rule}"
