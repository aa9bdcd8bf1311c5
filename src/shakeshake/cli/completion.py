"""completion: a script for the shell, made from the parsers of all commands, that itself starts no Python."""

from __future__ import annotations

import argparse
import importlib
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..utils.console import EXIT_OK
from . import COMMANDS
from .parser import ASKED, Found, Parser, door

RULES = ("S-S-I", "S-E-I", "S-K-I", "E-S-I", "S-S-B", "S-E-B", "S-K-B", "E-S-B", "E-E-B", "S-M3-I")


@dataclass(frozen=True)
class Word:
    """An option, or an argument (flags empty): the values it is known to take, and whether files are among them."""

    flags: tuple[str, ...]
    about: str
    takes: bool
    values: tuple[str, ...]
    files: bool


def completion(arguments: Sequence[str]) -> int:
    parser = door(
        "completion",
        "What makes a shell complete commands, options and their values, for its configuration.",
        epilog="examples:\n"
        '  eval "$(shakeshake completion bash)"       in ~/.bashrc\n'
        '  eval "$(shakeshake completion zsh)"        in ~/.zshrc, after compinit\n'
        "  shakeshake completion fish | source        in ~/.config/fish/config.fish",
    )
    parser.add_argument("shell", metavar="SHELL", choices=tuple(SHELLS), help="bash, zsh or fish")
    given = parser.parse_args(arguments)
    print("\n".join(SHELLS[given.shell]({name: words(parser_of(name)) for name in COMMANDS})))
    return EXIT_OK


def parser_of(command: str) -> Parser:
    """The parser that a command reads its arguments with; nothing is run."""
    try:
        getattr(importlib.import_module(f".{COMMANDS[command][0]}", __package__), command)(ASKED)
    except Found as found:
        return found.parser
    raise AssertionError(f"{command} reads no arguments")


def words(parser: Parser) -> list[Word]:
    """What may stand behind a command: its arguments, in order, and its options."""
    known = _known()
    found = []
    for action in parser._actions:
        values = tuple(map(str, action.choices)) if action.choices else known.get(action.dest, ())
        argument = not action.option_strings
        files = action.type is Path or action.dest in ("data", "data_dir") or (argument and not values)
        found.append(
            Word(
                tuple(action.option_strings),
                (action.help or "").replace("%%", "%").split(". ")[0].split(": ")[0].split(" (")[0],
                action.nargs != 0 and not isinstance(action, argparse.BooleanOptionalAction),
                values,
                files,
            )
        )
    return found


def _known() -> dict[str, tuple[str, ...]]:
    """Names of arguments and options -> values that are worth offering."""
    from ..experiments.paper import EXPERIMENTS
    from ..experiments.scales import SCALES
    from ..models.registry import list_models
    from ..train.presets import PRESETS
    from ..train.recipe import Recipe

    literal = {
        name: typing.get_args(kind)
        for name, kind in typing.get_type_hints(Recipe).items()
        if typing.get_origin(kind) is typing.Literal
    }
    return literal | {
        "data": ("digits", "cifar10", "cifar100"),
        "device": ("auto", "cpu", "cuda", "mps"),
        "engine": ("local", "ray"),
        "model": tuple(list_models()),
        "recipe": tuple(PRESETS),
        "rule": RULES,
        "rules": RULES,
        "scale": tuple(SCALES),
        "table": tuple(EXPERIMENTS),
    }


def _bash(commands: dict[str, list[Word]]) -> Iterator[str]:
    yield "_shakeshake() {"
    yield "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} IFS=$'\\n' words= files="
    yield '    case "$COMP_CWORD ${COMP_WORDS[1]} $prev" in'
    yield f'        "1 "*) words={_lines(commands)} ;;'
    for name, found in commands.items():
        for word in found:
            if word.flags and word.takes:
                patterns = "|".join(f"*{_quoted(f' {name} {flag}')}" for flag in word.flags)
                yield f"        {patterns}) {_offered(word)} ;;"
        yield f'        *" {name} "*) if [[ $cur == -* ]]; then'
        yield f"                words={_lines(flag for word in found for flag in word.flags)}"
        arguments = [word for word in found if not word.flags]
        values = [value for word in arguments for value in word.values]
        files = any(word.files for word in arguments)
        yield f"            else words={_lines(values)} files={'1' if files else ''}; fi ;;"
    yield "    esac"
    yield '    COMPREPLY=($(compgen -W "$words" -- "$cur"; [[ $files ]] && compgen -f -- "$cur"))'
    yield "}"
    yield "complete -o filenames -F _shakeshake shakeshake"


def _offered(word: Word) -> str:
    return f"words={_lines(word.values)} files={'1' if word.files else ''}"


def _lines(values: typing.Iterable[str]) -> str:
    return "$'" + "\\n".join(values) + "'"


def _zsh(commands: dict[str, list[Word]]) -> Iterator[str]:
    yield "#compdef shakeshake"
    yield '_shakeshake_or_file() { compadd -- "$@"; _files }'
    yield "_shakeshake() {"
    yield "    local -a commands=("
    for name in commands:
        yield "        " + _quoted(f"{name}:" + COMMANDS[name][1].replace(":", " -"))
    yield "    )"
    yield "    if (( CURRENT == 2 )); then _describe -t commands command commands; return; fi"
    yield "    shift words; (( CURRENT-- ))"
    yield "    case $words[1] in"
    for name, found in commands.items():
        yield f"        {name}) _arguments \\"
        place = 0
        for word in found:
            taken = ":value:" + _zsh_action(word) if word.takes else ""
            if word.flags:
                about = word.about.translate(str.maketrans("[]:", "() "))
                yield from (f"            {_quoted(f'{flag}[{about}]{taken}')} \\" for flag in word.flags)
            else:
                place += 1
                yield f"            {_quoted(f'{place}{taken}')} \\"
        yield "            '*:file:_files' ;;"
    yield "    esac"
    yield "}"
    yield 'if [[ $funcstack[1] == _shakeshake ]]; then _shakeshake "$@"; else compdef _shakeshake shakeshake; fi'


def _zsh_action(word: Word) -> str:
    if word.values and word.files:
        return f" _shakeshake_or_file {' '.join(word.values)}"
    return f"({' '.join(word.values)})" if word.values else "_files" if word.files else " "


def _fish(commands: dict[str, list[Word]]) -> Iterator[str]:
    start = "complete -c shakeshake"
    for name in commands:
        yield f"{start} -f -n 'test (count (commandline -opc)) = 1' -a {name} -d {_quoted(COMMANDS[name][1])}"
    for name, found in commands.items():
        here = f"{start} -n 'set -l w (commandline -opc); test (count $w) -gt 1; and test $w[2] = {name}'"
        for word in found:
            values = f" -a {_quoted(' '.join(word.values))}" if word.values else ""
            if not word.flags:
                yield f"{here}{values}{'' if word.files else ' -f'}"
                continue
            names = " ".join(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in word.flags)
            takes = (" -r" if word.files else " -x") if word.takes else ""
            yield f"{here} {names}{takes}{values} -d {_quoted(word.about)}"
        if not any(word.files for word in found if not word.flags):
            yield f"{here} -f"


def _quoted(text: str) -> str:
    """In single quotes, for each of the three shells."""
    return "'" + text.replace("\\", "/").replace("'", "’") + "'"


SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
