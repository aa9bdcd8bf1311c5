"""The `shakeshake` program: finds the command, runs it, and turns errors and signals into exit statuses."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

import click

from .. import __version__
from ..errors import InputError
from ..utils.console import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    configure_logging,
    escape_line_breaks,
    log_stderr,
    run_cli,
)
from .options import Group, closest

# Command -> the module of this package that defines it, and its line in --help.
COMMANDS = {
    "train": ("train", "Train a network on a built-in data set, a folder of images or an .npz."),
    "resume": ("train", "Resume an interrupted run from its last checkpoint."),
    "eval": ("train", "Loss and error of a trained run on a split of its data."),
    "compare": ("compare", "Does shaking help on your images? Train under several rules and compare."),
    "predict": ("inference", "Classify image files, with calibrated probabilities."),
    "export": ("inference", "Export a trained run to ONNX, torch.export or safetensors."),
    "analyze": ("experiments", "Measure correlation, calibration and more of a trained run."),
    "reproduce": ("experiments", "Reproduce the paper's tables and figures."),
    "report": ("experiments", "Write one HTML page about runs and experiments."),
    "models": ("tools", "List networks and their sizes."),
    "data": ("data", "List, download or verify data sets; check a folder of images."),
    "cache": ("data", "Show or clear the cache of decoded images."),
    "doctor": ("tools", "Show the installation and the device, and suggest improvements."),
    "bench": ("tools", "Measure training and inference speed."),
    "demo": ("tools", "Train a small network with and without shaking (and compare)."),
}
COMPLETE_VARIABLE = "_SHAKESHAKE_COMPLETE"


class _LazyGroup(Group):
    """Imports the module of a command when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return getattr(importlib.import_module(f".{COMMANDS[cmd_name][0]}", __package__), cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Start with `shakeshake demo` or `shakeshake train digits`.\n\n"
    "\b\nShell completion (bash; likewise zsh_source, fish_source):\n"
    '  eval "$(_SHAKESHAKE_COMPLETE=bash_source shakeshake)"',
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Shake-Shake regularization (X. Gastaldi, 2017): train networks that overfit less."""
    signal.signal(signal.SIGTERM, _terminate)
    warnings.showwarning = _show_warning
    configure_logging()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The command and its options; None for those of this process.

    Returns:
        The exit status: 0 for success, 2 for a usage error (one line on stderr), 130 if interrupted, 1 otherwise.
    """
    try:
        status = run_cli(lambda: _run(list(sys.argv[1:] if arguments is None else arguments)))
    except KeyboardInterrupt:  # a second one, while the first was handled
        status = EXIT_INTERRUPTED
    if arguments is None:  # the process ends; a signal from now on must not print a traceback
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
    return status


def _run(arguments: list[str]) -> int:
    if instruction := os.environ.get(COMPLETE_VARIABLE):
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, "shakeshake", COMPLETE_VARIABLE, instruction)
    try:  # not Command.main(), which handles interrupts and broken pipes in its own way
        with cli.make_context("shakeshake", arguments or ["--help"]) as context:
            return cli.invoke(context) or EXIT_OK
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        message = error.format_message()
        if isinstance(error, click.NoSuchOption):
            message = f"No such option {error.option_name!r}" + closest(error.option_name, error.possibilities or ())
        message = escape_line_breaks(" ".join(message.split())).rstrip(".")
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "shakeshake"
        raise InputError(f"{message} (see `{path} --help`)") from None


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    log_stderr(f"shakeshake: warning: {message}")


def _terminate(number: int, frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)  # a second signal must not interrupt the handling of the first
    raise KeyboardInterrupt
