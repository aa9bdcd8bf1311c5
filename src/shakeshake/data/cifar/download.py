"""Download of the official CIFAR archives with pooch: checked, atomic, and once for several processes."""

from __future__ import annotations

import logging
import os
import shutil
import urllib.parse
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ...errors import InputError
from ...utils.extras import require
from ...utils.files import atomic_write
from ...utils.progress import ProgressCallback, progress_bar
from .layouts import BINARY, Cifar, Found, contents, find

SITE = "https://www.cs.toronto.edu/~kriz/"
SITE_VARIABLE = "SHAKESHAKE_CIFAR_URL"
TIMEOUT = 15.0  # seconds without a byte
MAX_BYTES = 1 << 30  # the archives have about 170 MB
_CHUNK = 1 << 18

logger = logging.getLogger(__name__)


def obtain(cifar: Cifar, target: Path, progress: ProgressCallback | None = None) -> Found:
    """Return the data set in ``target``, downloading it if it is not there.

    The archive comes from the official site, or from the mirror whose base URL is in the environment variable
    ``SHAKESHAKE_CIFAR_URL``: https only, except on this machine. It must have the official MD5, and its files are
    unpacked into a folder that appears complete or not at all.

    Args:
        cifar: The data set.
        target: Folder of the data set; created if needed.
        progress: Called with (archive name, bytes received, total bytes); default a bar on stderr.

    Raises:
        InputError: No connection, a wrong file from the server, a URL that is not https, or a folder that is not
            writable.
    """
    base = os.environ.get(SITE_VARIABLE) or SITE
    if not _is_secure(base):
        raise InputError(f"{SITE_VARIABLE}: got {base!r}, expected an https URL")
    try:
        target.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target / f".{cifar.binary}.lock")
        try:
            held = lock.acquire(timeout=0.2)
        except Timeout:
            logger.info("%s: waiting for another process that is downloading it", cifar.name)
            held = lock.acquire()
        with held:
            found = find(cifar, [target])  # another process may have finished the download
            return found or _download(cifar, target, base, progress)
    except OSError as error:
        raise InputError(
            f"{cifar.name}: {target} is not writable ({error.strerror or error}), expected a folder with 400 MB free; "
            f"choose another with --data-dir or SHAKESHAKE_DATA"
        ) from error


def _download(cifar: Cifar, target: Path, base: str, progress: ProgressCallback | None) -> Found:
    pooch = require("pooch", "train")
    import requests  # installed with pooch

    archive = cifar.archives[BINARY]
    partial = target / f".{cifar.binary}.new"
    shutil.rmtree(partial, ignore_errors=True)  # left by a killed process; the lock excludes a running one
    log = pooch.get_logger()
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with progress_bar(progress, unit="bytes") as show:
            source = pooch.create(partial, base.rstrip("/") + "/", registry={archive: f"md5:{cifar.archive_md5}"})
            source.retry_if_failed = 1
            downloader = pooch.HTTPDownloader(
                progressbar=_Progress(archive, show), chunk_size=_CHUNK, timeout=TIMEOUT, hooks={"response": _no_http}
            )
            path = Path(source.fetch(archive, downloader=downloader))
        new, folder = partial / cifar.binary, target / cifar.binary
        new.mkdir()
        for part, _, content in contents(cifar, Found(path, BINARY, is_archive=True)):
            atomic_write(new / part.binary, content)  # on the disk before the rename below
        new.replace(folder)
        return Found(folder, BINARY, is_archive=False)
    except (requests.RequestException, ValueError) as error:
        raise InputError(
            f"{cifar.name}: {target} has no copy and the download failed ({_reason(base, error)}); put "
            f"{' or '.join(cifar.archives.values())} into that folder, or name the folder that has it with --data-dir "
            f"or SHAKESHAKE_DATA"
        ) from error
    finally:
        log.setLevel(level)
        shutil.rmtree(partial, ignore_errors=True)


def _is_secure(url: str) -> bool:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1"))


def _no_http(response: Any, *_: Any, **__: Any) -> None:
    """Refuse redirects away from https."""
    if response.is_redirect:
        url = urllib.parse.urljoin(response.url, response.headers["location"])
        if not _is_secure(url):
            raise ValueError(f"redirect to {url}, which is not https")


def _reason(base: str, error: BaseException) -> str:
    """One line on a failed download: the innermost error, which names the cause without URLs and pools."""
    host, response = urllib.parse.urlsplit(base).netloc, getattr(error, "response", None)
    if response is not None:
        return f"{host} answered {response.status_code} {response.reason}"
    while not isinstance(error, ValueError) and (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    text = str(error).split("\n")[0]
    if "does not match the known hash" in text:
        text = "the file does not have the official MD5"
    return f"{host}: {text or type(error).__name__}"


class _Progress:
    """The progress bar that pooch expects; also stops a server that does not end."""

    def __init__(self, name: str, show: ProgressCallback) -> None:
        self.name, self.show = name, show
        self.total, self.done = 0, 0

    def update(self, count: int) -> None:
        self.done += count
        if max(self.done, self.total) > MAX_BYTES + _CHUNK:
            raise ValueError(f"the server sends more than {MAX_BYTES:,} bytes")
        self.show(self.name, min(self.done, self.total) if self.total else self.done, self.total or None)

    def reset(self) -> None:
        self.done = 0

    close = reset
