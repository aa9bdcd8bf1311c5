"""Knows how to read many image files: each once, several at a time, into the cache; and what to do about bad ones."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median_low
from typing import Any, TypeVar

import numpy as np

from ...errors import InputError
from ...utils.console import escape
from ...utils.progress import ProgressCallback, progress_bar
from .decode import HEAD, UnreadableImage, dimensions, is_image, quiet, read_and_decode, read_bytes
from .decode_cache import Memory, Pack, digest, open_pack, prune, state_of, writing
from .scan import SUFFIXES

_AHEAD = 16  # files for each thread that are read before they are asked for
_HEADER = 1 << 18  # bytes in which an image's dimensions are looked for
_SAMPLE = 500  # files whose dimensions decide the size of images
T = TypeVar("T")


@dataclass
class Images:
    """files: path -> digest of its content, which leads to its row in the pack. bad: path -> what is wrong with it.
    others: files that are no images and are not called so."""

    pack: Pack
    files: dict[str, str]
    bad: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    def row(self, path: str) -> int:
        return self.pack.rows[self.files[path]]


def read_images(folder: Path, paths: Sequence[str], size: int, progress: ProgressCallback | None = None) -> Images:
    """All the files, decoded now or before. A bad file costs that file.

    progress: called with (what, files read, files in all). Raises InputError when no file is an image, and when the
    cache cannot be written.
    """
    try:
        with Memory.locked(folder, size) as memory:
            return _read(folder, paths, size, memory, progress)
    except OSError as error:
        place = error.filename2 or error.filename or "the cache"  # what was to be replaced tells more than a new file
        room = math.ceil(len(paths) * 3 * size**2 / 1e6)
        raise InputError(
            f"data: the images of {escape(folder)} cannot be kept in {escape(place)}: "
            f"{error.strerror or error}, expected a folder with room for {room:,} MB (XDG_CACHE_HOME names another)"
        ) from None


def _read(folder: Path, paths: Sequence[str], size: int, memory: Memory, progress: ProgressCallback | None) -> Images:
    before = open_pack(memory.key, size) if memory.key else None
    rows = {} if before is None else before.rows
    states = {path: state_of(folder / path) for path in paths}
    kept: dict[str, list] = {}  # files that are as they were, and those that are read now
    for path, state in states.items():
        if state is not None and (content := memory.content(path, state)) in rows:
            kept[path] = [state, content]
    files: dict[str, str] = {path: content for path, (_, content) in kept.items()}
    bad: dict[str, str] = {}
    others: list[str] = []

    def work(path: str) -> tuple[str, np.ndarray, tuple[int, int]]:
        pixels, sides, content = read_and_decode(folder / path, size)
        return digest(content), pixels.transpose(2, 0, 1), sides

    with writing(size) as writer:
        todo = [path for path in paths if path not in kept]
        for path, outcome in _side_by_side(work, todo, f"reading {escape(folder)}", progress):
            try:
                content, pixels, sides = outcome()
            except UnreadableImage as error:
                if is_meant_as_image(folder / path):
                    bad[path] = error.reason
                else:
                    others.append(path)
                continue
            files[path] = content
            if content not in rows:
                writer.add(content, pixels, sides)
            kept[path] = [states[path], content]  # as it was before it was read: if it changed since, it is read again
        if not files:
            raise InputError(_none_of(folder, bad))
        pack = before
        if pack is None or writer.contents:  # else all the images are in the pack that was there
            for old in sorted(set(files.values()) & set(rows)):
                assert before is not None
                writer.add(old, before.pixels[rows[old]], before.sides[rows[old]])
            pack = writer.finish()
            prune(keep=pack.key)
        memory.keep(pack.key, kept)
    return Images(pack, {path: files[path] for path in paths if path in files}, bad, others)


def is_meant_as_image(path: Path) -> bool:
    """By its name, or else by its first bytes."""
    if path.name.lower().endswith(SUFFIXES):
        return True
    try:
        return is_image(read_bytes(path, HEAD))
    except UnreadableImage:
        return False


def _none_of(folder: Path, bad: dict[str, str]) -> str:
    first = next(iter(bad.items()), None)
    why = f" (the first of {len(bad)}, {escape(first[0])}, {first[1]})" if first else ""
    return f"data: {escape(folder)} has no image that can be read{why}, expected JPEG, PNG, WebP, BMP or GIF files"


def default_size(folder: Path, paths: Sequence[str]) -> int:
    """Pixels of a side to train on, by the median of the shorter sides in a sample of the files.

    Images of less than 48 pixels stay as they are, up to 32; others become 48, 64 or 96, whichever is the largest that
    they have: 96 costs a network as much as 48, for its stem halves what is larger than 64.
    """
    step = max(1, len(paths) // _SAMPLE)

    def side(path: str) -> int | None:
        try:
            found = dimensions(read_bytes(folder / path, _HEADER))
        except UnreadableImage:
            return None
        return min(found) if found else None

    with quiet():
        sides = [found for path in paths[::step] if (found := side(path))]
    return side_for(sides)


def side_for(sides: Sequence[int]) -> int:
    """What default_size makes of the shorter sides of some images."""
    own = median_low(sides) if sides else 32
    if own < 48:
        return max(8, min(own, 32))
    return max(size for size in (48, 64, 96) if size <= own)


def _side_by_side(
    work: Callable[[str], T], paths: Iterable[str], what: str, progress: ProgressCallback | None
) -> Iterator[tuple[str, Callable[[], T]]]:
    """(path, its result or exception as a function) in order. Decoding lets other threads run; few are kept waiting."""
    paths = list(paths)
    threads = min(32, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    waiting: deque[tuple[str, Future[Any]]] = deque()
    todo = iter(paths)
    with quiet(), progress_bar(progress) as show, ThreadPoolExecutor(threads) as pool:
        try:
            for number in range(len(paths)):
                while len(waiting) < threads * _AHEAD and (path := next(todo, None)) is not None:
                    waiting.append((path, pool.submit(work, path)))
                path, future = waiting.popleft()
                future.exception()  # wait here, so that the bar shows what is done
                show(what, number + 1, len(paths))
                yield path, future.result
        finally:
            for _, future in waiting:
                future.cancel()
