"""train, resume, eval, pack, unpack."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..utils.console import EXIT_OK, log_stderr
from .parser import Parser, door, field_help, recipe_options

if TYPE_CHECKING:
    from ..train.distributed import Group


def train(arguments: Sequence[str]) -> int:
    from ..train.presets import PRESETS, preset
    from ..train.recipe import Recipe

    ahead = Parser(prog="shakeshake train", add_help=False, allow_abbrev=False)
    ahead.add_argument("--recipe")
    named = ahead.parse_known_args(arguments)[0].recipe
    start = named or "quick"  # so that the help below shows this recipe's values
    defaults = preset(start)
    parser = door(
        "train",
        "Train a network and write everything about it into a run directory.\n"
        "A stopped or killed run goes on with `shakeshake resume RUN` and ends as if nothing had happened.",
        epilog="examples:\n"
        "  shakeshake train digits\n"
        "  shakeshake train photos/ --image-size 64 --budget 30m\n"
        "  shakeshake train cifar10 --train-size 5000 --epochs 100 --rule S-E-I --out runs/small\n"
        "  shakeshake train cifar10 --recipe paper_cifar10 --model shake_resnet26_2x96d\n"
        "  torchrun --nproc-per-node 2 -m shakeshake train cifar10 --recipe paper_cifar10     (a process for each GPU)",
    )
    parser.add_argument("data", metavar="DATA", help=field_help(Recipe)["data"])
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help=f"where the other options start from: {', '.join(PRESETS)} (default quick; for your own images what "
        "suits their number, size and the budget, said before it is used)",
    )
    parser.add_argument(
        "--budget",
        metavar="T",
        help="time that the run may take here, as 90s, 10m or 2h: picks network, epochs, augmentation and rule, as far "
        "as they are not given; none for no limit (default 10m for your own images)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="RUN", help="the run directory, a new folder (default runs/DATA-RULE-N)"
    )
    minutes_option(parser)
    shown = {field.name: getattr(defaults, field.name) for field in dataclasses.fields(Recipe) if field.name != "data"}
    recipe_options(parser, shown, f" ({start}: {{}})")
    given = vars(parser.parse_args(arguments))
    out, data, budget, minutes = (given.pop(name, None) for name in ("out", "data", "budget", "minutes"))
    del given["recipe"]

    from ..train.auto_recipe import planned
    from ..train.distributed import joined
    from ..train.fit import fit, run_path

    with joined() as group:
        recipe, picked = planned(data, given, name=named, budget=budget, group=group)
        if group.leads:
            log_stderr("\n".join(picked))
        run = out or run_path(recipe, group)
        return _finished(run, fit(recipe, run, minutes=minutes, told=bool(picked)), group)


def minutes_option(parser: Parser) -> None:
    about = "save, stop and exit with 130 (under torchrun 0) after about M minutes, to go on later"
    parser.add_argument("--minutes", type=float, metavar="M", help=about)


def _finished(run: Path, result: dict[str, Any], group: Group) -> int:
    if not group.leads:
        return EXIT_OK
    balanced = result.get("last_balanced_error")
    uneven = balanced is not None and abs(balanced - result["last_error"]) >= 0.005
    also = f", balanced {balanced:.2f} %," if uneven else ""
    print(
        f"test error {result['last_error']:.2f} %{also} at the last epoch (best {result['best_error']:.2f} % at epoch "
        f"{result['best_epoch']}), train error {result['last_train_error']:.2f} %, {result['seconds'] / 60:.1f} min\n"
        f"model {run / 'model.safetensors'}",
        flush=True,
    )
    _look_at_photos(run)
    from ..report.page import write_report

    try:
        print(f"report {write_report([run], run / 'report.html')}")
    except InputError as error:  # a full disk: the run is finished all the same
        log_stderr(f"shakeshake: the page is not there: {error}; `shakeshake report {run}` makes it")
    return EXIT_OK


def _look_at_photos(run: Path) -> None:
    """Of own photos the page shows which were confused and where the network looked, without being asked."""
    if not (run / "data.json").exists() or (run / "analysis.json").exists():
        return
    from ..analysis.run import analyze

    try:
        analyze(run, only=("calibration", "gap", "gradcam"))
    except InputError as error:
        log_stderr(f"shakeshake: the page has no pictures: {error}")


def resume(arguments: Sequence[str]) -> int:
    parser = door("resume", "Go on with a run exactly where its last checkpoint left it.")
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument("--data-dir", metavar="D", help="where the images are now, if they have moved")
    minutes_option(parser)
    given = parser.parse_args(arguments)

    from ..train.distributed import joined
    from ..train.fit import resume as go_on

    with joined() as group:
        return _finished(given.run, go_on(given.run, data_dir=given.data_dir, minutes=given.minutes), group)


def eval(arguments: Sequence[str]) -> int:
    parser = door("eval", "Loss and error of a trained run over a split of its data.")
    parser.add_argument("run", type=Path, metavar="RUN", help="the directory of a finished run")
    parser.add_argument("--split", default="test", choices=("test", "train", "val"), help="default test")
    parser.add_argument("--data-dir", metavar="D", help="where the images are now, if they have moved")
    parser.add_argument("--device", default="auto", metavar="X", help="auto, cpu, cuda, cuda:1 or mps")
    given = parser.parse_args(arguments)

    from ..train.open_run import evaluate_run

    measured = evaluate_run(given.run, split=given.split, data_dir=given.data_dir, device=given.device)
    print(
        f"{given.split} error {measured['error']:.2f} %  loss {measured['loss']:.4f}  {measured['images']} images  "
        f"balanced error {measured['balanced_error']:.2f} %"
    )
    return EXIT_OK


def pack(arguments: Sequence[str]) -> int:
    parser = door(
        "pack",
        "A run, finished or not, as a few files of bounded size: for machines that keep nothing.\n"
        "`shakeshake unpack` makes it a run again, and `shakeshake resume` goes on with it.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a new folder for the files")
    parser.add_argument("--files", type=int, default=8, metavar="N", help="at most so many files (default 8)")
    parser.add_argument("--size", type=float, default=16, metavar="MIB", help="of at most so many MiB (default 16)")
    given = parser.parse_args(arguments)

    from ..train.carry import pack as write

    for path in write(given.run, given.folder, files=given.files, size=given.size):
        print(path)
    return EXIT_OK


def unpack(arguments: Sequence[str]) -> int:
    parser = door("unpack", "A run directory from the files that `shakeshake pack` wrote.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder with all parts of one run")
    parser.add_argument("run", type=Path, metavar="RUN", help="the run directory to make")
    given = parser.parse_args(arguments)

    from ..train.carry import unpack as read

    read(given.folder, given.run)
    print(given.run)
    return EXIT_OK
