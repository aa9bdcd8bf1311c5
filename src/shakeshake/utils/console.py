"""Output on a terminal: exit statuses, escaping of untrusted text, one-line errors."""

from __future__ import annotations

import contextlib
import os
import sys
import unicodedata
from collections.abc import Callable

from ..errors import InputError, RunError

EXIT_OK, EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130
_DIRECTIONS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def escape(text: object) -> str:
    """A name on one line: what does not print (newlines, control characters, undecodable bytes) is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def escape_line_breaks(text: str) -> str:
    """A name as it is, but for what endangers lines: that is escaped."""
    return "".join(escape(c) if is_unsafe_char(c) else c for c in text)


def is_unsafe_char(c: str) -> bool:
    """Control characters, halves of characters, ends of lines and paragraphs, other directions for what follows.

    Not what joins letters or spaces them: it does not print alone, and names have it.
    """
    return unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(c) in _DIRECTIONS


def run_cli(program: Callable[[], int]) -> int:
    """Run a program and return its exit status, every expected end of it told in one line on stderr.

    0 done, 1 a run that cannot go on or output that cannot be written, 2 the user's mistake (a file that cannot be
    opened, too), 130 interrupted, unless the interrupt has a ``status``. What is not expected is raised: Python prints
    it and exits with 1.
    """
    _open_streams()
    try:
        return _flushed(program)
    except InputError as error:
        log_stderr(f"shakeshake: {error}")
        return EXIT_USAGE
    except RunError as error:
        log_stderr(f"shakeshake: {error}" if str(error) else "")
        return EXIT_FAILURE
    except KeyboardInterrupt as stopped:
        log_stderr(f"shakeshake: {str(stopped) or 'interrupted'}")
        return getattr(stopped, "status", EXIT_INTERRUPTED)
    except BrokenPipeError:  # `shakeshake models | head`
        _close_stdout()
        return EXIT_OK
    except OSError as error:
        if error.filename is None:
            _close_stdout()
            log_stderr(f"shakeshake: {error.strerror or error}")
            return EXIT_FAILURE
        log_stderr(f"shakeshake: {escape(error.filename)}: {error.strerror or error}")
        return EXIT_USAGE


def log_stderr(text: str) -> None:
    """One line on stderr, if there is anything to say and anybody to read it; of several processes each says which.

    What is told must not end what is done: nothing is raised.
    """
    rank = os.environ.get("RANK", "0")
    text = text if rank == "0" else text.replace("shakeshake:", f"shakeshake, process {rank}:", 1)
    with contextlib.suppress(OSError, ValueError):
        if text:
            print(text, file=sys.stderr, flush=True)


def _open_streams() -> None:
    """Streams that were closed take what is written nowhere; what a stream's encoding does not have is escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for as long as the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _close_stdout() -> None:
    """What is still to be written goes nowhere, or Python would try again and complain at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _flushed(program: Callable[[], int]) -> int:
    """Run a program and send what it printed on its way: later nobody would catch that the reader is gone."""
    try:
        status = program()
    except SystemExit:  # argparse's, after --help
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return status
