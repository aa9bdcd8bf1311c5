"""Options and arguments of the commands: sections in the help, recipe fields as options, suggestions for typos."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..errors import InputError

GROUPS = {
    "": "Options",
    "data": "Data",
    "network": "Network and rule",
    "optimisation": "Optimisation",
    "augmentation": "Augmentation",
    "run": "Run",
}
PATH = click.Path(path_type=Path, readable=False)
DATA_HELP = (
    "digits, cifar10, cifar100, a folder with one subfolder of images per class, or an .npz with x_train, y_train, "
    "x_test, y_test"
)
OWN_DATA_HELP = f"{DATA_HELP}, or FILE.py:FUNCTION"

Decorated = Callable[[Callable[..., Any]], Callable[..., Any]]


def closest(name: str, names: Iterable[str]) -> str:
    """Return ``; did you mean X?`` for the closest of some names, or nothing if none is close."""
    found = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


class Argument(click.Argument):
    """A positional argument with a help text."""

    def __init__(self, *args: Any, help: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = help


class Option(click.Option):
    """An option that belongs to a section of the help (see `GROUPS`)."""

    def __init__(self, *args: Any, group: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


class RecipeOption(Option):
    """An option for a recipe field; the help shows the value of the preset that the command line names."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the option and its help text with the preset's value."""
        record = super().get_help_record(ctx)
        name, defaults = ctx.meta.get("shakeshake.preset", (None, None))
        if record is None or defaults is None:
            return record
        return record[0], f"{record[1]}  [{name}: {_shown(getattr(defaults, str(self.name)))}]"


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "none" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


class Choice(click.Choice):
    """A choice that suggests the closest value for a typo."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Return the error message with a suggestion."""
        return super().get_invalid_choice_message(value, ctx).removesuffix(".") + closest(str(value), self.choices)


class NumberOrNone(click.ParamType):
    """A number, or the word none."""

    def __init__(self, number: click.ParamType) -> None:
        self.number = number
        self.name = number.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert the text to None or a number."""
        if isinstance(value, str) and value.lower() == "none":
            return None
        return self.number.convert(value, param, ctx)


class Command(click.Command):
    """A command whose help has sections of options, and examples."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_arguments(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Nothing: `format_options` prints the arguments, whether or not this version of click does."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Print the arguments, then each group of options under its title."""
        arguments = [
            (param.make_metavar(ctx), param.help) for param in self.params if isinstance(param, Argument) and param.help
        ]
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": arguments}
        sections |= {title: [] for title in GROUPS.values()}
        for param in self.get_params(ctx):
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None:
                sections[GROUPS[getattr(param, "group", "")]].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records, col_max=28)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Print the examples without wrapping them."""
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


class Group(click.Group):
    """A group that suggests the closest command for a typo."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of that name."""
        names = self.list_commands(ctx)
        if args[0] not in names and not args[0].startswith("-") and not ctx.resilient_parsing:
            hint = closest(args[0], names) or f"; expected one of {', '.join(names)}"
            raise click.UsageError(f"No such command {args[0]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)


def command(**attrs: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """`click.command` with sections and examples in its help."""
    return click.command(cls=Command, **attrs)


def option(*names: str, **attrs: Any) -> Decorated:
    """`click.option` with a ``group``, the section of the help that it belongs to."""
    return click.option(*names, cls=attrs.pop("cls", Option), **attrs)


def argument(name: str, **attrs: Any) -> Decorated:
    """`click.argument` with a ``help`` text."""
    return click.argument(name, cls=Argument, **attrs)


def combined(*decorators: Decorated) -> Decorated:
    """One decorator that applies several, so that the first one's option comes first in the help."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def suggest(names: Callable[[], Iterable[str]], *, files: bool = False) -> Callable[..., list[CompletionItem]]:
    """Shell completion from a list of names, computed when it is asked for; files: else from the files."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found = [CompletionItem(name) for name in names() if name.startswith(incomplete)]
        return found or ([CompletionItem(incomplete, type="file")] if files else [])

    return complete


def data_names() -> Iterable[str]:
    """Names of the built-in data sets."""
    return ("digits", "cifar10", "cifar100")


def model_names() -> Iterable[str]:
    """Names of networks, for completion."""
    from ..models.registry import list_models

    return list_models()


def rule_names() -> Iterable[str]:
    """Names of rules, for completion."""
    from ..experiments.paper import RULES

    return (*RULES, "S-M3-I")


COMPLETIONS = {
    "model": suggest(model_names, files=True),
    "rule": suggest(rule_names, files=True),
    "init": suggest(tuple, files=True),
    "data_dir": suggest(tuple, files=True),
    "device": suggest(lambda: ("auto", "cpu", "cuda", "mps")),
}

run_argument = argument("run", metavar="RUN", type=PATH, help="A run directory.")
device_option = option(
    "--device",
    default="auto",
    metavar="DEVICE",
    shell_complete=COMPLETIONS["device"],
    help="auto, cpu, cuda, cuda:N or mps.  [default: auto]",
)
data_dir_option = option(
    "--data-dir",
    metavar="DIR",
    shell_complete=COMPLETIONS["data_dir"],
    help="Where the images are now, if they have moved since the run began.",
)
minutes_option = option(
    "--minutes",
    type=float,
    metavar="MINUTES",
    help="Save a checkpoint and stop after about this many minutes, with exit status 130 (0 under torchrun).",
)
engine_options = combined(
    option("--jobs", type=int, metavar="N", help="Parallel runs. Default: the number of cores; one on a GPU."),
    option(
        "--engine",
        type=Choice(("local", "ray")),
        default="local",
        help="Run on this machine or on a Ray cluster.  [default: local]",
    ),
    option("--address", metavar="HOST:PORT", help="Ray cluster. Default: a new one on this machine."),
    option("--cpus", type=int, default=1, metavar="N", help="Cores per run on the cluster.  [default: 1]"),
    option("--gpus", type=float, default=0.0, metavar="N", help="GPUs per run on the cluster.  [default: 0]"),
)
user_code_options = combined(
    option("--model", metavar="FILE.py:FACTORY", help="Your own network that the run was trained with."),
    option("--rule", metavar="FILE.py:FUNCTION", help="Your own rule that the run was trained with."),
    option("--data", metavar="FILE.py:FUNCTION", help="Your own data source that the run was trained on."),
)


def recipe_options(exclude: Sequence[str] = ()) -> Decorated:
    """An option for each field of a recipe, named like the field; `explicit_fields` returns those that were typed."""
    from ..train.recipe import Recipe

    return combined(*(_recipe_option(field) for field in dataclasses.fields(Recipe) if field.name not in exclude))


def _recipe_option(field: dataclasses.Field[Any]) -> Decorated:
    name, kinds = field.name.replace("_", "-"), [kind.strip() for kind in str(field.type).split("|")]
    about = field.metadata
    attrs: dict[str, Any] = {"help": f"{about['help']}.", "group": about["group"], "cls": RecipeOption}
    if kinds == ["bool"]:
        return option(f"--{name}/--no-{name}", default=None, **attrs)
    number = click.INT if "int" in kinds else click.FLOAT if "float" in kinds else None
    if about["choices"]:
        attrs["type"] = Choice(about["choices"])
    elif number is not None:
        attrs["type"] = NumberOrNone(number) if "None" in kinds else number
    return option(
        f"--{name}", default=None, metavar=about["metavar"], shell_complete=COMPLETIONS.get(field.name), **attrs
    )


def explicit_fields(ctx: click.Context) -> dict[str, Any]:
    """Recipe fields that were typed on the command line, with the user's own network and rule registered."""
    typed = {
        str(param.name): ctx.params[str(param.name)]
        for param in ctx.command.params
        if isinstance(param, RecipeOption)
        and ctx.get_parameter_source(str(param.name)) is click.core.ParameterSource.COMMANDLINE
    }
    return typed | register_user_code({name: typed[name] for name in ("model", "rule") if name in typed})


def register_user_code(fields: Mapping[str, Any], *, only: bool = False) -> dict[str, str]:
    """Register ``model``, ``rule`` and ``data`` that are given as FILE.py:NAME.

    Args:
        fields: The values of ``--model``, ``--rule`` and ``--data``, among others.
        only: Refuse other values: the options of a command that opens a run name nothing but the user's code.

    Returns:
        The names under which they are registered, by field.
    """
    from ..models.user_code import register_user_code as register
    from ..utils.user_code import is_object_path, load_object, registered_name

    names: dict[str, str] = {}
    for field in ("model", "rule", "data"):
        text = fields.get(field)
        if text is None:
            continue
        if is_object_path(text) and field == "data":
            from ..data.registry import register_data

            names[field] = registered_name(text)
            register_data(names[field])(load_object(text))
        elif is_object_path(text):
            names[field] = register(field, text)
        elif only:
            raise InputError(f"{field}: got {text!r}, expected FILE.py:NAME; the run itself names built-in ones")
    return names
