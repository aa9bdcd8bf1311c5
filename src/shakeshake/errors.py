"""The two errors that callers are expected to handle."""

from __future__ import annotations


class InputError(ValueError):
    """Invalid input: one sentence that names the parameter, its value, and what was expected.

    The command line prints it as one line and exits with status 2.
    """


class RunError(RuntimeError):
    """A run that cannot continue, for example because the loss is not finite or the disk is full.

    The command line prints it as one line and exits with status 1.
    """
