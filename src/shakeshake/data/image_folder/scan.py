"""Knows what lies in a folder of photos: its classes, the splits it has, its files. Opens none of them."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import InputError
from ...utils.console import escape, escape_line_breaks

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif")
PARTS = {  # folder, in small letters -> split
    **{"train": "train", "training": "train", "test": "test", "testing": "test"},
    **{"val": "val", "valid": "val", "validation": "val"},
}
_FOREIGN = ("__MACOSX", "Thumbs.db", "desktop.ini")  # left lying about, beside names that begin with a dot
EXPECTED = "expected a folder for each class, as photos/cat/1.jpg, or these in train/ and test/"


@dataclass(frozen=True)
class File:
    """A file that may be an image: ``path`` from the folder on, its class, and its split ("" where there are none)."""

    path: str
    label: str
    part: str


@dataclass
class Scan:
    """What was found. Files and classes are in order of their names; classes of numbers in order of these.

    beside: image files outside of class folders. troubles: (path, what is wrong) of what could not be entered.
    passed: folders that are no class beside train/ and test/.
    """

    folder: Path
    has_splits: bool
    classes: tuple[str, ...] = ()
    files: list[File] = field(default_factory=list)
    beside: int = 0
    troubles: list[tuple[str, str]] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)


def scan(folder: Path) -> Scan:
    """Raises InputError for a folder that is not laid out in classes, and for one that cannot be read."""
    try:
        here = _entries(folder)
    except OSError as error:
        raise InputError(f"data: {escape(folder)} cannot be read: {error.strerror or error}") from None
    folders, files = [e for e in here if _is_folder(e)], [e for e in here if not _is_folder(e)]
    found = Scan(folder, has_splits=_has_splits(folder, folders), beside=sum(_may_be_image(e.name) for e in files))
    classes = []  # (split, class folder)
    names: dict[str, str] = {}  # split -> its folder
    for entry in folders:
        part = PARTS.get(entry.name.lower(), "")
        if not found.has_splits:
            classes.append(("", entry))
        elif part in names:
            raise InputError(
                f"data: {escape(folder)} has both {names[part]}/ and {entry.name}/, expected one folder for {part}"
            )
        elif part:
            names[part] = entry.name
            below, wrong = _listed(entry.path)
            found.troubles += [(escape(entry.name), wrong)] if wrong else []
            classes += [(part, e) for e in below if _is_folder(e)]
            found.beside += sum(_may_be_image(e.name) for e in below if not _is_folder(e))
        else:
            found.passed.append(escape(entry.name))
    # A link that leads back up, or into another class, is not followed: its images would get a wrong class.
    seen = {_identity(path) for path in (folder, *(e.path for e in folders), *(e.path for _, e in classes))}
    for part, entry in classes:
        for path, wrong in walk(entry.path, seen):
            name = os.path.relpath(path, folder)
            if wrong is None:
                found.files.append(File(name, _label(entry), part))
            else:
                found.troubles.append((escape(name), wrong))
    if not found.files:
        there = f"has {found.beside} images and no class folders" if found.beside else "has no images in class folders"
        raise InputError(f"data: {escape(folder)} {there}, {EXPECTED}")
    found.files.sort(key=lambda file: file.path)
    found.classes = _in_order({_label(entry) for _, entry in classes})
    return found


def _label(entry: os.DirEntry) -> str:
    """The name of a class: an accent is the same whichever system wrote it, what endangers lines is escaped.

    What joins letters or spaces them stays, though it does not print alone; a terminal is told escape() names.
    """
    return escape_line_breaks(unicodedata.normalize("NFC", entry.name))


def _in_order(names: set[str]) -> tuple[str, ...]:
    if all(name.isascii() and name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _has_splits(folder: Path, folders: list[os.DirEntry]) -> bool:
    """Whether there is a train/ with folders in it.

    One that has images, too, may be a class: locomotives. It is a split with stray images where test/ or val/ has
    folders, or where several of its own have images and none beside it. Raises InputError where nobody can tell.
    """
    splits = [e for e in folders if e.name.lower() in PARTS]
    doubtful, elsewhere = [], False  # folders in a train/ with images; whether there are any in test/ or val/
    for entry in splits:
        below, wrong = _listed(entry.path)
        deeper = [e for e in below if _is_folder(e)]
        if PARTS[entry.name.lower()] != "train":
            elsewhere |= bool(deeper)
        elif wrong is not None or (deeper and not any(_may_be_image(e.name) and e.is_file() for e in below)):
            return True  # what is wrong is told when it is entered
        else:
            doubtful += deeper
    if not doubtful:
        if 1 < len(splits) == len(folders):
            raise InputError(f"data: {escape(folder)} has no class folders in train/, {EXPECTED}")
        return False
    several = sum(map(_has_images, doubtful)) > 1
    if not elsewhere and several == any(_has_images(e) for e in folders if e not in splits):
        raise InputError(
            f"data: {escape(folder)} has both images and folders in train/, which may be a class or a split, "
            "expected class folders alone in it, as photos/train/cat/1.jpg, or none"
        )
    return elsewhere or several


def _has_images(folder: os.DirEntry) -> bool:
    return any(wrong is None and _may_be_image(path) for path, wrong in walk(folder.path))


def walk(top: str, seen: set[tuple[int, int]] | None = None) -> Iterator[tuple[str, str | None]]:
    """(path, None) of all files under a folder, however deep, and (path, what is wrong) of folders not entered.

    Each real folder is entered once, so circles end; those in ``seen`` are not. What is hidden or foreign is not there.
    """
    seen = {_identity(top)} if seen is None else seen
    todo = [top]
    while todo:
        path = todo.pop()
        entries, wrong = _listed(path)
        if wrong is not None:
            yield path, wrong
        deeper = []
        for entry in entries:
            if not _is_folder(entry):
                yield entry.path, None
            elif (identity := _identity(entry.path)) in seen:
                yield entry.path, "leads to a folder that is read already"
            else:
                seen.add(identity)
                deeper.append(entry.path)
        todo += reversed(deeper)


def _listed(folder: str) -> tuple[list[os.DirEntry], str | None]:
    """What is in a folder; for one that cannot be entered nothing, and what is wrong."""
    try:
        return _entries(Path(folder)), None
    except OSError as error:
        return [], f"cannot be entered: {error.strerror or error}"


def _entries(folder: Path) -> list[os.DirEntry]:
    with os.scandir(folder) as entries:
        return sorted(
            (e for e in entries if not e.name.startswith(".") and e.name not in _FOREIGN), key=lambda e: e.name
        )


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _may_be_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _identity(path: str | Path) -> tuple[int, int]:
    try:
        state = os.stat(path)
    except OSError:
        return (-1, -1)
    return state.st_dev, state.st_ino
