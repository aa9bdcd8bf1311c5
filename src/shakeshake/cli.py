"""The command line: doors only, no logic. Nothing heavy is imported before the command is known."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import difflib
import inspect
import itertools
import signal
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from . import __version__
from .errors import DONE, FAILED, InputError, explained

COMMANDS = {
    "train": "train a network; DATA is digits, cifar10, cifar100 or an .npz",
    "resume": "go on with a run exactly where it stopped",
    "eval": "loss and error of a trained run",
    "analyze": "what shaking did to a trained network",
    "reproduce": "the paper's tables and figures, published beside measured",
    "report": "write one page that shows a run, or several side by side",
    "models": "networks by name",
    "data": "list, get or verify the data sets",
    "doctor": "what is installed here, and what a run would use",
    "demo": "two minutes: the same network with and without shaking",
}


class Parser(argparse.ArgumentParser):
    """argparse, saying what is wrong in one line, with the closest option."""

    def error(self, message: str) -> NoReturn:
        known = [option for action in self._actions for option in action.option_strings]
        if message.startswith("unrecognized arguments: "):
            given = message.removeprefix("unrecognized arguments: ").split()[0]
            message = f"option {given!r} is not known here"
            if close := difflib.get_close_matches(given.split("=")[0], known, n=1):
                message += f", the closest is {close[0]}"
        raise InputError(f"{message} (see `{self.prog} --help`)")


def _parser(command: str, about: str, **options: Any) -> Parser:
    return Parser(
        prog=f"shakeshake {command}",
        description=about,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=28, width=110),
        **options,
    )


def field_help(cls: type) -> dict[str, str]:
    """The string under each field of a dataclass: the one place where an option is described."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
    return {
        field.target.id: " ".join(str(text.value.value).split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }


def _recipe_options(parser: argparse.ArgumentParser, shown: dict[str, Any], form: str) -> None:
    """An option for each field of a recipe that ``shown`` has a value of; absent from the namespace if not given."""
    from .train.recipe import Recipe

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


def train(arguments: Sequence[str]) -> int:
    from .train.recipe import PRESETS, Recipe, preset

    ahead = Parser(prog="shakeshake train", add_help=False, allow_abbrev=False)
    ahead.add_argument("--recipe", default="quick")
    start = ahead.parse_known_args(arguments)[0].recipe  # so that the help below shows this recipe's values
    defaults = preset(start)
    parser = _parser(
        "train",
        "Train a network and write everything about it into a run directory.\n"
        "A stopped or killed run goes on with `shakeshake resume RUN` and ends as if nothing had happened.",
        epilog="examples:\n"
        "  shakeshake train digits\n"
        "  shakeshake train cifar10 --train-size 5000 --epochs 100 --rule S-E-I --out runs/small\n"
        "  shakeshake train cifar10 --recipe paper_cifar10 --model shake_resnet26_2x96d",
    )
    parser.add_argument("data", metavar="DATA", help=field_help(Recipe)["data"])
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help=f"where the other options start from: {', '.join(PRESETS)} (default quick)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="RUN", help="the run directory, a new folder (default runs/DATA-RULE-N)"
    )
    shown = {field.name: getattr(defaults, field.name) for field in dataclasses.fields(Recipe) if field.name != "data"}
    _recipe_options(parser, shown, f" ({start}: {{}})")
    given = vars(parser.parse_args(arguments))
    out, data = given.pop("out"), given.pop("data")
    del given["recipe"]
    recipe = preset(start, data).replace(**given)

    from .train.loop import fit
    from .train.record import new_run_path

    run = out or new_run_path(recipe)
    return _finished(run, fit(recipe, run))


def _none_or(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        return None if text.lower() == "none" else kind(text)

    parse.__name__ = kind.__name__
    return parse


def _finished(run: Path, result: dict[str, Any]) -> int:
    from .report.page import write_report

    page = write_report([run], run / "report.html")
    print(
        f"test error {result['last_error']:.2f} % at the last epoch (best {result['best_error']:.2f} % at epoch "
        f"{result['best_epoch']}), train error {result['last_train_error']:.2f} %, {result['seconds'] / 60:.1f} min\n"
        f"model {run / 'model.safetensors'}\nreport {page}"
    )
    return DONE


def resume(arguments: Sequence[str]) -> int:
    parser = _parser("resume", "Go on with a run exactly where its last checkpoint left it.")
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument("--data-dir", metavar="D", help="where the images are now, if they have moved")
    given = parser.parse_args(arguments)

    from .train.loop import resume as go_on

    return _finished(given.run, go_on(given.run, data_dir=given.data_dir))


def eval_(arguments: Sequence[str]) -> int:
    parser = _parser("eval", "Loss and error of a trained run over a split of its data.")
    parser.add_argument("run", type=Path, metavar="RUN", help="the directory of a finished run")
    parser.add_argument("--split", default="test", choices=("test", "train"), help="default test")
    parser.add_argument("--data-dir", metavar="D", help="where the images are now, if they have moved")
    parser.add_argument("--device", default="auto", metavar="X", help="auto, cpu, cuda, cuda:1 or mps")
    given = parser.parse_args(arguments)

    from .train.trained_run import evaluate_run

    measured = evaluate_run(given.run, split=given.split, data_dir=given.data_dir, device=given.device)
    print(f"{given.split} error {measured['error']:.2f} %  loss {measured['loss']:.4f}  {measured['images']} images")
    return DONE


def analyze(arguments: Sequence[str]) -> int:
    parser = _parser(
        "analyze",
        "What shaking did to a trained network: correlation between the branches and their layers, calibration,\n"
        "the gap between training and test error, the strength of its rule. Writes analysis.json into the run.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory, finished or not")
    parser.add_argument("--split", default="test", metavar="X", help="images to look at: test or train (default test)")
    parser.add_argument(
        "--only", metavar="A,A", help="correlation, layerwise, calibration, gap, strength (default all)"
    )
    parser.add_argument("--data-dir", metavar="D", help="where the images are now, if they have moved")
    parser.add_argument("--device", default="auto", metavar="X", help="auto, cpu, cuda, cuda:1 or mps")
    given = parser.parse_args(arguments)

    from .analysis.run import analyze_run
    from .analysis.words import as_lines

    only = None if given.only is None else tuple(given.only.split(","))
    found = analyze_run(given.run, split=given.split, only=only, data_dir=given.data_dir, device=given.device)
    for line in as_lines(found):
        print(line)
    print(f"\nanalysis {given.run / 'analysis.json'}")
    return DONE


def report(arguments: Sequence[str]) -> int:
    parser = _parser("report", "One self-contained HTML page from run directories, finished or not.")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run directories")
    parser.add_argument("--out", type=Path, metavar="F", help="the page (default report.html in the first run)")
    parser.add_argument("--figure", type=Path, metavar="F", help="also the curves alone, as .svg or .png")
    given = parser.parse_args(arguments)

    from .report.figures import write_curves
    from .report.page import write_report

    print(write_report(given.runs, given.out or given.runs[0] / "report.html"))
    if given.figure:
        print(write_curves(given.runs, given.figure))
    return DONE


def reproduce(arguments: Sequence[str]) -> int:
    from .experiments.published import EXPERIMENTS
    from .experiments.scales import SCALES
    from .train.recipe import Recipe

    tables = "\n".join(f"  {name:<14}{made.__doc__.splitlines()[0]}" for name, made in EXPERIMENTS.items())
    scales = "\n".join(f"  {scale.name:<14}{scale.about}" for scale in SCALES.values())
    parser = _parser(
        "reproduce",
        "A table or figure of the paper, the published figures beside those measured here. Started again, it passes over\n"
        "what is done and goes on with what was broken off; more --seeds are added to those that are there.\n\n"
        f"tables\n{tables}\n\nscales\n{scales}",
        epilog="examples:\n"
        "  shakeshake reproduce table1 --dry-run\n"
        "  shakeshake reproduce table1 --rows E-E-B,S-S-I --seeds 3 --jobs 2\n"
        "  shakeshake reproduce table1 --scale paper --engine ray --address HOST:6379 --gpus 1",
    )
    parser.add_argument("table", metavar="TABLE", help="one of the tables above")
    parser.add_argument("--scale", default="small", metavar="X", help=f"{', '.join(SCALES)} (default small)")
    parser.add_argument("--seeds", type=int, metavar="N", help="runs of each cell (default as the scale has it)")
    parser.add_argument("--rows", metavar="R,R", help="some of the rows alone")
    parser.add_argument(
        "--out", type=Path, metavar="D", help="a folder, shared by tables (default runs/reproduce-SCALE)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and how long it would take here")
    parser.add_argument("--jobs", type=int, metavar="N", help="runs side by side (default: cores; one on a GPU)")
    parser.add_argument("--engine", default="local", metavar="X", help="local, or ray for a cluster (default local)")
    parser.add_argument("--address", metavar="A", help="where the Ray cluster is; default one on this machine")
    parser.add_argument("--cpus", type=int, default=1, metavar="N", help="cores of a cell on the cluster (default 1)")
    parser.add_argument("--gpus", type=float, default=0.0, metavar="X", help="GPUs of a cell there (default 0)")
    fields = parser.add_argument_group("fields of all recipes (default as the table has them)")
    names = [field.name for field in dataclasses.fields(Recipe) if field.name != "seed"]
    _recipe_options(fields, dict.fromkeys(names), "")  # type: ignore[arg-type]
    given = vars(parser.parse_args(arguments))
    rows, dry = given.pop("rows"), given.pop("dry_run")
    options = {name: given.pop(name) for name in list(given) if name not in names}
    name = options.pop("table")

    from .experiments.run import Plan, describe
    from .experiments.run import reproduce as run
    from .report.page import write_report

    plan = Plan(name, rows=tuple(rows.split(",")) if rows else (), overrides=given, **options)
    plan.check_folder()
    for line in describe(plan, cells=dry):
        print(line, flush=True)
    if dry:
        return DONE
    from .experiments.results import as_lines

    found = run(plan, say=lambda line: print(line, flush=True))
    print()
    for line in as_lines(found):
        print(line)
    print(
        f"\nresults {plan.folder / name}.json, .csv\nreport {write_report([plan.folder], plan.folder / 'report.html')}"
    )
    return FAILED if any(cell["failed"] for cell in found["cells"]) else DONE


def models(arguments: Sequence[str]) -> int:
    parser = _parser(
        "models", "Networks by name. The names are examples: any valid number may take the place of theirs."
    )
    parser.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="as in `shakeshake models '*2x96d'`")
    given = parser.parse_args(arguments)

    from .models.registry import FAMILIES, count_parameters, list_models

    listed = list_models(given.pattern)
    if not listed:
        raise InputError(f"pattern: {given.pattern!r} matches no network, expected one such as shake_resnet*")
    for family in FAMILIES:
        names = [name for name in family.examples if name in listed]
        if names:
            print(f"{family.template}\n  {family.described}")
        for name in names:
            print(f"    {name:<26} {count_parameters(name):>12,} parameters at 10 classes")
    return DONE


def data(arguments: Sequence[str]) -> int:
    parser = _parser("data", "The data sets that have a name.")
    parser.add_argument("action", nargs="?", default="list", choices=("list", "get", "verify"), help="default list")
    parser.add_argument("name", nargs="?", metavar="NAME", help="cifar10 or cifar100, for get and verify")
    parser.add_argument("--data-dir", metavar="D", help="where CIFAR lies or is downloaded to")
    given = parser.parse_args(arguments)

    from .data import sources

    if given.action == "list":
        for name, about in sources.list_data():
            print(f"{name:<10} {about}")
        return DONE
    if given.name is None:
        raise InputError(f"name: none was given, expected `shakeshake data {given.action} cifar10`")
    if given.action == "get":
        print(sources.get(given.name, given.data_dir))
        return DONE
    checked = sources.verify(given.name, given.data_dir)
    for file, status in checked:
        print(f"{status:<10} {file}")
    return DONE if all(status == "ok" for _, status in checked) else FAILED


def doctor(arguments: Sequence[str]) -> int:
    _parser("doctor", "What is installed here, and what a run would use.").parse_args(arguments)

    from .doctor import examine

    for name, value in examine():
        print(f"{name:<14} {value}")
    return DONE


def demo(arguments: Sequence[str]) -> int:
    parser = _parser("demo", "Train one small network on some bundled digits twice, Even-Even and Shake-Shake.")
    parser.add_argument("--out", type=Path, metavar="D", help="a new folder (default runs/demo-N)")
    parser.add_argument("--epochs", type=int, default=30, metavar="N", help="default 30, about a minute")
    given = parser.parse_args(arguments)

    from .demo import run_demo

    for line in run_demo(given.out, epochs=given.epochs):
        print(line)
    return DONE


DOORS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train,
    "resume": resume,
    "eval": eval_,
    "analyze": analyze,
    "reproduce": reproduce,
    "report": report,
    "models": models,
    "data": data,
    "doctor": doctor,
    "demo": demo,
}


def _help() -> str:
    lines = [f"  {name:<10} {about}" for name, about in COMMANDS.items()]
    return (
        "usage: shakeshake COMMAND ...\n\n"
        "Shake-Shake regularization (X. Gastaldi, 2017): train networks that overfit less.\n\n"
        "commands\n" + "\n".join(lines) + "\n\n"
        "`shakeshake COMMAND --help` describes one. Start with `shakeshake demo` or `shakeshake train digits`."
    )


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    print(f"shakeshake: warning: {message}", file=sys.stderr)


def _terminated(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0 done, 2 the user's mistake (one line), 130 interrupted, 1 anything else."""
    arguments = sys.argv[1:] if arguments is None else arguments
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help"):
        print(_help())
        return DONE
    if command == "--version":
        print(f"shakeshake {__version__}")
        return DONE
    return explained(lambda: _door(command)(arguments[1:]))


def _door(command: str) -> Callable[[Sequence[str]], int]:
    signal.signal(signal.SIGTERM, _terminated)
    warnings.showwarning = _warn
    if command not in DOORS:
        close = difflib.get_close_matches(command, DOORS, n=1)
        hint = f"the closest is {close[0]}" if close else f"expected one of {', '.join(DOORS)}"
        raise InputError(f"command {command!r} is not known, {hint} (see `shakeshake --help`)")
    return DOORS[command]
