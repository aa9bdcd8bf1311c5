"""A folder of images as a data set: which images count, how they are split, and a record to load them again."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from ...errors import InputError
from ...utils.console import escape
from ...utils.progress import ProgressCallback
from ..dataset import MAX_SIZE, MIN_SIZE, ImageData, Split, channel_statistics, is_name
from ..memmap_rows import MemmapRows
from ..subset import stratified_subset
from .decode_cache import CachedImages, digest
from .decode_files import DecodedFiles, default_size, read_images, read_recorded
from .scan import EXPECTED, File, Scan, scan

RECORD_FORMAT = 1
TEST_FRACTION = 0.2  # of the images, for folders without test/ and val/
MAX_MEMORY_BYTES = 1 << 30  # of pixels; larger data sets stay in the cache's file
_PRECEDENCE = ("test", "val", "train", "")  # the split that keeps an image that several have
_SPLITS = ("train", "val", "test")


@dataclass
class ImageFolder:
    """A folder that was read.

    Attributes:
        scan: The files and classes found.
        image_size: Side of the square images in pixels.
        images: The decoded images.
        classes: Names of the classes that have images.
        splits: Files of "train", "val" and "test".
        findings: Counts, sizes and problems, as JSON values; see `summary`.
        error: Why the folder cannot be used for training, or None.
    """

    scan: Scan
    image_size: int
    images: DecodedFiles
    classes: tuple[str, ...]
    splits: dict[str, list[File]]
    findings: dict[str, Any]
    error: str | None


def read_image_folder(
    folder: Path, *, image_size: int | None = None, split_seed: int = 0, progress: ProgressCallback | None = None
) -> ImageFolder:
    """Scan and decode a folder of images and report what is in it.

    Args:
        folder: Folder with one folder per class, or with these in ``train/``, ``test/`` and ``val/``.
        image_size: Side of the square images in pixels; by default chosen from the images' sizes.
        split_seed: Seed of the test split where the folder has neither ``test/`` nor ``val/``.
        progress: Called with (task, files read, files to read); default a bar on stderr.

    Raises:
        InputError: The folder has no images in class folders, or ``image_size`` is out of range.
    """
    if image_size is not None and not MIN_SIZE <= image_size <= MAX_SIZE:
        raise InputError(f"image_size: got {image_size}, expected {MIN_SIZE} to {MAX_SIZE} pixels")
    found = scan(folder)
    paths = [file.path for file in found.files]
    size = image_size if image_size is not None else default_size(folder, paths)
    images = read_images(folder, paths, size, progress)
    unusable = {*images.bad, *images.others}
    files = [file for file in found.files if file.path not in unusable]
    files, duplicates, conflicting = _deduplicate(files, images.cached)
    splits, test = _split(files, found.classes, split_seed)
    classes = tuple(c for c in found.classes if any(file.label == c for split in splits.values() for file in split))
    counts = {split: Counter(file.label for file in splits[split]) for split in splits}
    findings = {
        "folder": escape(folder),
        "images": len(files),
        "image_size": size,
        "image_size_given": image_size is not None,
        "sides": _sides([images.cached.entries[file.path][-2:] for file in files]),
        "test": test,
        "split_seed": split_seed if test == "drawn" else None,
        "classes": [{"name": c, **{split: counts[split][c] for split in splits}} for c in classes],
        "alike_classes": _alike(classes),
        "empty_classes": [c for c in found.classes if c not in classes],
        "unreadable": [{"path": escape(path), "reason": reason} for path, reason in images.bad.items()],
        "troubles": [{"path": path, "reason": reason} for path, reason in found.unreadable_dirs],
        "duplicates": duplicates,
        "in_several_classes": conflicting,
        "other_files": dict(Counter(Path(path).suffix.lower() or "no suffix" for path in images.others)),
        "beside_classes": found.stray_images,
        "other_folders": found.skipped,
    }
    return ImageFolder(found, size, images, classes, splits, findings, _error(folder, classes, counts))


def _deduplicate(files: list[File], cached: CachedImages) -> tuple[list[File], list[dict[str, Any]], list[list[str]]]:
    """Return (files to keep, duplicates dropped, groups of equal images in several classes, all dropped).

    Equal means equal pixels at the training size. One copy stays, in the test split if it has one.
    """
    copies = defaultdict(list)
    for file in files:
        copies[cached.entries[file.path].pixels_digest].append(file)
    dropped, duplicates, conflicting = set(), [], []
    for same in copies.values():
        if len({file.label for file in same}) > 1:
            dropped |= set(same)
            conflicting.append([escape(file.path) for file in same])
            continue
        first, *others = sorted(same, key=lambda file: _PRECEDENCE.index(file.split))
        dropped |= set(others)
        duplicates += [
            {
                "path": escape(file.path),
                "same_as": escape(first.path),
                "across": [file.split, first.split] if file.split != first.split else None,
            }
            for file in others
        ]
    return [file for file in files if file not in dropped], duplicates, conflicting


def _split(files: list[File], classes: tuple[str, ...], seed: int) -> tuple[dict[str, list[File]], str]:
    """Return the files of each split and the source of the test split: "test", "val" or "drawn"."""
    splits = {name: [file for file in files if file.split == name] for name in _SPLITS}
    splits["train"] += [file for file in files if file.split == ""]
    if splits["test"]:
        return splits, "test"
    if splits["val"]:
        return {"train": splits["train"], "val": [], "test": splits["val"]}, "val"
    train = splits["train"]
    labels = np.array([classes.index(file.label) for file in train])
    several = np.flatnonzero(np.bincount(labels, minlength=len(classes))[labels] > 1) if len(labels) else labels
    if not len(several):
        return splits, "drawn"
    kinds, compact = np.unique(labels[several], return_inverse=True)
    size = max(len(kinds), round(TEST_FRACTION * len(several)))
    is_test = set(several[stratified_subset(compact, size, seed)].tolist())
    splits["test"] = [file for i, file in enumerate(train) if i in is_test]
    splits["train"] = [file for i, file in enumerate(train) if i not in is_test]
    return splits, "drawn"


def _error(folder: Path, classes: tuple[str, ...], counts: dict[str, Counter]) -> str | None:
    where = f"data: {escape(folder)}"
    for split in ("test", "val"):
        for name in classes:
            if counts[split][name] and not counts["train"][name]:
                alike = [other for other in classes if other.casefold() == name.casefold() and counts["train"][other]]
                hint = f" ({alike[0]!r} is in train/)" if alike else ""
                return f"{where} has the class {name!r} only in {split}/{hint}, expected training images of it too"
    if unreadable := [name for name in classes if not is_name(name)]:
        return f"{where} has a class {unreadable[0]!r}, expected names with visible characters"
    if not classes:
        return f"{where} has no image that is in only one class, {EXPECTED}"
    if len(classes) < 2:
        return f"{where} has images of only one class, {classes[0]!r}, {EXPECTED}"
    if not counts["test"]:
        return f"{where} has one image per class, expected at least two: one for training and one for testing"
    return None


def _alike(classes: tuple[str, ...]) -> list[list[str]]:
    """Return groups of classes whose names differ only in case."""
    groups = defaultdict(list)
    for name in classes:
        groups[name.casefold()].append(name)
    return [names for names in groups.values() if len(names) > 1]


def _sides(sides: list[tuple[int, int]]) -> dict[str, list[int]]:
    """Return (width, height) of the images with the smallest, median and largest number of pixels."""
    if not sides:
        return {}
    by_area = [list(side) for side in sorted(sides, key=lambda side: (side[0] * side[1], side))]
    return {"smallest": by_area[0], "median": by_area[(len(sides) - 1) // 2], "largest": by_area[-1]}


def load_image_folder(
    folder: Path, *, image_size: int | None = None, split_seed: int = 0, progress: ProgressCallback | None = None
) -> ImageData:
    """Load a folder of images, with a record of the images used. Arguments are those of `read_image_folder`.

    Raises:
        InputError: The folder cannot be used for training.
    """
    found = read_image_folder(folder, image_size=image_size, split_seed=split_seed, progress=progress)
    if found.error is not None:
        raise InputError(found.error)
    label_of = {name: label for label, name in enumerate(found.classes)}
    entries = found.images.cached.entries
    record = {
        "format": RECORD_FORMAT,
        "name": escape(Path(folder).resolve().name),
        "classes": list(found.classes),
        "image_size": found.image_size,
        "split_seed": split_seed,
        **{
            split: [[file.path, label_of[file.label], entries[file.path].digest] for file in files]
            for split, files in found.splits.items()
        },
        "found": found.findings,
    }
    return _assemble(record, found.images.cached)


def load_recorded(folder: Path, record: dict[str, Any], progress: ProgressCallback | None = None) -> ImageData:
    """Load exactly the images of a record, from the cache or else from their files.

    Args:
        folder: The folder of the images; other files in it are ignored.
        record: ``ImageData.record`` of an earlier load.
        progress: As in `read_image_folder`.

    Raises:
        InputError: Images have changed or are missing, or the record is damaged.
    """
    try:
        size, files = record["image_size"], [file for split in _SPLITS for file in record[split]]
        digests = {path: content for path, _, content in files}
        if record["format"] != RECORD_FORMAT or not files or not all(isinstance(path, str) for path in digests):
            raise ValueError("unknown format")
        if type(size) is not int or not MIN_SIZE <= size <= MAX_SIZE:
            raise ValueError(f"image size {size!r}")
        return _assemble(record, read_recorded(folder, digests, size, progress))
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"data: the run's record of its images is damaged ({type(error).__name__}: {error})") from None


def _assemble(record: dict[str, Any], cached: CachedImages) -> ImageData:
    entries = {split: [cached.entries[path] for path, _, _ in record[split]] for split in _SPLITS}
    total_bytes = sum(map(len, entries.values())) * cached.pixels[0].size
    splits = {}
    for split, chosen in entries.items():
        rows = np.array([entry.row for entry in chosen], np.int64)
        if total_bytes <= MAX_MEMORY_BYTES:
            pixels = np.ascontiguousarray(cached.pixels[rows])
        else:
            pixels = cast(np.ndarray, MemmapRows(cached.pixels, rows))
        labels = np.array([label for _, label, _ in record[split]], np.int64)
        splits[split] = Split(pixels, labels, digest("".join(entry.pixels_digest for entry in chosen).encode()))
    mean, std = channel_statistics(splits["train"].images)
    val = splits["val"] if len(splits["val"]) else None
    classes = tuple(record["classes"])
    return ImageData(record["name"], splits["train"], splits["test"], classes, mean, std, val=val, record=record)
