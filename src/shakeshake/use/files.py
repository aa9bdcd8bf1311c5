"""Which image files are meant: files, folders and all below them, lists of names. Opens none of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..data.images import UnreadableImage
from ..data.scan import SUFFIXES


def find_images(given: Iterable[str], listed: BinaryIO) -> Iterator[Path | UnreadableImage]:
    """The files in the order given; those of a folder by name, however deep, links to folders not followed.

    given: files, folders, and ``-`` for the names in ``listed``: one a line, or ended by zero bytes where there are
    any (as `find -print0` writes them), so that every name there is can be given. In a folder a file counts by its
    suffix; one that is named counts whatever it is called. A folder without images is one that cannot be read.
    """
    for name in given:
        if name == "-":
            yield from find_images((os.fsdecode(line) for line in _names(listed) if line not in (b"", b"-")), listed)
        elif os.path.isdir(name):
            yield from _of_folder(name)
        else:
            yield Path(name)


def _names(listed: BinaryIO) -> list[bytes]:
    content = listed.read()
    return content.split(b"\0") if b"\0" in content else [line.rstrip(b"\r") for line in content.split(b"\n")]


def _of_folder(folder: str) -> Iterator[Path | UnreadableImage]:
    empty = True
    for path, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                empty = False
                yield Path(path, name)
    if empty:
        yield UnreadableImage(folder, f"is a folder without images, expected {', '.join(SUFFIXES)} in it")
