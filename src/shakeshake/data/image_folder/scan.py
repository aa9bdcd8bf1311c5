"""Scan of an image folder: its splits, classes and files. Opens no file."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import InputError
from ...utils.console import escape, escape_line_breaks

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif")
SPLIT_NAMES = {  # lower-case folder name -> split
    **{"train": "train", "training": "train", "test": "test", "testing": "test"},
    **{"val": "val", "valid": "val", "validation": "val"},
}
_SYSTEM_NAMES = {  # lower case; ignored, as are names that begin with a dot
    *("__macosx", "thumbs.db", "desktop.ini", "__pycache__", "lost+found", "@eadir", "#recycle", "#snapshot"),
    *("@recycle", "$recycle.bin", "system volume information"),
}
EXPECTED = "expected one folder per class, as in photos/cat/1.jpg, or these in train/ and test/"


@dataclass(frozen=True)
class File:
    """A file that may be an image.

    Attributes:
        path: Relative to the scanned folder.
        label: Name of its class.
        split: "train", "val" or "test", or "" in a folder without splits.
    """

    path: str
    label: str
    split: str


@dataclass
class Scan:
    """Result of `scan`.

    Attributes:
        folder: The scanned folder.
        has_splits: Whether it has a ``train/`` folder of classes.
        classes: Class names, sorted; numerically if all are numbers.
        files: Files in class folders, sorted by path.
        stray_images: Number of image files outside class folders.
        unreadable_dirs: (path, reason) of folders and links that were not entered.
        skipped: Folders beside ``train/`` and ``test/``.
    """

    folder: Path
    has_splits: bool
    classes: tuple[str, ...] = ()
    files: list[File] = field(default_factory=list)
    stray_images: int = 0
    unreadable_dirs: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def scan(folder: Path) -> Scan:
    """Scan a folder.

    Raises:
        InputError: The folder is not readable, or not laid out in class folders.
    """
    try:
        here = _entries(Path(_unnested(folder)))
    except OSError as error:
        raise InputError(f"data: {escape(folder)} is not readable: {error.strerror or error}") from None
    folders, files = [e for e in here if _is_folder(e)], [e for e in here if not _is_folder(e)]
    splits = _splits(folder, folders)
    found = Scan(
        folder, has_splits=_has_splits(folder, folders, splits), stray_images=sum(_may_be_image(e.name) for e in files)
    )
    classes = []  # (split, class folder)
    names: dict[str, str] = {}  # split -> its folder
    for entry in folders:
        split = splits.get(entry.name, "")
        if not found.has_splits:
            classes.append(("", entry))
        elif split in names:
            raise InputError(
                f"data: {escape(folder)} has both {names[split]}/ and {entry.name}/, expected one folder for {split}"
            )
        elif split:
            names[split] = entry.name
            below, reason = _listed(_unnested(entry))
            found.unreadable_dirs += [(escape(entry.name), reason)] if reason else []
            classes += [(split, e) for e in below if _is_folder(e)]
            found.stray_images += sum(_may_be_image(e.name) for e in below if not _is_folder(e))
        else:
            found.skipped.append(escape(entry.name))
    # Links to a parent or to another class are not followed: their images would get a wrong class.
    seen = {_identity(path) for path in (folder, *(e.path for e in folders), *(e.path for _, e in classes))}
    for split, entry in classes:
        for path, reason in walk(entry.path, seen):
            name = os.path.relpath(path, folder)
            if reason is None:
                found.files.append(File(name, _label(entry), split))
            else:
                found.unreadable_dirs.append((escape(name), reason))
    if not found.files:
        content = (
            f"has {found.stray_images} images and no class folders"
            if found.stray_images
            else "has no images in class folders"
        )
        raise InputError(f"data: {escape(folder)} {content}, {EXPECTED}")
    found.files.sort(key=lambda file: file.path)
    found.classes = _in_order({_label(entry) for _, entry in classes})
    return found


def _label(entry: os.DirEntry) -> str:
    """The class name of a folder: accents normalised (NFC), line breaks and control characters escaped.

    Joiners and special spaces stay, although they do not print alone; terminal output escapes them.
    """
    return escape_line_breaks(unicodedata.normalize("NFC", entry.name))


def _in_order(names: set[str]) -> tuple[str, ...]:
    if all(name.isascii() and name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _unnested(folder: Path | os.DirEntry) -> str:
    """The folder, or the one below it where archives repeat a level: ``data/data/cat``, ``train/train/cat``.

    A level is repeated if a folder has nothing but another folder that has several, or one of the same name.
    """
    path = folder.path if isinstance(folder, os.DirEntry) else str(folder)
    below, _ = _listed(path)
    if len(below) != 1 or not _is_folder(below[0]):
        return path
    deeper, _ = _listed(below[0].path)
    several = sum(map(_is_folder, deeper)) > 1 and not any(_may_be_image(e.name) for e in deeper)
    return _unnested(below[0]) if several or below[0].name == folder.name else path


def _splits(folder: Path, folders: list[os.DirEntry]) -> dict[str, str]:
    """Folder name -> split, for names such as train, and for training_set, Train_Data or seg_train.

    A longer name is a split only beside another one with the same folders: test_tube may be a class.

    Raises:
        InputError: If longer names may be either.
    """
    splits = {e.name: SPLIT_NAMES[e.name.lower()] for e in folders if e.name.lower() in SPLIT_NAMES}
    longer = {}
    for entry in folders:
        words = {SPLIT_NAMES[word] for word in re.split(r"[\W_]+", entry.name.lower()) if word in SPLIT_NAMES}
        if entry.name not in splits and len(words) == 1:
            longer[entry.name] = words.pop()
    below = {
        e.name: {inner.name for inner in _listed(_unnested(e))[0] if _is_folder(inner)}
        for e in folders
        if e.name in longer or e.name in splits
    }
    parts = longer | splits
    train = set().union(*(below[name] for name, part in parts.items() if part == "train"))
    others = {name: below[name] for name, part in parts.items() if part != "train" and below[name]}
    if not longer or not train or not others:
        return splits
    if not all(classes <= train for classes in others.values()):
        odd = next(name for name, classes in others.items() if not classes <= train)
        raise InputError(
            f"data: {escape(folder)} has {', '.join(map(escape, parts))}, which look like splits, but the folders in "
            f"{escape(odd)} are not those of the training images; expected the same class folders, or names without "
            "train and test"
        )
    return {name: part for name, part in parts.items() if below[name]}


def _has_splits(folder: Path, folders: list[os.DirEntry], names: dict[str, str]) -> bool:
    """Whether there is a train/ with class folders.

    A train/ that also has images may be a class (of locomotives). It counts as a split with stray images if test/ or
    val/ has folders, or if several of its folders have images and no folder beside it does. Raises InputError if the
    two cannot be told apart.
    """
    splits = [e for e in folders if e.name in names]
    doubtful, elsewhere = [], False  # folders in a train/ that also has images; whether test/ or val/ has folders
    for entry in splits:
        below, reason = _listed(_unnested(entry))
        deeper = [e for e in below if _is_folder(e)]
        if names[entry.name] != "train":
            elsewhere |= bool(deeper)
        elif reason is not None or (deeper and not any(_may_be_image(e.name) and e.is_file() for e in below)):
            return True  # an unreadable folder is reported by scan()
        else:
            doubtful += deeper
    if not doubtful:
        if 1 < len(splits) == len(folders):
            raise InputError(f"data: {escape(folder)} has no class folders in train/, {EXPECTED}")
        return False
    several = sum(map(_has_images, doubtful)) > 1
    if not elsewhere and several == any(_has_images(e) for e in folders if e not in splits):
        raise InputError(
            f"data: {escape(folder)} has both images and folders in train/, which may be a class or a split; "
            "expected only class folders in it, as in photos/train/cat/1.jpg, or only images"
        )
    return elsewhere or several


def _has_images(folder: os.DirEntry) -> bool:
    return any(reason is None and _may_be_image(path) for path, reason in walk(folder.path))


def walk(top: str, seen: set[tuple[int, int]] | None = None) -> Iterator[tuple[str, str | None]]:
    """Walk a folder recursively, without hidden and system files.

    Args:
        top: The folder.
        seen: (device, inode) of folders not to enter, extended in place. Each folder is entered once, so link cycles
            end.

    Yields:
        (path, None) for each file and (path, reason) for each folder that was not entered.
    """
    seen = {_identity(top)} if seen is None else seen
    todo = [top]
    while todo:
        path = todo.pop()
        entries, reason = _listed(path)
        if reason is not None:
            yield path, reason
        deeper = []
        for entry in entries:
            if not _is_folder(entry):
                yield entry.path, None
            elif (identity := _identity(entry.path)) in seen:
                yield entry.path, "leads to a folder that was read already"
            else:
                seen.add(identity)
                deeper.append(entry.path)
        todo += reversed(deeper)


def _listed(folder: str) -> tuple[list[os.DirEntry], str | None]:
    """Entries of a folder, or none and the reason if it cannot be entered."""
    try:
        return _entries(Path(folder)), None
    except OSError as error:
        return [], f"cannot be entered: {error.strerror or error}"


def _entries(folder: Path) -> list[os.DirEntry]:
    with os.scandir(folder) as entries:
        shown = [e for e in entries if not e.name.startswith(".") and e.name.lower() not in _SYSTEM_NAMES]
    return sorted(shown, key=lambda e: e.name)


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
