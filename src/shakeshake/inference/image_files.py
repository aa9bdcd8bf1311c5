"""Finding image files from names on a command line: files, directories, and lists of names on stdin."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..data.image_folder.decode import UnreadableImage
from ..data.image_folder.decode_files import is_meant_as_image
from ..data.image_folder.scan import SUFFIXES, walk


def find_images(names: Iterable[str], stdin: BinaryIO | None = None) -> Iterator[Path | UnreadableImage]:
    """Find the image files given by ``names``, in their order.

    Args:
        names: Files, directories (searched recursively, in the order of training), and, with ``stdin``, ``-`` for the
            names that it holds. In a directory a file counts as an image by its suffix or its first bytes; a file that
            is named counts in any case.
        stdin: Names separated by newlines, or by zero bytes if there are any (as ``find -print0`` writes them), which
            allows every possible name.

    Yields:
        Paths; or UnreadableImage for a directory without images, one that cannot be entered and one that was read
        already through a link.
    """
    for name in names:
        if name == "-" and stdin is not None:
            yield from find_images(os.fsdecode(line) for line in _split(stdin.read()) if line not in (b"", b"-"))
        elif os.path.isdir(name):
            yield from _images_in(name)
        else:
            yield Path(name)


def _split(content: bytes) -> list[bytes]:
    if b"\0" in content:
        return content.split(b"\0")
    lines = content.removeprefix(codecs.BOM_UTF8).split(b"\n")  # programs on Windows write the mark
    return [line.rstrip(b"\r") for line in lines]


def _images_in(folder: str) -> Iterator[Path | UnreadableImage]:
    empty = True
    for name, error in walk(folder):
        path = Path(name)
        if error is not None or is_meant_as_image(path):
            empty = False
            yield path if error is None else UnreadableImage(path, error)
    if empty:
        yield UnreadableImage(folder, f"is a folder without images, expected {', '.join(SUFFIXES)} in it")
