"""Writing files so that no reader ever sees half of one, and naming new folders."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import InputError


def expand_user(path: str | os.PathLike[str]) -> Path:
    """The path with ``~`` as the home directory; as it is where nobody knows that."""
    return Path(os.path.expanduser(path))


def atomic_write(
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


def atomic_write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    """Files in a folder of their own: all of them are whole on the disk before the first one takes its name.

    Raises OSError; then what was there is untouched. What a kill has left of an earlier try is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part in folder.glob(".*.part"):
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    with tempfile.TemporaryDirectory(prefix=".", suffix=".part", dir=folder) as beside:
        for name, content in files.items():
            atomic_write(Path(beside) / name, content)
        for name in files:
            os.replace(Path(beside) / name, folder / name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def new_numbered_dir(parent: Path, stem: str) -> Path:
    """A folder ``parent/stem-N``, made for who asks, whoever else is making one there. Raises InputError."""
    number = last_number(parent, stem) + 1
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


def free_numbered_path(parent: Path, stem: str) -> Path:
    """``parent/stem-N`` with N above all existing numbers; nothing is created."""
    return parent / f"{stem}-{last_number(parent, stem) + 1}"


def last_number(parent: Path, stem: str) -> int:
    """Largest N of the existing ``parent/stem-N``; 0 if there are none."""
    taken = [re.fullmatch(re.escape(stem) + r"-(\d+)", entry.name) for entry in parent.glob("*")]
    return max((int(m[1]) for m in taken if m), default=0)
