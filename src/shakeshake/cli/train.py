"""train, resume, eval."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from ..train.presets import PRESETS, preset
from ..train.recipe import Recipe
from ..utils.console import EXIT_OK, escape, log_stderr
from ..utils.extras import naming_extras
from .options import (
    OWN_DATA_HELP,
    PATH,
    Choice,
    Command,
    argument,
    command,
    data_dir_option,
    data_names,
    device_option,
    explicit_fields,
    minutes_option,
    option,
    recipe_options,
    register_user_code,
    run_argument,
    suggest,
    user_code_options,
)

if TYPE_CHECKING:
    from ..train.distributed import DistContext
    from ..train.schema import FitResult


class _TrainCommand(Command):
    """Shows the values of the preset that the command line names, wherever --help stands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = [following for word, following in itertools.pairwise(args) if word == "--recipe"]
        named += [word.removeprefix("--recipe=") for word in args if word.startswith("--recipe=")]
        name = named[0] if named and named[0] in PRESETS else "quick"
        ctx.meta["shakeshake.preset"] = name, preset(name)
        return super().parse_args(ctx, args)


@click.command(
    cls=_TrainCommand,
    help="Train a network and write everything about the run into a directory.\n\n"
    "An interrupted run continues with `shakeshake resume RUN` and ends with the same weights as an uninterrupted one.",
    examples=(
        "shakeshake train digits",
        "shakeshake train photos/ --image-size 64 --budget 30m",
        "shakeshake train cifar10 --train-size 5000 --epochs 100 --rule S-E-I --out runs/small",
        "shakeshake train cifar10 --recipe paper_cifar10 --model shake_resnet26_2x96d",
        "shakeshake train --config runs/small/recipe.json --seed 1",
        "torchrun --nproc-per-node 2 -m shakeshake train cifar10 --recipe paper_cifar10  # one process per GPU",
    ),
)
@argument(
    "data", metavar="[DATA]", required=False, shell_complete=suggest(data_names, files=True), help=OWN_DATA_HELP + "."
)
@option(
    "--recipe",
    "name",
    type=Choice(tuple(PRESETS)),
    metavar="NAME",
    help=f"Preset that the other options start from: {', '.join(PRESETS)}. Default: quick; for your own images a "
    "recipe is chosen from their number, their size and the budget, and printed.",
)
@option(
    "--config",
    type=PATH,
    metavar="FILE",
    help="Recipe to start from, as JSON: a file with any recipe fields, such as the recipe.json of a run.",
)
@option(
    "--budget",
    metavar="TIME",
    help="Training time, such as 90s, 10m or 2h. Chooses network, epochs, augmentation and rule, where you don't. "
    "Default: 10m for your own images; none for no limit.",
)
@option("--out", type=PATH, metavar="RUN", help="Run directory, a new folder. Default: runs/DATA-RULE-N.")
@minutes_option
@recipe_options(exclude=("data",))
@click.pass_context
def train(
    ctx: click.Context,
    data: str | None,
    name: str | None,
    config: Path | None,
    budget: str | None,
    out: Path | None,
    minutes: float | None,
    **_: Any,
) -> int:
    overrides = explicit_fields(ctx)
    if config is not None:
        if name is not None or budget is not None:
            other = "--recipe" if name is not None else "--budget"
            raise InputError(f"config: got it together with {other}, expected one of the two")
        fields = _read_config(config)
        data = data or fields["data"]
        name, overrides = "quick", {key: value for key, value in (fields | overrides).items() if key != "data"}
    if data is None:
        raise click.MissingParameter(ctx=ctx, param=ctx.command.params[0], param_hint="DATA")
    data = register_user_code({"data": data}).get("data", data)

    from ..train.auto_recipe import recipe_for
    from ..train.distributed import distributed_context
    from ..train.fit import fit, run_path
    from ..train.run_directory import RunDirectory

    with distributed_context() as dist:
        if out is not None and not dist.restarts:
            RunDirectory(out).check_new()  # before anything is measured
        recipe, picked = recipe_for(data, overrides, name=name, budget=budget, dist=dist)
        if dist.is_main:
            log_stderr("\n".join(picked))
        run = out or run_path(recipe, dist)
        return _finished(run, fit(recipe, run, minutes=minutes), dist)


def _read_config(path: Path) -> dict[str, Any]:
    """All fields of a recipe in a JSON file."""
    try:
        values = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise InputError(f"config: {escape(path)} cannot be read as JSON: {error}") from None
    try:
        return Recipe.from_dict(values).to_dict()
    except InputError as error:
        raise InputError(f"config: {escape(path)}: {error}") from None


def _finished(run: Path, result: FitResult, dist: DistContext) -> int:
    """Print the result of a run and write its report."""
    if not dist.is_main:
        return EXIT_OK
    balanced = result.last_balanced_error
    differs = balanced is not None and abs(balanced - result.last_error) >= 0.005
    also = f", balanced {balanced:.2f} %," if differs else ""
    print(
        f"test error {result.last_error:.2f} %{also} at the last epoch (best {result.best_error:.2f} % at epoch "
        f"{result.best_epoch}), train error {result.last_train_error:.2f} %, {result.seconds / 60:.1f} min\n"
        f"model {run / 'model.safetensors'}",
        flush=True,
    )
    _analyze_images(run)
    try:
        with naming_extras():
            from ..report.page import write_report
        print(f"report {write_report([run], run / 'report.html')}")
    except InputError as error:  # the run itself is complete
        log_stderr(f"shakeshake: no report was written: {error}; run `shakeshake report {run}` to write it")
    return EXIT_OK


def _analyze_images(run: Path) -> None:
    """Analyse a run on a folder of images, so that its report has confused classes and Grad-CAM pictures."""
    if not (run / "data.json").exists() or (run / "analysis.json").exists():
        return
    try:
        with naming_extras():
            from ..analysis.run import analyze

            analyze(run, only=("calibration", "gap", "gradcam"))
    except InputError as error:
        log_stderr(f"shakeshake: the report has no pictures: {error}")


@command(help="Resume an interrupted run from its last checkpoint.")
@run_argument
@data_dir_option
@minutes_option
@user_code_options
def resume(run: Path, data_dir: str | None, minutes: float | None, **user_code: str | None) -> int:
    register_user_code(user_code, only=True)
    from ..train.distributed import distributed_context
    from ..train.fit import resume as resume_run

    with distributed_context() as dist:
        return _finished(run, resume_run(run, data_dir=data_dir, minutes=minutes), dist)


@command(help="Errors of a trained run on a split of its data, over all images and by class.")
@argument("run", metavar="RUN", type=PATH, help="The directory of a finished run.")
@option("--split", type=Choice(("test", "train", "val")), default="test", help="Default: test.")
@option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@data_dir_option
@device_option
@user_code_options
def eval(run: Path, split: str, as_json: bool, data_dir: str | None, device: str, **user_code: str | None) -> int:
    register_user_code(user_code, only=True)
    from ..train.open_run import evaluate

    measured = evaluate(run, split=split, data_dir=data_dir, device=device)
    if as_json:
        print(json.dumps(measured.to_dict(), indent=1))
        return EXIT_OK
    top5 = "" if measured.top5_error is None else f"  top-5 error {measured.top5_error:.2f} %"
    print(
        f"{split} error {measured.error:.2f} %  accuracy {measured.accuracy:.2f} %{top5}  loss {measured.loss:.4f}  "
        f"{measured.images} images\n"
        f"balanced error {measured.balanced_error:.2f} %  always the largest class {measured.majority_error:.2f} %\n"
    )
    width = max(len("class"), *(len(escape(one.name)) for one in measured.classes))
    print(f"{'class':<{width}}  precision  recall      F1  images")
    for one in measured.classes:
        precision = "-" if one.precision is None else f"{one.precision:.1f}"
        print(f"{escape(one.name):<{width}}  {precision:>9}  {one.recall:>6.1f}  {one.f1:>6.1f}  {one.support:>6}")
    return EXIT_OK
