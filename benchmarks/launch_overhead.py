"""Time bf16 training steps with torch.compile, CUDA graphs and both ghost-batch layouts.

    pip install --no-deps pytorchcv
    python -m benchmarks launch_overhead --device cuda --layouts parallel --graph --out steps.json
    python -m benchmarks launch_overhead --device cpu --model shake_resnet26_2x4d --pixels 8 --batch-size 8 \
        --ghost-batch-size 4 --modes none,default --no-peer --out results/bench/launch_overhead.json

A GPU can wait for the host, which launches every operation. The microbatches of a batch run one
after the other (sequential, the default on a CPU) or at once with separate BN statistics (parallel,
the default on a GPU). Plain operations, no CPU kernels. pytorchcv's 26 2x32d runs in its memory
format under autocast. All are interleaved in one process, several steps per measurement. On a CPU,
a network with almost no arithmetic shows the overhead.
"""

from __future__ import annotations

import argparse
import gc
import statistics
from collections.abc import Callable

import numpy as np
import torch

from shakeshake.bench import interleaved, training_step
from shakeshake.data.dataset import ImageData, Split
from shakeshake.kernels import revert
from shakeshake.train import trainer as trainer_module
from shakeshake.train.device import choose_device, describe_device, peak_memory
from shakeshake.train.ghost_batch_norm import convert_ghost_batch_norm
from shakeshake.train.recipe import Recipe
from shakeshake.train.trainer import Trainer

from ._common import parser, save
from .peers import pytorchcv
from .train_step import theirs

MODES = ("none", "default", "reduce-overhead")
LAYOUTS = ("sequential", "parallel")
CIFAR = 50_000  # training images of an epoch


def noise(images: int, pixels: int) -> ImageData:
    drawn = np.random.default_rng(0)
    some = Split(drawn.integers(0, 256, (images, 3, pixels, pixels), dtype=np.uint8), drawn.integers(0, 10, images))
    return ImageData("noise", some, some, tuple("0123456789"), (127.5,) * 3, (64.0,) * 3)


def trainer(recipe: Recipe, data: ImageData, layout: str) -> Trainer:
    made = Trainer(recipe, data)
    revert(made.network)
    convert_ghost_batch_norm(made.network, recipe.ghost_batch_size if layout == "parallel" else None)
    made.microbatch_size = None if layout == "parallel" else recipe.ghost_batch_size
    return made


def as_graph(step: Callable[[], None], warm_up: int = 3) -> Callable[[], None]:
    """The step as one CUDA graph, with a fixed learning rate and place of the loss."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warm_up):
            step()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    gc.collect()  # nothing of the warm-up may remain in the graph's memory
    seed, trainer_module.seed_generators = trainer_module.seed_generators, lambda *_: None
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            step()
    finally:
        trainer_module.seed_generators = seed

    def replay() -> None:
        seed(0, torch.device("cuda"))
        graph.replay()

    return replay


def repeat(step: Callable[[], None], times: int) -> Callable[[], None]:
    def repeated() -> None:
        for _ in range(times):
            step()

    return repeated


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--model", default="shake_resnet26_2x32d")
    options.add_argument("--batch-size", type=int, default=128)
    options.add_argument("--ghost-batch-size", type=int, default=64)
    options.add_argument("--pixels", type=int, default=32)
    options.add_argument("--modes", default=",".join(MODES), help="modes of torch.compile (default %(default)s)")
    options.add_argument("--layouts", default=",".join(LAYOUTS), help="of the microbatches (default %(default)s)")
    options.add_argument("--graph", action="store_true", help="also run each as one CUDA graph")
    options.add_argument("--rounds", type=int, default=10)
    options.add_argument("--steps", type=int, default=10, help="steps per measurement (default %(default)s)")
    options.add_argument("--device", default="auto")
    options.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True, help="also time pytorchcv")
    args = options.parse_args(argv)
    device = choose_device(args.device)
    sizes = {"batch_size": args.batch_size, "ghost_batch_size": args.ghost_batch_size}
    recipe = Recipe(data="noise", model=args.model, precision="bf16", device=str(device), epochs=1, lr=1e-6)
    recipe = recipe.replace(**sizes, crop_padding=min(4, args.pixels // 8))
    data, steps = noise(args.batch_size, args.pixels), {}
    for mode in args.modes.split(","):
        for layout in args.layouts.split(","):
            name = layout if mode == "none" else f"{layout}, {mode}"
            steps[name] = training_step(trainer(recipe.replace(compile_mode=mode), data, layout))
            if args.graph:
                plain = training_step(trainer(recipe.replace(compile_mode=mode), data, layout))
                steps[f"{name}, CUDA graph"] = as_graph(plain)
    if args.peer:
        steps["pytorchcv"] = theirs(pytorchcv(), args.batch_size, device, "bf16")
    timed = interleaved({name: repeat(step, args.steps) for name, step in steps.items()}, args.rounds, device)
    seconds = {name: [s / args.steps for s in each] for name, each in timed.items()}
    first = next(iter(steps))
    rows = {
        name: {
            "milliseconds": 1000.0 * (median := statistics.median(each)),
            "seconds_per_epoch": median * CIFAR / args.batch_size,
            f"speed_relative_to_{first}": statistics.median(a / b for a, b in zip(seconds[first], each, strict=True)),
        }
        for name, each in seconds.items()
    }
    print(f"{'':<40}{'ms':>10}{'s/epoch':>10}{'speed':>10}")
    for name, row in rows.items():
        print(f"{name:<40}" + "".join(f"{value:10.2f}" for value in row.values()))
    result = {"model": args.model, **sizes, "pixels": args.pixels, "rounds": args.rounds, "steps": args.steps}
    result |= {"rows": rows, "seconds": seconds, "peak_memory": peak_memory(device)}
    save(args.out, result, device=describe_device(device), threads=torch.get_num_threads())
