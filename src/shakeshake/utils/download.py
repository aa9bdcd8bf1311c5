"""Knows how to get one file over https whole: resumed where it broke off, with short timeouts and a progress bar."""

from __future__ import annotations

import contextlib
import http.client
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

TIMEOUT = 15.0  # seconds without a single byte
_LARGEST = 1 << 30  # bytes; the archives have about 170 MB
_ATTEMPTS = 50  # resumptions of one download; each must have brought something

Progress = Callable[[str, int, int | None], None]
"""Called with what is being downloaded, the bytes that are here, and the bytes there are in all where that is known."""


class SourceError(Exception):
    """A source did not give what was asked of it; another can be tried."""


def check_url(url: str) -> None:
    """Only https, where nobody on the way can change what comes; http from this same machine is for mirrors on it."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")):
        return
    raise SourceError(f"{url!r} is not an https address")


def fetch(url: str, part: Path, show: Callable[[int, int | None], None]) -> None:
    """The whole of ``url`` into the file ``part``, from the byte where that file ends if the server can.

    A broken connection is taken up again as long as each attempt brings something. What has come stays in ``part``
    when this raises SourceError, so that the next call goes on from there. Errors of the disk come as OSError.
    """
    check_url(url)
    host, reason = urllib.parse.urlsplit(url).netloc, None
    for _ in range(_ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        try:
            reason = _attempt(url, part, before, show)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{before}":
                return  # it was whole already
            if error.code != 416 or not before:
                raise SourceError(f"{host} answered {error.code} {error.reason}") from error
            part.unlink()  # what is here is not the beginning of what is there, so start again
            continue
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        if reason is None:
            return
        if not part.exists() or part.stat().st_size <= before:
            break
    raise SourceError(f"{host}: {reason}")


def _attempt(url: str, part: Path, before: int, show: Callable[[int, int | None], None]) -> str | None:
    """One request; None when the file is whole, or why it is not."""
    headers = {"User-Agent": "shakeshake", "Accept-Encoding": "identity"}
    if before:
        headers["Range"] = f"bytes={before}-"
    opener = urllib.request.build_opener(_SafeRedirects)
    with opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
        continues = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {before}-")
        here = before if continues else 0
        length = answer.headers.get("Content-Length", "")
        total = here + int(length) if length.isdecimal() else None
        with open(part, "ab" if continues else "wb") as file:
            while block := _block(answer):
                file.write(block)
                here += len(block)
                show(here, total)
                if here > _LARGEST:
                    raise SourceError(f"{urllib.parse.urlsplit(url).netloc} sends more than {_LARGEST:,} bytes")
    return None if total in (None, here) else f"the connection ended after {here:,} of {total:,} bytes"


def _block(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read1(1 << 18)
    except OSError as error:  # one kind for all that a network does, to be told from the errors of the disk
        raise ConnectionError(str(error)) from error


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """A redirection may not leave https either."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        try:
            check_url(newurl)
        except SourceError as error:
            raise SourceError(f"{req.host} redirects to an address that is not https, {newurl}") from error
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextlib.contextmanager
def shown(progress: Progress | None, *, of_bytes: bool = True) -> Iterator[Progress]:
    """The caller's ``progress``, or else a bar on stderr, or nothing where that is no terminal."""
    if progress is not None or not sys.stderr.isatty():
        yield progress or (lambda name, here, total: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.progress import TransferSpeedColumn as Speed

    numbers = (DownloadColumn(), Speed()) if of_bytes else (MofNCompleteColumn(),)
    name = TextColumn("{task.description}", markup=False)  # a folder may be called [bold]
    with Bars(name, BarColumn(), *numbers, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
        tasks: dict = {}

        def show(name: str, here: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=here, total=total)

        yield show
