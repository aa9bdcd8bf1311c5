"""models, data, doctor, demo."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..utils.console import EXIT_FAILURE, EXIT_OK, escape
from .parser import door


def models(arguments: Sequence[str]) -> int:
    parser = door("models", "Networks by name. The names are examples: any valid number may take the place of theirs.")
    parser.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="as in `shakeshake models '*2x96d'`")
    given = parser.parse_args(arguments)

    from ..models.families import families
    from ..models.registry import count_parameters, list_models

    listed = list_models(given.pattern)
    if not listed:
        raise InputError(f"pattern: {given.pattern!r} matches no network, expected one such as shake_resnet*")
    for family in families():
        names = [name for name in family.examples if name in listed]
        if names:
            print(f"{family.template}\n  {family.summary}")
        for name in names:
            print(f"    {name:<26} {count_parameters(name):>12,} parameters at 10 classes")
    return EXIT_OK


def data(arguments: Sequence[str]) -> int:
    parser = door(
        "data",
        "The data sets that have a name, and what is in a folder of photos.\n"
        "`check` reads the folder as `train` does, says what it found and what is done about it, and trains nothing.",
        epilog="examples:\n  shakeshake data get cifar10\n  shakeshake data check photos/",
    )
    parser.add_argument(
        "action", nargs="?", default="list", choices=("list", "get", "verify", "check"), help="default list"
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="cifar10 or cifar100; for check a folder of photos")
    parser.add_argument("--data-dir", metavar="D", help="where CIFAR lies or is downloaded to")
    parser.add_argument("--image-size", type=int, metavar="N", help="check: as `train` has it (default by the images)")
    parser.add_argument("--split-seed", type=int, default=0, metavar="N", help="check: as `train` has it (default 0)")
    parser.add_argument("--json", action="store_true", help="check: everything that was found, as JSON")
    given = parser.parse_args(arguments)

    from ..data import registry

    if given.action == "list":
        for name, about in registry.list_data():
            print(f"{name:<10} {about}")
        return EXIT_OK
    if given.name is None:
        example = "photos/" if given.action == "check" else "cifar10"
        raise InputError(f"name: none was given, expected `shakeshake data {given.action} {example}`")
    if given.action == "check":
        return _check(Path(given.name), given.image_size, given.split_seed, as_json=given.json)
    if given.action == "get":
        print(registry.get(given.name, given.data_dir))
        return EXIT_OK
    checked = registry.verify(given.name, given.data_dir)
    for file, status in checked:
        print(f"{status:<10} {file}")
    return EXIT_OK if all(status == "ok" for _, status in checked) else EXIT_FAILURE


def _check(folder: Path, image_size: int | None, split_seed: int, *, as_json: bool) -> int:
    from ..data.image_folder.dataset import read_photos
    from ..data.image_folder.summary import as_lines

    if not folder.is_dir():
        raise InputError(f"name: {escape(folder)} is not a folder, expected one of photos, as photos/cat/1.jpg")
    photos = read_photos(folder, image_size=image_size, split_seed=split_seed)
    if as_json:
        print(json.dumps({**photos.findings, "mistake": photos.mistake}, indent=1))
    else:
        print(*as_lines(photos.findings), sep="\n")
    if photos.mistake is not None:
        raise InputError(photos.mistake)
    return EXIT_OK


def doctor(arguments: Sequence[str]) -> int:
    parser = door("doctor", "What is installed here, what a run would use, how fast this machine is, what would help.")
    parser.add_argument("--quick", action="store_true", help="without the measurement, which takes seconds")
    given = parser.parse_args(arguments)

    from ..doctor import examine

    for name, value in examine(measure=not given.quick):
        print(f"{name:<14} {value}")
    return EXIT_OK


def bench(arguments: Sequence[str]) -> int:
    parser = door(
        "bench",
        "A training step beside torch's convolutions alone, the data pipeline, inference as it is and fused.\n"
        "Interleaved in one process; medians. Run it on a machine that is otherwise idle.",
    )
    parser.add_argument("--model", default="shake_resnet26_2x32d", metavar="N", help="default shake_resnet26_2x32d")
    parser.add_argument("--rule", default="S-S-I", metavar="R", help="default S-S-I")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="of a training step (default 64)")
    parser.add_argument("--test-batch-size", type=int, default=256, metavar="N", help="of inference (default 256)")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="default 10")
    parser.add_argument("--device", default="auto", metavar="X", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument("--out", type=Path, metavar="F", help="also everything measured, as JSON")
    given = vars(parser.parse_args(arguments))
    out = given.pop("out")

    from ..bench import as_lines, measure
    from ..train.run_directory import write_results

    measured = measure(**given)
    for line in as_lines(measured):
        print(line)
    if out is not None:
        print(write_results(out, measured))
    return EXIT_OK


def demo(arguments: Sequence[str]) -> int:
    parser = door("demo", "Train one small network on some bundled digits twice, Even-Even and Shake-Shake.")
    parser.add_argument("--out", type=Path, metavar="D", help="a new folder (default runs/demo-N)")
    parser.add_argument("--epochs", type=int, default=30, metavar="N", help="default 30")
    given = parser.parse_args(arguments)

    from ..demo import run_demo

    for line in run_demo(given.out, epochs=given.epochs):
        print(line)
    return EXIT_OK
