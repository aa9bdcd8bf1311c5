"""The command line: imports nothing heavy until the command is known."""

from __future__ import annotations

import difflib
import importlib
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

from .. import __version__
from ..errors import InputError
from ..utils.console import EXIT_INTERRUPTED, EXIT_OK, log_stderr, run_cli
from . import COMMANDS


def _help() -> str:
    lines = [f"  {name:<10} {about}" for name, (_, about) in COMMANDS.items()]
    return (
        "usage: shakeshake COMMAND ...\n\n"
        "Shake-Shake regularization (X. Gastaldi, 2017): train networks that overfit less.\n\n"
        "commands\n" + "\n".join(lines) + "\n\n"
        "`shakeshake COMMAND --help` describes one. Start with `shakeshake demo` or `shakeshake train digits`."
    )


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    log_stderr(f"shakeshake: warning: {message}")


def _terminated(number: int, frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)  # a second one does not interrupt how the first is told
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0 done, 2 the user's mistake (one line), 130 interrupted, 1 anything else."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        status = run_cli(lambda: _run(given))
    except KeyboardInterrupt:  # a second one
        status = EXIT_INTERRUPTED
    if arguments is None:  # the process ends: Python would print where a signal finds it
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
    return status


def _run(arguments: Sequence[str]) -> int:
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help"):
        print(_help())
        return EXIT_OK
    if command == "--version":
        print(f"shakeshake {__version__}")
        return EXIT_OK
    return _door(command)(arguments[1:])


def _door(command: str) -> Callable[[Sequence[str]], int]:
    signal.signal(signal.SIGTERM, _terminated)
    warnings.showwarning = _warn
    if command not in COMMANDS:
        close = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"the closest is {close[0]}" if close else f"expected one of {', '.join(COMMANDS)}"
        raise InputError(f"command {command!r} is not known, {hint} (see `shakeshake --help`)")
    module, _ = COMMANDS[command]
    return getattr(importlib.import_module(f".{module}", __package__), command)
