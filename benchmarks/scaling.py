"""How a training step's cost grows with width, depth, batch, branches, threads and processes.

    python benchmarks/scaling.py --out results/bench/scaling.json
    python benchmarks/scaling.py --draw results/bench/scaling.json --figure results/bench/scaling.svg

26 2x32d S-S-I with a batch of 64 is the middle of everything; one thing changes at a time. The networks of one row are
timed interleaved in one process. Processes are those of torchrun with one thread each and share the batch; one process
with one thread and with all threads stand beside them, each started three times, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch

from shakeshake.bench import interleaved, trainer_on_noise, training_step
from shakeshake.report import theme as look
from shakeshake.report.svg import SETTINGS, axes_on, blank, standalone, to_svg
from shakeshake.train.device import choose_device, describe_device
from shakeshake.train.distributed import ALONE, Group, joined
from shakeshake.train.run_directory import write_results
from shakeshake.train.trainer import Trainer
from shakeshake.utils.environment import environment
from shakeshake.utils.files import atomic_write

DEPTH, BRANCHES, WIDTH, BATCH = 26, 2, 32, 64
FAMILIES = {
    "width": (16, 32, 64, 96),
    "depth": (14, 20, 26, 32, 38),
    "batch": (8, 16, 32, 64, 128),
    "branches": (2, 3, 4),
}
PRECISIONS = ("fp32", "bf16")


def trainer(precision: str, *, group: Group = ALONE, **changed: int) -> Trainer:
    size = {"depth": DEPTH, "branches": BRANCHES, "width": WIDTH, "batch": BATCH, **changed}
    model = f"shake_resnet{size['depth']}_{size['branches']}x{size['width']}d"
    return trainer_on_noise(model, "S-S-I", size["batch"], precision, "cpu" if group.size > 1 else "auto", group)


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
    """A process with one thread, with two, two processes with one each: each started three times, in turns."""
    cores = os.cpu_count() or 1
    setups = [("1 process, 1 thread", 1, 1)]
    setups += [(f"1 process, {cores} threads", 1, cores), (f"{cores} processes, 1 thread each", cores, 1)][
        : 2 * (cores > 1)
    ]
    found: dict[str, list[float]] = {name: [] for name, _, _ in setups}
    for _ in range(3):
        for name, processes, threads in setups:
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
            worker = [__file__, "--worker", precision, "--rounds", str(max(4, rounds // 2))]
            machine = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            done = subprocess.run([*command, *worker], env=machine, capture_output=True, text=True, check=True)
            found[name] += json.loads(done.stdout)
    for name, taken in found.items():
        print(f"{precision} {name}: {BATCH / statistics.median(taken):.1f} images/s", file=sys.stderr)
    return [{"value": name, "images": BATCH, "seconds": taken} for name, taken in found.items()]


def worker(precision: str, rounds: int) -> None:
    """One of torchrun's processes; the first prints the seconds of its steps."""
    with joined() as group:
        taken = steps_of(training_step(trainer(precision, group=group)), rounds + 2)
        if group.leads:
            print(json.dumps(taken[2:]), flush=True)


def steps_of(step: Callable[[], object], rounds: int) -> list[float]:
    """Seconds of each step. The step, and with it the network, ends with this function."""
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter()
        step()
        taken.append(time.perf_counter() - begun)
    return taken


def draw(measured: dict[str, Any], path: Path) -> None:
    """One panel for each family: milliseconds per image."""
    with mpl.rc_context(SETTINGS):
        figure = blank((960, 250))
        for k, name in enumerate(FAMILIES):
            axes = axes_on(figure, 54 + 228 * k, 36, 190, 160)
            axes.grid(axis="y", color=look.GRID, linewidth=1)
            for i, precision in enumerate(PRECISIONS):
                rows = measured[precision][name]
                costs = [1000.0 * statistics.median(row["seconds"]) / row["images"] for row in rows]
                values = [row["value"] for row in rows]
                style: Any = {"color": look.colour(i, "train"), "linestyle": look.line_style(i)}
                axes.plot(values, costs, marker=look.mark(i), label=precision, **style)
            if name == "batch":
                axes.set_xscale("log", base=2)
            axes.set_xticks(values, [str(value) for value in values])
            axes.minorticks_off()
            axes.set_ylim(0, None)
            axes.set_xlabel(name, color=look.INK)
        first = figure.axes[0]
        first.set_title("ms per image", loc="left", fontsize=12.5, color=look.INK)
        first.legend(frameon=False, labelcolor=look.INK)
        title = "Cost of a training step by width, depth, batch and branches"
        atomic_write(path, standalone(to_svg(figure, "scaling", title, "; ".join(told(measured))), title))


def told(measured: dict[str, Any]) -> Iterator[str]:
    """The figures as text, for who does not see the plot."""
    for name in FAMILIES:
        for precision in PRECISIONS:
            rows = measured[precision][name]
            costs = (f"{r['value']}: {1000 * statistics.median(r['seconds']) / r['images']:.1f}" for r in rows)
            yield f"{name}, {precision}, ms per image at {', '.join(costs)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--draw", type=Path, metavar="JSON", help="measure nothing, draw what was measured")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--worker", metavar="PRECISION", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.worker, given.rounds)
        return
    if given.draw:
        measured = json.loads(given.draw.read_text())
    else:
        measured = {"base": trainer("fp32").recipe.model, "batch_size": BATCH, "rounds": given.rounds}
        for precision in PRECISIONS:
            measured[precision] = {name: family(name, precision, given.rounds) for name in FAMILIES}
            measured[precision]["devices"] = devices(precision, given.rounds)
        device = describe_device(choose_device("auto"))
        measured["environment"] = environment(device=device, threads=torch.get_num_threads())
    if given.out:
        write_results(given.out, measured)
    if given.figure:
        draw(measured, given.figure)


if __name__ == "__main__":
    main()
