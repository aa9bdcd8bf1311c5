"""The official CIFAR files: found, read and verified as folders or archives, in the binary or python layout."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...utils.cache import cache_dir
from ...utils.files import atomic_write, expand_user
from .pickle_layout import PIXELS, decode

BINARY, PYTHON = "binary", "python"


@dataclass(frozen=True)
class Part:
    """One official file.

    Attributes:
        binary: Its name in the binary layout.
        python: Its name in the python layout.
        images: Number of images.
        md5: MD5 of the binary file.
        is_test: Whether it has test images.
    """

    binary: str
    python: str
    images: int
    md5: str
    is_test: bool = False


@dataclass(frozen=True)
class Cifar:
    """Constants of one data set; see `spec`.

    Attributes:
        name: "cifar10" or "cifar100".
        binary: Folder name in the binary layout.
        python: Folder name in the python layout.
        parts: The official files.
        labels: Names of the label bytes of a record; the last one is used.
        classes: Class names.
        mean: Published channel means, on the scale 0 to 255.
        std: Published channel standard deviations.
        archive_md5: MD5 of the official binary archive.
    """

    name: str
    binary: str
    python: str
    parts: tuple[Part, ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    archive_md5: str

    @property
    def archives(self) -> dict[str, str]:
        """Names of the official archives, by layout."""
        return {layout: f"{self.name.replace('cifar', 'cifar-')}-{layout}.tar.gz" for layout in (BINARY, PYTHON)}

    @property
    def record(self) -> int:
        """Bytes of one image with its labels in the binary layout."""
        return len(self.labels) + PIXELS

    def folder(self, layout: str) -> str:
        """Folder name in a layout."""
        return self.binary if layout == BINARY else self.python


@dataclass(frozen=True)
class Found:
    """A copy of a data set: a folder or an archive, in one of the two layouts."""

    path: Path
    layout: str
    is_archive: bool

    def files(self, cifar: Cifar) -> list[Path]:
        """Return the path of each part; inside an archive it is archive/folder/file."""
        base = self.path / cifar.folder(self.layout) if self.is_archive else self.path
        return [base / getattr(part, self.layout) for part in cifar.parts]

    def on_disk(self, cifar: Cifar) -> list[Path]:
        """Return the archive, or the files of the folder; they may be missing."""
        return [self.path] if self.is_archive else self.files(cifar)


def places(data_dir: str | Path | None) -> list[Path]:
    """Return the folders to search, in order; downloads go to the first. ``data_dir`` excludes all others."""
    if data_dir is not None:
        return [expand_user(data_dir)]
    named = os.environ.get("SHAKESHAKE_DATA")
    return [*([expand_user(named)] if named else []), cache_dir()]


def _candidates(cifar: Cifar, place: Path) -> Iterator[Found]:
    for layout in (BINARY, PYTHON):
        yield from (Found(folder, layout, is_archive=False) for folder in (place / cifar.folder(layout), place))
    for layout, name in cifar.archives.items():
        yield Found(place if place.name == name else place / name, layout, is_archive=True)


def locate(cifar: Cifar, among: Sequence[Path]) -> Found | None:
    """Return the first complete copy, or else the first folder with an official name that is incomplete."""
    incomplete = None
    try:
        for found in (found for place in among for found in _candidates(cifar, place)):
            exists = [file.is_file() for file in found.on_disk(cifar)]
            if all(exists):
                return found
            if any(exists) and found.path.name == cifar.folder(found.layout):
                incomplete = incomplete or found
    except OSError as error:
        raise InputError(f"data_dir: {error.filename} is not readable ({error.strerror}), expected a folder") from error
    return incomplete


def find(cifar: Cifar, among: Sequence[Path]) -> Found | None:
    """Return the first complete copy, or None. Raises InputError for an incomplete folder instead of replacing it."""
    found = locate(cifar, among)
    if found and (missing := [file.name for file in found.on_disk(cifar) if not file.is_file()]):
        raise InputError(
            f"{cifar.name}: {found.path} lacks the file {missing[0]}, expected all {len(cifar.parts)} official files; "
            "complete the folder, or move it away to download it again"
        )
    return found


def contents(cifar: Cifar, found: Found) -> Iterator[tuple[Part, Path, bytes]]:
    """Yield (part, path, bytes) of each official file, unchecked. Raises InputError if one cannot be read."""
    try:
        if found.is_archive:
            yield from _members(cifar, found)
        else:
            for part, file in zip(cifar.parts, found.files(cifar), strict=True):
                yield part, file, file.read_bytes()
    except (tarfile.TarError, zlib.error, EOFError, ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        if isinstance(error, OSError) and error.errno is not None:  # the disk's; gzip's OSErrors have none
            raise InputError(
                f"{cifar.name}: {error.filename or found.path} is not readable ({error.strerror})"
            ) from error
        raise InputError(
            f"{cifar.name}: {found.path} is truncated or damaged at {found.path.stat().st_size:,} bytes ({error}), "
            "expected the official archive"
        ) from error


def _members(cifar: Cifar, found: Found) -> Iterator[tuple[Part, Path, bytes]]:
    """Read members by their exact names in memory, in archive order; nothing is extracted."""
    parts = {f"{cifar.folder(found.layout)}/{getattr(part, found.layout)}": part for part in cifar.parts}
    with tarfile.open(found.path, "r|gz") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            # Oversized members are not read; batches of the python layout contain file names, too.
            if name in parts and member.isreg() and member.size <= 4 * parts[name].images * cifar.record:
                yield parts.pop(name), found.path / name, archive.extractfile(member).read()  # type: ignore[union-attr]
    if parts:
        raise InputError(f"{cifar.name}: {found.path} has no {next(iter(parts))}, expected the official archive")


def records(cifar: Cifar, part: Part, layout: str, file: Path, content: bytes) -> np.ndarray:
    """Return the records of a file, (images, labels + 3072) uint8, with their size but not their MD5 checked."""
    expected = part.images * cifar.record
    if layout == BINARY and len(content) != expected:
        raise InputError(f"{cifar.name}: {file} has {len(content):,} bytes, expected {expected:,}")
    try:
        if layout == BINARY:
            return np.frombuffer(content, np.uint8).reshape(part.images, cifar.record)
        return decode(content, part.images, cifar.labels)
    except Exception as error:  # damaged pickles fail in any way
        raise InputError(
            f"{cifar.name}: {file} of {len(content):,} bytes is not a complete batch of the {layout} layout ({error}), "
            "expected the official file"
        ) from error


def check(cifar: Cifar, part: Part, content: np.ndarray, file: Path) -> None:
    """Raise InputError unless the records equal those of the official binary file."""
    md5 = hashlib.md5(np.ascontiguousarray(content).data, usedforsecurity=False).hexdigest()
    if md5 != part.md5:
        raise InputError(
            f"{cifar.name}: the images and labels of {file} are not the official ones "
            f"(MD5 as {part.binary}: got {md5}, expected {part.md5})"
        )


def read(cifar: Cifar, found: Found) -> dict[bool, tuple[np.ndarray, np.ndarray]]:
    """Return {is_test: (images (N, 3, 32, 32) uint8, labels (N,) int64)}, verified by the official MD5s.

    The cache's ``verified.json`` lists the paths, sizes, times and MD5s of verified files, which are not hashed again.
    """
    path = cache_dir("verified.json")
    verified: set[str] = set()
    with contextlib.suppress(OSError, ValueError, TypeError):
        verified.update(json.loads(path.read_text("utf-8")))
    parts, used = {}, set()
    for part, file, content in contents(cifar, found):
        parts[part] = records(cifar, part, found.layout, file, content)
        on_disk = found.path if found.is_archive else file
        state = on_disk.stat()
        used.add(key := f"{on_disk.resolve()} {state.st_size} {state.st_mtime_ns} {part.md5}")
        if key not in verified:
            check(cifar, part, parts[part], file)
    if not used <= verified:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, json.dumps(sorted(verified | used), indent=1))
    arrays, first = {}, len(cifar.labels)  # the first byte of the pixels
    for is_test in (False, True):
        rows = [parts[part] for part in cifar.parts if part.is_test is is_test]
        images = np.concatenate([some[:, first:] for some in rows]).reshape(-1, 3, 32, 32)
        arrays[is_test] = images, np.concatenate([some[:, first - 1] for some in rows]).astype(np.int64)
    return arrays


def verify(cifar: Cifar, among: Sequence[Path]) -> list[tuple[str, str]]:
    """Return (file, "ok" or the problem) for each part of the copy in use; all bytes are read."""
    used = locate(cifar, among)
    if used is None:
        raise InputError(f"{cifar.name}: got no copy in {' or '.join(map(str, among))}, expected one to verify")
    statuses = dict.fromkeys(cifar.parts, "not reached")
    # A broken archive ends the reading; a broken file of a folder leaves the others.
    for parts in [cifar.parts] if used.is_archive else [(part,) for part in cifar.parts]:
        try:
            for part, file, content in contents(dataclasses.replace(cifar, parts=parts), used):
                statuses[part] = _status(cifar, part, used.layout, file, content)
        except InputError as error:
            statuses[next(part for part in parts if statuses[part] == "not reached")] = str(error)
    return [(str(file), statuses[part]) for part, file in zip(cifar.parts, used.files(cifar), strict=True)]


def _status(cifar: Cifar, part: Part, layout: str, file: Path, content: bytes) -> str:
    try:
        check(cifar, part, records(cifar, part, layout, file, content), file)
    except InputError as error:
        return str(error)
    return "ok"
