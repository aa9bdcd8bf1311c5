"""How every command reads its options: argparse, a mistake in one line, a recipe's fields as options."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
from collections.abc import Callable
from typing import Any, NoReturn

from ..errors import InputError

ASKED: list[str] = []  # in place of arguments: the door is not gone through, its parser is wanted


class Found(Exception):
    """A door's parser, in answer to ASKED."""

    def __init__(self, parser: Parser) -> None:
        super().__init__(parser.prog)
        self.parser = parser


class Parser(argparse.ArgumentParser):
    """argparse, saying what is wrong in one line, with the closest option."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        if args is ASKED:
            raise Found(self)
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        known = [option for action in self._actions for option in action.option_strings]
        if message.startswith("unrecognized arguments: "):
            given = message.removeprefix("unrecognized arguments: ").split()[0]
            message = f"option {given!r} is not known here"
            if close := difflib.get_close_matches(given.split("=")[0], known, n=1):
                message += f", the closest is {close[0]}"
        raise InputError(f"{message} (see `{self.prog} --help`)")


def door(command: str, about: str, **options: Any) -> Parser:
    return Parser(
        prog=f"shakeshake {command}",
        description=about,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=28, width=110),
        **options,
    )


def field_help(cls: type) -> dict[str, str]:
    """The help text of each field of a dataclass."""
    return {field.name: field.metadata["help"] for field in dataclasses.fields(cls)}


def recipe_options(parser: argparse.ArgumentParser, shown: dict[str, Any], form: str) -> None:
    """An option for each field of a recipe that ``shown`` has a value of; absent from the namespace if not given."""
    from ..train.recipe import Recipe

    described = field_help(Recipe)
    for field in dataclasses.fields(Recipe):
        if field.name not in shown:
            continue
        types = [t.strip() for t in str(field.type).split("|")]
        more: dict[str, Any] = {"metavar": "X"}
        if types == ["bool"]:
            more = {"action": argparse.BooleanOptionalAction}
        elif "int" in types:
            more = {"type": _none_or(int) if "None" in types else int, "metavar": "N"}
        elif "float" in types:
            more = {"type": float, "metavar": "X"}
        value = shown[field.name]
        text = f"{value:g}" if isinstance(value, float) else "none" if value is None else value
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            default=argparse.SUPPRESS,
            help=f"{described[field.name].removesuffix('.')}{form.format(text)}".replace("%", "%%"),
            **more,
        )


def _none_or(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        return None if text.lower() == "none" else kind(text)

    parse.__name__ = kind.__name__
    return parse
