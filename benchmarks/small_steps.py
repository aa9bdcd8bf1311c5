"""What stands around the arithmetic of a step: every operation has to be asked for, which a GPU waits for.

    pip install --no-deps pytorchcv
    python benchmarks/small_steps.py --device cuda --modes none --recorded --out results/h200/small_steps.json
    python benchmarks/small_steps.py --device cpu --model shake_resnet26_2x4d --pixels 8 \
        --batch-size 8 --ghost-batch-size 4

A step in bf16 with plain operations, its batch cut into parts for batch normalisation, one after the other, as
`shakeshake train` has them on a CPU; with all parts at once, as on a GPU and compiled; both compiled; and, on CUDA,
recorded as one graph that is played again. Beside them pytorchcv's 26 2x32d in its own memory format, bf16 by autocast.
Interleaved in one process, several steps for each measurement. On a CPU a network whose arithmetic is nothing shows how
long asking takes.

That all parts at once compute the same is checked first: losses under E-E-I, where nothing is random.
"""

from __future__ import annotations

import argparse
import gc
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from peers import pytorchcv
from shakeshake.bench import interleaved, training_step
from shakeshake.data.dataset import ImageData, Split
from shakeshake.kernels.fused import use
from shakeshake.train import trainer as trainer_module
from shakeshake.train.device import choose_device, describe_device, peak_memory
from shakeshake.train.ghost_batch_norm import in_parts
from shakeshake.train.recipe import Recipe
from shakeshake.train.run_directory import write_results
from shakeshake.train.trainer import Trainer
from shakeshake.utils.environment import environment
from train_step import theirs

MODES = ("none", "default", "reduce-overhead")
LAYOUTS = ("one after the other", "at once")
CIFAR = 50_000  # images of an epoch


def noise(images: int, pixels: int) -> ImageData:
    drawn = np.random.default_rng(0)
    some = Split(drawn.integers(0, 256, (images, 3, pixels, pixels), dtype=np.uint8), drawn.integers(0, 10, images))
    return ImageData("noise", some, some, tuple("0123456789"), (127.5,) * 3, (64.0,) * 3)


def trainer(recipe: Recipe, data: ImageData, *, at_once: bool) -> Trainer:
    made = Trainer(recipe, data)
    use(made.network, wanted=False)
    in_parts(made.network, recipe.ghost_batch_size if at_once else None)
    made.part = None if at_once else recipe.ghost_batch_size
    return made


def recorded(step: Callable[[], None], warm_up: int = 3) -> Callable[[], None]:
    """A step as one CUDA graph: its learning rate and the place of its loss stay those of the recording."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warm_up):
            step()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    gc.collect()  # nothing of the warm-up may be left in the recording
    seed, trainer_module.seed_generators = trainer_module.seed_generators, lambda *_: None
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            step()
    finally:
        trainer_module.seed_generators = seed

    def play() -> None:
        seed(0, torch.device("cuda"))
        graph.replay()

    return play


def check(recipe: Recipe, pixels: int) -> float:
    """Largest difference between the losses of three steps, parts one after the other and all at once."""
    data, losses = noise(3 * recipe.batch_size, pixels), []
    for at_once in (False, True):
        made = trainer(
            recipe.replace(rule="E-E-I", precision="fp32", compile_mode="none", lr=0.01), data, at_once=at_once
        )
        for batch in made.loader.epoch(0):
            made.train_step(batch)
        losses.append(made.losses)
    difference = float((losses[0] - losses[1]).abs().max())
    if not difference < 1e-2:
        raise SystemExit(f"losses differ by {difference}: {losses}")
    return difference


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="shake_resnet26_2x32d")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--ghost-batch-size", type=int, default=64)
    parser.add_argument("--pixels", type=int, default=32)
    parser.add_argument("--modes", default=",".join(MODES), help="of torch.compile (default %(default)s)")
    parser.add_argument("--layouts", default=",".join(LAYOUTS), help="of the parts (default %(default)s)")
    parser.add_argument("--recorded", action="store_true", help="each also as one CUDA graph")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=10, help="in each measurement (default %(default)s)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True, help="pytorchcv's step, too")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    device = choose_device(given.device)
    sizes = {
        "batch_size": given.batch_size,
        "ghost_batch_size": given.ghost_batch_size,
        "crop_padding": min(4, given.pixels // 8),
    }
    recipe = Recipe(data="noise", model=given.model, precision="bf16", device=str(device), epochs=1, lr=1e-6)
    recipe = recipe.replace(**sizes)
    difference = check(recipe, given.pixels)
    data, steps = noise(given.batch_size, given.pixels), {}
    for mode in given.modes.split(","):
        for layout in given.layouts.split(","):
            name, at_once = f"parts {layout}" + (f", {mode}" if mode != "none" else ""), layout == "at once"
            steps[name] = training_step(trainer(recipe.replace(compile_mode=mode), data, at_once=at_once))
            if given.recorded:
                step = training_step(trainer(recipe.replace(compile_mode=mode), data, at_once=at_once))
                steps[f"{name}, recorded"] = recorded(step)
    if given.peer:
        steps["pytorchcv"] = theirs(pytorchcv(), given.batch_size, device, "bf16")

    def several(step: Callable[[], None]) -> Callable[[], None]:
        return lambda: [step() for _ in range(given.steps)] and None

    seconds = interleaved({name: several(step) for name, step in steps.items()}, given.rounds, device)
    seconds = {name: [s / given.steps for s in each] for name, each in seconds.items()}
    first = next(iter(steps))
    rows = {
        name: {
            "milliseconds": 1000.0 * (median := statistics.median(each)),
            "seconds_per_epoch": median * CIFAR / given.batch_size,
            f"speed_relative_to_{first}": statistics.median(a / b for a, b in zip(seconds[first], each, strict=True)),
        }
        for name, each in seconds.items()
    }
    for name, row in rows.items():
        print(name.ljust(46), *(f"{value:10.2f}" for value in row.values()))
    result = {
        "model": given.model,
        **sizes,
        "pixels": given.pixels,
        "rounds": given.rounds,
        "steps": given.steps,
        "largest_difference_of_losses": difference,
        "rows": rows,
        "seconds": seconds,
        "peak_memory": peak_memory(device),
        "reserved_memory": torch.cuda.max_memory_reserved() if device.type == "cuda" else None,
        "environment": environment(device=describe_device(device), threads=torch.get_num_threads()),
    }
    if given.out:
        write_results(given.out, result)


if __name__ == "__main__":
    main()
