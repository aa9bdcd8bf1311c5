"""The run directory: its files, who may write to it, and how they are written so that none is ever half there."""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import InputError, RunError, at_home
from .recipe import Recipe


def write_atomically(
    path: Path, content: str | bytes | memoryview, before_rename: Callable[[], None] | None = None
) -> None:
    """Write a file beside and rename it: whoever looks sees the old content or the new one, never a part.

    Raises OSError (a full disk, say); then the old file is untouched and nothing is left beside it.
    """
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        if before_rename is not None:
            before_rename()
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def write_together(folder: Path, files: Mapping[str, bytes]) -> None:
    """Files in a folder of their own: all of them are whole on the disk before the first one takes its name.

    Raises OSError; then what was there is untouched. What a kill has left of an earlier try is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part in folder.glob(".*.part"):
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    with tempfile.TemporaryDirectory(prefix=".", suffix=".part", dir=folder) as beside:
        for name, content in files.items():
            write_atomically(Path(beside) / name, content)
        for name in files:
            os.replace(Path(beside) / name, folder / name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_results(path: Path, values: dict[str, Any]) -> Path:
    """A JSON file where the user wants it. Raises InputError when it cannot be written."""
    check_target(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(values, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise InputError(f"out: {path} cannot be written: {error.strerror or error}") from None
    return path


KEPT = "images.npz"  # images that fit() was given
OWN = re.compile(
    r"(recipe|data|environment|config|result|settings)\.json|images\.npz|metrics\.jsonl|checkpoint.*\.pt|model\.safetensors"
)


def check_target(path: Path) -> None:
    """Raise InputError where a file would take the place of one that a run, a table or a model consists of."""
    marks = (("recipe.json",), ("settings.json", "cells"), ("config.json", "model.safetensors"))
    made = any(all((path.parent / name).exists() for name in names) for names in marks)
    if made and OWN.fullmatch(path.name):
        raise InputError(f"out: {path} is a file that {path.parent} itself consists of, expected another name")


# What every result has, whatever the version that wrote it.
RESULT: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("last_error", "best_error", "last_train_error", "seconds"), (int, float)),
    **{"best_epoch": int, "epochs": int, "parameters": int, "precision": str, "data_fingerprint": str},
}


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
            if self.path.exists() and any(not is_rubbish(entry) for entry in self.path.iterdir()):
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
                write_atomically(self.path / KEPT, images)
                write_atomically(self.path / "data.json", json.dumps({"kept": KEPT}) + "\n")
            write_atomically(self.path / "recipe.json", recipe.to_json())
        except OSError as error:
            raise InputError(f"out: {self.path} cannot be written: {error.strerror or error}") from None

    def holds(self, recipe: Recipe) -> bool:
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

    def check_held(self) -> None:
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

    def result(self) -> dict[str, Any]:
        """What result.json holds. Raises InputError for one that was damaged or is not ours."""
        result = self.read_json("result.json")
        for name, kind in RESULT.items():
            if not isinstance(result.get(name), kind):
                raise InputError(
                    f"run: {self.path / 'result.json'} is damaged or not ours: {name} is {result.get(name)!r}"
                )
        return result

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        self.check_held()
        write_atomically(self.path / name, json.dumps(values, indent=2, allow_nan=False) + "\n")

    def images_record(self) -> dict[str, Any] | None:
        """Which photos the run has, in which splits, or where its images are kept; None for a run on other data."""
        record = self.read_json("data.json") if (self.path / "data.json").exists() else None
        return {"kept": str(self.path / KEPT)} if record is not None and "kept" in record else record

    def keep_images_record(self, record: dict[str, Any] | None) -> None:
        """Once: what a run began with stays."""
        if record is not None and not (self.path / "data.json").exists():
            write_atomically(self.path / "data.json", json.dumps(record) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl by epoch, of two the later one; lines that are no rows are passed over."""
        rows = {}
        with contextlib.suppress(FileNotFoundError):
            for line in (self.path / "metrics.jsonl").read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError, RecursionError):
                    row = json.loads(line)
                    if _is_row(row):
                        rows[row["epoch"]] = row
        return [rows[epoch] for epoch in sorted(rows)]

    def lacking(self, epochs: int) -> list[int]:
        """Those of the first ``epochs`` epochs that have no row."""
        return sorted(set(range(1, epochs + 1)) - {row["epoch"] for row in self.metrics()})

    def append_metrics(self, row: dict[str, Any]) -> None:
        self.check_held()
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def keep_metrics(self, epochs: int) -> None:
        """Drop what was written after the checkpoint that a run goes on from: it will be written again."""
        kept = [row for row in self.metrics() if row["epoch"] <= epochs]
        if (self.path / "metrics.jsonl").exists():
            write_atomically(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept))


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file it is, whatever it is called; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_row(row: Any) -> bool:
    """Whether it has what a result is made of."""
    if not isinstance(row, dict) or type(row.get("epoch")) is not int:
        return False
    numbers = [row.get("train_error"), row.get("seconds")]
    if row.get("test_error", "") is not None:  # in epochs without a test it is
        numbers.append(row.get("test_error"))
    return all(isinstance(x, int | float) and math.isfinite(x) for x in numbers)


def is_rubbish(entry: Path) -> bool:
    """What a run that was killed before it had a recipe leaves behind."""
    return entry.name == ".lock" or entry.name.endswith(".part")


def new_run_path(recipe: Recipe) -> Path:
    """A new folder under runs/, made for who asks: data, rule (without branches to shake: the model), a number."""
    return new_path(Path("runs"), _stem(recipe))


def last_run_path(recipe: Recipe) -> Path:
    """The folder that new_run_path() has made last."""
    return Path("runs") / f"{_stem(recipe)}-{_last_number(Path('runs'), _stem(recipe))}"


def new_path(parent: Path, stem: str) -> Path:
    """A folder ``parent/stem-N``, made for who asks, whoever else is making one there. Raises InputError."""
    number = _last_number(parent, stem) + 1
    try:
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            path = parent / f"{stem}-{number}"
            try:
                path.mkdir()
                return path
            except FileExistsError:  # somebody was quicker
                number += 1
    except OSError as error:
        raise InputError(f"out: {parent} cannot be written: {error.strerror or error}") from None


def free_path(parent: Path, stem: str) -> Path:
    """``parent/stem-N`` with a number above all that are there."""
    return parent / f"{stem}-{_last_number(parent, stem) + 1}"


def _stem(recipe: Recipe) -> str:
    data = at_home(recipe.data)
    name = re.sub(r"[^\w.-]+", "_", data.resolve().name if data.is_dir() else data.stem)
    return f"{name}-{recipe.model if recipe.rule == 'none' else recipe.rule}"


def _last_number(parent: Path, stem: str) -> int:
    taken = [re.fullmatch(re.escape(stem) + r"-(\d+)", entry.name) for entry in parent.glob("*")]
    return max((int(m[1]) for m in taken if m), default=0)


def environment(**more: Any) -> dict[str, Any]:
    """Where a run runs: versions, machine, time, and whatever the caller adds (device, precision)."""

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    return {
        "commit": _commit(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("shakeshake", "torch", "numpy")},
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        **more,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join([_program(), *sys.argv[1:]]),
    }


def _program() -> str:
    """How this process was started, without the path of anybody's machine."""
    module = getattr(sys.modules.get("__main__"), "__spec__", None)
    return f"python -m {module.name.removesuffix('.__main__')}" if module else Path(sys.argv[0]).name


def cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of this package's checkout, with a + if it is changed.

    Of a copy of it that git does not know, SHAKESHAKE_COMMIT if that is set; None where the package was installed.
    """
    here = Path(__file__).resolve().parent
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        ask = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--exclude=*", "--abbrev=12"]
        answer = subprocess.run(ask, capture_output=True, text=True, timeout=5, check=False)
        tracked = subprocess.run(
            ["git", "-C", str(here), "ls-files", "--error-unmatch", __file__],
            capture_output=True,
            timeout=5,
            check=False,
        )
        if answer.returncode == 0 and tracked.returncode == 0:
            return answer.stdout.strip()
    return os.environ.get("SHAKESHAKE_COMMIT")
