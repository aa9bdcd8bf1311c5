"""Knows how a folder of photos becomes a data set: which images count, which are trained on, and the record of it."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from ...errors import InputError
from ...utils.console import escape
from ...utils.progress import ProgressCallback
from ..dataset import LARGEST, SMALLEST, ImageData, Split, channel_statistics, is_name
from ..memmap_rows import MemmapRows
from ..subset import stratified_subset
from .decode_cache import FORMAT, Pack, digest, open_pack
from .decode_files import Images, default_size, is_meant_as_image, read_images
from .scan import EXPECTED, File, Scan, scan, walk

TEST_PART = 0.2  # of the images, where there is no test/
IN_MEMORY = 1 << 30  # bytes of pixels up to which they are held in memory; more stay in the cache's file
_PRECEDENCE = ("test", "val", "train", "")  # where an image stays that is in several splits: the test is not touched


@dataclass
class Photos:
    """A folder that was read: the files of each split ("train", "val", "test"), and what was found on the way.

    mistake: why nobody can train on it, or None.
    """

    scan: Scan
    size: int
    images: Images
    classes: tuple[str, ...]
    parts: dict[str, list[File]]
    findings: dict[str, Any]
    mistake: str | None


def read_photos(
    folder: Path, *, image_size: int | None = None, split_seed: int = 0, progress: ProgressCallback | None = None
) -> Photos:
    """Look at a folder of photos. Raises InputError for one without images, and for an image_size out of range."""
    if image_size is not None and not SMALLEST <= image_size <= LARGEST:
        raise InputError(f"image_size: got {image_size}, expected {SMALLEST} to {LARGEST} pixels")
    found = scan(folder)
    paths = [file.path for file in found.files]
    size = image_size if image_size is not None else default_size(folder, paths)
    images = read_images(folder, paths, size, progress)
    files = [file for file in found.files if file.path in images.files]
    files, twice, torn = _once(files, images)
    parts, test = _split(files, found.classes, split_seed)
    classes = tuple(c for c in found.classes if any(file.label == c for part in parts.values() for file in part))
    counts = {part: Counter(file.label for file in parts[part]) for part in parts}
    sides = [images.pack.sides[images.row(file.path)] for file in files]
    findings = {
        "folder": escape(folder),
        "images": len(files),
        "image_size": size,
        "image_size_given": image_size is not None,
        "sides": _sides(sides),
        "test": test,
        "split_seed": split_seed if test == "drawn" else None,
        "classes": [{"name": c, **{part: counts[part][c] for part in parts}} for c in classes],
        "alike_classes": _alike(classes),
        "empty_classes": [c for c in found.classes if c not in classes],
        "unreadable": [{"path": escape(path), "reason": reason} for path, reason in images.bad.items()],
        "troubles": [{"path": path, "reason": reason} for path, reason in found.troubles],
        "duplicates": twice,
        "in_several_classes": torn,
        "other_files": dict(Counter(Path(path).suffix.lower() or "no suffix" for path in images.others)),
        "beside_classes": found.beside,
        "other_folders": found.passed,
    }
    return Photos(found, size, images, classes, parts, findings, _mistake(folder, classes, counts))


def _once(files: list[File], images: Images) -> tuple[list[File], list[dict[str, Any]], list[list[str]]]:
    """Each picture once: (the files that stay, the duplicates that don't, those that lie in several classes).

    The same picture means the same pixels at the size that is trained on. Of copies in one class one stays, in the
    test if any is there; of a picture in several classes nobody knows what it shows, and none stays.
    """
    copies = defaultdict(list)
    for file in files:
        copies[images.pack.digests[images.row(file.path)]].append(file)
    dropped, twice, torn = set(), [], []
    for same in copies.values():
        if len({file.label for file in same}) > 1:
            dropped |= set(same)
            torn.append([escape(file.path) for file in same])
            continue
        first, *others = sorted(same, key=lambda file: _PRECEDENCE.index(file.part))
        dropped |= set(others)
        twice += [
            {
                "path": escape(file.path),
                "same_as": escape(first.path),
                "across": [file.part, first.part] if file.part != first.part else None,
            }
            for file in others
        ]
    return [file for file in files if file not in dropped], twice, torn


def _split(files: list[File], classes: tuple[str, ...], seed: int) -> tuple[dict[str, list[File]], str]:
    """The files of train, val and test, and where the test is from: "test", "val" or "drawn".

    Where there is no test/, val/ is it; where there is neither, a fifth of each class is split off.
    """
    parts = {name: [file for file in files if file.part == name] for name in ("train", "val", "test")}
    parts["train"] += [file for file in files if file.part == ""]
    if parts["test"]:
        return parts, "test"
    if parts["val"]:
        return {"train": parts["train"], "val": [], "test": parts["val"]}, "val"
    labels = np.array([classes.index(file.label) for file in parts["train"]])
    several = np.flatnonzero(np.bincount(labels, minlength=len(classes))[labels] > 1) if len(labels) else labels
    if not len(several):
        return parts, "drawn"
    kinds, compact = np.unique(labels[several], return_inverse=True)
    held_out = set(several[stratified_subset(compact, max(len(kinds), round(TEST_PART * len(several))), seed)].tolist())
    train = parts["train"]
    parts["test"] = [file for i, file in enumerate(train) if i in held_out]
    parts["train"] = [file for i, file in enumerate(train) if i not in held_out]
    return parts, "drawn"


def _mistake(folder: Path, classes: tuple[str, ...], counts: dict[str, Counter]) -> str | None:
    where = f"data: {escape(folder)}"
    for part in ("test", "val"):
        for name in classes:
            if counts[part][name] and not counts["train"][name]:
                alike = [other for other in classes if other.casefold() == name.casefold() and counts["train"][other]]
                hint = f" ({alike[0]!r} is in train/)" if alike else ""
                return f"{where} has the class {name!r} in {part}/ alone{hint}, expected images of it to train on"
    if unnamed := [name for name in classes if not is_name(name)]:
        return f"{where} has a class {unnamed[0]!r}, expected names that can be read"
    if not classes:
        return f"{where} has no image that is in one class alone, {EXPECTED}"
    if len(classes) < 2:
        return f"{where} has images of only one class, {classes[0]!r}, {EXPECTED}"
    if not counts["test"]:
        return f"{where} has one image of each class, expected at least two, to train on one and test on the other"
    return None


def _alike(classes: tuple[str, ...]) -> list[list[str]]:
    """Classes whose names differ in small and large letters alone."""
    same = defaultdict(list)
    for name in classes:
        same[name.casefold()].append(name)
    return [names for names in same.values() if len(names) > 1]


def _sides(sides: list[tuple[int, int]]) -> dict[str, list[int]]:
    """(width, height) of the image with the smallest, the median and the largest number of pixels."""
    if not sides:
        return {}
    by_area = sorted(sides, key=lambda side: (side[0] * side[1], side))
    return {
        name: list(by_area[at])
        for name, at in (("smallest", 0), ("median", (len(sides) - 1) // 2), ("largest", len(sides) - 1))
    }


def load_photos(
    folder: Path, *, image_size: int | None = None, split_seed: int = 0, progress: ProgressCallback | None = None
) -> ImageData:
    """A folder as a data set with the record of it. Raises InputError for one that nobody can train on."""
    photos = read_photos(folder, image_size=image_size, split_seed=split_seed, progress=progress)
    if photos.mistake is not None:
        raise InputError(photos.mistake)
    number = {name: k for k, name in enumerate(photos.classes)}
    record = {
        "format": FORMAT,
        "name": escape(Path(folder).resolve().name),
        "classes": list(photos.classes),
        "image_size": photos.size,
        "split_seed": split_seed,
        "pack": photos.images.pack.key,
        **{
            part: [[file.path, number[file.label], photos.images.files[file.path]] for file in files]
            for part, files in photos.parts.items()
        },
        "found": photos.findings,
    }
    return _assembled(record, photos.images.pack)


def load_recorded(folder: Path, record: dict[str, Any], progress: ProgressCallback | None = None) -> ImageData:
    """The very images of a record, whatever lies in the folder besides: out of the cache, or else from their files.

    Raises InputError when files that are needed have changed or are gone, and for a record that is none.
    """
    try:
        size, entries = record["image_size"], [entry for part in ("train", "val", "test") for entry in record[part]]
        wanted = {path: content for path, _, content in entries}
        if record["format"] != FORMAT or not entries or not all(isinstance(path, str) for path in wanted):
            raise ValueError("another format")
        if type(size) is not int or not SMALLEST <= size <= LARGEST:
            raise ValueError(f"images of {size!r} pixels")
        pack = open_pack(record["pack"], size)
        if pack is None or not set(wanted.values()) <= set(pack.rows):
            pack = _read_again(folder, wanted, size, progress)
        return _assembled(record, pack)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"data: the run's record of its images is damaged ({type(error).__name__}: {error})") from None


def _read_again(folder: Path, wanted: dict[str, str], size: int, progress: ProgressCallback | None) -> Pack:
    """From the files of the record, or where these are not all, from any in the folder that hold the same."""
    if not folder.is_dir():
        where = escape(folder.absolute())
        raise InputError(f"data: {where} is not there, expected the photos of this run (or --data-dir)")
    contents, pack = set(wanted.values()), None
    if all((folder / path).is_file() for path in wanted):
        pack = read_images(folder, sorted(wanted), size, progress).pack
    if pack is None or not contents <= set(pack.rows):
        files = [path for path, wrong in walk(str(folder)) if wrong is None and is_meant_as_image(Path(path))]
        below = sorted(os.path.relpath(path, folder) for path in files)
        pack = read_images(folder, below, size, progress).pack if below else None
    changed = [path for path, content in sorted(wanted.items()) if pack is None or content not in pack.rows]
    if pack is None or changed:
        raise InputError(
            f"data: {len(changed):,} of {len(wanted):,} images in {escape(folder)} have changed or are gone since "
            f"the run began (the first is {escape(changed[0])}), expected those it began with"
        )
    return pack


def _assembled(record: dict[str, Any], pack: Pack) -> ImageData:
    chosen = {part: [pack.rows[content] for _, _, content in record[part]] for part in ("train", "val", "test")}
    in_memory = sum(map(len, chosen.values())) * pack.pixels[0].size <= IN_MEMORY
    splits = {}
    for part, rows in chosen.items():
        at = np.array(rows, np.int64)
        pixels = np.ascontiguousarray(pack.pixels[at]) if in_memory else cast(np.ndarray, MemmapRows(pack.pixels, at))
        labels = np.array([label for _, label, _ in record[part]], np.int64)
        splits[part] = Split(pixels, labels, digest("".join(pack.digests[row] for row in rows).encode()))
    mean, std = channel_statistics(splits["train"].images)
    val = splits["val"] if len(splits["val"]) else None
    classes = tuple(record["classes"])
    return ImageData(record["name"], splits["train"], splits["test"], classes, mean, std, val=val, record=record)
