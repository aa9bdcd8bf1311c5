"""Measure how the cost of a step grows with width, depth, batch, branches and processes.

    python -m benchmarks scaling --out results/bench/scaling.json
    python -m benchmarks scaling --draw results/bench/scaling.json --figure results/bench/scaling.svg

The base is 26 2x32d S-S-I with a batch of 64; one dimension changes at a time. The networks of one
row are timed interleaved in one process. Processes are started by torchrun with one thread each and
share the batch; one process with one thread and with all threads are measured in turn with them,
three starts each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from shakeshake.bench import interleaved, trainer_on_noise, training_step
from shakeshake.train.device import choose_device, describe_device
from shakeshake.train.distributed import SINGLE_PROCESS, DistContext, distributed_context
from shakeshake.train.trainer import Trainer

from ._common import ROOT, parser, save
from ._plot import Panel, line_chart

DEPTH, BRANCHES, WIDTH, BATCH = 26, 2, 32, 64
FAMILIES = {
    "width": (16, 32, 64, 96),
    "depth": (14, 20, 26, 32, 38),
    "batch": (8, 16, 32, 64, 128),
    "branches": (2, 3, 4),
}
PRECISIONS = ("fp32", "bf16")


def trainer(precision: str, *, dist: DistContext = SINGLE_PROCESS, **changed: int) -> Trainer:
    size = {"depth": DEPTH, "branches": BRANCHES, "width": WIDTH, "batch": BATCH, **changed}
    model = f"shake_resnet{size['depth']}_{size['branches']}x{size['width']}d"
    return trainer_on_noise(model, "S-S-I", size["batch"], precision, "cpu" if dist.size > 1 else "auto", dist)


def family(name: str, precision: str, rounds: int) -> list[dict[str, Any]]:
    values = FAMILIES[name]
    trainers = [trainer(precision, **{name: value}) for value in values]
    steps = {str(value): training_step(made) for value, made in zip(values, trainers, strict=True)}
    seconds = interleaved(steps, rounds, trainers[0].device)
    rows = []
    for value, made in zip(values, trainers, strict=True):
        taken = seconds[str(value)]
        images = value if name == "batch" else BATCH
        rows.append({"value": value, "images": images, "parameters": parameters(made), "seconds": taken})
        print(f"{precision} {name} {value}: {images / statistics.median(taken):.1f} images/s", file=sys.stderr)
    return rows


def parameters(made: Trainer) -> int:
    return sum(p.numel() for p in made.network.parameters())


def devices(precision: str, rounds: int) -> list[dict[str, Any]]:
    """One process with one thread, one with all threads, one process per core: three starts each, in turn."""
    cores = os.cpu_count() or 1
    setups = [("1 process, 1 thread", 1, 1)]
    setups += [(f"1 process, {cores} threads", 1, cores), (f"{cores} processes, 1 thread each", cores, 1)][
        : 2 * (cores > 1)
    ]
    found: dict[str, list[float]] = {name: [] for name, _, _ in setups}
    for _ in range(3):
        for name, processes, threads in setups:
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
            worker = ["-m", "benchmarks", "scaling", "--worker", precision, "--rounds", str(max(4, rounds // 2))]
            machine = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            done = subprocess.run(
                [*command, *worker], env=machine, capture_output=True, text=True, check=True, cwd=ROOT
            )
            found[name] += json.loads(done.stdout)
    for name, taken in found.items():
        print(f"{precision} {name}: {BATCH / statistics.median(taken):.1f} images/s", file=sys.stderr)
    return [{"value": name, "images": BATCH, "seconds": taken} for name, taken in found.items()]


def worker(precision: str, rounds: int) -> None:
    """One of the processes started by torchrun; rank 0 prints the seconds of its steps."""
    with distributed_context() as dist:
        taken = steps_of(training_step(trainer(precision, dist=dist)), rounds + 2)
        if dist.is_main:
            print(json.dumps(taken[2:]), flush=True)


def steps_of(step: Callable[[], object], rounds: int) -> list[float]:
    """Seconds of each step. The network is freed when this function returns."""
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter()
        step()
        taken.append(time.perf_counter() - begun)
    return taken


def draw(measured: dict[str, Any], path: Path) -> None:
    """One panel for each family: milliseconds per image."""
    panels, sentences = [], []
    for name in FAMILIES:
        lines = {}
        for precision in PRECISIONS:
            rows = measured[precision][name]
            costs = [1000.0 * statistics.median(row["seconds"]) / row["images"] for row in rows]
            lines[precision] = ([row["value"] for row in rows], costs)
            values = ", ".join(f"{row['value']}: {cost:.1f}" for row, cost in zip(rows, costs, strict=True))
            sentences.append(f"{name}, {precision}: {values}")
        title = "" if panels else "ms per image"
        panels.append(Panel(name, title, lines, log2=name == "batch", markers=True))
    line_chart(path, panels, f"Cost of a training step in ms per image. {'; '.join(sentences)}", size=(10.0, 2.8))


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=10)
    options.add_argument("--draw", type=Path, metavar="JSON", help="draw this file's values, measure nothing")
    options.add_argument("--figure", type=Path, metavar="SVG", help="draw the chart to this file")
    options.add_argument("--worker", metavar="PRECISION", help=argparse.SUPPRESS)
    args = options.parse_args(argv)
    if args.worker:
        worker(args.worker, args.rounds)
        return
    if args.draw:
        measured = json.loads(args.draw.read_text())
    else:
        measured = {"base": trainer("fp32").recipe.model, "batch_size": BATCH, "rounds": args.rounds}
        for precision in PRECISIONS:
            measured[precision] = {name: family(name, precision, args.rounds) for name in FAMILIES}
            measured[precision]["devices"] = devices(precision, args.rounds)
        device = describe_device(choose_device("auto"))
        save(args.out, measured, device=device, threads=torch.get_num_threads())
    if args.figure:
        draw(measured, args.figure)
