"""Output on a terminal: exit statuses, logging, escaping of untrusted text, one-line errors."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import unicodedata
from collections.abc import Callable

from ..errors import InputError, RunError
from .extras import missing_extra

EXIT_OK, EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130
_BIDI_CONTROLS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def escape(text: object) -> str:
    """Escape everything unprintable in a name (newlines, control characters, undecodable bytes)."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def escape_line_breaks(text: str) -> str:
    """Escape what could break or reorder a line; joiners and special spaces stay, because names contain them."""
    return "".join(escape(c) if is_unsafe_char(c) else c for c in text)


def is_unsafe_char(c: str) -> bool:
    """Whether a character is a control character, a surrogate, a line separator or a bidirectional control."""
    return unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(c) in _BIDI_CONTROLS


def run_cli(program: Callable[[], int]) -> int:
    """Run a program and return its exit status; report every expected failure in one line on stderr.

    Unexpected exceptions propagate, so that Python prints their traceback and exits with status 1.

    Args:
        program: Returns the exit status of a normal end.

    Returns:
        0 for success, or if the reader of stdout has gone (``shakeshake models | head``).
        1 for a `RunError` or output that cannot be written.
        2 for an `InputError`, a file that cannot be opened or a missing optional dependency.
        130 for an interrupt, unless the exception has a ``status`` attribute.
    """
    _prepare_streams()
    try:
        return _run_and_flush(program)
    except InputError as error:
        log_stderr(f"shakeshake: {error}")
        return EXIT_USAGE
    except RunError as error:
        log_stderr(f"shakeshake: {error}" if str(error) else "")
        return EXIT_FAILURE
    except KeyboardInterrupt as stopped:
        log_stderr(f"shakeshake: {str(stopped) or 'interrupted'}")
        return getattr(stopped, "status", EXIT_INTERRUPTED)
    except BrokenPipeError:
        _close_stdout()
        return EXIT_OK
    except ModuleNotFoundError as error:
        if (message := missing_extra(error)) is None:
            raise
        log_stderr(f"shakeshake: {message}")
        return EXIT_USAGE
    except OSError as error:
        if error.filename is None:
            _close_stdout()
            log_stderr(f"shakeshake: {error.strerror or error}")
            return EXIT_FAILURE
        log_stderr(f"shakeshake: {escape(error.filename)}: {error.strerror or error}")
        return EXIT_USAGE


def log_stderr(text: str) -> None:
    """Print a line on stderr, with the rank if there are several processes. Never raises; prints nothing for ""."""
    rank = os.environ.get("RANK", "0")
    text = text if rank == "0" else text.replace("shakeshake:", f"shakeshake, process {rank}:", 1)
    with contextlib.suppress(OSError, ValueError):
        if text:
            print(text, file=sys.stderr, flush=True)


def configure_logging() -> None:
    """Print the log of this package on stderr: messages from INFO, warnings with the program's name before them."""
    logger = logging.getLogger("shakeshake")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
        logger.addHandler(_StderrHandler())


class _StderrHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        prefix = f"shakeshake: {level}: " if record.levelno >= logging.WARNING else ""
        try:
            log_stderr(prefix + record.getMessage())
        except Exception:
            self.handleError(record)


def _prepare_streams() -> None:
    """Replace closed streams by the null device, and escape characters that a stream cannot encode."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for as long as the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _close_stdout() -> None:
    """Send buffered output to the null device; otherwise Python would try to write it again at exit and complain."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run_and_flush(program: Callable[[], int]) -> int:
    """Run a program and flush stdout while a broken pipe can still be handled."""
    try:
        status = program()
    except SystemExit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return status
