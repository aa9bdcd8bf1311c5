"""What can go wrong, and how a program says it: ground floor, imports nothing of ours."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

DONE, FAILED, USERS_MISTAKE, INTERRUPTED = 0, 1, 2, 130


class InputError(ValueError):
    """Bad input, told in one sentence that names the parameter, the value and what was expected.

    The command line prints it as one line and exits with code 2; from Python it is a ``ValueError``.
    """


class RunError(RuntimeError):
    """A run that cannot go on (not finite, disk full), told in one sentence; the command line exits with code 1."""


def printable(text: object) -> str:
    """A name on one line: what does not print (newlines, control characters, undecodable bytes) is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def explained(program: Callable[[], int]) -> int:
    """Run a program and return its exit status, every expected end of it told in one line on stderr.

    0 done, 2 the user's mistake, 130 interrupted. What is not expected is raised: Python prints it and exits with 1.
    """
    try:
        return _flushed(program)
    except InputError as error:
        _say(str(error))
        return USERS_MISTAKE
    except RunError as error:
        _say(str(error))
        return FAILED
    except KeyboardInterrupt as stopped:
        _say(str(stopped) or "interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # `shakeshake models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _flushed(program: Callable[[], int]) -> int:
    """Run a program and send what it printed on its way: later nobody would catch that the reader is gone."""
    try:
        status = program()
    except SystemExit:  # argparse's, after --help
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return status


def _say(text: str) -> None:
    """One line; of several processes each says which it is. An error without words was told by another one."""
    rank = os.environ.get("RANK", "0")
    if text:
        print(f"shakeshake: {text}" if rank == "0" else f"shakeshake, process {rank}: {text}", file=sys.stderr)
