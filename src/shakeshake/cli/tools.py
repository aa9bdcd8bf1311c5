"""models, doctor, bench, demo."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..utils.console import EXIT_FAILURE, EXIT_OK, escape
from .options import PATH, argument, command, device_option, model_names, option, suggest


@command(
    help="List networks and their sizes. The names are examples: any other valid number may take the place of each "
    "number in a name.",
    examples=("shakeshake models '*2x96d'",),
)
@argument(
    "pattern", metavar="[PATTERN]", default="*", shell_complete=suggest(model_names), help="Only names that match it."
)
def models(pattern: str) -> int:
    from ..models.families import FAMILIES
    from ..models.registry import count_parameters, list_models

    listed = list_models(pattern)
    if not listed:
        raise InputError(f"pattern: {escape(pattern)!r} matches no network, expected one such as shake_resnet*")
    for family in FAMILIES:
        names = [name for name in family.examples if name in listed]
        if names:
            print(f"{family.template}\n  {family.summary}")
        for name in names:
            print(f"    {name:<26} {count_parameters(name):>12,} parameters at 10 classes")
    return EXIT_OK


@command(help="Show the installation, the device and precision of a run, and the speed; suggest improvements.")
@option("--quick", is_flag=True, help="Skip the speed measurement, which takes a few seconds.")
def doctor(quick: bool) -> int:
    from ..doctor import examine

    for name, value in examine(measure=not quick):
        print(f"{name:<17} {value}")
    return EXIT_OK


@command(
    help="Measure a training step, torch's convolutions alone, the data pipeline, and plain and fused inference. "
    "Measurements are interleaved in one process; medians are printed. Run it on an otherwise idle machine."
)
@option(
    "--model",
    default="shake_resnet26_2x32d",
    metavar="NAME",
    shell_complete=suggest(model_names),
    help="[default: shake_resnet26_2x32d]",
)
@option("--rule", default="S-S-I", metavar="RULE", help="[default: S-S-I]")
@option("--batch-size", type=int, default=64, metavar="IMAGES", help="Images per training step.  [default: 64]")
@option("--test-batch-size", type=int, default=256, metavar="IMAGES", help="Images for inference.  [default: 256]")
@option("--rounds", type=int, default=10, metavar="N", help="Number of measurements.  [default: 10]")
@device_option
@option("--out", type=PATH, metavar="FILE", help="Also write all measurements as JSON.")
def bench(
    model: str, rule: str, batch_size: int, test_batch_size: int, rounds: int, device: str, out: Path | None
) -> int:
    from ..bench import as_lines, measure
    from ..train.run_directory import write_results

    measured = measure(
        model, rule=rule, batch_size=batch_size, test_batch_size=test_batch_size, rounds=rounds, device=device
    )
    for line in as_lines(measured):
        print(line)
    if out is not None:
        print(write_results(out, measured))
    return EXIT_OK


@command(
    help="Train pairs of small networks on 200 bundled digits, without shaking and with it, and compare their test "
    "errors (two to three minutes)."
)
@option("--out", type=PATH, metavar="DIR", help="Output directory, a new one. Default: runs/demo-N.")
@option("--seeds", type=int, default=5, metavar="N", help="Number of pairs. [default: 5]")
@option("--epochs", type=int, metavar="N", help="Epochs of each run. [default: 150]")
def demo(out: Path | None, seeds: int, epochs: int | None) -> int:
    from ..demo import run_demo

    table = run_demo(out, seeds=seeds, epochs=epochs)
    return EXIT_FAILURE if table.failed else EXIT_OK
