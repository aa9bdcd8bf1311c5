"""The official CIFAR files: found, read and verified as folders or archives, in the binary or python layout."""

from __future__ import annotations

import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...utils.cache import cache_dir
from ...utils.files import expand_user
from .checksum_cache import ChecksumCache
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


def places(data_dir: str | Path | None) -> list[Path]:
    """Return the folders to search, in order; downloads go to the first. ``data_dir`` excludes all others."""
    if data_dir is not None:
        return [expand_user(data_dir)]
    named = os.environ.get("SHAKESHAKE_DATA")
    return [*([expand_user(named)] if named else []), cache_dir()]


def locate(cifar: Cifar, among: Sequence[Path]) -> tuple[Found | None, Found | None]:
    """Return the first complete copy, and the first folder with an official name that is incomplete."""
    incomplete = None
    for place in among:
        for layout in (BINARY, PYTHON):
            for folder in (place / cifar.folder(layout), place):
                found = Found(folder, layout, is_archive=False)
                exists = [file.is_file() for file in found.files(cifar)]
                if all(exists):
                    return found, None
                if any(exists) and folder.name == cifar.folder(layout) and incomplete is None:
                    incomplete = found
        for layout in (BINARY, PYTHON):
            for archive in (place / cifar.archives[layout], place):
                if archive.name == cifar.archives[layout] and archive.is_file():
                    return Found(archive, layout, is_archive=True), None
    return None, incomplete


def find(cifar: Cifar, among: Sequence[Path]) -> Found | None:
    """Return the first complete copy, or None. Raises InputError for an incomplete folder instead of replacing it."""
    try:
        found, incomplete = locate(cifar, among)
    except OSError as error:
        raise InputError(f"data_dir: {error.filename} is not readable ({error.strerror}), expected a folder") from error
    if found is None and incomplete is not None:
        missing = next(file for file in incomplete.files(cifar) if not file.is_file())
        raise InputError(
            f"{cifar.name}: {incomplete.path} lacks the file {missing.name}, expected all "
            f"{len(cifar.parts)} official files; complete the folder, or move it away to download it again"
        )
    return found


def records(cifar: Cifar, found: Found, parts: Sequence[Part] | None = None) -> Iterator[tuple[Part, np.ndarray]]:
    """Yield parts (default all) with records (images, labels + 3072) uint8. Sizes are checked, MD5s are not."""
    try:
        if found.is_archive:
            yield from _archive_records(cifar, found)
        else:
            for part, file in zip(cifar.parts, found.files(cifar), strict=True):
                if parts is not None and part not in parts:
                    continue
                # The size is checked first, so that a wrong file is not read at all.
                yield part, _records(cifar, part, found.layout, file, file.stat().st_size, file)
    except OSError as error:
        raise InputError(f"{cifar.name}: {found.path} is not readable ({error.strerror or error})") from error


def _archive_records(cifar: Cifar, found: Found) -> Iterator[tuple[Part, np.ndarray]]:
    """Read members by their exact names in memory, in archive order; nothing is extracted."""
    names = {f"{cifar.folder(found.layout)}/{getattr(part, found.layout)}": part for part in cifar.parts}
    try:
        with tarfile.open(found.path, "r|gz") as archive:
            for member in archive:
                part = names.pop(member.name.removeprefix("./"), None)
                stream = archive.extractfile(member) if part is not None and member.isreg() else None
                if part is None or stream is None:
                    continue
                file = found.path / member.name
                # Oversized members are not read; batches of the python layout contain file names, too.
                content = stream.read() if member.size <= 4 * part.images * cifar.record else b""
                yield part, _records(cifar, part, found.layout, file, member.size, content)
    except (tarfile.TarError, zlib.error, EOFError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(_broken_archive(cifar, found, error)) from error
    except OSError as error:  # of gzip; errors of the disk have an errno
        if error.errno is not None:
            raise
        raise InputError(_broken_archive(cifar, found, error)) from error
    if names:
        raise InputError(f"{cifar.name}: {found.path} has no {next(iter(names))}, expected the official archive")


def _broken_archive(cifar: Cifar, found: Found, error: Exception) -> str:
    size = found.path.stat().st_size
    return (
        f"{cifar.name}: {found.path} is truncated or damaged at {size:,} bytes ({error}), expected the official archive"
    )


def _records(cifar: Cifar, part: Part, layout: str, file: Path, size: int, source: Path | bytes) -> np.ndarray:
    expected = part.images * cifar.record
    if layout == BINARY:
        if size != expected:
            raise InputError(f"{cifar.name}: {file} has {size:,} bytes, expected {expected:,}")
        content = np.fromfile(source, np.uint8) if isinstance(source, Path) else np.frombuffer(source, np.uint8)
        return content.reshape(part.images, cifar.record)
    try:
        stream = source.read_bytes() if isinstance(source, Path) else source
        return decode(stream, part.images, cifar.labels)
    except OSError:
        raise
    except Exception as error:  # damaged streams fail in any way
        raise InputError(
            f"{cifar.name}: {file} of {size:,} bytes is not a complete batch of the python layout ({error}), "
            f"expected the official file"
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
    """Return {is_test: (images (N, 3, 32, 32) uint8, labels (N,) int64)}, verified by the official MD5s."""
    parts = {is_test: [part for part in cifar.parts if part.is_test is is_test] for is_test in (False, True)}
    counts = {is_test: sum(part.images for part in of) for is_test, of in parts.items()}
    arrays = {t: (np.empty((n, 3, 32, 32), np.uint8), np.empty(n, np.int64)) for t, n in counts.items()}
    checksums = ChecksumCache()
    files = dict(zip(cifar.parts, found.files(cifar), strict=True))
    verified: dict[Path, list[str]] = {}
    is_new = False
    for part, content in records(cifar, found):
        on_disk = found.path if found.is_archive else files[part]
        if not checksums.is_verified(on_disk, part.md5):
            check(cifar, part, content, files[part])
            is_new = True
        verified.setdefault(on_disk, []).append(part.md5)
        images, labels = arrays[part.is_test]
        before = parts[part.is_test][: parts[part.is_test].index(part)]
        start = sum(other.images for other in before)
        rows = slice(start, start + part.images)
        images[rows] = content[:, len(cifar.labels) :].reshape(-1, 3, 32, 32)
        labels[rows] = content[:, len(cifar.labels) - 1]
    if is_new:
        checksums.add(verified)
    return arrays


def verify(cifar: Cifar, among: Sequence[Path]) -> list[tuple[str, str]]:
    """Return (file, "ok" or the problem) for each part of the copy in use; all bytes are read."""
    try:
        used = next(filter(None, locate(cifar, among)), None)
    except OSError as error:
        raise InputError(f"{cifar.name}: {error.filename} is not readable ({error.strerror})") from error
    if used is None:
        raise InputError(f"{cifar.name}: got no copy in {' or '.join(map(str, among))}, expected one to verify")
    files = dict(zip(cifar.parts, used.files(cifar), strict=True))
    statuses = dict.fromkeys(cifar.parts, "not reached")
    # A broken archive ends the reading; a broken file of a folder leaves the others.
    for parts in [cifar.parts] if used.is_archive else [(part,) for part in cifar.parts]:
        try:
            for part, content in records(cifar, used, parts):
                statuses[part] = _status(cifar, part, content, files[part])
        except InputError as error:
            first = next((part for part in parts if statuses[part] == "not reached"), parts[-1])
            statuses[first] = str(error) if used.is_archive or files[first].is_file() else "missing"
    return [(str(files[part]), status) for part, status in statuses.items()]


def _status(cifar: Cifar, part: Part, content: np.ndarray, file: Path) -> str:
    try:
        check(cifar, part, content, file)
    except InputError as error:
        return str(error)
    return "ok"
