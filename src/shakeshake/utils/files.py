"""Atomic file writing, and names for new folders."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import InputError


def expand_user(path: str | os.PathLike[str]) -> Path:
    """Replace ``~`` by the home directory; a path whose user is unknown stays unchanged."""
    return Path(os.path.expanduser(path))


def atomic_write(
    path: Path, content: str | bytes | memoryview, before_rename: Callable[[], None] | None = None
) -> None:
    """Write a file so that readers see either the old content or the new one, never a part of it.

    The content is written to a temporary file in the same folder, flushed to the disk, and renamed.

    Args:
        path: The file to write or replace.
        content: Text (UTF-8) or bytes.
        before_rename: Called when the content is on the disk; if it raises, the file is not replaced.

    Raises:
        OSError: If the file cannot be written; the old file is then unchanged.
    """
    data = content.encode() if isinstance(content, str) else content
    name = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(name, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if before_rename is not None:
            before_rename()
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def atomic_write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write several files into a folder; none is replaced before all of them are complete on the disk.

    Temporary files of an earlier, killed call are removed.

    Args:
        folder: The folder; it is created if necessary.
        files: Contents by file name.

    Raises:
        OSError: If a file cannot be written; existing files are then unchanged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part in folder.glob(".*.part"):
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    with tempfile.TemporaryDirectory(prefix=".", suffix=".part", dir=folder) as temporary:
        for name, content in files.items():
            atomic_write(Path(temporary) / name, content)
        for name in files:
            os.replace(Path(temporary) / name, folder / name)


def new_numbered_dir(parent: Path, stem: str) -> Path:
    """Create a new folder ``parent/stem-N``, safely if several processes do so at the same time.

    Raises:
        InputError: If it cannot be created.
    """
    number = last_number(parent, stem) + 1
    try:
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            path = parent / f"{stem}-{number}"
            try:
                path.mkdir()
                return path
            except FileExistsError:  # another process created it first
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
