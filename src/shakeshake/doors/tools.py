"""models, data, doctor, demo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import DONE, FAILED, InputError
from .parser import door


def models(arguments: Sequence[str]) -> int:
    parser = door("models", "Networks by name. The names are examples: any valid number may take the place of theirs.")
    parser.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="as in `shakeshake models '*2x96d'`")
    given = parser.parse_args(arguments)

    from ..models.registry import FAMILIES, count_parameters, list_models

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
    parser = door("data", "The data sets that have a name.")
    parser.add_argument("action", nargs="?", default="list", choices=("list", "get", "verify"), help="default list")
    parser.add_argument("name", nargs="?", metavar="NAME", help="cifar10 or cifar100, for get and verify")
    parser.add_argument("--data-dir", metavar="D", help="where CIFAR lies or is downloaded to")
    given = parser.parse_args(arguments)

    from ..data import sources

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
    door("doctor", "What is installed here, and what a run would use.").parse_args(arguments)

    from ..doctor import examine

    for name, value in examine():
        print(f"{name:<14} {value}")
    return DONE


def bench(arguments: Sequence[str]) -> int:
    parser = door(
        "bench",
        "A training step beside its convolutions alone, the data pipeline, inference as it is and fused.\n"
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
    from ..train.record import write_results

    measured = measure(**given)
    for line in as_lines(measured):
        print(line)
    if out is not None:
        print(write_results(out, measured))
    return DONE


def demo(arguments: Sequence[str]) -> int:
    parser = door("demo", "Train one small network on some bundled digits twice, Even-Even and Shake-Shake.")
    parser.add_argument("--out", type=Path, metavar="D", help="a new folder (default runs/demo-N)")
    parser.add_argument("--epochs", type=int, default=30, metavar="N", help="default 30, about a minute")
    given = parser.parse_args(arguments)

    from ..demo import run_demo

    for line in run_demo(given.out, epochs=given.epochs):
        print(line)
    return DONE
