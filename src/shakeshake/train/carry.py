"""A run as a few files of bounded size, for machines that keep nothing: pack it there, unpack it on the next one."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError
from ..utils.files import atomic_write_all
from . import checkpoint
from .run_directory import RunDirectory, is_rubbish

MIB = 2**20
PART = re.compile(r"part-(\d+)-of-(\d+)")
# What a run needs to go on, with its newest checkpoint, and what it is once it has ended. Left behind: events, pages.
UNFINISHED = ("recipe.json", "data.json", "images.npz", "environment.json", "metrics.jsonl")
FINISHED = (*UNFINISHED, "model.safetensors", "config.json", "result.json")
_DIGEST = hashlib.sha256().digest_size


def pack(run: Path, folder: Path, *, files: int = 8, size: float = 16.0) -> list[Path]:
    """Write the run into ``folder``, new or empty, as parts of at most ``size`` MiB. Returns their paths.

    Raises InputError for a folder that is no run or is being trained, a folder that holds something or cannot be
    written, and a run that is larger than ``files`` times ``size``; then nothing is written. Raises RunError for a run
    whose checkpoints are all broken.
    """
    if files < 1:
        raise InputError(f"files: got {files}, expected 1 or more")
    if not (math.isfinite(size) and int(size * MIB) > _DIGEST):
        raise InputError(f"size: got {size:g} MiB, expected a finite number, 0.001 or more")
    source, each = RunDirectory.open(run), int(size * MIB)
    if folder.exists() and (not folder.is_dir() or not all(map(is_rubbish, folder.iterdir()))):
        raise InputError(f"folder: {folder} is not empty, expected a new folder for the parts")
    content = io.BytesIO()
    with _at_rest(source), tarfile.open(fileobj=content, mode="w") as archive:
        for name in FINISHED if source.finished else UNFINISHED:
            if (run / name).exists():
                archive.add(run / name, name)
        if not source.finished and (state := checkpoint.newest(run)) is not None:
            archive.add(state, checkpoint.NAME)
    body = content.getvalue()
    body += hashlib.sha256(body).digest()
    count = -(-len(body) // each)
    if count > files:
        raise InputError(
            f"run: {run} takes {len(body) / MIB:.1f} MiB, expected no more than {files} files of {size:g} MiB"
        )
    parts = {f"part-{n + 1}-of-{count}": body[n * each : (n + 1) * each] for n in range(count)}
    try:
        atomic_write_all(folder, parts)
    except OSError as error:
        raise InputError(f"folder: {folder} cannot be written: {error.strerror or error}") from None
    return [folder / name for name in parts]


@contextlib.contextmanager
def _at_rest(run: RunDirectory) -> Iterator[None]:
    """The run while nobody trains it: locked, or on a disk that only can be read."""
    with run.locked() if os.access(run.path, os.W_OK) else contextlib.nullcontext():
        yield


def unpack(folder: Path, run: Path) -> None:
    """Make the run directory ``run``, which must not exist, from the parts in ``folder``: whole or not at all.

    Raises InputError for parts that are missing, of two runs, or damaged, and where there is something already.
    """
    if os.path.lexists(run):
        raise InputError(f"run: {run} is there already, expected a new folder")
    found = {int(m[1]): (int(m[2]), path) for path in _entries(folder) if (m := PART.fullmatch(path.name))}
    counts = {count for count, _ in found.values()}
    if len(counts) != 1 or len(found) != max(counts) or min(found) != 1 or max(found) != max(counts):
        names = ", ".join(sorted(path.name for _, path in found.values())) or "none"
        raise InputError(
            f"folder: {folder} holds {names} of a run's parts, expected all of one (part-1-of-N and so on)"
        )
    try:
        body = b"".join(found[number][1].read_bytes() for number in sorted(found))
    except OSError as error:
        raise InputError(f"folder: {error.filename} cannot be read: {error.strerror}") from None
    if hashlib.sha256(body[:-_DIGEST]).digest() != body[-_DIGEST:]:
        raise InputError(f"folder: the parts in {folder} are damaged or not of one run, their checksum is wrong")
    try:
        run.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{run.name}.", suffix=".part", dir=run.parent))
    except OSError as error:
        raise InputError(f"run: {run} cannot be written: {error.strerror or error}") from None
    try:
        with tarfile.open(fileobj=io.BytesIO(body[:-_DIGEST])) as archive:
            members = [member for member in archive if member.isfile() and member.name in {*FINISHED, checkpoint.NAME}]
            archive.extractall(made, members=members, filter="data")
        if not (made / "recipe.json").exists():
            raise tarfile.TarError("it has no recipe.json")
        made.chmod(0o755)
        made.rename(run)
    except tarfile.TarError as error:
        shutil.rmtree(made, ignore_errors=True)
        raise InputError(f"folder: the parts in {folder} are no run: {str(error).splitlines()[0]}") from None
    except OSError as error:
        shutil.rmtree(made, ignore_errors=True)
        raise InputError(f"run: {run} cannot be written: {error.strerror or error}") from None
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"folder: {folder} cannot be read: {error.strerror}, expected a run's parts") from None
