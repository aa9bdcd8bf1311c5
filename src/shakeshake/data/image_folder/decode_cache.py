"""Knows the cache of decoded images: one file of pixels for each set of contents, which appears whole or not at all.

    CACHE/photos/KEY/pixels, index.json     the images of one size that have these contents, in the index's order
    CACHE/photos/FOLDER-SIZE.json           which content each file of a folder had when it was last read, and its KEY

KEY is a hash of the contents and the size: renamed, copied or touched files are not decoded again. A file is read again
when its size, times or inode have changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from filelock import FileLock

from ..cifar.checksum_cache import cache_dir

FORMAT = 1  # of the cache, and of what decoding gives: to be raised when the pixels of a file become others
ROOM = 20 << 30  # bytes of packs that are kept; those that were not used for the longest time make room
_CHECKED = 1 << 30  # bytes of pixels that are compared with their digests when a pack is opened


def place() -> Path:
    """Where the cache of photos is; nothing is created here."""
    return cache_dir() / "photos"


def digest(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


@dataclass(frozen=True)
class Pack:
    """pixels (N, 3, size, size) uint8, mapped into memory; of each image: digests of its file and of its pixels, and
    (width, height) as it was in the file. ``rows``: digest of a file -> its row."""

    key: str
    pixels: np.ndarray
    contents: list[str]
    digests: list[str]
    sides: list[tuple[int, int]]
    rows: dict[str, int]


def key_of(contents: Iterable[str], size: int) -> str:
    return digest(json.dumps([FORMAT, size, sorted(set(contents))]).encode())


def checked_key(key: object) -> str:
    """A key that was read from a file. It becomes part of a path, so ValueError for what key_of() does not give."""
    if isinstance(key, str) and re.fullmatch("[0-9a-f]{32}", key):
        return key
    raise ValueError(f"{key!r} is no key of the cache")


def open_pack(key: str, size: int) -> Pack | None:
    """The pack if it is there and whole. Raises ValueError for what is no key."""
    folder = place() / checked_key(key)
    try:
        index = json.loads((folder / "index.json").read_text("utf-8"))
        contents, digests, sides = index["contents"], index["digests"], [tuple(side) for side in index["sides"]]
        shape = (len(contents), 3, size, size)
        if key_of(contents, size) != key or (folder / "pixels").stat().st_size != np.prod(shape, dtype=np.int64):
            raise ValueError("not as its index says")
        # "c": a mapping that may be written to without changing the file, as torch wants its arrays.
        pixels = np.memmap(folder / "pixels", np.uint8, "c", shape=shape)
        step = max(1, -(-pixels.size // _CHECKED))
        sampled = range(0, len(contents), step)
        if not len(digests) == len(sides) == len(contents) or any(
            digest(pixels[i].data) != digests[i] for i in sampled
        ):
            raise ValueError("not the pixels that were written")
        with contextlib.suppress(OSError):
            os.utime(folder)  # used lately: see prune()
        return Pack(key, pixels, contents, digests, sides, {content: i for i, content in enumerate(contents)})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink()  # of what is no folder


@dataclass
class Writer:
    """A pack being written: add() images, then finish(). Nothing is there before, and nothing is left if that fails."""

    size: int
    folder: Path
    contents: dict[str, int] = field(default_factory=dict)
    digests: list[str] = field(default_factory=list)
    sides: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.file = open(self.folder / "pixels", "wb")  # noqa: SIM115  closed by finish() or writing()

    def add(self, content: str, pixels: np.ndarray, sides: tuple[int, int]) -> None:
        """pixels: (3, size, size) uint8. A content that is there already is passed over."""
        if content not in self.contents:
            self.contents[content] = len(self.contents)
            pixels = np.ascontiguousarray(pixels)
            self.digests.append(digest(pixels.data))
            self.sides.append(sides)
            self.file.write(pixels.data)

    def finish(self) -> Pack:
        """The pack as it is there now: this one, or the same that another process has written meanwhile."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        index = {"contents": list(self.contents), "digests": self.digests, "sides": self.sides}
        with open(self.folder / "index.json", "w", encoding="utf-8") as file:
            file.write(json.dumps(index))  # not dump(), which is written in Python
            file.flush()
            os.fsync(file.fileno())
        key = key_of(self.contents, self.size)
        with FileLock(place() / "packs.lock"):  # what is not whole is removed by one process at a time
            pack = open_pack(key, self.size)
            if pack is None:
                _remove(place() / key)
                self.folder.replace(place() / key)
                pack = open_pack(key, self.size)
        if pack is None:
            raise OSError(None, "what was written was gone at once")
        return pack


def prune(keep: str) -> None:
    """Remove packs that were not used lately while there is more than ROOM of them; ``keep`` stays in any case.

    A process that has one of them open does not notice: its pages stay until it ends.
    """
    packs, yesterday = [], time.time() - 86400
    for left in place().glob(".new-*"):  # by a process that was killed
        with contextlib.suppress(OSError):
            if left.stat().st_mtime < yesterday:
                _remove(left)
    with contextlib.suppress(OSError):
        for index in place().glob(f"{'[0-9a-f]' * 32}/index.json"):
            with contextlib.suppress(OSError):
                packs.append((index.parent.stat().st_mtime, (index.parent / "pixels").stat().st_size, index.parent))
    used = sum(size for _, size, _ in packs)
    for _, size, folder in sorted(packs):
        if used > ROOM and folder.name != keep:
            shutil.rmtree(folder, ignore_errors=True)
            used -= size


@contextlib.contextmanager
def writing(size: int) -> Iterator[Writer]:
    """A Writer whose files are gone at the end unless it was finished. Raises OSError, of a full disk say."""
    place().mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".new-", dir=place()))
    writer = None
    try:
        writer = Writer(size, folder)
        yield writer
    finally:
        if writer is not None:
            with contextlib.suppress(OSError):  # of a full disk, which has been told
                writer.file.close()
        shutil.rmtree(folder, ignore_errors=True)


class Memory:
    """What each file of a folder held when it was last read, for one size of images."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key = ""
        self.files: dict[str, list] = {}  # path -> [state of the file, digest of its content]
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(self.path.read_text("utf-8"))
            self.key, self.files = checked_key(kept["key"]), dict(kept["files"])

    @staticmethod
    @contextlib.contextmanager
    def locked(folder: Path, size: int) -> Iterator[Memory]:
        """One process at a time reads a folder. Raises OSError where the cache cannot be written."""
        place().mkdir(parents=True, exist_ok=True)
        path = place() / f"{digest(os.fsencode(os.path.realpath(folder)))}-{size}.json"
        with FileLock(path.with_suffix(".lock")):
            yield Memory(path)

    def content(self, path: str, state: list[int]) -> str | None:
        """The digest of a file that is as it was; ``state`` is state_of() it now."""
        known = self.files.get(path)
        if isinstance(known, list) and len(known) == 2 and known[0] == state and isinstance(known[1], str):
            return known[1]
        return None

    def keep(self, key: str, files: dict[str, list]) -> None:
        self.key, self.files = key, files
        handle, name = tempfile.mkstemp(prefix=".new-", dir=place())
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "files": files}))
            os.replace(name, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise


def state_of(path: Path) -> list[int] | None:
    """What changes whenever a file does; None where there is none."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):
        return None
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
