"""Which image files are meant: files, folders and all below them, lists of names. The same as train takes."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..data.image_folder.decode import UnreadableImage
from ..data.image_folder.decode_files import is_meant_as_image
from ..data.image_folder.scan import SUFFIXES, walk


def find_images(given: Iterable[str], listed: BinaryIO) -> Iterator[Path | UnreadableImage]:
    """The files in the order given; those of a folder by name, however deep, as training reads it.

    given: files, folders, and ``-`` for the names in ``listed``: one a line, or ended by zero bytes where there are
    any (as `find -print0` writes them), so that every name there is can be given. In a folder a file counts by its
    suffix or its first bytes; one that is named counts whatever it is called. What cannot be read are a folder without
    images and, in a folder, those that cannot be entered or are read already.
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
    if b"\0" in content:
        return content.split(b"\0")
    lines = content.removeprefix(codecs.BOM_UTF8).split(b"\n")  # Windows begins a text with it
    return [line.rstrip(b"\r") for line in lines]


def _of_folder(folder: str) -> Iterator[Path | UnreadableImage]:
    empty = True
    for name, wrong in walk(folder):
        path = Path(name)
        if wrong is not None or is_meant_as_image(path):
            empty = False
            yield path if wrong is None else UnreadableImage(path, wrong)
    if empty:
        yield UnreadableImage(folder, f"is a folder without images, expected {', '.join(SUFFIXES)} in it")
