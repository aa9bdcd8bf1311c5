"""Cache of decoded images: one memory-mapped array and one index per folder and image size.

    CACHE/images/KEY-SIZE/index.json   relative path -> Entry
    CACHE/images/KEY-SIZE/pixels       (N, 3, SIZE, SIZE) uint8, one row per entry

Rows are only appended and the index is replaced after them, so a killed process or a full disk leaves a valid
cache, and processes that have the array mapped are never disturbed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from filelock import FileLock

from ...utils.cache import cache_dir
from ...utils.files import atomic_write

FORMAT = 1  # raise it when decoding gives other pixels
_CHECKED_BYTES = 1 << 30  # pixels compared with their digests when a cache is opened


class Entry(NamedTuple):
    """A cached file. Digests are the first 32 hexadecimal digits of SHA-256."""

    size: int  # bytes of the file
    mtime_ns: int
    digest: str  # of the file's bytes
    row: int
    pixels_digest: str
    width: int  # of the upright image
    height: int


class CachedImages(NamedTuple):
    """Decoded images: ``pixels`` (N, 3, size, size) uint8, memory-mapped, and the entries by relative path."""

    pixels: np.ndarray
    entries: dict[str, Entry]


def cache_path() -> Path:
    """Return the folder of the image cache; it may not exist."""
    return cache_dir("images")


def digest(content: bytes | memoryview) -> str:
    """Return the first 32 hexadecimal digits of SHA-256."""
    return hashlib.sha256(content).hexdigest()[:32]


def file_state(path: Path) -> tuple[int, int] | None:
    """Return (bytes, mtime_ns), which change when a file does; None if it is missing."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):
        return None
    return state.st_size, state.st_mtime_ns


class FolderIndex:
    """The cache of one folder at one size. Use `locked`; one process at a time reads a folder."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = os.path.realpath(folder), size
        self.path = cache_path() / f"{digest(os.fsencode(self.folder))}-{size}"
        self.row_bytes = 3 * size * size
        self.entries: dict[str, Entry] = {}
        self.rows = 0  # of the array, including those of files that have changed since
        self._file: BinaryIO

    @staticmethod
    @contextlib.contextmanager
    def locked(folder: Path, size: int) -> Iterator[FolderIndex]:
        """Open the cache of a folder, empty if there is none or it is damaged. Raises OSError if not writable."""
        index = FolderIndex(folder, size)
        index.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{index.path}.lock"):
            if not index._load() and index.path.exists():
                shutil.rmtree(index.path)  # another process may have the array mapped: never write over it
            yield index

    def _load(self) -> bool:
        try:
            stored = json.loads((self.path / "index.json").read_text("utf-8"))
            self.entries = {path: Entry(*values) for path, values in stored["files"].items()}
            self.rows = stored["rows"]
            if stored["format"] != FORMAT or not self._is_valid():
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self.entries, self.rows = {}, 0
            return False
        return True

    def _is_valid(self) -> bool:
        entries = list(self.entries.values())
        if any(type(entry.row) is not int or not 0 <= entry.row < self.rows for entry in entries):
            return False
        if (self.path / "pixels").stat().st_size < self.rows * self.row_bytes:
            return False
        pixels, step = self._map(), max(1, -(-len(entries) * self.row_bytes // _CHECKED_BYTES))
        return all(digest(pixels[entry.row].data) == entry.pixels_digest for entry in entries[::step])

    def _map(self) -> np.ndarray:
        shape = (self.rows, 3, self.size, self.size)
        # "c": copy on write, because torch wants writable arrays.
        return np.memmap(self.path / "pixels", np.uint8, "c", shape=shape) if self.rows else np.empty(shape, np.uint8)

    def images(self) -> CachedImages:
        """Return the images cached so far."""
        return CachedImages(self._map(), self.entries)

    def is_current(self, path: str, state: tuple[int, int] | None) -> bool:
        """Whether a file is cached and has the size and time it had then."""
        entry = self.entries.get(path)
        return entry is not None and (entry.size, entry.mtime_ns) == state

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Save what is added and removed inside the block at its end, or nothing if it raises."""
        self.path.mkdir(exist_ok=True)
        saved, end = dict(self.entries), self.rows * self.row_bytes
        try:
            with open_pixels(self.path / "pixels") as self._file:
                self._file.seek(end)
                yield
                self._file.flush()
                os.fsync(self._file.fileno())
        except BaseException:  # the index is as before: give the space back
            with contextlib.suppress(OSError):
                os.truncate(self.path / "pixels", end)
            raise
        if self.entries != saved:
            stored = {"format": FORMAT, "folder": self.folder, "rows": self.rows, "files": self.entries}
            atomic_write(self.path / "index.json", json.dumps(stored))

    def add(
        self, path: str, state: tuple[int, int] | None, content_digest: str, pixels: np.ndarray, sides: tuple[int, int]
    ) -> None:
        """Add an image (3, size, size) uint8; ``state`` is that of the file before it was read."""
        old, state = self.entries.get(path), state or (-1, -1)
        if old is not None and old.digest == content_digest:
            self.entries[path] = old._replace(size=state[0], mtime_ns=state[1])
            return
        pixels = np.ascontiguousarray(pixels)
        self.entries[path] = Entry(*state, content_digest, self.rows, digest(pixels.data), *sides)
        self._file.write(pixels.data)
        self.rows += 1


def open_pixels(path: Path) -> BinaryIO:
    """Open the array's file for appending, keeping its content."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b")


class CacheInfo(NamedTuple):
    """The cache of one folder at one size. ``folder`` is where the images came from; ``bytes`` on the disk."""

    folder: str
    image_size: int
    images: int
    bytes: int


def cache_info() -> list[CacheInfo]:
    """List the cached folders, largest first."""
    found = []
    for path in cache_path().glob("*/index.json"):
        try:
            stored = json.loads(path.read_text("utf-8"))
            size, used = int(path.parent.name.split("-")[1]), sum(file.stat().st_size for file in path.parent.iterdir())
            found.append(CacheInfo(str(stored["folder"]), size, len(stored["files"]), used))
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            continue  # damaged: rebuilt when its folder is read again
    return sorted(found, key=lambda info: (-info.bytes, info.folder, info.image_size))


def clear_cache() -> int:
    """Remove all cached images, waiting for processes that are writing them. Returns the bytes freed."""
    freed = 0
    for path in sorted(cache_path().glob("*/")):
        with FileLock(f"{path}.lock"):
            freed += sum(file.stat().st_size for file in path.iterdir())
            shutil.rmtree(path)
    return freed
