"""Knows what the official CIFAR files are and how to read them, checked, in any of the layouts people have on disk."""

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
from ...utils.files import expand_user
from .checksum_cache import Checked, cache_dir
from .pickle_layout import PIXELS, decode

BINARY, PYTHON = "binary", "python"


@dataclass(frozen=True)
class Part:
    """One official file: ``binary`` and ``python`` are its names in the two layouts, ``md5`` that of the binary one."""

    binary: str
    python: str
    images: int
    md5: str
    is_test: bool = False


@dataclass(frozen=True)
class Cifar:
    """What is official about one data set. ``labels`` are the label bytes of a record; the last one is used."""

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
        """The names of the official archives, by layout."""
        return {BINARY: f"{self.name_on_site}-binary.tar.gz", PYTHON: f"{self.name_on_site}-python.tar.gz"}

    @property
    def name_on_site(self) -> str:
        return self.name.replace("cifar", "cifar-")

    @property
    def record(self) -> int:
        """Bytes of one image with its labels in the binary layout."""
        return len(self.labels) + PIXELS

    def folder(self, layout: str) -> str:
        return self.binary if layout == BINARY else self.python


@dataclass(frozen=True)
class Found:
    """Where a data set lies: a folder or an archive, in one of the two layouts."""

    path: Path
    layout: str
    is_archive: bool

    def files(self, cifar: Cifar) -> list[Path]:
        """One path per part: the file, or its name inside the archive written as archive/folder/file."""
        base = self.path / cifar.folder(self.layout) if self.is_archive else self.path
        return [base / getattr(part, self.layout) for part in cifar.parts]


def places(data_dir: str | Path | None) -> list[Path]:
    """Where to look, in this order; a download goes to the first. A ``data_dir`` that is given is the only place."""
    if data_dir is not None:
        return [expand_user(data_dir)]
    named = os.environ.get("SHAKESHAKE_DATA")
    return [*([expand_user(named)] if named else []), cache_dir()]


def locate(cifar: Cifar, among: Sequence[Path]) -> tuple[Found | None, Found | None]:
    """The first complete copy, and the first folder with an official name that lacks some of its files."""
    incomplete = None
    for place in among:
        for layout in (BINARY, PYTHON):
            for folder in (place / cifar.folder(layout), place):
                found = Found(folder, layout, is_archive=False)
                there = [file.is_file() for file in found.files(cifar)]
                if all(there):
                    return found, None
                if any(there) and folder.name == cifar.folder(layout) and incomplete is None:
                    incomplete = found
        for layout in (BINARY, PYTHON):
            for archive in (place / cifar.archives[layout], place):
                if archive.name == cifar.archives[layout] and archive.is_file():
                    return Found(archive, layout, is_archive=True), None
    return None, incomplete


def find(cifar: Cifar, among: Sequence[Path]) -> Found | None:
    """The first complete copy, or None; a folder with only a part of the files is the user's to mend."""
    try:
        found, incomplete = locate(cifar, among)
    except OSError as error:
        raise InputError(f"data_dir: {error.filename} cannot be read ({error.strerror}), expected a folder") from error
    if found is None and incomplete is not None:
        missing = next(file for file in incomplete.files(cifar) if not file.is_file())
        raise InputError(
            f"{cifar.name}: {incomplete.path} lacks the file {missing.name}, expected all "
            f"{len(cifar.parts)} official files: complete the folder, or move it away to have it downloaded"
        )
    return found


def records(cifar: Cifar, found: Found) -> Iterator[tuple[Part, np.ndarray]]:
    """Each part with its records, (images, labels + 3072) uint8, in any layout; sizes are checked, md5s are not."""
    try:
        if found.is_archive:
            yield from _archive_records(cifar, found)
        else:
            for part, file in zip(cifar.parts, found.files(cifar), strict=True):
                # The size is asked first: a wrong file of any size is then not read at all.
                yield part, _records(cifar, part, found.layout, file, file.stat().st_size, file)
    except OSError as error:
        raise InputError(f"{cifar.name}: {found.path} cannot be read ({error.strerror or error})") from error


def _archive_records(cifar: Cifar, found: Found) -> Iterator[tuple[Part, np.ndarray]]:
    """Members are read in memory by their exact names, in the order in which they come; nothing is extracted."""
    names = {f"{cifar.folder(found.layout)}/{getattr(part, found.layout)}": part for part in cifar.parts}
    try:
        with tarfile.open(found.path, "r|gz") as archive:
            for member in archive:
                part = names.pop(member.name.removeprefix("./"), None)
                stream = archive.extractfile(member) if part is not None and member.isreg() else None
                if part is None or stream is None:
                    continue
                file = found.path / member.name
                # A member as large as several batches is not read: a batch of the python layout also has names in it.
                content = stream.read() if member.size <= 4 * part.images * cifar.record else b""
                yield part, _records(cifar, part, found.layout, file, member.size, content)
    except (tarfile.TarError, zlib.error, EOFError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(_broken_archive(cifar, found, error)) from error
    except OSError as error:  # gzip's own has no errno, that of an unreadable file has one
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
    except Exception as error:  # a damaged stream fails in any way inside the walk, and it is the file's fault
        raise InputError(
            f"{cifar.name}: {file} of {size:,} bytes is not a whole batch of the python layout ({error}), "
            f"expected the official file"
        ) from error


def check(cifar: Cifar, part: Part, content: np.ndarray, file: Path) -> None:
    """Raises unless these records are, byte for byte, those of the official binary file."""
    md5 = hashlib.md5(np.ascontiguousarray(content).data, usedforsecurity=False).hexdigest()
    if md5 != part.md5:
        raise InputError(
            f"{cifar.name}: the images and labels of {file} are not the official ones "
            f"(md5 {md5} as {part.binary}, expected {part.md5})"
        )


def read(cifar: Cifar, found: Found) -> dict[bool, tuple[np.ndarray, np.ndarray]]:
    """{is_test: (images (N, 3, 32, 32) uint8, labels (N,) int64)}, checked against the official md5s."""
    parts = {is_test: [part for part in cifar.parts if part.is_test is is_test] for is_test in (False, True)}
    counts = {is_test: sum(part.images for part in of) for is_test, of in parts.items()}
    arrays = {t: (np.empty((n, 3, 32, 32), np.uint8), np.empty(n, np.int64)) for t, n in counts.items()}
    checked = Checked()
    files = dict(zip(cifar.parts, found.files(cifar), strict=True))
    passed: dict[Path, list[str]] = {}
    is_news = False
    for part, content in records(cifar, found):
        on_disk = found.path if found.is_archive else files[part]
        if not checked.knows(on_disk, part.md5):
            check(cifar, part, content, files[part])
            is_news = True
        passed.setdefault(on_disk, []).append(part.md5)
        images, labels = arrays[part.is_test]
        before = parts[part.is_test][: parts[part.is_test].index(part)]
        start = sum(other.images for other in before)
        rows = slice(start, start + part.images)
        images[rows] = content[:, len(cifar.labels) :].reshape(-1, 3, 32, 32)
        labels[rows] = content[:, len(cifar.labels) - 1]
    if is_news:
        checked.remember(passed)
    return arrays


def verify(cifar: Cifar, among: Sequence[Path]) -> list[tuple[str, str]]:
    """(file, "ok" or what is wrong) for each part of the copy that would be used; every byte is read again."""
    try:
        found, incomplete = locate(cifar, among)
        used = found or incomplete
        if used is None:
            raise InputError(
                f"{cifar.name}: it is not in {' or '.join(map(str, among))}, expected it there to verify it"
            )
        if used.is_archive:
            return _verify_archive(cifar, used)
        return [
            (str(f), _status(cifar, p, used.layout, f)) for p, f in zip(cifar.parts, used.files(cifar), strict=True)
        ]
    except OSError as error:
        raise InputError(f"{cifar.name}: {error.filename} cannot be read ({error.strerror})") from error


def _status(cifar: Cifar, part: Part, layout: str, file: Path) -> str:
    if not file.is_file():
        return "missing"
    try:
        check(cifar, part, _records(cifar, part, layout, file, file.stat().st_size, file), file)
    except InputError as error:
        return str(error)
    return "ok"


def _verify_archive(cifar: Cifar, found: Found) -> list[tuple[str, str]]:
    files = dict(zip(cifar.parts, found.files(cifar), strict=True))
    statuses = dict.fromkeys(cifar.parts, "not reached")
    try:
        for part, content in records(cifar, found):
            try:
                check(cifar, part, content, files[part])
                statuses[part] = "ok"
            except InputError as error:
                statuses[part] = str(error)
    except InputError as error:
        first = next((part for part, status in statuses.items() if status == "not reached"), cifar.parts[-1])
        statuses[first] = str(error)
    return [(str(files[part]), status) for part, status in statuses.items()]
