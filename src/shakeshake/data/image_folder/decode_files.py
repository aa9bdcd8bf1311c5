"""Decoding of many image files: in parallel, each once, unreadable files reported."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median_low
from typing import TypeVar

import numpy as np

from ...errors import InputError
from ...utils.console import escape
from ...utils.environment import cpu_count
from ...utils.progress import ProgressCallback, progress_bar
from .decode import HEAD, UnreadableImage, dimensions, is_image, quiet, read_and_decode, read_bytes
from .decode_cache import CachedImages, FolderIndex, digest, file_state
from .scan import SUFFIXES

_AHEAD = 1024  # files decoded before the first of them is stored, which limits memory
_HEADER_BYTES = 1 << 18  # where an image's dimensions are looked for
_SAMPLE = 500  # files whose dimensions decide the default image size
T = TypeVar("T")


@dataclass
class DecodedFiles:
    """Result of `read_images`.

    Attributes:
        cached: Pixels and entries; may contain more files than were asked for.
        bad: Unreadable image: relative path -> reason.
        others: Relative paths of files that are not images, neither by name nor by content.
    """

    cached: CachedImages
    bad: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)


def read_images(
    folder: Path, paths: Sequence[str], size: int, progress: ProgressCallback | None = None
) -> DecodedFiles:
    """Decode files of a folder that are not cached or have changed, and return all from the cache.

    Args:
        folder: The folder.
        paths: Paths relative to it.
        size: Side of the square images in pixels.
        progress: Called with (task, files read, files to read); default a bar on stderr.

    Raises:
        InputError: No file is an image, or the cache is not writable.
    """
    with _open_index(folder, len(paths), size) as index:
        decoded = _decode(folder, paths, index, progress)
    if len(decoded.bad) + len(decoded.others) == len(paths):
        first = next(iter(decoded.bad.items()), None)
        why = f" (the first of {len(decoded.bad)}, {escape(first[0])}, {first[1]})" if first else ""
        raise InputError(
            f"data: {escape(folder)} has no readable image{why}, expected JPEG, PNG, WebP, BMP or GIF files"
        )
    return decoded


def read_recorded(
    folder: Path, digests: dict[str, str], size: int, progress: ProgressCallback | None = None
) -> CachedImages:
    """Return images with exactly these contents, from the cache or else from their files.

    Args:
        folder: The folder; it may be gone if the cache has all images.
        digests: Relative path -> digest of the file's bytes.
        size: Side of the square images in pixels.
        progress: As in `read_images`.

    Raises:
        InputError: The folder is missing, files have changed or are missing, or the cache is not writable.
    """
    with _open_index(folder, len(digests), size) as index:

        def changed() -> list[str]:
            found = index.entries
            return sorted(path for path in digests if path not in found or found[path].digest != digests[path])

        if (todo := changed()) and not folder.is_dir():
            where = escape(folder.absolute())
            raise InputError(f"data: {where} is not a folder, expected the images of this run (or use --data-dir)")
        _decode(folder, todo, index, progress)
        if paths := changed():
            raise InputError(
                f"data: {len(paths):,} of {len(digests):,} images in {escape(folder)} have changed or are missing "
                f"since the run began (the first is {escape(paths[0])}), expected the original files"
            )
        return index.images()


@contextlib.contextmanager
def _open_index(folder: Path, images: int, size: int) -> Iterator[FolderIndex]:
    try:
        with FolderIndex.locked(folder, size) as index:
            yield index
    except OSError as error:
        place = error.filename2 or error.filename or "the cache"  # the target of a rename says more than a new file
        megabytes = math.ceil(images * 3 * size**2 / 1e6)
        raise InputError(
            f"data: the images of {escape(folder)} cannot be cached in {escape(place)}: {error.strerror or error}; "
            f"expected a folder with {megabytes:,} MB free (XDG_CACHE_HOME chooses another)"
        ) from None


def _decode(folder: Path, paths: Sequence[str], index: FolderIndex, progress: ProgressCallback | None) -> DecodedFiles:
    """Bring the index up to date for some files."""
    # States from before reading: a file that changes meanwhile is read again the next time.
    states = {path: file_state(folder / path) for path in paths}
    bad: dict[str, str] = {}
    others: list[str] = []

    def work(path: str) -> tuple[str, np.ndarray, tuple[int, int]] | UnreadableImage:
        try:
            pixels, sides, content = read_and_decode(folder / path, index.size)
        except UnreadableImage as error:
            return error
        return digest(content), pixels.transpose(2, 0, 1), sides

    if todo := [path for path in paths if not index.is_current(path, states[path])]:
        with index.changing():
            for path, result in parallel_map(work, todo, f"reading {escape(folder)}", progress):
                if not isinstance(result, UnreadableImage):
                    index.add(path, states[path], *result)
                    continue
                index.entries.pop(path, None)
                if is_meant_as_image(folder / path):
                    bad[path] = result.reason
                else:
                    others.append(path)
    return DecodedFiles(index.images(), bad, others)


def is_meant_as_image(path: Path) -> bool:
    """Whether a file is an image by its suffix, or else by its first bytes."""
    if path.name.lower().endswith(SUFFIXES):
        return True
    try:
        return is_image(read_bytes(path, HEAD))
    except UnreadableImage:
        return False


def default_size(folder: Path, paths: Sequence[str]) -> int:
    """Choose the image size in pixels from the shorter sides of a sample of files; see `side_for`."""
    step = max(1, len(paths) // _SAMPLE)

    def side(path: str) -> int | None:
        try:
            found = dimensions(read_bytes(folder / path, _HEADER_BYTES))
        except UnreadableImage:
            return None
        return min(found) if found else None

    with quiet():
        sides = [found for path in paths[::step] if (found := side(path))]
    return side_for(sides)


def side_for(sides: Sequence[int]) -> int:
    """Choose the image size from the shorter sides of some images.

    A median below 48 pixels is kept, up to 32. Otherwise the largest of 48, 64 and 96 that does not exceed it: 96
    costs a network as much as 48, because its stem halves images above 64.
    """
    median = median_low(sides) if sides else 32
    if median < 48:
        return max(8, min(median, 32))
    return max(size for size in (48, 64, 96) if size <= median)


def parallel_map(
    work: Callable[[str], T], paths: Sequence[str], task: str, progress: ProgressCallback | None
) -> Iterator[tuple[str, T]]:
    """Yield (path, result) in order, working on several files at a time."""
    with quiet(), progress_bar(progress) as show, ThreadPoolExecutor(min(32, cpu_count())) as pool:
        for start in range(0, len(paths), _AHEAD):
            some = paths[start : start + _AHEAD]
            for number, (path, result) in enumerate(zip(some, pool.map(work, some), strict=True), start + 1):
                show(task, number, len(paths))
                yield path, result
