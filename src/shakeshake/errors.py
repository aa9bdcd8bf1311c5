"""The two errors that callers are expected to handle."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input, told in one sentence that names the parameter, the value and what was expected.

    The command line prints it as one line and exits with code 2; from Python it is a ``ValueError``.
    """


class RunError(RuntimeError):
    """A run that cannot go on (not finite, disk full), told in one sentence; the command line exits with code 1."""
